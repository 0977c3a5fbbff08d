"""A stand-in for Neon: its API over HTTP, and a Postgres where each branch is a database.

``neon_schema.json`` is what Neon publishes of the calls and their fields. Requests are held against it, and
answers too, but for those that a test wants otherwise (MISBEHAVIOURS). Unlike Neon's, the branches' databases
have different names, because all are on one server.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import cache, cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import psycopg2
from psycopg2 import sql

from tests.throwaway import ADDRESSES
from workbench.branches.neon import Neon
from workbench.connection import database
from workbench.connection.embedded import Cluster
from workbench.connection.supervisor import Owner, binary

SCHEMA = json.loads(Path(__file__).with_name("neon_schema.json").read_text(encoding="utf-8"))

PROJECT = "cool-forest-123456"
KEY = "napi_s3cr3tk3y0123456789abcdef"
ROLE = "neondb_owner"
DOMAIN = "us-east-2.aws.neon.tech"
MAIN = "br-main-000000"

PAGE = 2
# What an operation takes, in seconds, if nobody asks for it.
LONGEST = 0.5
# What a slow answer takes, in seconds, unless the client has gone before.
SLOW = 3.0

REFUSALS = {
    "locked": (423, "project already has running operations, scheduling of new ones is prohibited"),
    "limited": (429, "too many requests"),
    "unavailable": (503, "service unavailable"),
    "broken": (500, "internal server error"),
    "conflict": (409, "branch already exists"),
    "unauthorized": (401, "supplied credentials do not pass authentication"),
    "forbidden": (403, "user has no access to projects"),
    "missing": (404, "not found"),
    "bad": (400, "something in the request is wrong"),
}
MISBEHAVIOURS = {
    "well": "as it should",
    **{name: f"refuses with {status}" for name, (status, _) in REFUSALS.items()},
    "gateway": "a page of HTML, as a proxy in between makes it",
    "unheard": "the connection is cut before the request is carried out",
    "unanswered": "the connection is cut after it is carried out",
    "slow": "the answer comes later than anybody waits",
    "truncated": "half of the answer comes",
    "failing": "the operations fail",
    "endless": "the operations do not end",
    "empty": "lists are empty",
    "bare": "the answer is {}",
    "sparse": "objects have no more than an id, names and what leads to others",
    "undefended": "branches do not say whether they are default or protected",
    "novel": "fields and values that nobody knows yet",
    "astray": "the address is the default branch's",
    "blank": "the address is empty",
}
ESSENTIAL = {"id", "name", "parent_id", "branch_id", "host", "uri", "status", "default", "protected", "value"}

RELATIONS = """
SELECT oid::regclass::text, relfilenode, relacl::text, (SELECT string_agg(a::text, ',' ORDER BY attnum) FROM
    (SELECT attnum, attname, atttypid, attnotnull FROM pg_attribute WHERE attrelid = c.oid) a)
FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S') ORDER BY 1
"""

Json = dict[str, Any]


class Postgres:
    """A server on 127.0.0.1 that lets everybody in."""

    def __init__(self, port: int, programs: Path) -> None:
        self.port = port
        self.programs = programs

    def dsn(self, name: str, user: str = "postgres") -> str:
        return f"host=127.0.0.1 port={self.port} dbname={name} user={user} sslmode=disable"

    def run(self, statement: str, *names: str, database: str = "postgres", user: str = "postgres") -> None:
        with closing(psycopg2.connect(self.dsn(database, user))) as connection:
            connection.autocommit = True
            connection.cursor().execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def rows(self, query: str, database: str) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self.dsn(database))) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    def copy(self, source: str, target: str) -> None:
        """Copy a database that others may be connected to."""
        pg_dump, psql = (str(self.programs / name) for name in ("pg_dump", "psql"))
        psql_options = ["-q", "-X", "-o", os.devnull, "-v", "ON_ERROR_STOP=1"]
        with subprocess.Popen([pg_dump, self.dsn(source, ROLE)], stdout=subprocess.PIPE) as dumping:
            self.run("CREATE DATABASE {} OWNER {} STRATEGY file_copy", target, ROLE)
            subprocess.run([psql, *psql_options, self.dsn(target, ROLE)], stdin=dumping.stdout, check=True)
        assert dumping.returncode == 0

    def checksum(self, database: str) -> str:
        """Return what changes with a row, a table, a sequence, their files or a right to them."""
        with closing(psycopg2.connect(self.dsn(database))) as connection, connection.cursor() as cursor:
            cursor.execute(RELATIONS)
            content = cursor.fetchall()
            for name, *_ in content[:]:
                cursor.execute(f"SELECT t.*, t.tableoid, t.xmin, t.ctid FROM {name} t")
                content += sorted(cursor.fetchall(), key=str)
        return hashlib.sha256(repr(content).encode()).hexdigest()


@cache
def server() -> Postgres:
    """Return the one of this process, which ends with it."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(_postgres())


@contextmanager
def _postgres() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="workbench-neon-", dir="/tmp"))
    owner = Owner.of(Cluster(folder))
    owner.take(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pg_ctl = [binary("pg_ctl", owner), "-D", folder / "data", "-w", "-t", "60"]
    options = f"-p {port} -k '{folder}' -c listen_addresses=127.0.0.1 -c fsync=off -c autovacuum=off"
    try:
        initdb = [binary("initdb", owner), "-D", folder / "data", *"-U postgres -A trust --no-sync".split()]
        for command in (initdb, [*pg_ctl, "-o", options, "-l", folder / "log", "start"]):
            done = owner.run(*command)
            assert done.returncode == 0, done.stdout
        found = Postgres(port, binary("psql", owner).parent)
        found.run("CREATE ROLE {} LOGIN CREATEDB", ROLE)
        yield found
    finally:
        owner.run(*pg_ctl, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


class Place:
    """A project of Neon's with one branch, the default one, which DATABASE_URL leads to.

    ``asked`` has each call with its branch's id. An operation is done once it was asked for ``polls`` times.
    """

    def __init__(self, server: Postgres, polls: int) -> None:
        self.server = server
        self.polls = polls
        self.database = f"neondb_{uuid.uuid4().hex[:8]}"
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self.asked: list[tuple[str, str]] = []
        self.complaints: list[str] = []
        self.expiry_is_known = True
        self.branches: dict[str, Json] = {}
        self.notes: dict[str, dict[str, str]] = {}
        self.endpoints: list[Json] = []
        self.operations: list[Json] = []
        self.passwords: dict[str, str] = {}
        self._endings: dict[str, tuple[str, int]] = {}
        self._begun: dict[str, float] = {}
        self._misbehaviours: dict[str, list[str]] = defaultdict(list)
        self.add(MAIN, "production", None, database=self.database)
        self.branches[MAIN]["default"] = True

    @cached_property
    def url(self) -> str:
        return self.address(MAIN, pooled=True)

    @property
    def entry(self) -> Json:
        return database({"DATABASE_URL": self.url}, home=Path())

    api_url = ""

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find all this."""
        return {
            **dict.fromkeys(ADDRESSES, ""),
            "DATABASE_URL": self.url,
            "NEON_API_KEY": KEY,
            "NEON_PROJECT_ID": PROJECT,
            "NEON_API_URL": self.api_url,
        }

    @property
    def secrets(self) -> list[str]:
        return [KEY, *self.passwords.values()]

    def neon(self, **pace: float) -> Neon:
        """Return a kind that waits for nothing longer than it must."""
        made = Neon(self.entry, key=KEY, project=PROJECT, url=self.api_url)
        vars(made.api).update(
            {"timeout": 10.0, "first_delay": 0.001, "longest_delay": 0.01, "pace": 0.002, "tries": 4, **pace}
        )
        return made

    def misbehave(self, call: str, how: str, times: int = 1) -> None:
        assert call in SCHEMA["calls"]
        assert how in MISBEHAVIOURS
        self._misbehaviours[call] += [how] * times

    def behave(self) -> None:
        """Let all go well from now on, with nothing under way."""
        self._misbehaviours.clear()
        self.operations.clear()

    def clear(self, *kept: str) -> None:
        """Remove all branches but main and these, and put all else as it was in the beginning."""
        with self.lock:
            self.behave()
            self.asked.clear()
            self.expiry_is_known = True
            for identity in self.branches.keys() - {MAIN, *kept}:
                self.remove(identity)
            for identity, branch in self.branches.items():
                branch |= {"default": identity == MAIN, "protected": False}

    def add(self, identity: str, name: str, parent: str | None, database: str = "") -> Json:
        """Make a branch, with its endpoint, as of now."""
        database = database or f"{self.database}_{identity}"
        if parent is None:
            self.server.run("CREATE DATABASE {} OWNER {} STRATEGY file_copy", database, ROLE)
        else:
            self.server.copy(self.branches[parent]["_database"], database)
        branch = {
            "id": identity,
            "project_id": PROJECT,
            **({"parent_id": parent, "parent_lsn": "0/1DE2850"} if parent else {}),
            "name": name,
            "current_state": "ready",
            "state_changed_at": _now(),
            "logical_size": 7_700_000,
            "creation_source": "console",
            "created_at": _now(),
            "updated_at": _now(),
            "default": False,
            "protected": False,
            "cpu_used_sec": 1,
            "compute_time_seconds": 1,
            "active_time_seconds": 1,
            "written_data_bytes": 1,
            "data_transfer_bytes": 1,
            "_database": database,
        }
        self.branches[identity] = branch
        self.passwords[identity] = f"npg_{secrets.token_hex(8)}"
        label = identity.replace("br-", "ep-", 1)
        self.endpoints.append(
            {
                "id": label,
                "host": f"{label}.{DOMAIN}",
                "project_id": PROJECT,
                "branch_id": identity,
                "region_id": "aws-us-east-2",
                "autoscaling_limit_min_cu": 0.25,
                "autoscaling_limit_max_cu": 1,
                "type": "read_write",
                "current_state": "active",
                "pooler_enabled": False,
                "pooler_mode": "transaction",
                "disabled": False,
                "passwordless_access": True,
                "creation_source": "console",
                "created_at": _now(),
                "updated_at": _now(),
                "settings": {"pg_settings": {}},
                "proxy_host": DOMAIN,
                "suspend_timeout_seconds": 0,
                "provisioner": "k8s-neonvm",
            }
        )
        return branch

    def remove(self, identity: str) -> None:
        branch = self.branches.pop(identity)
        self.notes.pop(identity, None)
        self.endpoints = [each for each in self.endpoints if each["branch_id"] != identity]
        self.server.run("DROP DATABASE IF EXISTS {} WITH (FORCE)", branch["_database"])

    def address(self, identity: str, *, pooled: bool = False) -> str:
        label = identity.replace("br-", "ep-", 1) + ("-pooler" if pooled else "")
        return (
            f"postgresql://{ROLE}:{self.passwords[identity]}@{label}.{DOMAIN}:{self.server.port}/"
            f"{self.branches[identity]['_database']}?sslmode=disable&hostaddr=127.0.0.1"
        )

    def names(self) -> list[str]:
        return [branch["name"] for branch in self.branches.values()]

    def rows(self, query: str, identity: str = MAIN) -> list[tuple[Any, ...]]:
        return self.server.rows(query, self.branches[identity]["_database"])

    def checksum(self) -> str:
        """Return what changes when the default branch's database does."""
        return self.server.checksum(self.database)

    def written(self) -> list[str]:
        """Return the ids of the branches that somebody asked to change."""
        return [identity for call, identity in self.asked if call in ("rename", "delete", "restore")]

    def due(self, call: str) -> str:
        how = self._misbehaviours[call].pop(0) if self._misbehaviours[call] else "well"
        return "" if how == "well" else how

    def answer(self, call: str, ids: dict[str, str], query: Json, body: Json, how: str) -> tuple[int, Any]:
        """Carry a call out; return the status and what is answered."""
        with self.lock:
            identity = ids.get("branch_id", "")
            is_write = call in ("create", "rename", "delete", "restore")
            if call in ("read", "rename", "restore") and identity not in self.branches:
                return _refusal(404, "branch not found")
            target = body["branch"].get("parent_id", MAIN) if call == "create" else identity
            if is_write and any(
                self._is_running(each) for each in self.operations if each["branch_id"] == target
            ):
                return _refusal(*REFUSALS["locked"])
            answer: tuple[int, Any] = getattr(self, f"_{call}")(
                identity or ids.get("operation_id"), query, body, how
            )
            return answer

    def _list(self, _: str, query: Json, body: Json, how: str) -> tuple[int, Any]:
        found = [each for each in self.branches.values() if query.get("search", "") in each["name"]]
        start = int(base64.b64decode(query.get("cursor", "MA==")))
        end = start + min(PAGE, int(query.get("limit", PAGE)))
        page = found[start:end]
        more = {"next": base64.b64encode(str(end).encode()).decode()} if end < len(found) else {}
        return 200, {
            "branches": page,
            "annotations": {each["id"]: self._note(each["id"]) for each in page if each["id"] in self.notes},
            "pagination": {**more, "sort_by": query.get("sort_by", "updated_at")},
        }

    def _read(self, identity: str, query: Json, body: Json, how: str) -> tuple[int, Any]:
        return 200, {"branch": self.branches[identity], "annotation": self._note(identity)}

    def _create(self, _: str, query: Json, body: Json, how: str) -> tuple[int, Any]:
        wanted = body["branch"]
        # As Neon does, which is a trap.
        parent = wanted.get("parent_id") or MAIN
        if parent not in self.branches:
            return _refusal(404, "parent branch not found")
        if wanted["name"] in self.names():
            return _refusal(409, "branch already exists")
        if "expires_at" in self.branches[parent]:
            return _refusal(400, "branches that expire cannot have children")
        if (refusal := self._expiry(wanted)) is not None:
            return refusal
        identity = f"br-quiet-{secrets.token_hex(4)}"
        branch = self.add(identity, wanted["name"], parent)
        if "expires_at" in wanted:
            branch["expires_at"] = wanted["expires_at"]
        self.notes[identity] = body.get("annotation_value", {})
        if not body.get("endpoints"):
            self.endpoints.pop()
        return 201, {
            "branch": branch,
            "endpoints": [each for each in self.endpoints if each["branch_id"] == identity],
            "operations": self._started(identity, how, "create_branch", "start_compute"),
            "roles": [
                {"branch_id": identity, "name": ROLE, "created_at": _now(), "updated_at": _now()},
            ],
            "databases": [],
        }

    def _rename(self, identity: str, query: Json, body: Json, how: str) -> tuple[int, Any]:
        branch, wanted = self.branches[identity], body["branch"]
        if wanted.get("name") in self.names() and wanted["name"] != branch["name"]:
            return _refusal(409, "branch already exists")
        if (refusal := self._expiry(wanted)) is not None:
            return refusal
        branch |= wanted
        if branch.get("expires_at", "") is None:
            del branch["expires_at"]
        branch["updated_at"] = _now()
        return 200, {"branch": branch, "operations": []}

    def _delete(self, identity: str, query: Json, body: Json, how: str) -> tuple[int, Any]:
        if identity not in self.branches:
            return 204, None
        branch = self.branches[identity]
        if branch["default"] or branch["protected"]:
            return _refusal(422, "the branch cannot be deleted")
        if any(each.get("parent_id") == identity for each in self.branches.values()):
            return _refusal(422, "the branch has children")
        self.remove(identity)
        return 200, {"branch": branch, "operations": self._started(identity, how, "delete_timeline")}

    def _restore(self, identity: str, query: Json, body: Json, how: str) -> tuple[int, Any]:
        branch, source = self.branches[identity], self.branches.get(body["source_branch_id"])
        if source is None:
            return _refusal(404, "source branch not found")
        if any(each.get("parent_id") == identity for each in self.branches.values()):
            return _refusal(422, "the branch has children: preserve_under_name is required")
        self.server.run("DROP DATABASE IF EXISTS {} WITH (FORCE)", branch["_database"])
        self.server.copy(source["_database"], branch["_database"])
        # To the microsecond, as two resets may come within a second.
        branch |= {"last_reset_at": datetime.now(UTC).isoformat(), "updated_at": _now()}
        return 200, {
            "branch": branch,
            "operations": self._started(identity, how, "timeline_archive", "start_compute"),
        }

    def _endpoints(self, _: str, query: Json, body: Json, how: str) -> tuple[int, Any]:
        return 200, {"endpoints": self.endpoints}

    def _uri(self, _: str, query: Json, body: Json, how: str) -> tuple[int, Any]:
        identity = query.get("branch_id") or MAIN
        if identity not in self.branches:
            return _refusal(404, "branch not found")
        if (query["database_name"], query["role_name"]) != (self.database, ROLE):
            return _refusal(404, "database or role not found")
        address = self.address(MAIN if how == "astray" else identity, pooled=query.get("pooled") == "true")
        return 200, {"uri": "" if how == "blank" else address}

    def _operation(self, identity: str, query: Json, body: Json, how: str) -> tuple[int, Any]:
        found = next((each for each in self.operations if each["id"] == identity), None)
        if found is None:
            return _refusal(404, "operation not found")
        self._advance(found)
        return 200, {"operation": found}

    def _operations(self, _: str, query: Json, body: Json, how: str) -> tuple[int, Any]:
        for each in self.operations:
            self._advance(each)
        return 200, {"operations": self.operations[::-1]}

    def _started(self, identity: str, how: str, *actions: str) -> list[Json]:
        """Return new operations on a branch, which end as they are told to."""
        made = [
            {
                "id": str(uuid.uuid4()),
                "project_id": PROJECT,
                "branch_id": identity,
                "action": action,
                "failures_count": 0,
                "created_at": _now(),
                "updated_at": _now(),
                "total_duration_ms": 0,
            }
            for action in actions
        ]
        ending = {"failing": "failed", "endless": "running"}.get(how, "finished")
        for number, each in enumerate(made):
            # What was to follow an operation that fails never begins.
            is_skipped = how == "failing" and number > 0
            each["status"] = "skipped" if is_skipped else "scheduling"
            self._endings[str(each["id"])] = ("skipped", 0) if is_skipped else (ending, self.polls)
            self._begun[str(each["id"])] = time.monotonic()
        self.operations += made
        return [dict(each) for each in made]

    def _advance(self, operation: Json, polls: int | None = None) -> None:
        ending, left = self._endings[operation["id"]]
        polls = left if polls is None else polls
        self._endings[operation["id"]] = (ending, polls - 1)
        operation["status"] = "running" if polls > 1 else ending
        if ending == "failed" and polls <= 1:
            operation["error"] = "no compute to be had"

    def _is_running(self, operation: Json) -> bool:
        # It goes on when nobody asks any more.
        if time.monotonic() - self._begun[operation["id"]] > LONGEST:
            self._advance(operation, polls=0)
        return operation["status"] not in ("finished", "failed", "skipped")

    def _note(self, identity: str) -> Json:
        return {
            "object": {"type": "console/branch", "id": identity},
            "value": self.notes.get(identity, {}),
            "created_at": _now(),
        }

    def _expiry(self, wanted: Json) -> tuple[int, Any] | None:
        if wanted.get("expires_at") is None:
            return None
        if not self.expiry_is_known:
            return _refusal(400, "expires_at is for participants in the Early Access Program")
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", wanted["expires_at"]):
            return _refusal(400, "expires_at must be RFC 3339 with seconds")
        left = datetime.fromisoformat(wanted["expires_at"]) - datetime.now(UTC)
        return None if 0 < left.total_seconds() <= 30 * 86400 else _refusal(400, "expires_at is out of range")


@contextmanager
def neon_place(*, polls: int = 2) -> Iterator[Place]:
    """Serve a new project, whose operations take some polls."""
    place = Place(server(), polls)
    http = _Server(("127.0.0.1", 0), _Handler)
    http.place = place
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    place.api_url = f"http://127.0.0.1:{http.server_port}/api/v2"
    try:
        yield place
    finally:
        place.closing.set()
        http.shutdown()
        http.server_close()
        thread.join()
        for identity in list(place.branches):
            place.remove(identity)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    place: Place

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is nobody's error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer goes out at once: in two packets the second would wait for the first's receipt.
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:
        place = self.server.place
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else {}
        address = urlsplit(self.path)
        call, ids = _call(self.command, address.path.removeprefix("/api/v2"))
        query = dict(parse_qsl(address.query, keep_blank_values=True))
        place.asked.append((call, ids.get("branch_id", "")))
        how = place.due(call)
        if how == "unheard":
            return self._cut()
        if how in REFUSALS:
            return self._say(*_refusal(*REFUSALS[how]))
        if how == "gateway":
            return self._say(502, b"<html><body>Bad gateway</body></html>")
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return self._say(*_refusal(*REFUSALS["unauthorized"]))
        if ids.get("project_id") != PROJECT or not call:
            return self._say(*_refusal(404, "project not found"))
        rules = SCHEMA["calls"][call]
        if wrong := [
            *_wrong_query(rules["query"], query),
            *_wrong(rules.get("request", {}), body, strict=True),
        ]:
            place.complaints += [f"{call}: {each}" for each in wrong]
            return self._say(*_refusal(400, "; ".join(wrong)))
        status, answer = place.answer(call, ids, query, body, how)
        answer = _public(answer)
        if not how:
            shape = rules["responses"].get(str(status), {"$ref": "GeneralError"})
            place.complaints += [f"{call} {status}: {each}" for each in _wrong(shape or {}, answer or {})]
        if how == "unanswered":
            return self._cut()
        if how == "slow":
            place.closing.wait(SLOW)
        self._say(status, _distorted(answer, how), cut=how == "truncated")

    do_POST = do_PATCH = do_DELETE = do_GET

    def _say(self, status: int, answer: Any, *, cut: bool = False) -> None:
        content = (
            answer if isinstance(answer, bytes) else b"" if answer is None else json.dumps(answer).encode()
        )
        if cut:
            content = content[: len(content) // 2]
        with suppress(OSError):
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "1")
            if content:
                self.send_header("Content-Type", "application/json; charset=utf-8")
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass


def _call(method: str, path: str) -> tuple[str, dict[str, str]]:
    """Return the name of a call and the ids in its path."""
    for name, rules in SCHEMA["calls"].items():
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[A-Za-z0-9-]+)", rules["path"])
        if rules["method"] == method and (found := re.fullmatch(pattern, path)):
            return name, found.groupdict()
    return "", {}


def _refusal(status: int, message: str) -> tuple[int, Json]:
    return status, {"request_id": str(uuid.uuid4()), "code": "", "message": message}


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _public(each) for name, each in value.items() if not name.startswith("_")}
    return [_public(each) for each in value] if isinstance(value, list) else value


def _distorted(value: Any, how: str, name: str = "") -> Any:
    """Return an answer as it is misshapen on demand."""
    if how == "bare":
        return {}
    if isinstance(value, list):
        return [] if how == "empty" else [_distorted(each, how, name) for each in value]
    if not isinstance(value, dict):
        return "unheard_of" if how == "novel" and name in ("current_state", "action", "type") else value
    found = {key: _distorted(each, how, key) for key, each in value.items()}
    if how == "sparse" and "id" in value:
        return {key: each for key, each in found.items() if key in ESSENTIAL}
    if how == "sparse":
        return {key: each for key, each in found.items() if key not in ("annotations", "pagination")}
    if how == "undefended":
        return {key: each for key, each in found.items() if key not in ("default", "protected")}
    if how == "novel":
        return {**found, "unheard_of": {"id": 7, "of": [None]}}
    return found


TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


def _flat(schema: Json) -> Json:
    """Return a schema without references and unions of its own."""
    if "$ref" in schema:
        return _flat(SCHEMA["schemas"][schema["$ref"]])
    if "allOf" not in schema:
        return schema
    parts = [_flat(part) for part in schema["allOf"]]
    properties = {name: each for part in parts for name, each in part.get("properties", {}).items()}
    return {
        "type": "object",
        "properties": properties,
        "required": [name for part in parts for name in part.get("required", [])],
    }


def _wrong(schema: Json, value: Any, where: str = "", *, strict: bool = False) -> Iterator[str]:
    """Yield what is wrong with a value; ``strict`` where no unknown fields may be."""
    schema = _flat(schema)
    if value is None and schema.get("nullable"):
        return
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{where} is no {kind}: {value!r}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} cannot be {value!r}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where} is misshapen: {value!r}"
    if isinstance(value, str) and not schema.get("minLength", 0) <= len(value) <= schema.get(
        "maxLength", 1e9
    ):
        yield f"{where} is too short or too long"
    if isinstance(value, list):
        for each in value:
            yield from _wrong(schema.get("items", {}), each, f"{where}[]", strict=strict)
    if isinstance(value, dict):
        yield from (f"{where}.{name} is missing" for name in schema.get("required", []) if name not in value)
        for name, each in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if inner is not None:
                yield from _wrong(inner, each, f"{where}.{name}", strict=strict)
            elif strict:
                yield f"{where}.{name} is unknown"


def _wrong_query(rules: Json, query: dict[str, str]) -> Iterator[str]:
    yield from (
        f"?{name} is missing" for name, rule in rules.items() if rule.get("required") and name not in query
    )
    for name, value in query.items():
        if name not in rules:
            yield f"?{name} is unknown"
            continue
        match rules[name]["type"]:
            case "integer":
                yield from [] if value.isdigit() else [f"?{name} is no number"]
            case "boolean":
                yield from [] if value in ("true", "false") else [f"?{name} is no boolean"]
            case _:
                rule = {key: each for key, each in rules[name].items() if key != "required"}
                yield from _wrong(rule, value, f"?{name}")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
