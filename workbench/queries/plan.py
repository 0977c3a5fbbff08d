"""The plan that Postgres has for a statement, asked for right after it ran, in its own session."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2 import extensions

from workbench.queries import hints
from workbench.queries.hints import Hint
from workbench.queries.text import BLANK, STRING
from workbench.queries.tree import Node, node_of

EXPLAINED = re.compile(rf"{BLANK}(?:SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|VALUES|TABLE|DECLARE)\b", re.I)
COPIED = re.compile(r"\s*COPY\s*\((.*)\)\s*TO\s+STDOUT\b[^)]*(?:\([^()]*\))?\s*", re.IGNORECASE | re.DOTALL)
# Where these are, a semicolon may be hidden, or only seem to be.
OBSCURE = re.compile(r"\\|\$|--|/\*")
QUOTED = re.compile(rf'{STRING}|"[^"]*+"', re.DOTALL)
CALLS = re.compile(r'("[^"]+"|[A-Za-z_]\w*)\(')
# They do nothing but give another value each time.
HARMLESS = ("clock_timestamp", "gen_random_uuid", "random", "random_normal", "timeofday", "uuidv4", "uuidv7")

VOLATILE = """
SELECT DISTINCT proname FROM pg_catalog.pg_proc
WHERE proname = ANY(%s) AND provolatile = 'v' AND prokind <> 'a' AND NOT proname = ANY(%s)
"""


@dataclass(frozen=True)
class Plan:
    """What Postgres does for a statement: its topmost step, as planned, or with ``is_actual`` as it went.

    ``reason`` says why there is no plan, or no second run. ``hints`` are what is bad about it.
    """

    top: Node | None = None
    is_actual: bool = False
    reason: str = ""
    hints: tuple[Hint, ...] = field(default=())


def plan_of(connection: BaseDatabaseWrapper, query: bytes | None, *, analyze: bool) -> Plan | None:
    """Return the plan of a statement that has just run; None for what has no plan, such as DDL.

    Nothing is changed: EXPLAIN doesn't run a statement. With ``analyze`` what only reads is run again, in a
    transaction that must not write and is rolled back, unless it calls what may do something each time.
    """
    text = (query or b"").decode(errors="replace")
    if copied := COPIED.fullmatch(text):
        text = copied[1]
    if not EXPLAINED.match(text):
        return None
    text = text.strip().rstrip(";")
    if not _is_one(text):
        return Plan(reason="No plan: there may be more than one statement in it.")
    raw: Any = connection.connection
    if raw is None or raw.closed or raw.encoding != "UTF8" or not _is_ready(raw):
        return None
    try:
        with connection.wrap_database_errors:
            return _explained(raw, text, analyze)
    except Error as error:
        said = str(error).strip().partition("\n")[0]
        return Plan(reason=f"No plan: {said}.")


def _explained(raw: Any, text: str, analyze: bool) -> Plan:
    with _reading(raw) as cursor:
        top = _explain(cursor, text, "VERBOSE")
        reason = _why_not_again(cursor, top) if analyze else ""
        is_actual = False
        if analyze and not reason:
            try:
                top, is_actual = _explain(cursor, text, "ANALYZE, VERBOSE"), True
            except psycopg2.errors.ReadOnlySqlTransaction:
                reason = "Not run again, because it would write: this is only what was planned."
        if reason:
            # A statement that failed has spoiled the transaction.
            cursor.execute(f"ROLLBACK TO SAVEPOINT {SAVEPOINT}")
        return Plan(top, is_actual, reason, tuple(hints.of(cursor, top)))


SAVEPOINT = "workbench_plan"


@contextmanager
def _reading(raw: Any) -> Iterator[Any]:
    """Give a cursor in a transaction that cannot write, and leave the person's as it was."""
    # psycopg2's own, which nobody listens to.
    with raw.cursor(cursor_factory=extensions.cursor) as cursor:
        is_ours = raw.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE and raw.autocommit
        if is_ours:
            cursor.execute("BEGIN READ ONLY")
        try:
            cursor.execute(f"SAVEPOINT {SAVEPOINT}_outer")
            cursor.execute("SET LOCAL transaction_read_only = on")
            cursor.execute(f"SAVEPOINT {SAVEPOINT}")
            yield cursor
        finally:
            if not raw.closed:
                if is_ours:
                    cursor.execute("ROLLBACK")
                else:
                    cursor.execute(f"ROLLBACK TO SAVEPOINT {SAVEPOINT}_outer")
                    cursor.execute(f"RELEASE SAVEPOINT {SAVEPOINT}_outer")


def _explain(cursor: Any, text: str, options: str) -> Node:
    cursor.execute(f"EXPLAIN ({options}, FORMAT JSON) {text}")
    (found,) = cursor.fetchone()
    (plan,) = json.loads(found) if isinstance(found, str) else found
    return node_of(plan)


def _why_not_again(cursor: Any, top: Node) -> str:
    """Return why a statement may not run a second time; "" if it may."""
    only = "this is only what was planned."
    nodes = list(top.walk())
    if any(node.kind in ("ModifyTable", "LockRows") for node in nodes):
        return f"Not run again, because it writes or locks rows: {only}"
    if any(node.kind in ("Foreign Scan", "Custom Scan") for node in nodes):
        return f"Not run again, because it reads from elsewhere: {only}"
    names = {name.strip('"') for node in nodes for text in node.texts() for name in CALLS.findall(text)}
    cursor.execute(VOLATILE, [list(names), list(HARMLESS)])
    if found := ", ".join(f"{name}()" for (name,) in cursor.fetchall()):
        return f"Not run again, because {found} may do something each time: {only}"
    return ""


def _is_ready(raw: Any) -> bool:
    """Tell whether a transaction is open and whole, or one can be begun and ended."""
    status = raw.get_transaction_status()
    is_idle: bool = status == extensions.TRANSACTION_STATUS_IDLE and raw.autocommit
    return is_idle or status == extensions.TRANSACTION_STATUS_INTRANS


def _is_one(text: str) -> bool:
    """Tell whether a text is surely one statement: EXPLAIN would run what stands behind the first."""
    if ";" not in text:
        return True
    return not OBSCURE.search(text) and ";" not in QUOTED.sub("", text)
