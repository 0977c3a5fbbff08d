"""A project of Neon's: its branches as the API tells them, and what is written to them.

Nothing is written to the branch that DATABASE_URL leads to, to the default branch, or to a protected one: the
branch is read before each write. Where no clear answer comes, it is looked whether that is done already.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from workbench.branches.api import Answer, Api, NeonError, quoted
from workbench.branches.errors import BranchError
from workbench.branches.kind import Branch

# What the API says of a branch, and what its annotation says.
Listed = tuple[Answer, dict[str, str]]


class Gone(BranchError):
    """The branch is no longer there."""


class Project:
    """The project of a branch that an endpoint at ``host`` leads to. Every method raises BranchError."""

    def __init__(self, api: Api, host: str) -> None:
        self._api = api
        self._host = host

    def listed(self, **search: str) -> list[Listed]:
        """Return branches, the oldest first."""
        listed: dict[str, Answer] = {}
        notes: dict[str, dict[str, str]] = {}
        for page in self._api.pages("branches", "branches", sort_by="created_at", sort_order="asc", **search):
            listed |= {branch["id"]: branch for branch in page["branches"]}
            for identity, annotation in (page.get("annotations") or {}).items():
                notes[identity] = annotation.get("value") or {}
        return [(branch, notes.get(identity, {})) for identity, branch in listed.items()]

    def named(self, name: str) -> Answer | None:
        return next((branch for branch, _ in self.listed(search=name) if branch.get("name") == name), None)

    def main(self) -> str:
        """Return the id of the branch that the project's host leads to."""
        for endpoint in self._api.get("endpoints", "endpoints")["endpoints"]:
            if label(endpoint.get("host")) == label(self._host) and endpoint.get("branch_id"):
                return str(endpoint["branch_id"])
        raise BranchError(
            f"The Neon project has no branch at {self._host}: set NEON_PROJECT_ID to the project of "
            f"DATABASE_URL, or take NEON_API_KEY out."
        )

    def read(self, branch: Branch) -> Answer:
        """Return a branch as it is now. Raises Gone."""
        try:
            found: Answer = self._api.get(f"branches/{quoted(branch.key)}", "branch")["branch"]
        except NeonError as error:
            if error.status != 404:
                raise
            raise Gone(f"There is no branch {branch.name} any more: list the branches again.") from None
        return found

    def writable(self, branch: Branch) -> Answer:
        """Return a branch as it is now, if it may be written to. Raises Gone."""
        main = self.main()
        found = self.read(branch)
        if found["id"] != branch.key or is_guarded(found, main):
            raise BranchError(
                f"{branch.name} is the branch of DATABASE_URL, the project's default, or protected, and is "
                f"left alone: create a branch of it, and work there."
            )
        return found

    def uri(self, branch: Branch, *, database: str, role: str) -> str:
        # Without an id, or with an empty one, Neon would give the default branch's.
        quoted(branch.key)
        asked = {"branch_id": branch.key, "database_name": database, "role_name": role, "pooled": False}
        return str(self._api.get("connection_uri", "uri", **asked)["uri"])

    def post(self, name: str, source: str, note: dict[str, str], **fields: str) -> Answer:
        """Copy a branch, with an endpoint; ``finish`` waits until it is there.

        The name must be one that nobody else would give: a branch of that name is the one that was asked for.
        """
        quoted(source)

        def happened() -> Answer | None:
            made = self.named(name)
            return made and {"branch": made, "operations": self._operations(made["id"])}

        body = {
            "branch": {"name": name, "parent_id": source, **fields},
            "endpoints": [{"type": "read_write"}],
            "annotation_value": note,
        }
        return self._api.send("POST", "branches", "branch", "operations", body=body, happened=happened)

    def finish(self, made: Answer) -> None:
        """Wait for what a call began."""
        self._api.finish(made.get("operations") or [])

    def patch(self, branch: Branch, **fields: str | None) -> Answer:
        """Change what is known of a branch, and return it."""

        def happened() -> Answer | None:
            now = self.read(branch)
            is_so = all(now.get(name) == value for name, value in fields.items())
            return {"branch": now, "operations": []} if is_so else None

        path = f"branches/{quoted(self.writable(branch)['id'])}"
        body = {"branch": fields}
        answer = self._api.send("PATCH", path, "branch", "operations", body=body, happened=happened)
        self.finish(answer)
        now: Answer = answer["branch"]
        return now

    def restore(self, branch: Branch) -> None:
        """Make a branch what its parent is now."""
        before = self.writable(branch)
        parent = before.get("parent_id")
        if not parent:
            raise BranchError(f"{branch.name} was copied from no other: drop it, and create it anew.")

        def happened() -> Answer | None:
            now = self.read(branch)
            is_new = now.get("last_reset_at") != before.get("last_reset_at")
            if not is_new and now.get("current_state") != "resetting":
                return None
            return {
                "branch": now,
                "operations": self._operations(branch.key, moment(before.get("updated_at"))),
            }

        path = f"branches/{quoted(before['id'])}/restore"
        body = {"source_branch_id": parent}
        with self._unless_parent(branch, "reset"):
            self.finish(self._api.send("POST", path, "branch", "operations", body=body, happened=happened))

    def delete(self, branch: Branch) -> None:
        """Remove a branch, which may be gone already."""

        def happened() -> Answer | None:
            try:
                self.read(branch)
            except Gone:
                return {}
            return None

        with suppress(Gone), self._unless_parent(branch, "dropped"):
            path = f"branches/{quoted(self.writable(branch)['id'])}"
            self.finish(self._api.send("DELETE", path, happened=happened))

    @contextmanager
    def _unless_parent(self, branch: Branch, done: str) -> Iterator[None]:
        """Say what it is, where Neon refuses because other branches were made from this one."""
        try:
            yield
        except NeonError as error:
            if not 400 <= error.status < 423:
                raise
            children = [called(child) for child, _ in self.listed() if child.get("parent_id") == branch.key]
            if not children:
                raise
            raise BranchError(
                f"{branch.name} cannot be {done} while there are branches made from it: first drop "
                f"{', '.join(children)}."
            ) from None

    def _operations(self, identity: str, since: datetime | None = None) -> list[Answer]:
        """Return the last operations on a branch."""
        return [
            operation
            for operation in self._api.get("operations", "operations", limit=100)["operations"]
            if operation.get("branch_id") == identity
            and (since is None or (moment(operation.get("created_at")) or since) >= since)
        ]


def described(found: Answer, **known: Any) -> Branch:
    """Return what the API says of a branch, with what is known otherwise."""
    size = found.get("logical_size")
    return Branch(
        name=called(found),
        created=moment(found.get("last_reset_at")) or moment(found.get("created_at")),
        expires=moment(found.get("expires_at")),
        bytes=size if isinstance(size, int) else None,
        key=found["id"],
        **known,
    )


def called(found: Answer) -> str:
    return str(found.get("name") or found["id"])


def is_guarded(found: Answer, main: str) -> bool:
    return found["id"] == main or found.get("default") is not False or found.get("protected") is not False


def label(host: object) -> str:
    """Return the first label of a host, which names the endpoint, whatever domain leads there."""
    return str(host).partition(".")[0].lower().removesuffix("-pooler")


def moment(said: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(said))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
