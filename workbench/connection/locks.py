"""The locks on tables: https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES."""

from __future__ import annotations

import re

# From weak to strong, as pg_locks calls them.
LOCK_MODES = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
# For each of them the places, from 1, of those that it conflicts with.
CONFLICTS = (
    {8},
    {7, 8},
    {5, 6, 7, 8},
    {4, 5, 6, 7, 8},
    {3, 4, 6, 7, 8},
    {3, 4, 5, 6, 7, 8},
    {2, 3, 4, 5, 6, 7, 8},
    {1, 2, 3, 4, 5, 6, 7, 8},
)


def conflict(one: str, other: str) -> bool:
    return LOCK_MODES.index(one) + 1 in CONFLICTS[LOCK_MODES.index(other)]


def strongest(*modes: str) -> str:
    return max(modes, key=LOCK_MODES.index)


def words(mode: str) -> str:
    """Return a lock mode as SQL says it: ACCESS EXCLUSIVE."""
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", mode.removesuffix("Lock")).upper()
