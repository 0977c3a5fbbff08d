"""Branches on any Postgres: databases beside the one of DATABASE_URL, copied by CREATE DATABASE ... TEMPLATE.

https://www.postgresql.org/docs/current/manage-ag-templatedbs.html. The branch ``try`` of ``shop`` is the
database ``shop@try``, and what is known of it is in that database's COMMENT. While it is made it is called
``shop@tmp-`` and some digits. Renaming and COMMENT are transactional, CREATE and DROP DATABASE are not: so
there is a whole branch or one of the latter, whenever a call ends, and however.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from psycopg2 import errors

from workbench import evolved
from workbench.branches.errors import BranchError
from workbench.branches.kind import EMPTY, MAIN, TEMPORARY, Branch, temporary
from workbench.branches.maintenance import Maintenance
from workbench.progress import Progress
from workbench.words import ago

# Beyond it copying files with a checkpoint before is faster than writing each block to the WAL.
FILE_COPY_BYTES = 64_000_000
# Postgres cuts longer names off.
NAME_BYTES = 63
# Somebody may connect between a look at the sessions and what needs to be alone.
ATTEMPTS = 3

FOUND = """
SELECT d.datname, d.oid, d.datconnlimit = -2, shobj_description(d.oid, 'pg_database'),
       CASE WHEN has_database_privilege(d.oid, 'CONNECT') THEN pg_database_size(d.oid) END
FROM pg_database d WHERE d.datname = %s OR starts_with(d.datname::text, %s) ORDER BY d.datname
"""
SOURCE = """
SELECT pg_get_userbyid(d.datdba),
       (SELECT jsonb_agg(jsonb_build_array(CASE grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(grantee) END,
                                           privilege_type, is_grantable)) FROM aclexplode(d.datacl)),
       (SELECT jsonb_agg(jsonb_build_array(r.rolname, s.setconfig))
        FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole WHERE s.setdatabase = d.oid)
FROM pg_database d WHERE d.datname = %s
"""
# Its columns are others in each version.
LOCALE = "SELECT to_jsonb(d) FROM pg_database d WHERE d.datname = %s"
# Their values are lists of quoted names (GUC_LIST_QUOTE; pg_dump has the same list).
LISTS = {
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
}
LISTED = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",]+))\s*(?:,|$)')


@dataclass(frozen=True)
class _Facts:
    """What a branch's database says of itself in its COMMENT."""

    parent: str
    created: datetime
    expires: datetime | None = None
    is_fleeting: bool = False

    def __str__(self) -> str:
        return json.dumps(
            {
                "branch of": self.parent,
                "created": self.created.isoformat(timespec="seconds"),
                "expires": self.expires and self.expires.isoformat(timespec="seconds"),
                "fleeting": self.is_fleeting,
            }
        )

    def anew(self) -> _Facts:
        """Return those of one that is made again: it lives as long as the first was to."""
        now = _now()
        return replace(self, created=now, expires=self.expires and now + (self.expires - self.created))

    @classmethod
    def read(cls, comment: str | None) -> _Facts | None:
        """Return None for a database that is none of ours."""
        try:
            said = json.loads(comment or "")
            expires = said["expires"] and datetime.fromisoformat(said["expires"])
            return cls(said["branch of"], datetime.fromisoformat(said["created"]), expires, said["fleeting"])
        except (ValueError, TypeError, KeyError):
            return None


@dataclass(frozen=True)
class _Found:
    """A database that is named like ours."""

    database: str
    name: str
    oid: int
    is_invalid: bool
    facts: _Facts | None
    bytes: int | None = field(compare=False)

    @property
    def is_branch(self) -> bool:
        return self.facts is not None and not (self.is_invalid or self.is_temporary)

    @property
    def is_temporary(self) -> bool:
        return TEMPORARY.fullmatch(self.name) is not None

    @property
    def is_half_made(self) -> bool:
        return self.is_temporary or (self.is_invalid and self.facts is not None)

    @property
    def left(self) -> str:
        """Why it is to be swept, if nobody is at work on it; "" where it is not."""
        if self.is_half_made:
            return "a branch half made"
        if self.facts and self.facts.is_fleeting:
            return f"{self.name}, whose process is gone"
        if self.facts and self.facts.expires and self.facts.expires <= _now():
            return f"{self.name}, which expired {ago(_now() - self.facts.expires)} ago"
        return ""


class Templates:
    """The branches beside the database of an entry of DATABASES. See ``kind.Kind``."""

    def __init__(self, entry: dict[str, Any], session: Maintenance) -> None:
        self._entry = entry
        self._session = session
        self._root: str = entry["NAME"]
        # What a sweep has just seen, and left alone.
        self._seen: list[_Found] = []

    def all(self) -> list[Branch]:
        found, self._seen = self._seen or self._found(), []
        root = next((each.bytes for each in found if each.database == self._root), None)
        main = Branch(MAIN, bytes=root, is_main=True, is_guarded=True, key=self._root)
        return [main, *(self._branch(each) for each in found if each.is_branch)]

    def sweep(self) -> list[str]:
        said = []
        found = self._found()
        for each in found:
            if each.left and self._session.try_lock(each.database):
                # It may have become another one before the lock was ours.
                is_still = each in self._found()
                if is_still and (each.is_half_made or not self._session.sessions(each.database)):
                    with suppress(BranchError):
                        self._remove(each.database, force=each.is_half_made)
                        evolved.remove({**self._entry, "NAME": each.database})
                        said.append(each.left)
                self._session.unlock(each.database)
        self._seen = [] if said else found
        return said

    def create(
        self, name: str, parent: Branch | None, *, expires: datetime | None, end_sessions: bool
    ) -> Branch:
        facts = _Facts(parent.name if parent else EMPTY, _now(), expires)
        return self._create(name, parent, facts, end_sessions)

    @contextmanager
    def fleeting(self, name: str, parent: Branch | None, *, end_sessions: bool) -> Iterator[Branch]:
        facts = _Facts(parent.name if parent else EMPTY, _now(), is_fleeting=True)
        made = self._create(name, parent, facts, end_sessions)
        try:
            yield made
        except BaseException:
            self._tidy(made.key)
            raise
        self._remove(made.key)

    def reset(self, branch: Branch, *, end_sessions: bool) -> Branch:
        found = {each.name: each for each in self._found()}
        before = found.get(branch.name)
        if before is None or before.facts is None:
            raise BranchError(f"There is no branch {branch.name} any more.")
        parent = self._parent(before.facts, found)
        facts = before.facts.anew()
        fresh, old = self._temporary(), self._temporary()
        self._session.lock(branch.key, fresh, old)
        # Before the work, too.
        self._session.vacate(branch.key, end_sessions=end_sessions)
        with self._half_made(fresh):
            self._copy(fresh, parent, end_sessions)
            swap = (
                "ALTER DATABASE {} RENAME TO {}; ALTER DATABASE {} RENAME TO {}; "
                "COMMENT ON DATABASE {} IS {facts}"
            )
            names = (branch.key, old, fresh, branch.key, branch.key)
            self._alone(branch.key, end_sessions, swap, *names, facts=str(facts))
        with suppress(BranchError):  # It is what it should be; the next sweep does the rest.
            self._remove(old)
        return self._branch(replace(before, facts=facts, bytes=None))

    def drop(self, branch: Branch, *, end_sessions: bool) -> None:
        self._session.lock(branch.key)
        self._session.vacate(branch.key, end_sessions=end_sessions)
        self._remove(branch.key)

    def rename(self, branch: Branch, name: str, *, end_sessions: bool) -> Branch:
        database = self._database(name)
        self._lock(database, branch.key)
        found = {each.name: each for each in self._found()}
        if branch.name not in found:
            raise BranchError(f"There is no branch {branch.name} any more.")
        statement, names = "ALTER DATABASE {} RENAME TO {}", [branch.key, database]
        facts: dict[str, str] = {}
        for child in found.values():
            if child.is_branch and child.facts and child.facts.parent == branch.name:
                statement += f"; COMMENT ON DATABASE {{}} IS {{facts{len(facts)}}}"
                names.append(child.database)
                facts[f"facts{len(facts)}"] = str(replace(child.facts, parent=name))
        self._alone(branch.key, end_sessions, statement, *names, **facts)
        return replace(branch, name=name, key=database)

    def settings(self, branch: Branch) -> dict[str, Any]:
        return {**self._entry, "NAME": branch.key, "BRANCH": "" if branch.is_main else branch.name}

    def _database(self, name: str) -> str:
        database = f"{self._root}@{name}"
        if (over := len(database.encode()) - NAME_BYTES) > 0:
            raise BranchError(
                f"{name} is too long by {over} bytes: the name of a database, here {database}, has at most "
                f"{NAME_BYTES}."
            )
        return database

    def _temporary(self) -> str:
        return self._database(temporary())

    def _found(self) -> list[_Found]:
        start = f"{self._root}@"
        found = []
        for database, oid, is_invalid, comment, count in self._session.ask(FOUND, [self._root, start]):
            name = database.removeprefix(start)
            if database == self._root:
                found.append(_Found(database, "", oid, is_invalid, None, count))
            elif "@" not in name:
                found.append(_Found(database, name, oid, is_invalid, _Facts.read(comment), count))
        return found

    def _branch(self, found: _Found) -> Branch:
        assert found.facts
        facts = found.facts
        return Branch(
            found.name,
            facts.parent,
            facts.created,
            facts.expires,
            found.bytes,
            is_fleeting=facts.is_fleeting,
            key=found.database,
        )

    def _parent(self, facts: _Facts, found: dict[str, _Found]) -> Branch | None:
        """Return what a branch was copied from, as it is now; None for an empty one."""
        if facts.parent == EMPTY:
            return None
        if facts.parent == MAIN:
            return Branch(MAIN, bytes=found[""].bytes, key=self._root)
        if facts.parent not in found or not found[facts.parent].is_branch:
            raise BranchError(
                f"It was copied from {facts.parent}, which is gone: drop it, and create it anew from another."
            )
        return self._branch(found[facts.parent])

    def _create(self, name: str, parent: Branch | None, facts: _Facts, end_sessions: bool) -> Branch:
        database = self._database(name)
        temporary = database if TEMPORARY.fullmatch(name) else self._temporary()
        self._lock(database, temporary)
        with self._half_made(temporary):
            self._copy(temporary, parent, end_sessions)
            if temporary != database:
                finish = "ALTER DATABASE {} RENAME TO {}; COMMENT ON DATABASE {} IS {facts}"
                self._session.run(finish, temporary, database, database, facts=str(facts))
        return Branch(
            name, facts.parent, facts.created, facts.expires, is_fleeting=facts.is_fleeting, key=database
        )

    def _lock(self, new: str, *others: str) -> None:
        """Hold the locks of databases, of which one is to be new."""
        if self._session.lock(new, *others):
            raise BranchError(f"There is a database {new} already: choose another name.")

    @contextmanager
    def _half_made(self, temporary: str) -> Iterator[None]:
        """Remove it if it does not become a whole one."""
        try:
            yield
        except BaseException:
            self._tidy(temporary)
            raise

    def _copy(self, database: str, parent: Branch | None, end_sessions: bool) -> None:
        """Copy a database, with its owner, its settings and who may connect to it; None for an empty one."""
        source = parent.key if parent else self._root
        rows = self._session.ask(SOURCE, [source])
        if not rows:
            raise BranchError(f"There is no database {source} any more.")
        ((owner, grants, settings),) = rows
        if parent is None:
            ((row,),) = self._session.ask(LOCALE, [source])
            clauses, options = _locale(json.loads(row))
            create = f"CREATE DATABASE {{}} OWNER {{}} TEMPLATE template0{clauses}"
            self._session.run(create, database, owner, **options)
        else:
            is_big = self._session.version >= 150000 and (parent.bytes or 0) > FILE_COPY_BYTES
            strategy = " STRATEGY FILE_COPY" if is_big else ""
            create = f"CREATE DATABASE {{}} OWNER {{}} TEMPLATE {{}}{strategy}"
            with Progress(f"Copying {parent.name}", parent.bytes, unit="bytes") as progress:
                with self._session.copying(progress) if is_big else nullcontext():
                    self._alone(source, end_sessions, create, database, owner, source)
                progress.done = parent.bytes or 0
        if grants:
            self._grant(database, owner, json.loads(grants))
        for role, pairs in json.loads(settings or "[]"):
            for pair in pairs:
                self._set(database, role, *pair.split("=", 1))

    def _alone(self, source: str, end_sessions: bool, statement: str, *names: str, **literals: Any) -> None:
        """Run a statement that needs a database without sessions."""
        if source == self._session.database:
            raise BranchError(
                f"This needs a session beside {source}, and the role may connect neither to postgres nor to "
                f"template1: grant it CONNECT on one of them."
            )
        for attempt in range(1, ATTEMPTS + 1):
            # Postgres itself waits for those that pass, and lets nobody in meanwhile: where many notebooks
            # come and go, there is no moment without one.
            self._session.vacate(source, end_sessions=end_sessions, but_passing=True)
            try:
                self._session.run(statement, *names, **literals)
                return
            except BranchError as error:
                # Somebody came in between.
                if not isinstance(error.__cause__, errors.ObjectInUse) or attempt == ATTEMPTS:
                    raise

    def _grant(self, database: str, owner: str, grants: list[list[Any]]) -> None:
        statements = ["REVOKE ALL ON DATABASE {} FROM PUBLIC, {}"]
        names = [database, owner]
        for role, privilege, is_grantable in grants:
            names += [database] if role is None else [database, role]
            option = " WITH GRANT OPTION" if is_grantable else ""
            statements.append(
                f"GRANT {privilege} ON DATABASE {{}} TO {'PUBLIC' if role is None else '{}'}{option}"
            )
        self._session.run("; ".join(statements), *names)

    def _set(self, database: str, role: str | None, setting: str, value: str) -> None:
        whose = "ALTER DATABASE {}" if role is None else "ALTER ROLE {} IN DATABASE {}"
        values = [value]
        if setting.lower() in LISTS:
            values = [quoted.replace('""', '"') or plain.strip() for quoted, plain in LISTED.findall(value)]
        literals = {f"value{number}": each for number, each in enumerate(values)}
        parts = setting.split(".")
        statement = (
            f"{whose} SET {'.'.join(['{}'] * len(parts))} TO {', '.join(f'{{{each}}}' for each in literals)}"
        )
        try:
            self._session.run(statement, *filter(None, [role]), database, *parts, **literals)
        except BranchError as error:
            # Somebody set it who may do more than this role, which can do without.
            if not isinstance(error.__cause__, errors.InsufficientPrivilege):
                raise

    def _tidy(self, database: str) -> None:
        """Remove what an error or an interrupt has left. Where nobody answers, a later sweep does."""
        with suppress(BranchError), self._session.hurrying():
            self._remove(database)

    def _remove(self, database: str, *, force: bool = True) -> None:
        with_force = " WITH (FORCE)" if force and self._session.version >= 130000 else ""
        with Progress("Removing a database"):
            self._session.run(f"DROP DATABASE IF EXISTS {{}}{with_force}", database)


def _locale(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return what makes a new database sort and spell as the one of a row of pg_database does."""
    options = {
        "ENCODING": row["encoding"],
        "LC_COLLATE": row["datcollate"],
        "LC_CTYPE": row["datctype"],
    }
    # Since Postgres 15, 16 and 17.
    locale = row.get("datlocale") or row.get("daticulocale")
    match row.get("datlocprovider"):
        case "b":
            options |= {"LOCALE_PROVIDER": "builtin", "BUILTIN_LOCALE": locale}
        case "i":
            options |= {"LOCALE_PROVIDER": "icu", "ICU_LOCALE": locale, "ICU_RULES": row.get("daticurules")}
        case "c":
            options |= {"LOCALE_PROVIDER": "libc"}
    options = {name: value for name, value in options.items() if value is not None}
    return "".join(f" {name} {{{name}}}" for name in options), options


def _now() -> datetime:
    return datetime.now(UTC)
