"""What people do with branches, of whichever kind.

A process is on one branch at a time, in all its threads: the settings that their connections share lead
there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.dispatch import Signal

from workbench import evolved
from workbench.branches import maintenance
from workbench.branches.errors import BranchError
from workbench.branches.kind import EMPTY, MAIN, TEMPORARY, Branch, Kind, has_magic, temporary, this, typed
from workbench.branches.listing import Branches, is_called
from workbench.branches.template import Templates
from workbench.connection import ConnectionFailed
from workbench.connection.glance import glancing
from workbench.connection.limits import ONLY_READS
from workbench.connection.sessions import aside, holds_transaction
from workbench.connection.url import is_neon

NAME = re.compile(r"\w[\w./-]*")

# Sent with ``said``, phrases, when a verb removed what others left.
swept = Signal()
# Sent with ``using`` when this process' queries go elsewhere from now on, or find another content.
moved = Signal()

# What DATABASES says of main, for each alias that is on a branch.
_mains: dict[str, dict[str, Any]] = {}


@contextmanager
def branch(
    name: str, *, parent: str | None = None, end_sessions: bool = False, using: str = DEFAULT_DB_ALIAS
) -> Iterator[Branch]:
    """Be on a branch of its own inside the block, which is gone after it.

    It goes whatever happens. It is a copy of where this process is, or of ``parent``: a branch's name,
    ``"main"`` or ``"empty"``. Other sessions on that are ended if ``end_sessions``. Raises BranchError.

    Example::

        with branch("scratch"):
            Book.objects.all().delete()
    """
    _check_name(name)
    _check_may_write(using)
    _check_idle(using)
    with _kind(using) as kind:
        _settle(kind, using)
        source = _source(_all(kind), name, parent, using)
        with kind.fleeting(name, source, end_sessions=end_sessions) as made:
            before = dict(connections.settings[using])
            _carry(kind, source, made)
            entry = _entry(kind, made)
            try:
                _move(using, entry)
                yield made
            finally:
                # With whatever was left open in it.
                connections[using].in_atomic_block = False
                connections[using].close()
                _move(using, before)
                evolved.remove(entry)


@contextmanager
def copied(using: str = DEFAULT_DB_ALIAS, *, end_sessions: bool = False) -> Iterator[BaseDatabaseWrapper]:
    """Give a connection to a copy of where ``using`` leads now, which is gone after the block.

    Inside, ``connections[using]`` of this thread is that connection, so that nothing asked by the alias
    reaches the original; other threads stay where they are. Raises BranchError.
    """
    original = connections[using]
    _check_may_write(using)
    _check_idle(using)
    with _kind(using) as kind:
        source = _current(_all(kind), using)
        with kind.fleeting(temporary(), source, end_sessions=end_sessions) as made:
            _carry(kind, source, made)
            entry = _entry(kind, made)
            copy = connections[using] = aside(entry, using)
            try:
                yield copy
            finally:
                connections[using] = original
                copy.close()
                evolved.remove(entry)


@contextmanager
def connected(name: str, using: str = DEFAULT_DB_ALIAS) -> Iterator[BaseDatabaseWrapper]:
    """Give a connection of its own to a branch; this process stays where it is. Raises BranchError."""
    with _kind(using) as kind:
        entry = _entry(kind, _all(kind)[name])
    connection = aside(entry, using)
    try:
        yield connection
    finally:
        connection.close()


def here(using: str = DEFAULT_DB_ALIAS) -> Branch:
    """Return the branch that this process is on. Raises BranchError."""
    with _kind(using) as kind:
        return _current(_all(kind), using)


def branches(using: str = DEFAULT_DB_ALIAS) -> Branches:
    """Return what there is, and say which one this process is on. Raises BranchError."""
    with _kind(using) as kind:
        return Branches(tuple(kind.all()), _name(using))


def look(name: str, using: str = DEFAULT_DB_ALIAS) -> tuple[Branches, dict[str, Any] | None]:
    """Return what there is, and the entry of DATABASES by which to look at one of them; None if it is gone.

    Starts no server, and leaves what is to be swept. Raises BranchError, ConnectionFailed.
    """
    with _kind(using, is_glance=True) as kind:
        there = Branches(tuple(kind.all()), _name(using))
        return there, glancing(_entry(kind, there[name])) if name in there else None


def create(
    name: str,
    parent: str | None = None,
    *,
    expires: timedelta | None = None,
    end_sessions: bool = False,
    using: str = DEFAULT_DB_ALIAS,
) -> Branch:
    """Make a branch of where this process is, or of ``parent``: a branch's name, ``"main"`` or ``"empty"``.

    Past ``expires``, counted from now, it is removed as soon as nobody uses it. Other sessions on the parent
    are ended if ``end_sessions``. One that is there already, made of the same, stays as it is. Raises
    BranchError.
    """
    _check_name(name)
    _check_may_write(using)
    with _kind(using) as kind:
        found = _all(kind)
        if there := _made_before(found, name, parent, using):
            return there
        source = _source(found, name, parent, using)
        until = datetime.now(UTC) + expires if expires else None
        made = kind.create(name, source, expires=until, end_sessions=end_sessions)
        _carry(kind, source, made)
        return made


def use(name: str, using: str = DEFAULT_DB_ALIAS) -> Branch:
    """Let all connections of this process go to a branch from now on. Raises BranchError."""
    _check_idle(using)
    with _kind(using) as kind:
        found = _all(kind)[name]
        _move(using, _entry(kind, found))
        return found


def reset(name: str | None = None, *, end_sessions: bool = False, using: str = DEFAULT_DB_ALIAS) -> Branch:
    """Make a branch what its parent is now, by default the one this process is on. Raises BranchError."""
    _check_may_write(using)
    with _kind(using) as kind:
        there = _all(kind)
        found = _writable(there, name, "reset", using)
        _check_kept(found)
        made = kind.reset(found, end_sessions=end_sessions)
        _carry(kind, None if made.parent == EMPTY else there[made.parent], made)
        if is_called(found, _name(using)):
            _move(using, _entry(kind, made))
        return made


def drop(name: str | None = None, *, end_sessions: bool = False, using: str = DEFAULT_DB_ALIAS) -> Branch:
    """Remove a branch, by default the one this process is on, which is on main then. Raises BranchError."""
    _check_may_write(using)
    with _kind(using) as kind:
        found = _writable(_all(kind), name, "dropped", using)
        is_here = is_called(found, _name(using))
        if is_here:
            _check_kept(found)
        entry = _entry(kind, found) if evolved.is_any() else {}
        kind.drop(found, end_sessions=end_sessions)
        if entry:
            evolved.remove(entry)
        if is_here:
            _move(using, main_entry(using))
        return found


def rename(name: str, to: str, *, end_sessions: bool = False, using: str = DEFAULT_DB_ALIAS) -> Branch:
    """Give a branch another name; a process that is on it stays on it. Raises BranchError."""
    _check_name(to)
    _check_may_write(using)
    with _kind(using) as kind:
        there = _all(kind)
        found = _writable(there, name, "renamed", using)
        _check_kept(found)
        _check_free(there, to)
        made = kind.rename(found, to, end_sessions=end_sessions)
        if evolved.is_any():
            evolved.move(_entry(kind, found), _entry(kind, made))
        if is_called(found, _name(using)):
            _move(using, _entry(kind, made))
        return made


def arrive(connection: BaseDatabaseWrapper) -> None:
    """Put the address of the branch that a process is told to start on into its settings, once.

    Raises ConnectionFailed.
    """
    if connection.settings_dict is not connections.settings.get(connection.alias):
        return
    try:
        if connection.alias not in _mains:
            with _kind(connection.alias) as kind:
                _settle(kind, connection.alias)
    except BranchError as error:
        raise ConnectionFailed(f"{error} (WORKBENCH_BRANCH asks for it.)") from None


@contextmanager
def _kind(using: str, *, is_glance: bool = False) -> Iterator[Kind]:
    """Give the kind of branches that there are at an alias.

    After a sweep, unless it is only for a glance or nothing may be written.
    """
    if using not in connections:
        raise BranchError(f"There is no database alias {using!r}: there are {', '.join(connections)}.")
    if getattr(connections[using], "is_aside", False):
        raise BranchError("This is a copy that is gone in a moment: work with branches from outside of it.")
    entry = glancing(main_entry(using)) if is_glance else main_entry(using)
    is_to_sweep = not (is_glance or entry.get("READ_ONLY"))
    host = entry["HOST"] or entry["OPTIONS"].get("host") or ""
    if is_neon(host) and (key := getattr(settings, "NEON_API_KEY", "")):
        kind = neon_kind(entry, key)
        yield _swept(kind) if is_to_sweep else kind
    else:
        with maintenance.session(entry, using) as session:
            kind = Templates(entry, session)
            yield _swept(kind) if is_to_sweep else kind


def neon_kind(entry: dict[str, Any], key: str) -> Kind:
    """Return Neon's kind of branches, of the project that the settings name. Raises BranchError."""
    project = getattr(settings, "NEON_PROJECT_ID", "")
    if not project:
        raise BranchError(
            "NEON_API_KEY is set, and NEON_PROJECT_ID is not: copy it from the console (Settings)."
        )
    from workbench.branches.neon import URL, Neon

    made: Kind = Neon(entry, key=key, project=project, url=getattr(settings, "NEON_API_URL", "") or URL)
    return made


def _swept(kind: Kind) -> Kind:
    if said := kind.sweep():
        swept.send(None, said=said)
    return kind


def main_entry(using: str) -> dict[str, Any]:
    """Return the entry of DATABASES that leads to main, whichever branch this process is on."""
    return _mains.get(using) or {**connections.settings[using], "BRANCH": ""}


def _name(using: str) -> str:
    return connections[using].settings_dict.get("BRANCH") or MAIN


def _entry(kind: Kind, found: Branch) -> dict[str, Any]:
    return {**kind.settings(found), "BRANCH": "" if found.is_main else found.name}


def _settle(kind: Kind, using: str) -> None:
    """Go to the branch that the settings name, if this process has only been told to."""
    if using not in _mains and (name := connections.settings[using].get("BRANCH")):
        _lead(using, _entry(kind, _all(kind)[name]))


def _move(using: str, entry: dict[str, Any]) -> None:
    _lead(using, entry)
    moved.send(None, using=using)


def _lead(using: str, entry: dict[str, Any]) -> None:
    _mains.setdefault(using, main_entry(using))
    # In place: it is the one that the connections of all threads have.
    connections.settings[using].update(entry)
    if not entry["BRANCH"]:
        del _mains[using]


def _carry(kind: Kind, source: Branch | None, made: Branch) -> None:
    """Let a copy know the migrations that were made in a cell and applied where it was copied from."""
    if not evolved.is_any():
        return
    if source is None:
        evolved.remove(_entry(kind, made))
    else:
        evolved.carry(_entry(kind, source), _entry(kind, made))


def _all(kind: Kind) -> Branches:
    return Branches(tuple(kind.all()))


def _current(found: Branches, using: str) -> Branch:
    name = _name(using)
    if name not in found:
        raise BranchError(f"{name}, where {this()} is, is gone: %branch use {MAIN} goes back.")
    return found[name]


def _source(found: Branches, name: str, parent: str | None, using: str) -> Branch | None:
    """Return what a new branch of a name is to be a copy of; None for an empty one."""
    _check_free(found, name)
    if parent is None:
        return _current(found, using)
    return None if parent == EMPTY else found[parent]


def _made_before(found: Branches, name: str, parent: str | None, using: str) -> Branch | None:
    """Return the branch that a cell made which now runs again; it may have gone there, too."""
    if name not in found or found[name].is_fleeting or found[name].is_main:
        return None
    there = found[name]
    if parent is None:
        is_same = _name(using) in (name, there.parent) or _current(found, using).name == there.parent
    else:
        is_same = parent == there.parent or (parent in found and found[parent].name == there.parent)
    return there if is_same else None


def _writable(there: Branches, name: str | None, done: str, using: str) -> Branch:
    found = there[name] if name else _current(there, using)
    if found.is_guarded:
        raise BranchError(f"{found.name} is never {done}: give the name of another branch.")
    if is_called(found, _name(using)):
        _check_idle(using)
    return found


def _check_kept(found: Branch) -> None:
    if found.is_fleeting:
        raise BranchError(f"{found.name} is removed at the end of its block: leave it to that.")


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or TEMPORARY.fullmatch(name) or name in (MAIN, EMPTY):
        raise BranchError(
            f"{name!r} cannot be a branch's name: use letters, digits and . _ - /, and not {MAIN} or {EMPTY}."
        )


def _check_free(found: Branches, name: str) -> None:
    if name not in found:
        return
    way = f"%branch use {name} goes there, " if has_magic() else ""
    remedy = f"{way}{typed(f'drop {name}')} removes it."
    if found[name].is_fleeting:
        remedy = "it is removed at the end of its block. Choose another name."
    raise BranchError(f"There is a branch {name} already: {remedy}")


def _check_may_write(using: str) -> None:
    """For what is Neon's to do, and for one sentence instead of half of the work."""
    if using in connections and connections.settings[using].get("READ_ONLY"):
        raise BranchError(ONLY_READS)


def _check_idle(using: str) -> None:
    if holds_transaction(connections[using]):
        raise BranchError(maintenance.OPEN)
