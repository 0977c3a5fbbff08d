"""DATABASE_URL into an entry of Django's DATABASES.

Blank means the embedded server. Neon's rules (https://neon.com/docs/guides/django and
https://neon.com/docs/connect/connection-pooling): a host that ends in ``.neon.tech`` wants TLS, and a
host whose first label ends in ``-pooler`` is a transaction pooler, through which migrations, cursors
and session settings don't work. Those go to the direct address, which is the default here; only a
web server asks for the pooled one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import certifi
import dj_database_url
import psycopg2
import psycopg2.extensions
from django.core.exceptions import ImproperlyConfigured

from workbench.connection.program import application_name
from workbench.redaction import Secret, is_secret, remember_address, remember_all

ENGINE = "workbench.connection.backend"

SHAPE = "postgresql://USER:PASSWORD@HOST/DATABASE"
DIRECT_VARIABLES = ("DATABASE_URL_UNPOOLED", "DATABASE_URL_DIRECT", "POSTGRES_URL_NON_POOLING")

# Neon suspends an idle compute after five minutes; a connection kept longer would race that.
MAX_AGE_SECONDS = 240

# A connection that waits notices a dead machine within a minute. No tcp_user_timeout: it would end a COPY too
# whose server reads nothing for that long, as when it waits for a lock.
REMOTE_OPTIONS = {
    "connect_timeout": 15,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

# Postgres' units of time, in milliseconds.
UNITS = {"": 1, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(|ms|s|min|h|d)", re.ASCII)

WELL_FORMED = re.compile(
    r"(?P<scheme>postgres|postgresql)://"
    r"(?:(?P<userinfo>[^/?#@\[\]\s]*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^/?#@\[\]\s:]*)"
    r"(?::(?P<port>[^/?#@\s]*))?"
    r"(?:/(?P<name>[^?#@\s]*))?"
    r"(?:\?(?P<query>[^#\s]*))?"
)


class DatabaseURLError(ImproperlyConfigured):
    """One sentence: what is wrong with the address and how to write it. Never holds the password."""


def database(environ: Mapping[str, str], *, home: Path, web: bool = False) -> dict[str, Any]:
    """Return the DATABASES entry that ``environ`` asks for.

    Without a DATABASE_URL it is the embedded server kept in ``home``, as WORKBENCH_ROLE. Otherwise it is the
    direct address, or with ``web`` the one named by DATABASE_URL itself, which may be a pooler's. Raises
    DatabaseURLError.
    """
    url = environ.get("DATABASE_URL", "").strip()
    if not url:
        return _embedded(home, environ.get("WORKBENCH_ROLE", "").strip())
    named = _parse(url, "DATABASE_URL")
    direct = _direct(environ, named)
    is_pooled = direct["HOST"] != named["HOST"] or direct["PORT"] != named["PORT"]
    if not (web and is_pooled):
        return {**direct, **_silence(environ)}
    if "options" in named["OPTIONS"]:
        raise DatabaseURLError(
            "DATABASE_URL passes options= through a pooler, which refuses it: take it out, and set what "
            "it sets with ALTER ROLE ... SET."
        )
    return {**named, "DISABLE_SERVER_SIDE_CURSORS": True}


def duration(environ: Mapping[str, str], variable: str, *, default: str) -> str:
    """Return a span of time as Postgres takes it, ``10min``; ``0`` is none. Raises ImproperlyConfigured."""
    text = environ.get(variable, "").strip() or default
    found = DURATION.fullmatch(text)
    # Postgres counts milliseconds in 31 bits. A number without a unit would be milliseconds.
    if not found or (float(found[1]) and not found[2]) or float(found[1]) * UNITS[found[2]] >= 2**31:
        raise ImproperlyConfigured(
            f"{variable} is {text!r}: write a number with its unit (ms, s, min, h, d), as in {default}, up "
            f"to 24d; or 0 for no limit."
        )
    return "0" if not float(found[1]) else text


def is_neon(host: str) -> bool:
    return host.lower().rstrip(".").endswith(".neon.tech")


def _embedded(home: Path, role: str) -> dict[str, Any]:
    return {
        "ENGINE": ENGINE,
        "NAME": "workbench",
        "USER": role or "workbench",
        "EMBEDDED": str(home),
        "OPTIONS": {"application_name": application_name()},
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
    }


def _direct(environ: Mapping[str, str], named: dict[str, Any]) -> dict[str, Any]:
    for variable in DIRECT_VARIABLES:
        if text := environ.get(variable, "").strip():
            direct = past_pooler(_parse(text, variable))
            is_same_role = (direct["NAME"], direct["USER"]) == (named["NAME"], named["USER"])
            are_neon = is_neon(direct["HOST"]) and is_neon(named["HOST"])
            is_same_host = not are_neon or direct["HOST"] == past_pooler(named)["HOST"]
            if not (is_same_role and is_same_host):
                raise DatabaseURLError(
                    f"DATABASE_URL and {variable} name different databases, roles or endpoints: "
                    f"correct or unset {variable}."
                )
            return direct
    return past_pooler(named)


def past_pooler(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry with its host's direct name, which differs if the first label ends in -pooler."""
    label, dot, domain = entry["HOST"].partition(".")
    return {**entry, "HOST": label.removesuffix("-pooler") + dot + domain}


def _parse(url: str, variable: str) -> dict[str, Any]:
    # Before anything is said about it.
    remember_address(url)
    _check(url, variable)
    try:
        config: dict[str, Any] = dict(dj_database_url.parse(url, engine=ENGINE))
        given = config.get("OPTIONS", {})
        for part in ("host", "port"):
            config[part.upper()] = given.pop(part, config[part.upper()])
        config["PASSWORD"] = Secret(config["PASSWORD"])
        config["OPTIONS"] = _options(config)
        psycopg2.extensions.make_dsn(**config["OPTIONS"])
    except psycopg2.ProgrammingError as error:
        option = re.search(r'"([^"]*)"', str(error))
        raise DatabaseURLError(
            f"{variable} has an option that Postgres does not know"
            f"{f', {option[1]}' if option else ''}: take it out of the part after the question mark."
        ) from None
    except ValueError:
        # The parser's own messages may quote the address.
        raise DatabaseURLError(
            f"{variable} cannot be read: write it as {SHAPE}, other characters percent-encoded."
        ) from None
    return {**config, "CONN_MAX_AGE": MAX_AGE_SECONDS, "CONN_HEALTH_CHECKS": True}


def _silence(environ: Mapping[str, str]) -> dict[str, float]:
    text = environ.get("WORKBENCH_SILENCE", "").strip()
    if not text:
        return {}
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise DatabaseURLError(f"WORKBENCH_SILENCE is {text!r}: write a number of seconds, such as 5.")
    return {"SILENCE": seconds}


def _options(config: dict[str, Any]) -> dict[str, Any]:
    options = {**REMOTE_OPTIONS, "application_name": application_name(), **config.get("OPTIONS", {})}
    if is_neon(config["HOST"]):
        options.setdefault("sslmode", "require")
    verifies = options.get("sslmode") in ("verify-ca", "verify-full")
    if verifies and options.get("sslrootcert", "system") == "system":
        # The driver's wheel looks for the system's certificates where its builder had them.
        options["sslrootcert"] = certifi.where()
    remember_all(options)
    return {name: Secret(value) if is_secret(name) else value for name, value in options.items()}


def _check(url: str, variable: str) -> None:
    """Raise DatabaseURLError for the mistakes people make, each with its own way out."""

    def wrong(message: str) -> DatabaseURLError:
        return DatabaseURLError(f"{variable} {message}")

    if re.match(r"psql\b", url):
        raise wrong(f"holds a whole psql command: keep only the address in its quotes, {SHAPE}.")
    if url[0] in "'\"`" or url[-1] in "'\"`":
        raise wrong(f"is wrapped in quotes: remove them, so that it reads {SHAPE}.")
    if re.match(r"(export\s+)?\w+=\S*://", url):
        raise wrong(f"repeats its own name: after the equals sign comes only {SHAPE}.")
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise wrong(f"is not an address: write it as {SHAPE}.")
    if scheme not in ("postgres", "postgresql"):
        kind = scheme if re.fullmatch(r"[A-Za-z][\w+.:-]*", scheme) else "something else"
        if "postgres" in kind.lower():
            raise wrong(f"starts with {kind}://: write postgresql:// instead.")
        raise wrong(f"starts with {kind}://, but the workbench needs Postgres: write it as {SHAPE}.")
    if re.search(r"<[^<>]*>", url) or "[YOUR" in url.upper() or rest.startswith("USER:PASSWORD@"):
        raise wrong("still has a placeholder: put your own role, password, host and database in.")

    match = WELL_FORMED.fullmatch(url)
    userinfo = (match["userinfo"] or "") if match else ""
    name = (match["name"] or "") if match else ""
    before_at = rest.rpartition("@")[0]
    is_astray = match["userinfo"] is None if match else re.search(r"[/?#@\[\]\s]", before_at)
    if (before_at and is_astray) or re.search(r"%(?![0-9A-Fa-f]{2})", userinfo):
        raise wrong(
            "has characters in its role or password that must be percent-encoded "
            "(@ is %40, / is %2F, # is %23, ? is %3F, : is %3A, % is %25, a space is %20)."
        )
    if match is None:
        raise wrong(f"cannot be read: write it as {SHAPE}, without spaces and without a # part.")
    password = unquote(userinfo.partition(":")[2])
    if password and set(password) <= set("*•…."):
        raise wrong("holds a masked password: press 'Show password' before you copy the address.")
    if "\0" in unquote(userinfo):
        raise wrong("has a NUL character (%00) in its role or password, which Postgres cannot take.")
    port = match["port"]
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise wrong("has a port that is not a number from 1 to 65535: write HOST:5432, or leave it out.")
    query = parse_qs(match["query"] or "", keep_blank_values=True)
    for option, values in query.items():
        if len(values) > 1:
            raise wrong(f"gives the option {option} more than once: keep one of them.")
        if option in ("dbname", "user", "password", "service"):
            raise wrong(
                f"has {option} after the question mark, where it would hide the one before: write {SHAPE}."
            )
    if not match["host"] and "host" not in query and userinfo:
        raise wrong(f"names no host: write it as {SHAPE}.")
    if not name:
        raise wrong(f"names no database: add it after the host, as in {SHAPE}.")
    if "/" in name:
        raise wrong("has a slash in its database name: write only the name, or %2F for the slash.")
    if "sslmode" in query and query["sslmode"][0] not in SSLMODES:
        raise wrong(f"has an unknown sslmode: write one of {', '.join(SSLMODES)}.")
