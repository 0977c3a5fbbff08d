"""Secrets of this process, and texts without them.

A secret is the password in an address, or the value of a variable or setting that is called like one. It is
found in each of the ways that Python, JSON, HTML, SQL, a shell and an address write it.

One that is telling is taken out wherever it stands: it has at least 8 characters of two kinds (letters,
digits, others), or at least 12 of any, and is not the name of the role, the database or the host. Others,
such as ``postgres`` or ``a``, are words that a text may well have for other reasons. They are taken out of
addresses and behind what is called like a secret: ``password=postgres``, ``'PASSWORD': 'postgres'``.

What looks like a secret (workbench/shapes.py) is taken out though nobody knows it. What a person makes of
one, such as its half or its base64, is not found.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from workbench import shapes
from workbench.written import beginning, ending, pattern

MASK = "********"

LEAST_OF_TWO_KINDS, LEAST_OF_ANY = 8, 12
# A shorter start of a secret, at the end of a piece of a text, is no reason to wait for what comes, and one
# at a place where somebody cut a text tells too little: npg_...
LEAST_START, LEAST_HALF = 4, 6

# How columns, variables and settings are called whose values nobody shows.
NAME = (
    r"passw|passphrase|pwd|(?<![a-z])pass\b|(?-i:(?<=[a-z])Pass\b)|secret|token|credential"
    r"|(?:api|private|session|access|encryption|signing)_?key"
)
SECRET = re.compile(NAME, re.IGNORECASE)
# What a secret is called where its table says that it is one: authtoken_token.key, knox_authtoken.digest.
HELD = re.compile(r"(?:key|digest|hash|code)$", re.IGNORECASE)
# Variables of such names say where a secret is, not what.
WHERE = re.compile(r"_(file|dir|path|id)$|^(old)?pwd$", re.IGNORECASE)
# Of Django's settings, those that hold others.
HOLDERS = ("DATABASES", "CACHES", "STORAGES")
SWITCHES = {"0", "1", "true", "false", "yes", "no", "on", "off"}

# Where one that is not telling may follow, for a look that takes no time: parts of NAME as they are spelled.
PLACES = (
    "assw ASSW assphrase ASSPHRASE ecret ECRET oken OKEN api_key API_KEY apikey APIKEY apiKey redential "
    "REDENTIAL pwd _PWD _pass _PASS access_key ACCESS_KEY accessKey encryption_key ENCRYPTION_KEY "
    "encryptionKey signing_key SIGNING_KEY signingKey ://"
).split()

# Where somebody cut a text, as tables do it too.
CUTS = ("...", "…")
AFTER_CUT = r"(?:(?<=\.\.\.)|(?<=…))"
# So many letters stand for one of a secret's, at most as a rule.
MOST_WRITTEN = 12

IN_ADDRESS = re.compile(r"(://[^\s:/@']*:)[^\s@']*(?=@|$)")
# A literal can be written in too many ways (E'', $$, inside another) to be cut out for certain: all that
# follows goes with it.
AFTER_PASSWORD = re.compile(r"(passw(?:or)?d)(?:\s*=|[^'$]*['$]).*", re.IGNORECASE | re.DOTALL)

# What may stand between a secret and what it is called: signs, entities, tags and colours.
BETWEEN = r"(?:[^\w<]|&[\w#]+;|\x1b\[[\d;]*m|</?[a-z][^>]*>){1,60}?"


class Secret(str):
    """A text whose ``repr`` tells nothing of it: that of ``settings.DATABASES`` is safe in any program."""

    def __repr__(self) -> str:
        return repr(MASK) if self else "''"


class _Known:
    """A secret that is known, and how it is found."""

    def __init__(self, secret: str, names: Iterable[str]) -> None:
        written = pattern(secret)
        self.secret = secret
        self.is_telling = is_telling(secret, names)
        self.parts = _unchanged(secret)
        self.start_parts = _unchanged(secret[:LEAST_START])
        self.half_parts = _unchanged(secret[:LEAST_HALF]), _unchanged(secret[-LEAST_HALF:])
        self.pattern = re.compile(
            written if self.is_telling else rf"://[^\s:/@]*:({written})(?=@)|\w+{BETWEEN}({written})(?![\w%])"
        )

    def may_be_in(self, text: str) -> bool:
        """Tell whether a text is worth a look: nearly every one is not, which takes no time."""
        return all(part in text for part in self.parts)

    def may_be_cut_in(self, text: str) -> bool:
        return self.is_telling and any(all(part in text for part in parts) for parts in self.half_parts)

    def without(self, text: str) -> str:
        """Return a text without it."""
        if not self.may_be_in(text):
            return text
        if self.is_telling:
            return self.pattern.sub(MASK, text)
        found = (self.pattern.match(text, place) for place in _places(text, PLACES))
        return _masked(text, (each.span(each.lastindex or 0) for each in found if each))

    def without_halves(self, text: str) -> str:
        """Return a text without what is left of it where somebody cut it: ``npg_aBcD...``."""
        for half in self._halves if self.may_be_cut_in(text) else ():
            text = half.sub(MASK, text)
        return text

    def begun(self, text: str) -> int:
        """Return how many letters at the end of a text are its start, and not all of it."""
        end = text[-MOST_WRITTEN * len(self.secret) :]
        may_be = self.is_telling and all(part in end for part in self.start_parts)
        found = self._begun.search(end) if may_be else None
        return len(end) - found.start() if found else 0

    def gone_on(self, before: str, text: str) -> int:
        """Return how many letters at the start of a text are its end, where the rest came ``before``."""
        reach = MOST_WRITTEN * len(self.secret)
        both, seam = before[-reach:] + text[:reach], len(before[-reach:])
        found = self.pattern.finditer(both) if self.is_telling and self.may_be_in(both) else ()
        return next((each.end() - seam for each in found if each.start() < seam < each.end()), 0)

    # Few texts are cut, and few come in pieces that end within a line.
    @cached_property
    def _halves(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        before = beginning(self.secret, LEAST_HALF, shapes.BEFORE_CUT)
        return re.compile(before), re.compile(ending(self.secret, LEAST_HALF, AFTER_CUT))

    @cached_property
    def _begun(self) -> re.Pattern[str]:
        return re.compile(beginning(self.secret, LEAST_START, r"\Z"))


# The longer ones first, which may hold the others.
_known: tuple[_Known, ...] = ()
_lock = threading.Lock()


def is_secret(name: str, *, table: str = "") -> bool:
    """Tell whether a variable, a setting or a table's column is called like a secret.

    In a table that is itself called like one, what is called like a key is one, too.
    """
    is_one = SECRET.search(name) is not None
    return is_one or (SECRET.search(table) is not None and HELD.search(name) is not None)


def is_telling(secret: str, names: Iterable[str] = ()) -> bool:
    """Tell whether a text that has it in it tells it: see above. ``names`` are what it may be called like."""
    if secret.casefold() in {name.casefold() for name in names}:
        return False
    kinds = sum(
        any(map(kind, secret))
        for kind in (str.isalpha, str.isdigit, lambda character: not character.isalnum())
    )
    return len(secret) >= LEAST_OF_ANY or (len(secret) >= LEAST_OF_TWO_KINDS and kinds > 1)


def remember(secret: str, *names: str) -> None:
    """Know a secret from now on. ``names`` are what it may be called like: its role, database and host."""
    global _known
    with _lock:
        if secret and all(each.secret != secret for each in _known):
            added = _Known(str(secret), names)
            _known = tuple(sorted([*_known, added], key=lambda each: len(each.secret), reverse=True))


def remember_all(variables: Mapping[str, Any]) -> None:
    """Know those of these variables or settings that are called like a secret, and the addresses in all."""
    for name, value in variables.items():
        if not isinstance(value, str):
            continue
        if is_secret(name) and not WHERE.search(name) and value.strip().lower() not in SWITCHES:
            remember(value.strip())
        remember_address(value)


def remember_settings(settings: Any) -> None:
    """Know those of Django's settings, of whichever project."""
    remember_all({name: getattr(settings, name) for name in dir(settings) if name.isupper()})
    for holder in HOLDERS:
        for each in _mappings(getattr(settings, holder)):
            names = (each.get(name) for name in ("USER", "NAME", "HOST"))
            remember(each.get("PASSWORD") or "", *(name for name in names if isinstance(name, str)))
            remember_all(each)


def remember_address(text: str) -> None:
    """Know the passwords in a text's addresses, as they are written and as they are meant."""
    for address in shapes.ADDRESSES if "://" in text else ():
        for found in address.finditer(text):
            user, password, rest = found.group("user", "password", "rest")
            names = [unquote(user), *re.split(r"[/?:&=.]", rest)]
            for each in {password, unquote(password)}:
                remember(each, *names)


def holds_secret(text: str) -> bool:
    """Tell whether a text holds a secret that is known, and telling."""
    return any(each.is_telling and each.without(text) != text for each in _known)


def redacted(text: str) -> str:
    """Return a text without the secrets that are known, and without what looks like one."""
    for each in _known:
        text = each.without(text)
    if any(cut in text for cut in CUTS):
        for each in _known:
            text = each.without_halves(text)
    if shapes.may_be_in(text):
        text = _masked(text, ((first, last) for _, first, last in shapes.found(text)))
        text = shapes.CUT.sub(MASK, text)
    return text


def may_be_secret(text: str) -> bool:
    """Tell whether a text, or any that is written in it, may be another one once it is redacted."""
    is_cut = any(cut in text for cut in CUTS)
    return shapes.may_be_in(text) or any(
        each.may_be_in(text) or (is_cut and each.may_be_cut_in(text)) for each in _known
    )


def redacted_all(content: Any) -> Any:
    """Return what JSON can say with every text in it redacted, names as well.

    What holds no secret is returned itself, not as a copy.
    """
    if isinstance(content, str):
        return redacted(content)
    if isinstance(content, dict):
        clean = {redacted_all(name): redacted_all(value) for name, value in content.items()}
        is_same = all(
            old is new
            for pair in zip(content.items(), clean.items(), strict=False)
            for old, new in zip(*pair, strict=True)
        )
        return content if is_same and len(clean) == len(content) else clean
    if isinstance(content, list | tuple):
        items = [redacted_all(item) for item in content]
        return content if all(map(_is, content, items)) else items
    return content


def without_addresses(text: str) -> str:
    """Return a text without the passwords of addresses in it, whosever they are."""
    return IN_ADDRESS.sub(rf"\1{MASK}", text)


def masked(sql: str) -> str:
    """Return a statement without what may be a password, whosever it is."""
    return without_addresses(AFTER_PASSWORD.sub(r"\1 ***", sql))


def begun(text: str) -> int:
    """Return how many letters at the end of a text may be the start of a secret that goes on; 0 for none."""
    return max((each.begun(text) for each in _known), default=0)


def gone_on(before: str, text: str) -> int:
    """Return how many letters at the start of a text are the end of a secret that began ``before``."""
    return max((each.gone_on(before, text) for each in _known), default=0)


def redact_logs() -> None:
    """Keep secrets out of what this process logs, whoever logs it and wherever it goes."""
    make = logging.getLogRecordFactory()
    if getattr(make, "is_redacting", False):
        return
    formatter = logging.Formatter()

    def record(*args: Any, **options: Any) -> logging.LogRecord:
        made = make(*args, **options)
        try:
            said = made.getMessage()
        except (TypeError, ValueError, KeyError):  # The handler tells about it.
            return made
        if (clean := redacted(said)) != said:
            made.msg, made.args = clean, None
        if made.exc_info and made.exc_info[0]:
            made.exc_text = redacted(formatter.formatException(made.exc_info))
        return made

    record.is_redacting = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(record)


def _mappings(content: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(content, Mapping):
        yield content
        for each in content.values():
            yield from _mappings(each)


def _places(text: str, wanted: Iterable[str]) -> Iterator[int]:
    for each in wanted:
        place = text.find(each)
        while place >= 0:
            yield place
            place = text.find(each, place + 1)


def _masked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    pieces, end = [], 0
    for first, last in sorted(set(spans)):
        pieces += [text[end:first], MASK] if first >= end else []
        end = max(end, last)
    return "".join([*pieces, text[end:]]) if pieces else text


def _unchanged(secret: str) -> list[str]:
    """Return the parts that no way of writing a secret changes, the longest first."""
    return sorted(re.findall(r"[A-Za-z0-9]+", secret), key=len, reverse=True)


def _is(one: object, other: object) -> bool:
    return one is other
