"""A role that only reads: what it may is for Postgres to see to, not the choice of whoever uses it.

It may read every table of a database and those that come, except for columns that are called like a secret,
or like a key where their table is: whoever has the key of a session of django_session, or of a token of
authtoken_token, is logged in as somebody else. What Postgres gives everybody it has, too: temporary tables,
and new large objects.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import certifi
from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections, router
from psycopg2 import sql
from psycopg2.extensions import encrypt_password

from workbench.connection.embedded import Cluster
from workbench.connection.failures import ConnectionFailed
from workbench.connection.limits import ONLY_READS, STATEMENT_TIMEOUT
from workbench.connection.sessions import aside
from workbench.connection.url import REMOTE_OPTIONS, is_neon
from workbench.errors import OneSentence, command, listed
from workbench.redaction import is_secret, remember

# What needs no quotes, in an address nor in SQL.
NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
# Said of our roles in the server, so that no other one is changed or dropped.
MARK = "A workbench analyst."
# Of its password, each of eight bits.
PASSWORD_BYTES = 24
# A schema, a relation in it, a column of that.
Named = tuple[str, ...]
# Of an entry of DATABASES: of who made it, not of where it leads to.
OWN_OPTIONS = ("application_name", "assume_role", "passfile")

ME = "SELECT rolname, rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
FOUND = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s"
SCHEMAS = """
SELECT nspname, has_schema_privilege(oid, 'USAGE WITH GRANT OPTION'), has_schema_privilege(%s, oid, 'CREATE')
FROM pg_namespace WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%%' ORDER BY nspname
"""
# Tables, partitioned and foreign ones, views and materialized views, and sequences.
RELATIONS = """
SELECT n.nspname, c.relname, c.relkind = 'S', has_table_privilege(c.oid, 'SELECT WITH GRANT OPTION'),
       ARRAY(SELECT attname::text FROM pg_attribute
             WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND n.nspname = ANY(%s)
ORDER BY n.nspname, c.relname
"""
# Where a role may something, or owns something: a branch is a copy, with its grants.
DEPENDING = """
SELECT d.datname, bool_or(s.deptype = 'o')
FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_authid'::regclass
JOIN pg_database d ON d.oid = CASE WHEN s.dbid = 0 THEN s.objid ELSE s.dbid END
WHERE r.rolname = %s GROUP BY d.datname ORDER BY d.datname
"""
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"


class AnalystError(OneSentence):
    """The role cannot be made, or dropped: why, and what to do."""


@dataclass(frozen=True)
class Analyst:
    """A role that was made, or given what has come since.

    It may read ``tables``; not the columns ``kept`` from it, nor tables of ``others``. In ``open_schemas`` it
    may make tables, as everybody may. ``refused`` says why the server does not let it in; where ``is_asked``
    is false it lets in whoever reaches it, as any role.
    """

    name: str
    database: str
    tables: tuple[str, ...]
    kept: tuple[str, ...]
    others: tuple[str, ...]
    open_schemas: tuple[str, ...]
    refused: str = ""
    is_asked: bool = True


def make(name: str, keep: Callable[[Mapping[str, str]], None], using: str = DEFAULT_DB_ALIAS) -> Analyst:
    """Make a role that only reads, or give one of ours what has come since; either way with a new password.

    ``keep`` is called with the variables that lead to the database as this role, which are a secret; if it
    fails nothing is done. Raises AnalystError and DatabaseError.
    """
    entry = connections.settings[using]
    _check(entry, name)
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    # A kernel may make it, and show its file.
    remember(password)
    # Not on the person's own connection: it may be in a transaction, and what is asked there may be shown.
    with closing(aside(entry, using)) as connection:
        connection.set_autocommit(False)
        with connection.cursor() as cursor:
            verb = "ALTER" if _is_there(cursor, name) else "CREATE"
            sent = _sent(connection, name, password)
            _run(cursor, f"{verb} ROLE {{}} LOGIN PASSWORD {{password}}", name, password=sent)
            _run(cursor, "COMMENT ON ROLE {} IS {mark}", name, mark=MARK)
            _run(cursor, "ALTER ROLE {} SET default_transaction_read_only = 'on'", name)
            timeout = entry.get("SESSION", {}).get("statement_timeout", STATEMENT_TIMEOUT)
            _run(cursor, "ALTER ROLE {} SET statement_timeout = {timeout}", name, timeout=timeout)
            _run(cursor, "GRANT CONNECT ON DATABASE {} TO {}", entry["NAME"], name)
            seen = _granted(cursor, name, using)
        keep(_variables(entry, name, password))
        connection.commit()
    refused = _refused(entry, name, password, using)
    is_asked = bool(refused or _refused(entry, name, secrets.token_urlsafe(PASSWORD_BYTES), using))
    return Analyst(name, entry["NAME"], **seen, refused=refused, is_asked=is_asked)


def drop(name: str, using: str = DEFAULT_DB_ALIAS) -> None:
    """End the sessions of a role of ours, and remove it, in branches too.

    Raises AnalystError and DatabaseError.
    """
    entry = connections.settings[using]
    _check(entry, name)
    with closing(aside(entry, using)) as connection, connection.cursor() as cursor:
        if not _is_there(cursor, name):
            raise AnalystError(f"There is no role {name}.")
        found = dict(_rows(cursor, DEPENDING, [name]))
        if owning := [database for database, owns in found.items() if owns]:
            raise AnalystError(
                f"{name} owns something in {listed(owning)}, a large object perhaps: there, REASSIGN OWNED "
                f"BY {name} TO CURRENT_USER keeps it, and DROP OWNED BY {name} removes it."
            )
        # To end its sessions, and to take from it what it was granted, one must be a member of it.
        _run(cursor, "GRANT {} TO CURRENT_USER", name)
        _rows(cursor, END, [name])
        for database in found:
            with closing(aside({**entry, "NAME": database}, using)) as there, there.cursor() as its:
                _run(its, "DROP OWNED BY {}", name)
        _run(cursor, "DROP ROLE {}", name)


def _check(entry: dict[str, Any], name: str) -> None:
    if not NAME.fullmatch(name):
        raise AnalystError(f"{name!r} cannot be such a role's name: use small letters, digits and _.")
    if entry.get("READ_ONLY"):
        raise AnalystError(ONLY_READS)
    if entry.get("BRANCH"):
        raise AnalystError(
            f"This is the branch {entry['BRANCH']}: do it on main. Branches that are made later have it, too."
        )
    if entry.get("EMBEDDED") and Cluster(Path(entry["EMBEDDED"])).tcp:
        raise AnalystError(
            "On Windows the embedded Postgres has one role only: set WORKBENCH_READ_ONLY=1, or use "
            "a Postgres of your own."
        )


def _is_there(cursor: Any, name: str) -> bool:
    """Tell whether one of ours has this name. Raises AnalystError where another has, or we may make none."""
    ((me, may),) = _rows(cursor, ME)
    if not may:
        raise AnalystError(
            f"The role {me} may not make roles: ask an administrator for ALTER ROLE {me} CREATEROLE. Without "
            f"one, WORKBENCH_READ_ONLY=1 only reads, for as long as nobody sets it otherwise."
        )
    found = _rows(cursor, FOUND, [name])
    if found and found[0][0] != MARK:
        raise AnalystError(f"There is a role {name} that this command did not make: choose another name.")
    return bool(found)


def _granted(cursor: Any, name: str, using: str) -> dict[str, tuple[str, ...]]:
    """Let a role read what is there and what this role will make, and return the parts of an Analyst."""
    schemas = _rows(cursor, SCHEMAS, [name])
    ours = [schema for schema, may_grant, _ in schemas if may_grant]
    found = _rows(cursor, RELATIONS, [[schema for schema, *_ in schemas]])
    _check_keepable({relation for _, relation, *_ in found}, using)
    whole: list[Named] = []
    sequences: list[Named] = []
    others: list[Named] = []
    kept: list[Named] = []
    for schema, relation, is_sequence, may_grant, columns in found:
        place = schema, relation
        if not (may_grant and schema in ours):
            others += [] if is_sequence else [place]
        elif is_sequence:
            sequences.append(place)
        elif secret := [column for column in columns if is_secret(column, table=relation)]:
            kept += [(*place, column) for column in secret]
            # Of an earlier time, when it had no such column.
            _run(cursor, "REVOKE SELECT ON {}.{} FROM {}", *place, name)
            if rest := [column for column in columns if column not in secret]:
                names = ", ".join(["{}"] * len(rest))
                _run(cursor, f"GRANT SELECT ({names}) ON {{}}.{{}} TO {{}}", *rest, *place, name)
        else:
            whole.append(place)
    for grant, items in (
        ("USAGE ON SCHEMA", [(schema,) for schema in ours]),
        ("SELECT ON TABLE", whole),
        ("SELECT ON SEQUENCE", sequences),
    ):
        if items:
            names = ", ".join(".".join(["{}"] * len(each)) for each in items)
            _run(cursor, f"GRANT {grant} {names} TO {{}}", *(part for each in items for part in each), name)
    for what in ("SELECT ON TABLES", "SELECT ON SEQUENCES", "USAGE ON SCHEMAS"):
        _run(cursor, f"ALTER DEFAULT PRIVILEGES GRANT {what} TO {{}}", name)
    return {
        "tables": _said(whole),
        "kept": _said(kept),
        "others": _said(others),
        "open_schemas": tuple(schema for schema, _, may_create in schemas if may_create),
    }


def _check_keepable(there: set[str], using: str) -> None:
    """Raise AnalystError where a table with secrets is yet to be made: it would be read as any new one."""
    missing = [
        model._meta.label
        for model in apps.get_models()
        if model._meta.managed
        and not model._meta.proxy
        and model._meta.db_table not in there
        and router.allow_migrate_model(using, model)
        and any(
            is_secret(each.column or "", table=model._meta.db_table)
            for each in model._meta.local_concrete_fields
        )
    ]
    if missing:
        raise AnalystError(
            f"There is no table of {listed(missing)} yet, whose secrets are to be kept: run "
            f"{command('migrate')} first."
        )


def _said(places: list[Named]) -> tuple[str, ...]:
    return tuple(".".join(place).removeprefix("public.") for place in places)


def _sent(connection: Any, name: str, password: str) -> str:
    """Return a password as the server gets it: what it keeps of one, so that no log of statements has it."""
    if is_neon(connection.settings_dict["HOST"]):
        return password  # Neon takes no other: https://neon.com/docs/manage/roles.
    hashed: str = encrypt_password(password, name, connection.connection, "scram-sha-256")
    return hashed


def _variables(entry: dict[str, Any], name: str, password: str) -> dict[str, str]:
    if entry.get("EMBEDDED"):
        return {"DATABASE_URL": "", "WORKBENCH_ROLE": name, "WORKBENCH_READ_ONLY": "1"}
    host, port = entry["HOST"], str(entry["PORT"] or "")
    query = {
        option: value
        for option, value in entry["OPTIONS"].items()
        if option not in REMOTE_OPTIONS and option not in OWN_OPTIONS and value != certifi.where()
    }
    if "/" in host:  # The folder of a socket.
        query, host = {"host": host, **query}, ""
    where = f"[{host}]" if ":" in host else host
    url = f"postgresql://{name}:{password}@{where}{port and f':{port}'}/{quote(entry['NAME'], safe='')}"
    return {"DATABASE_URL": f"{url}?{urlencode(query)}" if query else url, "WORKBENCH_READ_ONLY": "1"}


def _refused(entry: dict[str, Any], name: str, password: str, using: str) -> str:
    """Return why the server does not let a role in, "" where it does."""
    own = {option: value for option, value in entry["OPTIONS"].items() if option != "assume_role"}
    wrapper: Any = aside({**entry, "USER": name, "PASSWORD": password, "OPTIONS": own}, using)
    try:
        wrapper.get_new_connection(wrapper.get_connection_params()).close()
    except ConnectionFailed as error:
        return str(error)
    return ""


def _run(cursor: Any, statement: str, *names: str, **literals: str) -> None:
    """Run SQL in which ``{}`` stand for names and ``{word}`` for literals."""
    quoted = {word: sql.Literal(value) for word, value in literals.items()}
    cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names), **quoted))


def _rows(cursor: Any, query: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    cursor.execute(query, params)
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows
