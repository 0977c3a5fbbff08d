"""Branches of Neon's own (https://neon.com/docs/introduction/branching).

What a branch is for stands in its annotation, which is given as it is made, and stays. One of ours is called
``tmp-TOKEN`` at first, with the token in its annotation, and gets its name once it is complete. Whoever makes
or owns it claims the token, in the database that DATABASE_URL leads to.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql

from workbench.branches.api import CONSOLE, Answer, Api, NeonError
from workbench.branches.claims import claimed, held, session
from workbench.branches.errors import BranchError
from workbench.branches.kind import EMPTY, TEMPORARY, Branch
from workbench.branches.project import Project, called, described, is_guarded, label
from workbench.connection import DatabaseURLError, database
from workbench.connection.sessions import close, holds_transaction, ours

URL = f"{CONSOLE}/api/v2"

LONGEST = timedelta(days=30)
# A fleeting branch that no sweep comes by to remove is removed by Neon.
FLEETING = timedelta(hours=24)

# How a branch is refused that cannot be as it was asked for.
REFUSED = (400, 402, 403, 406, 412, 422)

# Each branch has these databases: one to be in while another is dropped.
OTHERS = ("postgres", "template1")

# What of DATABASE_URL's options goes for branches as well. Others, such as hostaddr, may lead to its server.
SHARED = ("application_name", "channel_binding", "connect_timeout", "sslmode", "sslrootcert")


class Neon:
    """The branches of a project. ``entry`` is the one of DATABASES that DATABASE_URL makes.

    Neon copies a branch whoever is connected, and ends the sessions on one that is reset or dropped:
    ``end_sessions`` changes nothing. It does not copy a branch that expires, nor reset or drop one that
    others were made from.
    """

    def __init__(self, entry: dict[str, Any], *, key: str, project: str, url: str = URL) -> None:
        self.api = Api(url, key=key, project=project)
        self._project = Project(self.api, entry["HOST"])
        self._entry = entry

    def all(self) -> list[Branch]:
        listed = self._project.listed()
        main = self._project.main()
        names = {branch["id"]: called(branch) for branch, _ in listed}
        if main not in names:
            raise BranchError("Neon does not list the branch that DATABASE_URL leads to: try again.")
        found = [
            described(
                branch,
                parent=note.get("parent") or names.get(branch.get("parent_id"), ""),
                is_main=branch["id"] == main,
                is_guarded=is_guarded(branch, main),
                is_fleeting=_is_fleeting(note),
            )
            for branch, note in listed
            if not _is_half_made(branch, note)
        ]
        return sorted(found, key=lambda branch: (not branch.is_main, branch.name))

    def sweep(self) -> list[str]:
        left = [each for each in self._project.listed() if _is_half_made(*each) or _is_fleeting(each[1])]
        in_use = held(self._entry, [note["token"] for _, note in left]) if left else set()
        swept = []
        # The youngest first: Neon keeps a branch that others were made from.
        for branch, note in reversed(left):
            if note["token"] not in in_use and self._tidied(described(branch)):
                is_half_made = _is_half_made(branch, note)
                swept.append(
                    "a branch half made" if is_half_made else f"{called(branch)}, whose process is gone"
                )
        return swept

    def create(
        self, name: str, parent: Branch | None, *, expires: datetime | None, end_sessions: bool
    ) -> Branch:
        note = {"workbench": "kept", "token": _token(name)}
        with claimed(self._entry, note["token"]):
            return self._made(name, parent, note, expires)

    @contextmanager
    def fleeting(self, name: str, parent: Branch | None, *, end_sessions: bool) -> Iterator[Branch]:
        note = {"workbench": "fleeting", "token": _token(name)}
        with claimed(self._entry, note["token"]):
            branch = self._made(name, parent, note, datetime.now(UTC) + FLEETING)
            try:
                yield branch
            except BaseException:
                self._tidied(branch)
                raise
            self._project.delete(branch)

    def reset(self, branch: Branch, *, end_sessions: bool) -> Branch:
        _leave(branch)
        if branch.parent == EMPTY:
            self._empty(branch)
        else:
            self._project.restore(branch)
        now = self._project.read(branch)
        return described(now, parent=branch.parent, is_fleeting=branch.is_fleeting)

    def drop(self, branch: Branch, *, end_sessions: bool) -> None:
        _leave(branch)
        self._project.delete(branch)

    def rename(self, branch: Branch, name: str, *, end_sessions: bool) -> Branch:
        try:
            now = self._project.patch(branch, name=name)
        except NeonError as error:
            if error.status != 409:
                raise
            raise BranchError(f"There is a branch {name} already: choose another name.") from None
        return described(now, parent=branch.parent, is_fleeting=branch.is_fleeting)

    def settings(self, branch: Branch) -> dict[str, Any]:
        if branch.is_main:
            return dict(self._entry)
        uri = self._project.uri(branch, database=self._entry["NAME"], role=self._entry["USER"])
        try:
            found = database({"DATABASE_URL": uri}, home=Path())
        except DatabaseURLError:
            found = {}
        if not found.get("HOST"):
            raise BranchError(f"Neon gave no address for {branch.name} that can be read: try again.")
        if label(found["HOST"]) == label(self._entry["HOST"]):
            raise BranchError(
                f"Neon gave the address of DATABASE_URL for {branch.name}, which is another branch: list the "
                f"branches again."
            )
        own = self._entry.get("OPTIONS", {})
        shared = {name: own[name] for name in SHARED if name in own}
        # Neon takes options=endpoint%3D... for the server to go to.
        if "endpoint" not in own.get("options", "endpoint"):
            shared["options"] = own["options"]
        return {**self._entry, **found, "OPTIONS": {**found["OPTIONS"], **shared}}

    def _made(
        self, name: str, parent: Branch | None, note: dict[str, str], expires: datetime | None
    ) -> Branch:
        if not (0 < len(name) <= 256 and name.isprintable()):
            raise BranchError("A branch's name has 1 to 256 characters, all of them visible: choose another.")
        if self._project.named(name) is not None:
            raise BranchError(f"There is a branch {name} already: choose another name, or drop it first.")
        if parent is None:
            note = {**note, "parent": EMPTY}
        elif parent.is_fleeting and parent.expires:
            # It would not be copied. Sweeping still removes it.
            self._project.patch(parent, expires_at=None)
        made = self._begun(parent, note, expires)
        branch = described(
            made["branch"], parent=parent.name if parent else EMPTY, is_fleeting=_is_fleeting(note)
        )
        try:
            self._project.finish(made)
            if parent is None:
                self._empty(branch)
            return branch if branch.name == name else self.rename(branch, name, end_sessions=False)
        except BaseException:
            self._tidied(branch)
            raise

    def _begun(self, parent: Branch | None, note: dict[str, str], expires: datetime | None) -> Answer:
        """Ask for a copy, and say why it cannot be."""
        source = parent.key if parent else self._project.main()
        fields = {"expires_at": _stamp(expires)} if expires else {}
        try:
            return self._project.post(_half_made(note), source, note, **fields)
        except NeonError as error:
            if error.status not in REFUSED:
                raise
            if parent and parent.expires and not parent.is_fleeting:
                raise BranchError(
                    f"Neon does not copy {parent.name}, which expires ({error.said}): create a branch of one "
                    f"that stays."
                ) from None
            if expires is None:
                raise
            # Expiry is in Early Access, and not everybody's. What is fleeting is swept all the same.
            if _is_fleeting(note):
                return self._begun(parent, note, None)
            if not re.search("expir|early access", error.said, re.IGNORECASE):
                raise
            raise BranchError(
                f"Neon lets no branch expire then ({error.said}): create it without an expiry, and drop it "
                f"when you are done."
            ) from None

    def _tidied(self, branch: Branch) -> bool:
        """Remove a branch, if that can be done soon, and tell whether: the next sweep tries again."""
        try:
            with self.api.hurried():
                self._project.delete(branch)
        except BranchError:
            return False
        return True

    def _empty(self, branch: Branch) -> None:
        """Put a database without tables in the place of a branch's own."""
        self._project.writable(branch)
        entry = self.settings(branch)
        name = sql.Identifier(entry["NAME"])
        other = next(other for other in OTHERS if other != entry["NAME"])
        try:
            with closing(session({**entry, "NAME": other})) as connection, connection.cursor() as cursor:
                cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(name))
        except psycopg2.Error as error:
            said = str(error).partition("\n")[0]
            raise BranchError(
                f"{branch.name} could not be emptied ({said}): drop it, and try again."
            ) from None


def _leave(branch: Branch) -> None:
    """Close what is idle of this process' own sessions there, before Neon cuts them."""
    for connection in ours():
        if connection.settings_dict.get("BRANCH") == branch.name and not holds_transaction(connection):
            close(connection)


def _token(name: str) -> str:
    temporary = TEMPORARY.fullmatch(name)
    return temporary[1] if temporary else secrets.token_hex(6)


def _half_made(note: dict[str, str]) -> str:
    """Return what the branch with this annotation is called until it is complete."""
    return f"tmp-{note['token']}"


def _is_half_made(branch: Answer, note: dict[str, str]) -> bool:
    return "workbench" in note and "token" in note and branch.get("name") == _half_made(note)


def _is_fleeting(note: dict[str, str]) -> bool:
    return note.get("workbench") == "fleeting" and "token" in note


def _stamp(expires: datetime) -> str:
    if not timedelta() < expires - datetime.now(UTC) <= LONGEST:
        raise BranchError(f"A branch of Neon's expires within {LONGEST.days} days: give it less time.")
    return expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
