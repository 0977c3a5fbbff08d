"""One statement of those that were asked: how often, from where, for what, and what it took."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS

from workbench.errors import listed
from workbench.queries.origin import Need, Origin
from workbench.queries.text import BLANK, DECLARED, shape, shown
from workbench.show import counted
from workbench.words import span

if TYPE_CHECKING:
    from workbench.queries.plan import Plan
    from workbench.queries.recording import Sent
    from workbench.queries.remedies import Remedy

# Values are told apart as long as there are not too many of them to remember.
DIFFERENT_KEPT = 10_000
NAMED = 4

READS = re.compile(
    rf"{BLANK}(?:SELECT|VALUES|TABLE|SHOW|WITH|COPY\b.*\bTO\s+STDOUT)\b", re.IGNORECASE | re.DOTALL
)
WITH = re.compile(rf"{BLANK}WITH\b", re.IGNORECASE)
WRITES = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
KEEPS = re.compile(rf"{BLANK}(?:SAVEPOINT|RELEASE|ROLLBACK\s+TO)\b", re.IGNORECASE)
# Asked again, they answer otherwise.
EACH_TIME = re.compile(
    r"\b(?:nextval|currval|lastval|setval|set_config|random|clock_timestamp|timeofday|pg_\w+|gen_random_\w+"
    r"|uuidv\d)\s*\(",
    re.IGNORECASE,
)


@dataclass
class Spot:
    """The runs of a statement from one place, for one need."""

    need: Need | None
    place: tuple[str, int] | None = None
    line: int | None = None
    # Whether the person's own code asked, and not a library's.
    is_own: bool = True
    times: int = 0
    seconds: float = 0.0
    different: set[int] = field(default_factory=set)
    # Those with the same values as a run before, since which nothing has been written.
    repeats: int = 0
    repeat_seconds: float = 0.0
    remedy: Remedy | None = None


@dataclass
class Statement:
    """What was asked, whatever the values were.

    ``sql`` is the first of its kind as it was sent, without secrets and with long values cut; ``shape`` has
    placeholders for them. ``seconds`` were measured here, with the way there and back. ``rows`` is None where
    there are none to count; ``failed`` is what the last that failed said.
    """

    number: int
    alias: str
    how: str
    shape: str
    sql: str
    times: int = 0
    seconds: float = 0.0
    rows: int | None = None
    failures: int = 0
    failed: str = ""
    lines: dict[int, None] = field(default_factory=dict)
    places: dict[str, None] = field(default_factory=dict)
    plan: Plan | None = None
    spots: dict[object, Spot] = field(default_factory=dict)
    _last: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.is_read = is_read(self.shape)
        self.keeps = self.is_read or bool(KEEPS.match(self.shape))
        self.may_repeat = self.is_read and not EACH_TIME.search(self.shape)

    def ran(self, sent: Sent, origin: Origin, line: int | None, epoch: int) -> Spot:
        """Count a run. ``epoch`` is another number for each time that something was written."""
        need = origin.found.need if origin.found else None
        spot = self.spots.setdefault((origin.place, need), Spot(need, origin.place, line, origin.is_own))
        spot.times += 1
        self.times += 1
        if line is not None:
            self.lines[line] = None
        if origin.name:
            self.places[origin.name] = None
        self.add(spot, sent.rows, sent.seconds)
        if sent.error is not None:
            self.failures += 1
            if not isinstance(sent.error, KeyboardInterrupt):
                self.failed = str(sent.error).strip().partition("\n")[0] or type(sent.error).__name__
            return spot
        values = hash(sent.query) if sent.query is not None else 0
        if len(spot.different) < DIFFERENT_KEPT:
            spot.different.add(values)
        if self._last.get(values) == epoch and self.may_repeat and sent.query is not None:
            spot.repeats += 1
            spot.repeat_seconds += sent.seconds
        if len(self._last) < DIFFERENT_KEPT or values in self._last:
            self._last[values] = epoch
        return spot

    def add(self, spot: Spot, rows: int | None, seconds: float) -> None:
        self.seconds += seconds
        spot.seconds += seconds
        if rows is not None:
            self.rows = (self.rows or 0) + rows

    @property
    def where(self) -> str:
        """Which lines of the cell it came from, and where in the project it was asked."""
        said = ""
        if self.lines:
            said = numbered("line", "lines", sorted(self.lines))
        if self.places:
            places = listed(self.places, most=NAMED)
            said = f"{said}, in {places}" if said else places
        return said or "another thread"

    def head(self, *, with_times: bool) -> str:
        """Return what stands above the SQL."""
        parts = [self.where]
        if self.alias != DEFAULT_DB_ALIAS:
            parts.append(f"on {self.alias}")
        if self.times > 1:
            parts.append(f"{self.times:,} times")
        if self.how:
            parts.append(
                {"executemany": "by executemany", "cursor": "by a server-side cursor"}.get(self.how, "")
            )
        if self.rows is not None:
            parts.append(counted(self.rows, "row"))
        if with_times:
            parts.append(span(self.seconds))
        if self.failures:
            often = f"{self.failures:,} of them " if self.times > 1 else ""
            parts.append(f"{often}failed: {self.failed}" if self.failed else f"{often}interrupted")
        return f"{self.number}. {', '.join(filter(None, parts))}"


def numbered(one: str, many: str, numbers: Sequence[int]) -> str:
    """Say which: "line 3", "lines 3 and 5"."""
    return f"{one if len(numbers) == 1 else many} {listed(map(str, numbers), most=NAMED)}"


def is_read(sql: str) -> bool:
    """Tell whether a statement writes nothing by itself."""
    return bool(READS.match(sql)) and not (WITH.match(sql) and WRITES.search(sql))


def is_lookup(sql: str) -> bool:
    """Tell whether a statement of ``frame`` or ``load`` is about columns and constraints, not about rows."""
    return bool(KEEPS.match(sql)) or (is_read(sql) and "setval(" not in sql)


def statement_of(sent: Sent, shape: str, number: int) -> Statement:
    sql = sent.sql if sent.query is None or sent.how == "executemany" else sent.query.decode(errors="replace")
    return Statement(number, sent.connection.alias, sent.how, shape, shown(DECLARED.sub("", sql, count=1)))


def shape_of(sent: Sent) -> str:
    return shape(sent.sql, is_bound=sent.is_bound)
