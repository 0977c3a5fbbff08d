"""with queries() as asked: what a block of code asks of the database."""

from __future__ import annotations

import linecache
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from workbench.queries import recording
from workbench.queries.advice import Advice, advice
from workbench.queries.origin import FRAMES, Origin, origin, persons
from workbench.queries.recording import More, Sent
from workbench.queries.remedies import READ_KEPT, Read, read_of, remedy
from workbench.queries.statement import Spot, Statement, is_lookup, shape_of, statement_of
from workbench.queries.text import formatted, without_secrets
from workbench.show import WARNING, Code, Part, Shown, Words, counted
from workbench.words import span

if TYPE_CHECKING:
    import pandas as pd

# So many statements are shown, those that took longest; the others are counted.
SHOWN = 20
NOTHING = "{} asked the database nothing: a queryset is only asked when its rows are needed."


def queries(*, plan: bool = False, analyze: bool = False) -> Asked:
    """Record what a block of code asks of the database.

    The result has each distinct statement once: how often it ran, its rows, its time, and the line that it
    came from. Times are measured here, so the way to Postgres and back is in them. What every thread of this
    process asks through Django is recorded, COPY and server-side cursors included; what the workbench asks
    for itself is not, nor are BEGIN and COMMIT, which the driver sends.

    With ``plan`` Postgres is asked for the plan of each statement that has one, right after it first ran.
    With ``analyze`` those that only read are run a second time, to see how many rows each step really gave.

    ``asked.table`` is a DataFrame of the statements, ``asked.facts`` what is the same each time: no times.

    Examples::

        with queries() as asked:
            for book in Book.objects.all():
                print(book.author.name)
        asked

        with queries(plan=True) as asked: Book.objects.count()
        asked
    """
    return Asked(plan=plan, analyze=analyze)


class Asked(Shown):
    """What a block of code asked, as long as it lasts and after it: iterating gives the statements."""

    def __init__(
        self,
        *,
        plan: bool = False,
        analyze: bool = False,
        most: int | None = SHOWN,
        slow: float = 0.0,
        cell: str = "",
    ) -> None:
        self._plan = plan or analyze
        self._analyze = analyze
        self._most = most
        self._slow = slow
        # Its text as a person sees it, if it is one; the lines are counted there.
        self._cell = cell
        self._above: dict[str, int] = {}
        self._statements: dict[object, Statement] = {}
        self._lock = threading.Lock()
        self._until: FrameType | None = None
        self._files: frozenset[str] = frozenset()
        self._read: deque[Read] = deque(maxlen=READ_KEPT)
        self._epochs: dict[str, int] = {}

    def __enter__(self) -> Self:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__") == "contextlib":
            frame = frame.f_back
        self._until = frame
        if frame is not None and not self._cell:
            self._files = frozenset({frame.f_code.co_filename})
        recording.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        recording.end(self)
        self._until = None
        self._read.clear()

    def __iter__(self) -> Iterator[Statement]:
        return iter([*self._statements.values()])

    def __len__(self) -> int:
        return len(self._statements)

    def __getitem__(self, number: int) -> Statement:
        return [*self._statements.values()][number]

    def __bool__(self) -> bool:
        return bool(self._statements)

    @property
    def times(self) -> int:
        """How many queries that was."""
        return sum(each.times for each in self)

    @property
    def rows(self) -> int:
        return sum(each.rows or 0 for each in self)

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self)

    @property
    def advice(self) -> list[Advice]:
        """What would spare some of the queries."""
        return advice(self)

    @property
    def table(self) -> pd.DataFrame:
        """A row for each statement: SQL, how often it ran, milliseconds, rows, its line and place."""
        import pandas as pd

        rows = [
            (each.sql, each.times, each.seconds * 1000, each.rows, line, ", ".join(each.places))
            for each in self
            for line in [min(each.lines, default=None)]
        ]
        made = pd.DataFrame(rows, columns=["sql", "times", "ms", "rows", "line", "place"])
        return made.astype({"rows": "Int64", "line": "Int64", "times": "int64", "ms": "float64"})

    @property
    def facts(self) -> Facts:
        """What is the same each time: no times, and no values."""
        return Facts(self)

    def heard(self, sent: Sent, frame: FrameType | None) -> More | None:
        """Take note of a statement. Called by the recording."""
        found = origin(frame, self._until, self._files)
        if found is None:
            return None
        shape = shape_of(sent)
        if found.asker.startswith(FRAMES) and sent.how == "" and is_lookup(shape):
            return None
        key = (sent.connection.alias, sent.how, shape)
        with self._lock:
            statement = self._statements.get(key)
            if statement is None:
                statement = statement_of(sent, shape, len(self._statements) + 1)
                self._statements[key] = statement
            epoch = self._epochs.get(sent.connection.alias, 0)
            spot = statement.ran(sent, found, self._line(found), epoch)
            if not statement.keeps:
                self._epochs[sent.connection.alias] = epoch + 1
            if found.found and (read := read_of(found.found)):
                self._read.append(read)
        if spot.times == 2 and found.found:
            # Whatever a project's own classes do, its code goes on.
            with suppress(Exception):
                people = persons(frame, self._until, self._files)
                spot.remedy = remedy(found.found, sent.sql, self._read, people)
        if self._plan and statement.plan is None and sent.error is None:
            from workbench.queries.plan import plan_of

            statement.plan = plan_of(sent.connection, sent.query, analyze=self._analyze)
        return partial(self._more, statement, spot)

    def _more(self, statement: Statement, spot: Spot, rows: int, seconds: float) -> None:
        with self._lock:
            statement.add(spot, rows, seconds)

    def _line(self, found: Origin) -> int | None:
        """Return the line as a person counts it, where a magic's first line is one, too."""
        if found.line is None or not self._cell:
            return found.line
        if found.file not in self._above:
            body = "".join(linecache.getlines(found.file)).rstrip().splitlines()
            self._above[found.file] = max(len(self._cell.rstrip().splitlines()) - len(body), 0)
        return found.line + self._above[found.file]

    def _parts(self, *, with_times: bool = True) -> Iterator[Part]:
        if not self:
            yield Words(NOTHING.format("This cell" if self._cell else "This"))
            return
        yield Words(self._totals(with_times))
        found = self.advice
        if not with_times:
            found.sort(key=lambda each: each.numbers)
        for each in found:
            yield from each.parts(with_times=with_times)
        advised = {number for each in found for number in each.numbers}
        chosen = self._chosen(advised) if with_times else [*self]
        for statement in chosen:
            sql = statement.sql if with_times else without_secrets(statement.shape)
            yield Code(formatted(sql), "postgres", statement.head(with_times=with_times))
            if with_times and statement.plan is not None:
                yield from _planned(statement)
        others = [each for each in self if each not in chosen]
        if others:
            times = counted(sum(each.times for each in others), "time")
            yield Words(
                f"{counted(len(others), 'other statement')} ran {times} and took "
                f"{span(sum(each.seconds for each in others))}: "
                f"{'%%queries --all shows' if self._cell else 'its table has'} them."
            )

    def _totals(self, with_times: bool) -> str:
        distinct = f" ({len(self):,} distinct)" if len(self) < self.times else ""
        said = (
            f"{self.times:,} quer{'y' if self.times == 1 else 'ies'}{distinct}, {counted(self.rows, 'row')}"
        )
        if with_times:
            said = f"{said}, {span(self.seconds)} in Postgres and on the way there and back"
        failed = sum(each.failures for each in self)
        return f"{said}; {failed} failed." if failed else f"{said}."

    def _chosen(self, advised: set[int]) -> list[Statement]:
        """Return those to show, in their order: what advice is about, what failed, what took longest."""
        ranked = sorted(self, key=lambda each: (each.number not in advised, not each.failures, -each.seconds))
        slow = [each for each in ranked if each.seconds >= self._slow or each.failures]
        return sorted(slow[: self._most], key=lambda each: each.number)


class Facts(Shown):
    """What a block of code asked, without what differs from one time to the next."""

    def __init__(self, of: Asked) -> None:
        self.of = of

    def _parts(self) -> Iterator[Part]:
        return self.of._parts(with_times=False)


def _planned(statement: Statement) -> Iterator[Part]:
    from workbench.queries.tree import as_text

    plan = statement.plan
    assert plan is not None
    if plan.reason:
        yield Words(f"{statement.number}. {plan.reason}")
    if plan.top is not None:
        ran = "as it went when run again" if plan.is_actual else "as planned"
        yield Code(as_text(plan.top), "text", f"Plan of {statement.number}, {ran}")
    for hint in plan.hints:
        yield Words(f"{statement.number}. {hint.text}", WARNING)
        if hint.code:
            yield Code(hint.code, hint.language)
