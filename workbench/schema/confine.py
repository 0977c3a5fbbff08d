"""What a rehearsal runs reaches its copy, and nothing else."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from workbench.connection.sessions import aside
from workbench.schema.errors import SchemaError
from workbench.schema.losses import BLANK

ASKS = re.compile(
    rf"{BLANK}\(*\s*(select|show|explain|savepoint|release|rollback|set|reset)\b", re.IGNORECASE
)
# Where a statement begins: in a DO and in a function, too.
BEGINS = r"(?:^|;|\b(?:BEGIN|THEN|ELSE|LOOP)\b|\bEXECUTE\s+(?:format\s*\(\s*)?(?:'|\$\w*\$))"
SHARED = re.compile(
    rf"{BEGINS}{BLANK}"
    r"((?:CREATE|ALTER|DROP|COMMENT\s+ON)\s+(?:ROLE|USER(?!\s+MAPPING)|GROUP|DATABASE|TABLESPACE|SUBSCRIPTION)"
    r"|ALTER\s+SYSTEM|(?:DROP|REASSIGN)\s+OWNED"
    r"|(?:GRANT|REVOKE)(?=\s[^;]*\sON\s+(?:DATABASE|TABLESPACE|PARAMETER)|\s(?:(?!\sON\s)[^;])*(?:;|$)))\b",
    re.IGNORECASE | re.DOTALL,
)
# What a copy may say of itself.
ITSELF = re.compile(r"\bcurrent_(?:database|catalog)\b", re.IGNORECASE)


@contextmanager
def confined(copy: BaseDatabaseWrapper, *, is_same_server: bool) -> Iterator[None]:
    """Let what is done by any alias of Django's reach this copy only, from threads that it starts, too.

    Other databases can be read. What all databases of a server share is left alone, where the copy is on the
    server of the original. Raises SchemaError in the midst of what tries.
    """
    with _guarded(copy, is_same_server), _followed(copy, is_same_server):
        yield


@contextmanager
def _guarded(copy: BaseDatabaseWrapper, is_same_server: bool) -> Iterator[None]:
    """Guard what this thread sends."""
    with ExitStack() as stack:
        for alias in connections:
            if alias != copy.alias:
                stack.enter_context(connections[alias].execute_wrapper(_read_only))
        if is_same_server:
            stack.enter_context(copy.execute_wrapper(_not_shared))
        yield


def _read_only(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    if ASKS.match(str(sql)):
        return execute(sql, params, many, context)
    alias = context["connection"].alias
    raise SchemaError(
        f"It does more than SELECT in the database {alias!r}, of which a rehearsal makes no copy."
    )


def _not_shared(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    if (found := SHARED.search(str(sql))) and not ITSELF.search(str(sql)):
        what = " ".join(found[1].upper().split())
        raise SchemaError(
            f"{what} changes what all databases of the server share: a rehearsal would do it for real."
        )
    return execute(sql, params, many, context)


@contextmanager
def _followed(copy: BaseDatabaseWrapper, is_same_server: bool) -> Iterator[None]:
    """Give the threads that this one starts connections of their own to the copy."""
    start = threading.Thread.start
    followers = {threading.current_thread()}

    def follow(run: Callable[[], None]) -> None:
        with closing(aside(copy.settings_dict, copy.alias)) as ours:
            connections[copy.alias] = ours
            with _guarded(ours, is_same_server):
                run()

    def begin(thread: threading.Thread) -> None:
        if threading.current_thread() in followers:
            followers.add(thread)
            thread.run = partial(follow, thread.run)  # type: ignore[method-assign]
        start(thread)

    threading.Thread.start = begin  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
