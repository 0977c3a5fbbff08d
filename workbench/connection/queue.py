"""Who waits for whom: the sessions that stand in line for a lock, and those that hold them up.

Read from pg_locks, pg_stat_activity and pg_blocking_pids
(https://www.postgresql.org/docs/current/functions-info.html), none of which waits for a lock on a table.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from workbench.connection.interrupt import watch
from workbench.connection.locks import conflict, words
from workbench.connection.names import quoted
from workbench.connection.place import connection_to
from workbench.connection.program import program
from workbench.connection.sessions import ours
from workbench.redaction import masked
from workbench.show import SAME, WARNING, Grid, Part, Row, Shown, Words, printable
from workbench.words import ago

# A table's number means something in its own database only. Who waits for a row waits for the transaction
# that wrote it: its table is known by the lock on a place in line, or where only one table is written to.
SESSIONS = """
WITH locks AS MATERIALIZED (SELECT * FROM pg_locks),
waits AS MATERIALIZED (SELECT *, pg_blocking_pids(pid) AS blockers FROM locks WHERE NOT granted)
SELECT a.pid, coalesce(a.usename, ''), coalesce(a.application_name, ''), coalesce(host(a.client_addr), ''),
    coalesce(a.datname, ''), coalesce(a.backend_type, ''), coalesce(a.state, ''),
    coalesce(extract(epoch FROM clock_timestamp() - a.state_change), 0)::float, coalesce(a.query, ''),
    w.blockers, coalesce(extract(epoch FROM clock_timestamp() - w.waitstart), 0)::float, w.mode, w.locktype,
    CASE
        WHEN w.locktype = 'advisory' THEN 'advisory lock ' || CASE w.objsubid
            WHEN 1 THEN (w.classid::bigint << 32 | w.objid::bigint)::text
            ELSE format('(%s, %s)', w.classid::int, w.objid::int)
        END
        WHEN a.datname <> current_database() THEN NULL
        WHEN w.locktype = 'object' THEN pg_describe_object(w.classid, w.objid, w.objsubid)
        WHEN w.locktype = 'transactionid' THEN coalesce(
            (SELECT min(l.relation) FROM locks l WHERE l.pid = w.pid AND l.locktype = 'tuple' AND l.granted),
            (SELECT min(c.oid) FROM locks l JOIN pg_class c ON c.oid = l.relation AND c.relkind = 'r'
             WHERE l.pid = w.pid AND l.mode IN ('RowShareLock', 'RowExclusiveLock')
             HAVING count(DISTINCT c.oid) = 1)
        )::regclass::text
        ELSE w.relation::regclass::text
    END
FROM pg_stat_activity a LEFT JOIN waits w USING (pid)
WHERE a.pid IN (SELECT pid FROM waits UNION SELECT unnest(blockers) FROM waits)
"""
# pg_blocking_pids has a zero for each of them. They hold what somebody waits for, and their own number.
PREPARED = """
WITH locks AS MATERIALIZED (SELECT * FROM pg_locks)
SELECT w.pid, w.mode, held.mode, p.gid, p.owner, p.database,
    extract(epoch FROM now() - p.prepared)::float
FROM locks w
JOIN locks held ON held.pid IS NULL AND held.granted AND
    (held.locktype, held.database, held.relation, held.page, held.tuple, held.virtualxid, held.transactionid,
     held.classid, held.objid, held.objsubid) IS NOT DISTINCT FROM
    (w.locktype, w.database, w.relation, w.page, w.tuple, w.virtualxid, w.transactionid,
     w.classid, w.objid, w.objsubid)
JOIN locks own ON own.pid IS NULL AND own.locktype = 'transactionid'
    AND own.virtualtransaction = held.virtualtransaction
JOIN pg_prepared_xacts p ON p.transaction = own.transactionid
WHERE NOT w.granted
"""
HIDDEN = "<insufficient privilege>"
SHOWN_LETTERS = 80
SHOWN_BEHIND = 3

# A process id, or a prepared transaction's name.
Key = int | str


@dataclass(frozen=True)
class Session:
    """A session of the server, or a prepared transaction: that has a ``gid``, and 0 for a pid.

    ``seconds`` says how long it has been in its ``state``, which is empty where the role may not see it.
    ``query`` is what it runs, or ran last, without passwords. ``kind`` is Postgres' backend_type. ``is_ours``
    says that this Python process opened it.
    """

    pid: int
    user: str = ""
    application: str = ""
    client: str = ""
    database: str = ""
    kind: str = ""
    state: str = ""
    seconds: float = 0.0
    query: str = ""
    gid: str = ""
    is_ours: bool = False

    @property
    def key(self) -> Key:
        return self.gid or self.pid

    @property
    def program(self) -> str:
        """The notebook or the command, where it is one of ours: ``01_migrate.ipynb``."""
        return program(self.application)

    @property
    def who(self) -> str:
        kind = self.kind.removesuffix(" worker").replace("client backend", "")
        user = f"{self.user} at {self.client}" if self.client else self.user
        facts = filter(None, [self.program or self.application or kind, user])
        return ", ".join(dict.fromkeys(facts))

    @property
    def doing(self) -> str:
        return f"{self.state} for {ago(self.seconds, 's')}" if self.state else ""

    def __str__(self) -> str:
        name = f"prepared transaction {self.gid}" if self.gid else self.program or f"process {self.pid}"
        facts = ", ".join(filter(None, ["" if self.program else self.who, self.doing]))
        return printable(f"{name} ({facts})" if facts else name)

    @property
    def remedy(self) -> str:
        """What makes it let go, in a sentence."""
        if self.gid:
            gid = "'" + self.gid.replace("'", "''") + "'"
            return f"COMMIT PREPARED {gid} or ROLLBACK PREPARED {gid} in database {self.database} ends it."
        if self.kind == "autovacuum worker" and "(to prevent wraparound)" in self.query:
            return "Let this autovacuum finish: it keeps transaction ids from running out."
        if self.kind == "autovacuum worker":
            return "It is autovacuum, which lets go by itself."
        if self.is_ours:
            return "It is this program's own: commit, roll back or close the connection here."
        if self.state == "active":
            return f"Let its query finish, or cancel it: SELECT pg_cancel_backend({self.pid})."
        if self.state.startswith("idle in transaction"):
            return f"Commit or roll back there, or end it: SELECT pg_terminate_backend({self.pid})."
        return f"End it: SELECT pg_terminate_backend({self.pid})."


@dataclass(frozen=True)
class Wait:
    """A session that waits, and what for: ``ACCESS EXCLUSIVE on catalog_author``, ``a row of catalog_book``.

    It is ``behind`` those that hold it, and those that came before and want what conflicts. ``roots`` are the
    sessions at the head of the line, that wait for nobody: there is none where sessions wait in a circle.
    """

    session: Session
    wanted: str
    seconds: float
    behind: tuple[Session, ...]
    roots: tuple[Session, ...] = ()


@dataclass(frozen=True, repr=False)
class Queue(Shown):
    """Those who wait, each after the ones it is behind. False where nobody does.

    ``database`` and ``role`` are those that it was seen with.
    """

    waits: tuple[Wait, ...]
    database: str
    role: str

    def __bool__(self) -> bool:
        return bool(self.waits)

    @property
    def roots(self) -> tuple[Session, ...]:
        """The sessions that hold up others and wait for nobody."""
        return tuple(dict.fromkeys(root for wait in self.waits for root in wait.roots))

    def _parts(self) -> Iterator[Part]:
        if not self:
            yield Words("Nobody waits.")
            return
        for root in self.roots:
            count = sum(root in wait.roots for wait in self.waits)
            held_up = f"{count} session{'s' if count > 1 else ''}"
            yield Words(f"{root} holds up {held_up}. {root.remedy}", WARNING)
        if circle := [str(wait.session.pid) for wait in self.waits if not wait.roots]:
            names = ", ".join(circle)
            yield Words(
                f"{names} wait in a circle, or behind one: Postgres breaks it after deadlock_timeout.",
                WARNING,
            )
        yield Grid("", list(self._rows()), ("process", "who", "state", "behind", "query"))
        if any(each.query == HIDDEN for each in (*self.roots, *(wait.session for wait in self.waits))):
            role = quoted(self.role)
            yield Words(f"What others run is hidden from {role}: GRANT pg_read_all_stats TO {role} shows it.")

    def _rows(self) -> Iterator[Row]:
        shown: set[Key] = set()
        for wait in self.waits:
            for root in wait.roots:
                if root.key not in shown:
                    shown.add(root.key)
                    yield self._row(root, root.doing, sign=WARNING)
            doing = f"waits {ago(wait.seconds, 's')} for {wait.wanted}"
            behind = ", ".join(str(each.key) for each in wait.behind[:SHOWN_BEHIND])
            more = len(wait.behind) - SHOWN_BEHIND
            yield self._row(wait.session, doing, f"{behind} and {more} more" if more > 0 else behind)

    def _row(self, session: Session, doing: str, behind: str = "", sign: str = SAME) -> Row:
        elsewhere = f"database {session.database}" if session.database not in ("", self.database) else ""
        who = ", ".join(filter(None, [session.who, elsewhere, "this program" if session.is_ours else ""]))
        query = " ".join(session.query.split())
        if len(query) > SHOWN_LETTERS:
            query = f"{query[: SHOWN_LETTERS - 1]}…"
        return Row((str(session.key), who, doing, behind, query), sign)


def who_blocks(using: str = "default") -> Queue:
    """Return the sessions that wait for locks, and for whom.

    As far as this database is concerned. They are seen from a session of its own: in a transaction
    pg_stat_activity stays as it was first read, and in one that failed nothing can be read. Costs a
    connection and a round trip. Raises ConnectionFailed, OneSentence.

    Examples::

        who_blocks()
        who_blocks().roots
    """
    with _beside(connection_to(using)) as session:
        found = {wait.session.key: wait for wait in sorted(_waits(session), key=lambda wait: -wait.seconds)}
        database, role = session.connection.info.dbname, session.connection.info.user
    known = {each.key: each for wait in found.values() for each in (wait.session, *wait.behind)}
    here = {key for key, each in known.items() if each.database == database}
    lines = _lines({key: {each.key for each in wait.behind} for key, wait in found.items()})
    waits = []
    for together in _connected(line for line in lines.values() if line & here):
        # A line is longer than each of those that it is behind.
        for key in sorted(found.keys() & together, key=lambda key: (len(lines[key]), -found[key].seconds)):
            roots = sorted(lines[key] - found.keys(), key=lambda root: -known[root].seconds)
            waits.append(replace(found[key], roots=tuple(known[root] for root in roots)))
    return Queue(tuple(waits), database, role)


def blockers_of(pid: int, connection: BaseDatabaseWrapper) -> list[Session]:
    """Return those that a session waits for now, seen from one of its own on the server of a connection.

    Raises ConnectionFailed.
    """
    with _beside(connection) as session:
        return [each for wait in _waits(session) if wait.session.pid == pid for each in wait.behind]


@contextmanager
def _beside(connection: BaseDatabaseWrapper) -> Iterator[BaseDatabaseWrapper]:
    with closing(connection.copy()) as session:
        # Who locks one of Postgres' own catalogs keeps even us waiting. In another thread this would forget
        # an interrupt that the main thread has not seen yet.
        if threading.current_thread() is threading.main_thread():
            watch(session)
        yield session


def _waits(session: BaseDatabaseWrapper) -> list[Wait]:
    with session.cursor() as cursor:
        cursor.execute(SESSIONS)
        rows = cursor.fetchall()
        is_prepared = any(0 in blockers for *_, blockers, _, _, _, _ in rows if blockers)
        prepared = _prepared(cursor) if is_prepared else {}
    own = _ours(session)
    sessions = {}
    for *facts, _, _, _, _, _ in rows:
        seen = Session(*facts)
        sessions[seen.pid] = replace(seen, query=masked(seen.query), is_ours=seen.pid in own)
    waits = []
    for pid, *_, blockers, seconds, mode, kind, what in rows:
        # Who came to an end between two looks is left out.
        behind = [sessions[each] for each in dict.fromkeys(blockers or ()) if each in sessions]
        behind += dict.fromkeys(prepared.get(pid, ()))
        if behind:
            waits.append(Wait(sessions[pid], _wanted(mode, kind, what), seconds, tuple(behind)))
    return waits


def _prepared(cursor: CursorWrapper) -> dict[int, list[Session]]:
    """Return, by the process id of those who wait, the prepared transactions that they wait for."""
    found: dict[int, list[Session]] = {}
    cursor.execute(PREPARED)
    for pid, wanted, held, gid, user, database, seconds in cursor.fetchall():
        if conflict(held, wanted):
            one = Session(0, user, database=database, state="prepared", seconds=seconds, gid=gid)
            found.setdefault(pid, []).append(one)
    return found


def _ours(session: BaseDatabaseWrapper) -> set[int]:
    """Return the process ids of this program's sessions on the server that ``session`` leads to."""
    server = session.connection.info
    # Those of other threads may be closed at any moment.
    infos = [raw.info for each in ours() if (raw := each.connection) is not None]
    return {info.backend_pid for info in infos if (info.host, info.port) == (server.host, server.port)}


def _lines(behind: dict[Key, set[Key]]) -> dict[Key, set[Key]]:
    """Return for each one that waits itself and all that it is behind, near and far."""
    lines: dict[Key, set[Key]] = {}
    for key in behind:
        line: set[Key] = set()
        fresh = {key}
        while fresh:
            one = fresh.pop()
            if one in lines:
                line |= lines[one]
            else:
                line.add(one)
                fresh |= behind.get(one, set())
            fresh -= line
        lines[key] = line
    return lines


def _connected(lines: Iterable[set[Key]]) -> list[set[Key]]:
    """Return the lines with those joined that have somebody in common, each where its first one was."""
    groups: list[set[Key]] = []
    for line in lines:
        joined = [group for group in groups if group & line] or [set()]
        if not joined[0]:
            groups.append(joined[0])
        joined[0].update(line, *joined[1:])
        groups = [group for group in groups if group not in joined[1:]]
    return groups


def _wanted(mode: str, kind: str, what: str | None) -> str:
    if kind in ("tuple", "transactionid") and what:
        return f"a row of {what}"
    if kind in ("transactionid", "virtualxid"):
        return "the end of a transaction"
    return f"{words(mode)} on {what or f'a {kind}'}"
