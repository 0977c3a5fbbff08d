"""What a rehearsal has to say: facts of each operation, verdicts, and how that looks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from workbench.schema.facts import Passage, Verdict
from workbench.schema.squawk import Finding
from workbench.show import CHANGED, SAME, WARNING, Code, Grid, Part, Row, Shown, Words
from workbench.words import span

if TYPE_CHECKING:
    import pandas as pd

# Shorter waits are the processor's, or nobody's notice.
FELT_SECONDS = 0.02
GROWTH = (10, 100)
WAYS = {
    "forwards": "fails",
    "backwards": "fails on the way back",
    "again": "fails when run again after that",
}
# GitHub takes 65,536.
COMMENT_LETTERS = 60_000
# An underscore within a word is one for Markdown, too.
MARKS = re.compile(r"[\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w)")
TICKS = re.compile("```+")


@dataclass(frozen=True)
class Step:
    """One operation: what it did on the way there and on the way back, and what is to be said of it.

    ``backwards`` is None where there is no way back, or the rehearsal did not get to it. ``emptied`` is
    about how long it takes without rows, in seconds; None where that is not known. ``lost`` names what was
    not the same again after going there and back.
    """

    app_label: str
    migration: str
    operation: str
    forwards: Passage
    is_reversible: bool = True
    backwards: Passage | None = None
    emptied: float | None = None
    lost: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def hurts(self) -> bool:
        return any(verdict.is_grave for verdict in self.verdicts)

    def seconds_at(self, times: int) -> float | None:
        """Return how long it would take with so many times the rows; None where that is not known.

        What it takes without rows stays, the rest grows with them.
        """
        if self.emptied is None:
            return None
        return self.emptied + times * max(self.forwards.seconds - self.emptied, 0.0)


@dataclass(frozen=True)
class Failure:
    """An operation that Postgres refused, or its own Python; ``way`` is one of WAYS.

    ``operation`` is "" for what failed between them, or when they were to be kept.
    """

    migration: str
    operation: str
    way: str
    said: str

    def __str__(self) -> str:
        at = f", at {self.operation!r}" if self.operation else ""
        return f"{self.migration} {WAYS[self.way]}{at}: {self.said}"


@dataclass(frozen=True, repr=False)
class Rehearsal(Shown):
    """What migrations did to a copy of the database.

    ``copied`` are the seconds that the copy took, ``seconds`` those of the whole. Iterating gives the steps.
    """

    place: str
    migrations: tuple[str, ...]
    steps: tuple[Step, ...]
    failure: Failure | None = None
    copied: float = 0.0
    seconds: float = 0.0

    @property
    def hurts(self) -> bool:
        """Whether an operation hurts, or failed."""
        return self.failure is not None or any(step.hurts for step in self.steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, number: int) -> Step:
        return self.steps[number]

    @property
    def table(self) -> pd.DataFrame:
        """A row for each operation: what it locked, rewrote, read and wrote in words, and its seconds."""
        import pandas as pd

        return pd.DataFrame(
            [_row(step) for step in self.steps], columns=list(_row(Step("", "", "", Passage())))
        )

    @property
    def facts(self) -> Facts:
        """What is the same each time that it is rehearsed with the same rows: no times.

        Except that a lock or a wait of seconds is a reason to say that it hurts.
        """
        return Facts(self)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "place": self.place,
            "migrations": list(self.migrations),
            "hurts": self.hurts,
            "failure": str(self.failure) if self.failure else None,
            "copied": self.copied,
            "seconds": self.seconds,
            "steps": [_as_dict(step) for step in self.steps],
        }

    def as_markdown(self) -> str:
        """Return it as a comment on GitHub shows it."""
        if not self.migrations:
            return "### No migration to rehearse"
        are = len(self.migrations) > 1
        verdict = f"{'do' if are else 'does'} not hurt"
        if self.hurts:
            verdict = ("fail" if self.failure else "hurt") + ("" if are else "s")
        lines = [
            f"### {_escaped(', '.join(self.migrations))} {verdict}",
            "",
            _escaped(f"Rehearsed on a copy of {self.place}."),
            "",
        ]
        if self.steps:
            head = _told(self.steps[0])
            lines += [_line([name or "operation" for name in head]), _line(["---"] * len(head))]
            lines += [_line(_told(step).values()) for step in self.steps]
        for part in self._said():
            if isinstance(part, Words):
                lines += ["", f"{'⚠️ ' if part.sign == WARNING else ''}{_escaped(part.text)}"]
            elif isinstance(part, Code):
                title = escape(" ".join(part.title.split()))
                folded = f"<details><summary>{title}</summary>\n\n{_fenced(part)}\n\n</details>"
                fits = sum(map(len, lines)) + len(lines) + len(folded) < COMMENT_LETTERS
                lines += ["", folded if fits else f"{_escaped(part.title)}: too long for a comment."]
        return "\n".join(lines)

    def _parts(self) -> Iterator[Part]:
        if not self.migrations:
            yield Words("Nothing to rehearse: everything asked for is applied.")
            return
        title = f"{', '.join(self.migrations)} on a copy of {self.place}"
        rows = [Row(list(_told(step).values()), WARNING if step.hurts else SAME) for step in self.steps]
        if rows:
            yield Grid(title, rows, list(_told(self.steps[0])))
        else:
            yield Words(title)
        yield from self._said()

    def _said(self) -> Iterator[Part]:
        if self.failure:
            yield Words(f"{self.failure}", WARNING)
        for step in self.steps:
            yield from _remarks(step)
        if not self.hurts:
            yield Words("Nothing here hurts.")
        for step in self.steps:
            yield Code("\n".join(step.forwards.sql), "postgres", f"SQL of {step.operation}", is_folded=True)


@dataclass(frozen=True, repr=False)
class Facts(Shown):
    """A rehearsal without its figures."""

    of: Rehearsal

    def _parts(self) -> Iterator[Part]:
        head = ("", "locks", "rewrites", "reads", "writes", "way back")
        rows = []
        for step in self.of.steps:
            seen = step.forwards
            cells = [
                step.operation,
                ", ".join(str(lock) for lock in sorted(seen.locks, key=lambda each: each.table)),
                _rewritten(seen),
                ", ".join(seen.scanned),
                ", ".join(seen.written),
                "none" if not step.is_reversible else "loses values" if step.lost else "yes",
            ]
            rows.append(Row(cells, WARNING if step.hurts else SAME))
        yield Grid(", ".join(self.of.migrations), rows, head)
        if self.of.failure:
            yield Words(str(self.of.failure), WARNING)
        yield Words("It hurts." if self.of.hurts else "Nothing here hurts.")


def _remarks(step: Step) -> Iterator[Part]:
    for verdict in step.verdicts:
        yield Words(f"{step.operation}: {verdict.hurts}", WARNING if verdict.is_grave else CHANGED)
        yield Words(f"Rather: {verdict.instead}")
        if verdict.code:
            yield Code(verdict.code, "python", "As a migration", is_folded=True)
    if step.lost:
        yield Words(f"{step.operation}: after going back this differs: {', '.join(step.lost)}.", CHANGED)
    for finding in step.findings:
        yield Words(f"{step.operation}: {finding.message} {finding.help} (squawk: {finding.rule})", CHANGED)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    """Return a text that Markdown takes for nothing else, in one line."""
    return MARKS.sub(r"\\\g<0>", " ".join(text.split()))


def _fenced(code: Code) -> str:
    # Longer than what the code has of its kind.
    fence = max(["```", *(f"{found}`" for found in TICKS.findall(code.text))], key=len)
    return f"{fence}{code.language}\n{code.text.strip()}\n{fence}"


def _row(step: Step) -> dict[str, Any]:
    passage = step.forwards
    return {
        "migration": f"{step.app_label}.{step.migration}",
        "operation": step.operation,
        "hurts": step.hurts,
        "locks": ", ".join(map(str, passage.locks)),
        "rewrites": ", ".join(passage.rewritten),
        "reads": _counted(passage.scanned),
        "writes": _counted(passage.written),
        "way back": _way_back(step),
        "seconds": passage.seconds,
        "held": max((lock.seconds for lock in passage.locks), default=0.0),
        "reader waited": passage.reader,
        "writer waited": passage.writer,
        **{f"at {times} times the rows": step.seconds_at(times) for times in GROWTH},
    }


def _told(step: Step) -> dict[str, str]:
    """Return the columns that people read."""
    passage = step.forwards
    waits = {"reader": passage.reader, "writer": passage.writer}
    felt = [f"{who} waited {span(wait)}" for who, wait in waits.items() if wait >= FELT_SECONDS]
    growth = [span(step.seconds_at(times)) for times in GROWTH]
    return {
        "": step.operation,
        "took": span(passage.seconds),
        "locks": ", ".join(f"{lock} for {span(lock.seconds)}" for lock in passage.locks) or "none",
        "rewrites": _rewritten(passage) or "nothing",
        "rows": "; ".join(
            filter(
                None,
                [
                    f"reads {_counted(passage.scanned)}" if passage.scanned else "",
                    f"writes {_counted(passage.written)}" if passage.written else "",
                ],
            )
        )
        or "none",
        "felt": ", ".join(felt) or "nothing",
        f"with {GROWTH[0]}, {GROWTH[1]} times the rows": ", ".join(filter(None, growth)),
        "way back": _way_back(step),
    }


def _rewritten(passage: Passage) -> str:
    tables = {lock.table for lock in passage.locks}
    names = [name for name in passage.rewritten if name in tables]
    indexes = len(passage.rewritten) - len(names)
    counted = f"{indexes} index{'' if indexes == 1 else 'es'}" if indexes else ""
    return " and ".join(filter(None, [", ".join(names), counted]))


def _way_back(step: Step) -> str:
    if not step.is_reversible:
        return "none"
    if step.backwards is None:
        return "not tried"
    return f"{span(step.backwards.seconds)}{', loses values' if step.lost else ''}"


def _counted(rows: Any) -> str:
    return ", ".join(f"{count:,} of {table}" for table, count in rows.items())


def _as_dict(step: Step) -> dict[str, Any]:
    growth = {str(times): step.seconds_at(times) for times in GROWTH}
    return {**asdict(step), "hurts": step.hurts, "seconds_with_times_the_rows": growth}
