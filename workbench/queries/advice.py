"""What would spare queries: one for all rows instead of one for each, and none for a second time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from workbench.queries.remedies import Remedy
from workbench.queries.statement import Spot, Statement, numbered
from workbench.show import WARNING, Code, Part, Words, counted
from workbench.words import span

# Fewer are no pattern.
OFTEN = 3


@dataclass(frozen=True)
class Advice:
    """What was asked again and again, and what to do instead.

    ``kind`` is "n+1" or "duplicate", ``times`` how many queries it is about, of which ``spared`` would not be
    needed, ``seconds`` what those took. ``numbers`` are the statements'.
    """

    kind: str
    times: int
    spared: int
    seconds: float
    numbers: tuple[int, ...]
    lines: tuple[int, ...]
    remedy: Remedy

    def parts(self, *, with_times: bool) -> Iterator[Part]:
        of = numbered("query", "queries", self.numbers)
        takes = f", {span(self.seconds)}" if with_times else ""
        what, each, instead = self.remedy.what, self.remedy.each, self.remedy.instead
        if self.kind == "duplicate":
            instead, takes = f"{instead} spares {self.spared:,} of these queries{takes}.", ""
        said = f"{what} {counted(self.times, 'time')}, {each} ({of}{takes}). {instead}"
        if self.lines:
            said = f"{numbered('line', 'lines', self.lines)}: {said}"
        yield Words(f"{said[0].upper()}{said[1:]}", WARNING)
        if self.remedy.code:
            yield Code(self.remedy.code, "python")


def advice(statements: Iterable[Statement]) -> list[Advice]:
    """Return what there is to say, the most wasteful first."""
    every = [(statement, spot) for statement in statements for spot in statement.spots.values()]
    groups: dict[object, list[tuple[Statement, Spot]]] = {}
    for statement, spot in every:
        key = (spot.place, spot.need) if spot.need else id(spot)
        groups.setdefault(key, []).append((statement, spot))
    found = []
    claimed: set[int] = set()
    for members in groups.values():
        if (each := _row_by_row(members)) is not None:
            found.append(each)
            claimed |= {id(spot) for _, spot in members}
    for statement in {id(statement): statement for statement, _ in every}.values():
        spots = [spot for spot in statement.spots.values() if spot.is_own and id(spot) not in claimed]
        if (each := _again(statement, spots)) is not None:
            found.append(each)
    return sorted(found, key=lambda each: -each.seconds)


def _row_by_row(members: list[tuple[Statement, Spot]]) -> Advice | None:
    """Return what to say of one need at one place, if it was had again and again."""
    spots = [spot for _, spot in members]
    times = max(spot.times for spot in spots)
    if times < OFTEN:
        return None
    remedy = next((spot.remedy for spot in spots if spot.remedy), None)
    if remedy is None and not any(spot.need for spot in spots):
        remedy = _of_sql(members[0][0])
    if remedy is None or not (remedy.is_relation or any(spot.is_own for spot in spots)):
        return None
    if not remedy.is_certain and max(len(spot.different) for spot in spots) < OFTEN:
        return None
    return Advice(
        "n+1",
        times,
        sum(spot.times for spot in spots) - 1,
        sum(spot.seconds for spot in spots),
        tuple(dict.fromkeys(statement.number for statement, _ in members)),
        _lines(spots),
        remedy,
    )


def _again(statement: Statement, spots: list[Spot]) -> Advice | None:
    """Return what to say of a statement that ran again with the same values, where nothing was written."""
    spared = sum(spot.repeats for spot in spots)
    if not spared:
        return None
    remedy = Remedy("the same query ran", "with the same values", "A variable that keeps its result")
    seconds = sum(spot.repeat_seconds for spot in spots)
    times = sum(spot.times for spot in spots)
    return Advice("duplicate", times, spared, seconds, (statement.number,), _lines(spots), remedy)


def _lines(spots: Iterable[Spot]) -> tuple[int, ...]:
    return tuple(sorted({spot.line for spot in spots if spot.line is not None}))


def _of_sql(statement: Statement) -> Remedy | None:
    """Return what to do about SQL of a person's own."""
    verb = statement.shape.lstrip(" (")[:6].upper()
    each = "each time with other values"
    if statement.how == "executemany":
        return None
    if statement.how == "COPY":
        instead = "One query for all of the values may do."
        return Remedy("the same COPY ran", each, instead, is_certain=False) if statement.is_read else None
    if verb == "INSERT":
        return Remedy("the same INSERT ran", each, "One INSERT takes all rows, and load() many of them.")
    if verb == "SELECT":
        instead = "One with = ANY(%s), and a list, may read the rows for all of them."
        return Remedy("the same SELECT ran", each, instead, is_certain=False)
    return None
