"""What a rehearsal saw of an operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Lock:
    """The strongest lock held on a table that was there before; ``seconds`` from its request until it was let
    go. ``mode`` is as SQL says it: ACCESS EXCLUSIVE.
    """

    table: str
    mode: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.mode} on {self.table}"


@dataclass(frozen=True)
class Passage:
    """One operation, run once, in one direction.

    ``rewritten`` are tables and indexes that were there and got another file, ``built`` new indexes on tables
    that were there. ``scanned`` and ``written`` count rows, by table, as often as each is read, without those
    that a query's parallel workers read; what a rewrite copies is not in ``written``. ``read_under`` is the
    strongest lock on a table while its rows were read. ``gone`` was there under its name, and is no more:
    ``catalog_author`` or ``catalog_author.bio``. ``required`` are columns of tables that were there that an
    INSERT has to give now: NOT NULL, no default. ``reader`` and ``writer`` are the longest that somebody
    else's statement waited, in seconds.
    """

    sql: tuple[str, ...] = ()
    seconds: float = 0.0
    locks: tuple[Lock, ...] = ()
    rewritten: tuple[str, ...] = ()
    built: tuple[str, ...] = ()
    scanned: Mapping[str, int] = field(default_factory=dict)
    read_under: Mapping[str, str] = field(default_factory=dict)
    written: Mapping[str, int] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    reader: float = 0.0
    writer: float = 0.0
    # Whether it shared one transaction with the other operations of its migration.
    is_atomic: bool = True


@dataclass(frozen=True)
class Verdict:
    """Why an operation hurts, in a sentence; how to do it safely, in one or two; ``code`` shows that way.

    One that is not grave is a remark: nobody waits for long, and nothing fails today.
    """

    rule: str
    hurts: str
    instead: str
    code: str = ""
    is_grave: bool = True
