"""Hears what is sent to Postgres: by Django's cursors, and past its wrappers by psycopg2's own.

``connection.execute_wrappers`` hear execute() and executemany(). COPY, what is fetched from a server-side
cursor, and a cursor of psycopg2's are heard by cursors that the connection makes meanwhile.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from types import FrameType
from typing import Any, Protocol
from weakref import WeakSet

import psycopg2
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.backends.utils import CursorWrapper
from psycopg2 import extensions

from workbench.connection.interrupt import watched
from workbench.connection.sessions import is_aside

# What hears of more rows, and of the seconds they took.
More = Callable[[int, float], None]


@dataclass(frozen=True)
class Sent:
    """A statement that was sent, and what became of it.

    ``sql`` has its placeholders, if values were bound to it (``is_bound``), and ``query`` is what Postgres
    got; None where the driver doesn't say. ``how`` is "", "COPY", "executemany" or "cursor", of the server's.
    """

    connection: BaseDatabaseWrapper
    cursor: Any
    sql: str
    is_bound: bool
    query: bytes | None
    how: str
    seconds: float
    rows: int | None
    error: BaseException | None


class Listener(Protocol):
    def heard(self, sent: Sent, frame: FrameType | None) -> More | None:
        """Take note of a statement, sent by who is in ``frame``; return what hears of rows fetched later."""


_listeners: tuple[Listener, ...] = ()
_attached: WeakSet[BaseDatabaseWrapper] = WeakSet()
_lock = threading.Lock()
# The cursor that a statement of Django's is on its way through.
_underway = threading.local()


def begin(listener: Listener) -> None:
    """Let a listener hear what every thread's connections send, and those that are opened from now on."""
    global _listeners
    with _lock:
        if not _listeners:
            connection_created.connect(_connected)
        _listeners = (*_listeners, listener)
        for connection in {*watched, *connections.all()}:
            _attach(connection)


def end(listener: Listener) -> None:
    global _listeners
    with _lock:
        _listeners = tuple(each for each in _listeners if each is not listener)
        if _listeners:
            return
        connection_created.disconnect(_connected)
        for connection in list(_attached):
            _detach(connection)
        _attached.clear()


def _connected(connection: BaseDatabaseWrapper, **_: Any) -> None:
    with _lock:
        if _listeners:
            _attach(connection)


def _attach(connection: BaseDatabaseWrapper) -> None:
    _attached.add(connection)
    if _around not in connection.execute_wrappers:
        # A new list, as another thread may be going through this one. In front, because Django's
        # execute_wrapper() takes away the last, which has to be its own.
        connection.execute_wrappers = [_around, *connection.execute_wrappers]
    raw = connection.connection
    if isinstance(raw, extensions.connection) and not isinstance(raw.cursor_factory, _Factory):
        factory: Any = _Factory(connection, raw.cursor_factory)
        raw.cursor_factory = factory


def _detach(connection: BaseDatabaseWrapper) -> None:
    connection.execute_wrappers = [each for each in connection.execute_wrappers if each is not _around]
    raw = connection.connection
    if raw is not None and isinstance(factory := getattr(raw, "cursor_factory", None), _Factory):
        raw.cursor_factory = factory.before


def _around(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    connection = context["connection"]
    if not _listeners or is_aside(connection):
        return execute(sql, params, many, context)
    cursor = context["cursor"].cursor
    is_ours = isinstance(cursor, _Cursor)
    if is_ours:
        cursor.took = None
    outer = getattr(_underway, "cursor", None)
    _underway.cursor = cursor
    error = None
    began = perf_counter()
    try:
        return execute(sql, params, many, context)
    except BaseException as raised:
        error = raised
        raise
    finally:
        # The cursor knows it without what other wrappers did.
        seconds = cursor.took if is_ours else perf_counter() - began if _was_sent(error) else None
        _underway.cursor = outer
        if seconds is not None:
            frame: FrameType | None = sys._getframe()
            while frame is not None and frame.f_code not in _EXECUTE:
                frame = frame.f_back
            how = "executemany" if many else "cursor" if getattr(cursor, "name", None) else ""
            _tell(connection, cursor, _text(sql, cursor), bool(params) or many, how, seconds, error, frame)


def _was_sent(error: BaseException | None) -> bool:
    """Tell whether a statement got as far as Postgres, where its cursor cannot."""
    return (
        error is None or isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, psycopg2.Error)
    )


_EXECUTE = (CursorWrapper.execute.__code__, CursorWrapper.executemany.__code__)


def _tell(
    connection: BaseDatabaseWrapper,
    cursor: Any,
    sql: str,
    is_bound: bool,
    how: str,
    seconds: float,
    error: BaseException | None,
    frame: FrameType | None,
) -> None:
    count = getattr(cursor, "rowcount", -1)
    rows = 0 if how == "cursor" else count if count >= 0 else None
    query = getattr(cursor, "query", None)
    sent = Sent(connection, cursor, sql, is_bound, query, how, seconds, None if error else rows, error)
    # Whatever is not understood of it: the person's code goes on as if nobody had listened.
    with suppress(Exception):
        more = [each.heard(sent, frame) for each in _listeners]
        if isinstance(cursor, _NamedCursor):
            cursor.more = [each for each in more if each is not None]


def _text(sql: Any, cursor: Any) -> str:
    if isinstance(sql, str):
        return sql
    if isinstance(sql, bytes):
        return sql.decode(errors="replace")
    return str(sql.as_string(cursor)) if hasattr(sql, "as_string") else str(sql)


class _Cursor(extensions.cursor):
    """A cursor that knows how long its statement took, and tells of those that no wrapper hears of."""

    django: BaseDatabaseWrapper
    took: float | None = None

    def execute(self, query: Any, vars: Any = None) -> None:
        with self._timed(query, is_bound=bool(vars)):
            super().execute(query, vars)

    def executemany(self, query: Any, vars_list: Any) -> None:
        with self._timed(query, "executemany", is_bound=True):
            super().executemany(query, vars_list)

    def callproc(self, procname: Any, parameters: Any = None) -> Any:
        with self._timed(None):
            return super().callproc(procname, parameters)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        with self._timed(sql, "COPY"):
            super().copy_expert(sql, file, size)

    def copy_from(self, file: Any, table: str, *arguments: Any, **options: Any) -> None:
        with self._timed(None, "COPY"):
            super().copy_from(file, table, *arguments, **options)

    def copy_to(self, file: Any, table: str, *arguments: Any, **options: Any) -> None:
        with self._timed(None, "COPY"):
            super().copy_to(file, table, *arguments, **options)

    @contextmanager
    def _timed(self, sql: Any, how: str = "", *, is_bound: bool = False) -> Iterator[None]:
        error = None
        began = perf_counter()
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            seconds = perf_counter() - began
            # There is none where the values did not fit the placeholders.
            self.took = None if self.query is None else seconds
            is_heard = getattr(_underway, "cursor", None) is self and how != "COPY"
            if self.took is not None and not is_heard and _listeners and not is_aside(self.django):
                # Beyond this method, its caller and contextlib's.
                frame = sys._getframe(3)
                named = "cursor" if self.name else how
                text = _text(self.query or b"" if sql is None else sql, self)
                _tell(self.django, self, text, is_bound, named, self.took, error, frame)


class _NamedCursor(_Cursor):
    """A cursor of the server's: its rows come when they are fetched."""

    more: list[More] = []

    def fetchone(self) -> Any:
        return self._fetched(super().fetchone)

    def fetchmany(self, size: int | None = None) -> Any:
        return self._fetched(super().fetchmany, self.itersize if size is None else size)

    def fetchall(self) -> Any:
        return self._fetched(super().fetchall)

    def __next__(self) -> Any:
        return self._fetched(super().__next__)

    def _fetched(self, fetch: Callable[..., Any], *arguments: Any) -> Any:
        began = perf_counter()
        got = fetch(*arguments)
        rows = len(got) if isinstance(got, list) else int(got is not None)
        seconds = perf_counter() - began
        for hear in self.more:
            hear(rows, seconds)
        return got


class _Factory:
    """Makes the cursors of a connection of psycopg2's; ``before`` is what made them before."""

    def __init__(self, connection: BaseDatabaseWrapper, before: Any) -> None:
        self._connection = connection
        self.before = before

    def __call__(self, raw: Any, name: str | None = None, **options: Any) -> Any:
        plain, named = _kinds(self.before or extensions.cursor)
        cursor = (named if name else plain)(raw, name, **options)
        cursor.django = self._connection
        return cursor


@cache
def _kinds(base: type) -> tuple[Any, Any]:
    return type("Cursor", (_Cursor, base), {}), type("NamedCursor", (_NamedCursor, base), {})
