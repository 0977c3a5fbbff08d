"""What secrets look like, whosever they are.

Addresses with a password, Neon's passwords and keys, keys that ``startproject`` makes
(https://docs.djangoproject.com/en/5.2/ref/settings/#secret-key), and private keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

# What texts write for a character that is no letter, though it ends in one; and the end of a colour.
BEFORE = (r"\\[abfnrtv]", r"\\u[0-9A-Fa-f]{4}", r"%[0-9A-Fa-f]{2}", r"\dm")


def _word(start: str, rest: str) -> re.Pattern[str]:
    """Return what finds a word. Where it starts is looked for first, and what is before that only then."""
    before = "|".join(f"(?<={each}{start})" for each in BEFORE)
    return re.compile(f"{start}(?:(?<![A-Za-z0-9]{start})|{before}){rest}")


PRIVATE_KEY = r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
# With what each has in it, for a look that takes no time. A private key that somebody cut goes on to the next
# one, or with the text.
PATTERNS = (
    ("a password of Neon's", "npg_", _word("npg_", "[A-Za-z0-9]{12,}")),
    ("a key of Neon's API", "napi_", _word("napi_", "[a-z0-9]{32,}")),
    ("a SECRET_KEY of Django's", "django-insecure-", re.compile(r"django-insecure-[^\s\"'\\]{30,}")),
    (
        "a private key",
        "PRIVATE KEY-----",
        re.compile(
            rf"{PRIVATE_KEY}(?:\s|\\n)+[A-Za-z0-9+/=]{{40,}}.*?(?=-----END|{PRIVATE_KEY}|\Z)", re.DOTALL
        ),
    ),
)
# Before the dots of a text that somebody cut.
BEFORE_CUT = r"(?=(?:<i>)?(?:\.\.\.|…))"
# One of Neon's that was cut.
CUT = re.compile(rf"(?<![A-Za-z0-9])n(?:pg|api)_[A-Za-z0-9]{{4,}}{BEFORE_CUT}")
# An example repeats itself: npg_xxxxxxxxxxxx.
LEAST_LETTERS = 10
# Each ends where the next one begins. The second is for one that holds an @ of its own, though it should be
# encoded.
ADDRESSES = tuple(
    re.compile(
        rf"://(?P<user>[^\s:/@\"'<>]*):(?P<password>(?:(?!://)[^\s\"'<>{not_in_it}])+)"
        rf"@(?P<rest>(?:(?!://)[^\s\"'<>{not_behind}])*)"
    )
    for not_in_it, not_behind in (("@", ""), ("", "@"))
)
# Of one without a password, which has an @ in its path. In a password, a / is to be encoded.
PORT = re.compile(r"\d{1,5}/.*", re.DOTALL)
# What stands for a password, as a whole: {password}, <password>, [YOUR-PASSWORD], $PASSWORD, %s, ****.
PLACEHOLDER = re.compile(
    r"[$#%]?\{.*\}|(?:<|&lt;).*(?:>|&gt;)|\[[A-Z_-]+\]|\$[A-Z_]+|\$\(.*\)|%s|%\(\w+\)s|[*•….xX]+"
    r"|(?:[A-Z]+[_-])*(?:PASS|PASSWORD|PASSWD|PWD)",
    re.DOTALL,
)
HOST = re.compile(r"\[([\da-fA-F:.]+)|([\w.-]*)")
# Of an address; & is written in HTML and in JSON as well.
HOST_OPTION = re.compile(r"(?:[?&]|&amp;|\\u0026)host(?:addr)?=([^&#\\]*)")
# Hosts that nobody else reaches, and those that documentation is to use (RFC 2606, RFC 3849, RFC 6761).
NOWHERE = re.compile(
    r"(?:localhost|127\.[\d.]+|::1|2001:0?db8:.*|[^.:]*"
    r"|.*\.(?:example|test|invalid|localhost|local)|(?:.*\.)?example\.\w+)",
    re.IGNORECASE,
)


def may_be_in(text: str) -> bool:
    """Tell whether it is worth a look: nearly every text has nothing of the kind."""
    return _may_have_address(text) or any(mark in text for _, mark, _ in PATTERNS)


def found(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield what looks like a secret in a text, where it begins and where it ends; some of them twice."""
    for address in ADDRESSES if _may_have_address(text) else ():
        for each in address.finditer(text):
            if _is_meant(each["password"], each["rest"]):
                yield "an address with its password", *each.span("password")
    for what, mark, pattern in PATTERNS:
        for each in pattern.finditer(text) if mark in text else ():
            if len({*each[0]}) >= LEAST_LETTERS:
                yield what, *each.span()


def _may_have_address(text: str) -> bool:
    # Where the first finds one, the second does.
    return "@" in text and "://" in text and ADDRESSES[1].search(text) is not None


def _is_meant(password: str, rest: str) -> bool:
    """Tell whether an address's password is one, and no example's."""
    return not (
        PLACEHOLDER.fullmatch(unquote(password))
        or PORT.fullmatch(password)
        or all(map(NOWHERE.fullmatch, _hosts(rest)))
    )


def _hosts(rest: str) -> Iterator[str]:
    """Yield the hosts in what follows the @ of an address, "" for one that is yet to be filled in.

    See https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS.
    """
    for listed in (re.split(r"[/?#]", rest)[0], *HOST_OPTION.findall(rest)):
        for each in unquote(listed).split(","):
            found = HOST.match(each)
            yield (found[1] or found[2]).rstrip(".") if found else ""
