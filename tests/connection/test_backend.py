"""Waking a server that sleeps, and what is said about one that stays away."""

from __future__ import annotations

import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import django.db
import pytest
from django.db import OperationalError, close_old_connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler, InterfaceError
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoDbBlocker

from tests.throwaway import HOME
from workbench.connection import ConnectionFailed, database, embedded, failures
from workbench.connection.sessions import aside

CLOSED = ""
ASLEEP = "Couldn't connect to compute node"
BUSY = (
    "Failed to acquire permit to connect to the database. Too many database connection attempts are "
    "currently ongoing."
)
STARTING = "the database system is starting up"
CUT = (
    "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n"
    "\tbefore or while processing the request.\n"
)

WRONG_PASSWORD = "password authentication failed for user 'alex'"
NO_ENDPOINT = (
    "The requested endpoint could not be found, or you don't have access to it. Please check the "
    "provided ID and try again."
)
DISABLED = "The endpoint has been disabled. Enable it using Neon API and retry."
NO_QUOTA = (
    "Your account or project has exceeded the compute time quota. Upgrade your plan to increase limits."
)
UNCLEAR = "The endpoint is temporarily unavailable. Check your quotas and/or contact our support."
TOO_MANY_ACTIVE = "You have exceeded the limit of concurrently active endpoints. Please suspend one."

PARAMS = {"host": "db.example.com", "port": 5432, "dbname": "shop", "user": "alex", "password": "s3cret"}
PLACE = 'connection to server at "db.example.com" (192.0.2.7), port 5432 failed: '

# What libpq, Postgres, PgBouncer and Neon say, and a part of what the person is told.
SAID = {
    PLACE + 'FATAL:  database "shop" does not exist\n': "no database shop on db.example.com:5432",
    PLACE
    + 'FATAL:  password authentication failed for user "alex"\n': "refused the role alex or its password",
    PLACE + f"ERROR:  {WRONG_PASSWORD}\n": "refused the role alex or its password",
    PLACE + "FATAL:  SASL authentication failed\n": "refused the role alex or its password",
    PLACE + 'FATAL:  role "alex" does not exist\n': "refused the role alex or its password",
    PLACE + "fe_sendauth: no password supplied\n": "refused the role alex or its password",
    'could not translate host name "db.example.com" to address: No such name\n': "There is no host",
    PLACE + "Connection refused\n\tIs the server running on that host?\n": "No Postgres answers",
    PLACE + "No route to host\n\tIs the server running on that host?\n": "No Postgres answers",
    PLACE + "ERROR:  Control plane request failed: endpoint cannot be found\n": "Neon knows no endpoint",
    PLACE + f"ERROR:  {NO_ENDPOINT}\n": "Neon knows no endpoint",
    PLACE + "ERROR:  Endpoint ID is not specified. Either please upgrade\n": "Neon knows no endpoint",
    PLACE + "ERROR:  Control plane request failed: endpoint is disabled\n": "is disabled: enable it",
    PLACE + f"ERROR:  {DISABLED}\n": "is disabled: enable it",
    PLACE + f"ERROR:  {NO_QUOTA}\n": "has used up its quota",
    PLACE + "ERROR:  Your project has exceeded the data transfer quota.\n": "has used up its quota",
    PLACE + f"ERROR:  {TOO_MANY_ACTIVE}\n": "Too many Neon endpoints",
    PLACE + "FATAL:  unsupported startup parameter: options\n": "take options= out",
    PLACE + "FATAL:  sorry, too many clients already\n": "no free connection",
    PLACE + "FATAL:  remaining connection slots are reserved for roles\n": "no free connection",
    PLACE + "server does not support SSL, but SSL was required\n": "does not speak TLS",
    PLACE + "FATAL:  SSL required\n": "wants TLS",
    PLACE + "ERROR:  connection is insecure (try using `sslmode=require`)\n": "wants TLS",
    PLACE + "channel binding required, but SSL not in use\n": "offers no channel binding",
    PLACE + "channel binding is required, but server did not offer it\n": "offers no channel binding",
    PLACE + "SSL error: certificate verify failed\n": "certificate of db.example.com:5432 cannot be verified",
    PLACE + 'server certificate for "x" does not match host name "y"\n': "cannot be verified",
    PLACE + CUT: "ended the connection before it was made",
    PLACE + "timeout expired\n": "did not answer in time",
    PLACE + "FATAL:  the moon is full\nDETAIL:  It is.\n": "did not let us in. It says: the moon is full",
}

PASSING = [ASLEEP, BUSY, STARTING, CUT, "timeout expired", "SSL SYSCALL error: Connection reset by peer"]
LASTING = [
    WRONG_PASSWORD,
    NO_ENDPOINT,
    DISABLED,
    NO_QUOTA,
    TOO_MANY_ACTIVE,
    "unsupported startup parameter: x",
]


class Doorman(socketserver.ThreadingTCPServer):
    """Stands before the embedded server, and turns some away: with an error, or a closed door."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Visitor)
        self.refusals: list[str] = []
        self.visits = 0
        self.cuts_at_reply = False
        self.is_silent = False

    @property
    def url(self) -> str:
        address = embedded.Cluster(HOME).address()
        password = f":{address['password']}" if "password" in address else ""
        port = self.server_address[1]
        return (
            f"postgresql://{embedded.ROLE}{password}@127.0.0.1:{port}/{embedded.DATABASE}"
            "?sslmode=disable&connect_timeout=2"
        )


class Visitor(socketserver.BaseRequestHandler):
    server: Doorman
    request: socket.socket

    def handle(self) -> None:
        self.server.visits += 1
        with suppress(OSError):
            if self.server.is_silent:
                self.request.recv(65536)
                self.request.recv(65536)
            elif self.server.refusals:
                self.refuse(self.server.refusals.pop(0))
            else:
                self.let_in()

    def refuse(self, said: str) -> None:
        self.request.recv(65536)
        if said != CLOSED:
            # As Neon's proxy writes it.
            fields = b"SERROR\0CXX000\0M" + said.encode() + b"\0\0"
            self.request.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)

    def let_in(self) -> None:
        with connected() as server:
            other = {self.request: server, server: self.request}
            while True:
                for source in select.select([*other], [], [])[0]:
                    data = source.recv(65536)
                    if not data or (source is server and self.server.cuts_at_reply):
                        return
                    other[source].sendall(data)


def connected() -> socket.socket:
    address = embedded.Cluster(HOME).address()
    if not address["host"].startswith("/"):
        return socket.create_connection((address["host"], int(address["port"])))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f"{address['host']}/.s.PGSQL.{address['port']}")
    return connection


@pytest.fixture
def doorman() -> Iterator[Doorman]:
    embedded.start(HOME)
    with Doorman() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def connection(
    doorman: Doorman, monkeypatch: pytest.MonkeyPatch, django_db_blocker: DjangoDbBlocker
) -> Iterator[BaseDatabaseWrapper]:
    """Django's connection to the database behind the doorman."""
    handler = ConnectionHandler({"default": database({"DATABASE_URL": doorman.url}, home=HOME)})
    monkeypatch.setattr(django.db, "connections", handler)
    with django_db_blocker.unblock():
        yield handler["default"]
        handler.close_all()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts of at most a hundredth of a second."""
    monkeypatch.setattr(failures, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(failures, "LONGEST_DELAY_SECONDS", 0.01)


def ask(connection: BaseDatabaseWrapper, query: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone() if cursor.description else None


@pytest.mark.usefixtures("hurried")
def test_a_sleeping_server_is_woken(connection: BaseDatabaseWrapper, doorman: Doorman) -> None:
    doorman.refusals = [ASLEEP, CLOSED, STARTING, BUSY]
    assert ask(connection, "SELECT 42") == (42,)
    assert doorman.visits == 5


@pytest.mark.usefixtures("hurried")
def test_a_server_that_does_not_wake_is_given_up(connection: BaseDatabaseWrapper, doorman: Doorman) -> None:
    doorman.refusals = [ASLEEP] * 20
    with pytest.raises(ConnectionFailed, match="It says: Couldn't connect to compute node"):
        ask(connection, "SELECT 42")
    assert doorman.visits == failures.ATTEMPTS


def test_a_server_that_never_answers_is_given_up_before_patience_is_lost(
    connection: BaseDatabaseWrapper, doorman: Doorman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "PATIENCE_SECONDS", 1)
    doorman.is_silent = True
    with pytest.raises(ConnectionFailed, match="did not answer in time"):
        ask(connection, "SELECT 42")
    assert doorman.visits == 2


@pytest.mark.parametrize("said", LASTING)
def test_what_waiting_does_not_mend_is_tried_once(
    connection: BaseDatabaseWrapper, doorman: Doorman, said: str
) -> None:
    doorman.refusals = [said] * 20
    with pytest.raises(ConnectionFailed):
        ask(connection, "SELECT 42")
    assert doorman.visits == 1


def test_a_statement_is_never_replayed(connection: BaseDatabaseWrapper, doorman: Doorman) -> None:
    # A sequence counts whatever ran, even in a transaction that was rolled back.
    ask(connection, "CREATE SEQUENCE executions")
    doorman.cuts_at_reply = True
    with pytest.raises(OperationalError, match="not known whether this statement was kept"):
        ask(connection, "SELECT nextval('executions')")
    doorman.cuts_at_reply = False
    with pytest.raises(InterfaceError, match="The session of this connection has ended"):
        ask(connection, "SELECT 42")
    assert doorman.visits == 1
    close_old_connections()
    assert ask(connection, "SELECT last_value FROM executions") == (1,)
    assert doorman.visits == 2
    ask(connection, "DROP SEQUENCE executions")


REFUSES_SETTINGS = "unsupported startup parameter in options: lock_timeout"


def test_a_session_begins_with_its_settings_and_those_of_the_person_win(
    connection: BaseDatabaseWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGOPTIONS", raising=False)
    note = r"it's a \ and a  space"
    connection.settings_dict["SESSION"] = {"app.note": note, "lock_timeout": "5s", "work_mem": "1MB"}
    connection.settings_dict["OPTIONS"]["options"] = "-c lock_timeout=7s"
    settings = "SELECT current_setting('app.note'), current_setting('lock_timeout')"
    assert ask(connection, settings) == (note, "7s")
    connection.close()
    del connection.settings_dict["OPTIONS"]["options"]
    monkeypatch.setenv("PGOPTIONS", "-c lock_timeout=8s")
    assert ask(connection, f"{settings}, current_setting('work_mem')") == (note, "8s", "1MB")


def test_only_a_session_beside_may_leave_a_transaction_idle(connection: BaseDatabaseWrapper) -> None:
    limits = {"idle_in_transaction_session_timeout": "1min", "lock_timeout": "5s"}
    connection.settings_dict["SESSION"] = limits
    beside = aside(connection.settings_dict, "default")
    shown = "SELECT current_setting('idle_in_transaction_session_timeout'), current_setting('lock_timeout')"
    assert (ask(beside, shown), ask(connection, shown)) == (("0", "5s"), ("1min", "5s"))
    beside.close()


def test_a_pooler_gets_no_settings(connection: BaseDatabaseWrapper, doorman: Doorman) -> None:
    connection.settings_dict["SESSION"] = {"lock_timeout": "5s"}
    doorman.refusals = [REFUSES_SETTINGS]
    assert ask(connection, "SHOW lock_timeout") == ("0",)
    connection.close()
    connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = True
    assert ask(connection, "SHOW lock_timeout") == ("0",)
    assert doorman.visits == 3


def test_a_pooler_that_refuses_what_makes_a_session_read_only_is_not_used(
    connection: BaseDatabaseWrapper, doorman: Doorman
) -> None:
    connection.settings_dict |= {"SESSION": {"default_transaction_read_only": "on"}, "READ_ONLY": True}
    doorman.refusals = [REFUSES_SETTINGS]
    with pytest.raises(ConnectionFailed, match="name the direct address"):
        ask(connection, "SELECT 42")


@pytest.mark.parametrize(("text", "told"), SAID.items())
def test_a_failure_is_told_in_one_line_with_a_way_out(text: str, told: str) -> None:
    sentence = str(failures.explain(OperationalError(text), PARAMS))
    assert told in sentence
    assert len(sentence.splitlines()) == 1
    assert "s3cret" not in sentence
    assert "It says:" in sentence or (sentence.endswith(".") and ". " not in sentence)


def test_every_remedy_is_reached_by_a_text() -> None:
    told = {str(failures.explain(OperationalError(text), PARAMS)) for text in SAID}
    facts = {"server": "db.example.com:5432", "name": "shop", "user": "alex"}
    assert {remedy.format(**facts) for _, remedy in failures.REMEDIES} <= told


@pytest.mark.parametrize("text", PASSING)
def test_what_passes_by_itself_is_tried_again(text: str) -> None:
    assert failures.passes(OperationalError(PLACE + text))


@pytest.mark.parametrize(
    ("text", "host", "seconds", "passes"),
    [
        ("Connection refused", "db.example.com", 1.0, True),
        ("Connection refused", "db.example.com", 3.0, False),
        ("Connection refused", "ep-cool-darkness-123456.us-east-2.aws.neon.tech", 6.0, True),
        (f"ERROR:  {UNCLEAR}", "ep-cool-darkness-123456.us-east-2.aws.neon.tech", 1.0, True),
        (f"ERROR:  {UNCLEAR}", "ep-cool-darkness-123456.us-east-2.aws.neon.tech", 3.0, False),
    ],
)
def test_nobody_there_is_waited_for_as_long_as_a_restart_takes_and_neons_wake(
    text: str, host: str, seconds: float, passes: bool
) -> None:
    assert failures.passes(OperationalError(PLACE + text), host, seconds) is passes


@given(
    said=st.text("ABC: "),
    password=st.text(st.characters(exclude_characters="ABC: "), min_size=1),
    other=st.text(st.characters(exclude_characters="ABC: "), min_size=1),
)
def test_what_is_told_does_not_depend_on_the_password(said: str, password: str, other: str) -> None:
    told = [
        str(failures.explain(OperationalError(f"{said} {secret} {said}"), {**PARAMS, "password": secret}))
        for secret in (password, other)
    ]
    assert told[0] == told[1]
    assert len(told[0].splitlines()) == 1


def test_the_waits_between_attempts_grow_and_end() -> None:
    waits = list(failures.delays())
    assert len(waits) == failures.ATTEMPTS - 1
    assert 3 < sum(waits) < 8
