"""Waiting for locks without holding up everybody else.

A statement that waits for a table's lock stands in a queue, and all who come after it wait behind it, those
included who only read. So it waits a moment only, lets them pass, and comes again.
"""

from __future__ import annotations

import random
import re
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2 import errors

from workbench.connection import silence
from workbench.connection.queue import Session
from workbench.connection.waits import Watch

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 5.0
QUERY_LETTERS = 60

# Who waits for rows holds up no table: https://www.postgresql.org/docs/current/explicit-locking.html
COMMENTS = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
CHANGES_TABLES = re.compile(
    rf"{COMMENTS}(?:ALTER|CREATE|DROP|COMMENT|TRUNCATE|REINDEX|CLUSTER|REFRESH)\b", re.IGNORECASE | re.DOTALL
)
# These hold up nobody, and one that was cut off leaves an invalid index.
CONCURRENTLY = re.compile(
    rf"{COMMENTS}(?:CREATE\s+(?:UNIQUE\s+)?INDEX|DROP\s+INDEX|REINDEX\b[^;]*?)\s+CONCURRENTLY\b",
    re.IGNORECASE | re.DOTALL,
)
# What is set already is the person's own wish.
LIMIT = """
SELECT current_setting('lock_timeout'), set_config('lock_timeout',
    CASE current_setting('lock_timeout') WHEN '0' THEN %s ELSE current_setting('lock_timeout') END, %s)
"""
SET = "SELECT current_setting('lock_timeout'), set_config('lock_timeout', %s, false)"

Result = TypeVar("Result")

current: ContextVar[Patience | None] = ContextVar("current", default=None)


class Patience:
    """What a connection does about locks, for as long as this context lasts.

    Statements that change tables wait for a lock in short attempts, for ``seconds`` together; 0 means that
    they wait as long as it takes, in one. What runs in a transaction is tried again by ``whole()``, or not at
    all. ``tell`` is called from another thread with those that are waited for, for whatever reason, once for
    each ``begin()``.
    """

    def __init__(
        self, connection: BaseDatabaseWrapper, seconds: float, tell: Callable[[Sequence[Session]], None]
    ) -> None:
        self.seconds = seconds
        self._connection = connection
        self._watch = Watch(connection, tell)
        self._stack = ExitStack()
        # Of the attempt that runs: how long it may wait, and the transaction that knows it.
        self._length: float | None = None
        self._limited: object = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            token = current.set(self)
            stack.callback(current.reset, token)
            stack.enter_context(self._watch)
            # Django's execute_wrapper() takes away the last, and another one may come meanwhile.
            self._connection.execute_wrappers.append(self._around)
            stack.callback(self._connection.execute_wrappers.remove, self._around)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def begin(self) -> None:
        self._watch.begin()

    @property
    def is_patient(self) -> bool:
        """Whether it tries again: not in a transaction, which would hold what it holds meanwhile."""
        is_within = self._connection.in_atomic_block or not self._connection.get_autocommit()
        return self.seconds > 0 and not is_within

    @property
    def waited_for(self) -> Sequence[Session]:
        """The sessions that were last waited for, since ``begin()``."""
        return self._watch.found

    def whole(self, run: Callable[[int], Result]) -> Result:
        """Call ``run``, which begins and ends a transaction, with 0, 1, ... until that gets its locks."""
        if not self.is_patient:
            return self._attempt(run, 0, None)
        try:
            return _tried(self.seconds, partial(self._attempt, run))
        finally:
            self._length = None

    def _attempt(self, run: Callable[[int], Result], number: int, length: float | None) -> Result:
        self._length, self._limited = length, None
        blocks = self._connection.atomic_blocks
        depth = len(blocks)
        try:
            return run(number)
        except BaseException as error:
            # Django's schema editor leaves its transaction open where one of its last statements fails.
            while len(blocks) > depth:
                blocks[-1].__exit__(type(error), error, error.__traceback__)
            raise

    def _around(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        run = partial(execute, sql, params, many, context)
        with self._watch.statement():
            if self._connection.in_atomic_block:
                self._limit_transaction()
            elif self.is_patient:
                if CONCURRENTLY.match(str(sql)):
                    with self._set(SET, "0"):
                        return run()
                if CHANGES_TABLES.match(str(sql)):
                    return _tried(self.seconds, partial(self._alone, run))
            return run()

    def _limit_transaction(self) -> None:
        if self._length is None:
            return
        transaction = self._connection.atomic_blocks[0]
        if self._limited is not transaction:
            self._limited = transaction
            self._ask(LIMIT, _milliseconds(self._length), True)

    def _alone(self, run: Callable[[], Result], _: int, length: float) -> Result:
        with self._set(LIMIT, _milliseconds(length), False):
            return run()

    @contextmanager
    def _set(self, query: str, *params: Any) -> Iterator[None]:
        before = self._ask(query, *params)
        try:
            yield
        finally:
            with suppress(Error):  # If the session is gone, so is what was set in it.
                self._ask(SET, before)

    def _ask(self, query: str, *params: Any) -> Any:
        # psycopg2's own cursor: these statements are nobody's.
        with (
            self._connection.wrap_database_errors,
            silence.asking(self._connection),
            self._connection.create_cursor() as cursor,
        ):
            cursor.execute(query, params)
            return cursor.fetchone()[0]


def named(sessions: Sequence[Session]) -> str:
    """Say who they are, and what they do."""
    said = []
    for session in sessions:
        query = textwrap.shorten(session.query, QUERY_LETTERS, placeholder=" ...")
        verb = "runs" if session.state == "active" else "ran"
        said.append(f"{session}, which {verb} {query}" if query else str(session))
    return " and ".join(said)


def is_lock_missed(error: BaseException) -> bool:
    """Tell whether a statement failed for nothing but a lock: in another moment it may get it."""
    return isinstance(error.__cause__, errors.LockNotAvailable | errors.DeadlockDetected)


def _tried(patience: float, run: Callable[[int, float], Result]) -> Result:
    """Call ``run`` with the attempt's number and how long it may wait for a lock, until it gets it."""
    length = min(FIRST_SECONDS, patience)
    deadline = time.monotonic() + patience
    number = 0
    while True:
        began = time.monotonic()
        try:
            return run(number, length)
        except Error as error:
            if not is_lock_missed(error):
                raise
            # What it did before it came to wait is no waiting.
            deadline += max(0.0, time.monotonic() - began - length)
            pause = random.uniform(length / 4, length / 2)
            left = deadline - time.monotonic() - pause
            if left <= 0:
                raise
        # Those who stood behind it pass.
        time.sleep(pause)
        number += 1
        length = min(length * 2, LONGEST_SECONDS, max(left, FIRST_SECONDS))


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))
