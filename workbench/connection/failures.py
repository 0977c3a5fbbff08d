"""What the server fails at, in sentences: to let somebody in, and to carry out a statement.

Some failures to connect pass by themselves. Their texts are libpq's, Postgres' and those of Neon's proxy
(https://github.com/neondatabase/neon, proxy/src): psycopg2 sets no ``pgcode`` on a connection that was never
made, so the text is all there is to go by. Statements fail with a SQLSTATE
(https://www.postgresql.org/docs/current/errcodes-appendix.html), or without one where no answer came.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import psycopg2
from django.db import DatabaseError, Error, InterfaceError, InternalError, OperationalError, ProgrammingError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError

from workbench import errors
from workbench.connection import silence
from workbench.connection.limits import TO_WRITE, WHY_ONLY_READ
from workbench.connection.url import is_neon
from workbench.errors import OneSentence
from workbench.retries import pauses

ATTEMPTS = 5
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 4.0
# Where each attempt times out, on each of the host's addresses, five of them would take minutes.
PATIENCE_SECONDS = 10.0

# A sleeping compute that wakes, a server that restarts, a proxy at its limit for a moment.
PASSING = re.compile(
    r"couldn't connect to compute node"
    r"|terminating connection due to"
    r"|ssl connection has been closed unexpectedly"
    r"|ssl syscall error: eof detected"
    r"|connection reset by peer"
    r"|server closed the connection unexpectedly"
    r"|the database system is (starting up|shutting down|not yet accepting connections|in recovery mode)"
    r"|failed to acquire permit to connect to the database"
    r"|timeout expired|timed out",
    re.IGNORECASE,
)

# What passes soon if at all: a server that is being restarted, and Neon's word on an endpoint that is either
# not there yet or out of quota. At a Neon host there may be nobody for as long as it wakes.
PASSING_SOON = re.compile(r"connection refused|endpoint is temporarily unavailable", re.IGNORECASE)
SOON_SECONDS = 2.0

# PgBouncer's, which Neon's pooler is: https://www.pgbouncer.org/config.html (ignore_startup_parameters).
NO_SETTINGS = re.compile("unsupported startup parameter", re.IGNORECASE)

# The first that matches decides. {server}, {name} and {user} are filled in.
REMEDIES = (
    (
        r'database "[^"]*" does not exist',
        "There is no database {name} on {server}: create it, or correct the name that ends DATABASE_URL.",
    ),
    (
        r'(password|SASL) authentication failed|role "[^"]*" does not exist|no password supplied',
        "{server} refused the role {user} or its password: copy the address again into DATABASE_URL.",
    ),
    (
        r"could not translate host name",
        "There is no host {server}, or no network: check the host in DATABASE_URL.",
    ),
    (
        r"connection refused|no such file or directory|no route to host|network is unreachable",
        "No Postgres answers at {server}: start it, or check the host and port in DATABASE_URL.",
    ),
    (
        r"endpoint (cannot|could not) be found|endpoint id is not specified",
        "Neon knows no endpoint {server}: copy the address from its console into DATABASE_URL again.",
    ),
    (
        r"endpoint (is|has been) disabled",
        "The Neon endpoint {server} is disabled: enable it in the console.",
    ),
    (
        r"exceeded the (compute time|data transfer)? ?quota|check your quotas",
        "The Neon project of {server} has used up its quota: see its console.",
    ),
    (
        r"limit of concurrently active endpoints",
        "Too many Neon endpoints are active at once: suspend one in the console, or wait.",
    ),
    (
        NO_SETTINGS.pattern,
        "{server} is a pooler that refuses a setting of the connection: take options= out of DATABASE_URL, "
        "or name the direct address there.",
    ),
    (
        r"too many clients|remaining connection slots|too many connections",
        "{server} has no free connection: shut down kernels that nobody needs, or raise its max_connections.",
    ),
    (
        r"server does not support ssl",
        "{server} does not speak TLS: take sslmode out of DATABASE_URL, or write sslmode=disable.",
    ),
    (
        r"connection is insecure|ssl required",
        "{server} wants TLS: write sslmode=require in DATABASE_URL.",
    ),
    (
        r"channel binding (is )?required",
        "{server} offers no channel binding: take channel_binding out of DATABASE_URL.",
    ),
    (
        r"certificate verify failed|does not match host name",
        "The certificate of {server} cannot be verified: check the host and sslrootcert in DATABASE_URL.",
    ),
    (
        r"closed the connection|connection has been closed|eof detected|connection reset by peer",
        "{server} ended the connection before it was made: try again, or look into its log.",
    ),
    (
        r"timeout expired|timed out",
        "{server} did not answer in time: check that it runs and that the network reaches it.",
    ),
)


# A kernel has read the settings, and would fail again as it did.
RESTART = " A changed DATABASE_URL counts from the next restart of the kernel (Kernel menu)."


class ConnectionFailed(OneSentence, OperationalError):
    """The database could not be reached: one sentence, with what to do."""


def explain(error: Exception, params: dict[str, Any]) -> ConnectionFailed:
    """Return what to tell the person about ``error``, met while connecting with ``params``."""
    text = str(error)
    facts = {
        "server": params.get("host") or "the local Postgres",
        "name": params.get("dbname", ""),
        "user": params.get("user", ""),
    }
    if params.get("port"):
        facts["server"] += f":{params['port']}"
    for pattern, remedy in REMEDIES:
        if re.search(pattern, text, re.IGNORECASE):
            is_to_mend = errors.is_in_kernel and "DATABASE_URL" in remedy
            return ConnectionFailed(f"{remedy.format(**facts)}{RESTART if is_to_mend else ''}")
    # Before the text is cut: what is left of a password could not be found.
    if password := params.get("password"):
        text = text.replace(password, "********")
    said = re.sub(r"^.*?(?:FATAL|ERROR):\s*", "", (text.strip() or "nothing").splitlines()[0])
    return ConnectionFailed(f"{facts['server']} did not let us in. It says: {said}")


def passes(error: Exception, host: str = "", seconds: float = 0.0) -> bool:
    """Tell whether a new attempt to connect to ``host``, after ``seconds`` of them, may well succeed."""
    text = str(error)
    if PASSING_SOON.search(text):
        return seconds < SOON_SECONDS or (is_neon(host) and "refused" in text)
    return PASSING.search(text) is not None


def refuses_settings(error: Exception) -> bool:
    """Tell whether a pooler has let nobody in who brings settings for the session."""
    return NO_SETTINGS.search(str(error)) is not None


def delays() -> Iterator[float]:
    """Yield the seconds to wait before each new attempt to connect.

    Once the attempts have used up our patience, the last of them is due.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    for pause in islice(pauses(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS), ATTEMPTS - 1):
        if time.monotonic() > deadline:
            return
        yield pause


# How a session ended, by its SQLSTATE.
ENDED = {
    "57P01": "Postgres ended this session, because it shuts down or somebody asked it to.",
    "57P02": "Postgres ended this session, because another one crashed.",
    "57P03": "Postgres takes no statements, because it starts or shuts down.",
    "57P04": "Postgres ended this session, because its database was dropped.",
    "57P05": "Postgres ended this session, because it was idle for longer than idle_session_timeout allows.",
    "25P03": "Postgres ended this session, because its transaction was idle for longer than "
    "{idle_in_transaction_session_timeout}.",
    "25P04": "Postgres ended this session, because its transaction took longer than {transaction_timeout}.",
}
LOST = "The connection to Postgres was lost: the server ended the session or went away, or the network did."
GONE = "What was not committed is gone."
CLOSED = "The session of this connection has ended."
# libpq forgets the SQLSTATE of what it reads before the end of a connection, and keeps a notice at most. In
# another language of the server's, the sentence is LOST.
ENDINGS = {
    r"administrator command|immediate shutdown|postmaster exit": "57P01",
    r"crash of another|SIGQUIT": "57P02",
    r"idle-session timeout": "57P05",
    r"idle-in-transaction timeout": "25P03",
    r"transaction timeout": "25P04",
}
# These answer a commit. A crash does not: it may have come after it.
IS_NOT_KEPT = ENDED.keys() - {"57P02"}
# What the driver says before it has noticed that nobody is there any more.
BROKEN = re.compile(
    r"server closed the connection|connection has been closed|eof detected|reset by peer|broken pipe"
    r"|could not (receive|send) data|connection (already closed|pointer is NULL)|lost synchronization"
    r"|connection timed out|no message from the libpq",
    re.IGNORECASE,
)
# What only reads. A SELECT without FROM may call a function of the person's.
READS = re.compile(
    rb"[\s(]*(SELECT\b(.*\bFROM\b|\s+(pg_\w+\(|\d))|COPY\b.*\bTO\s+STDOUT"
    rb"|(SHOW|TABLE|VALUES|FETCH|DECLARE|CLOSE|SET|RESET)\b)",
    re.IGNORECASE | re.DOTALL,
)
COMMITS = re.compile(rb"\s*(COMMIT|END|PREPARE\s+TRANSACTION)\b", re.IGNORECASE)
# A text may hold millions of rows.
READ_BYTES = 10_000

# What kept a statement from being carried out, and the remedy. {said} is what Postgres says of it.
FAILED = {
    "53100": ("{disk} is full, so this was not done.", "Free space there, then run it again."),
    "53200": (
        "The server has not enough memory for this ({said}).",
        "Ask for less at once, as frame.chunks() does, or close other sessions.",
    ),
    "53300": (
        "The server has no free connection ({said}).",
        "Shut down kernels that nobody needs, or raise its max_connections.",
    ),
    "53400": (
        "A limit of the server is too low for this ({said}).",
        "Ask for less at once, or raise the limit.",
    ),
    "55P03": (
        "Another session holds a lock that this needs ({said}).",
        "Run it again when that one is done: {who_blocks} tells who it is.",
    ),
    "40P01": (
        "This and another session waited for each other (a deadlock), so Postgres gave this one up.",
        "Run it again, with all that belongs to the transaction.",
    ),
    "40001": (
        "Another session got in between, so Postgres gave this up ({said}).",
        "Run it again, with all that belongs to the transaction.",
    ),
    "42501": (
        "The role {role} may not do this ({said}).",
        "Ask the owner for a GRANT, or connect as a role that may.",
    ),
    "25P02": (
        "A statement of this transaction failed, so Postgres takes no other one, and keeps nothing of it.",
        "Roll it back, and next time put transaction.atomic() around what may fail.",
    ),
}
OUT_OF_LOCKS = (
    "The server has no room for as many locks as this takes.",
    "Do less in one transaction, or raise its max_locks_per_transaction.",
)
TOO_LONG = (
    "Postgres cancelled this, because it took longer than {statement_timeout}.",
    "Ask for less at once, or allow more: SET statement_timeout.",
)
CANCELLED = ("This was cancelled before it was done ({said}).", "Run it again if nobody meant that.")
# What sets those of our own, in SESSION.
VARIABLES = {
    "idle_in_transaction_session_timeout": "WORKBENCH_TRANSACTION_TIMEOUT",
    "statement_timeout": "WORKBENCH_STATEMENT_TIMEOUT",
}
# A parameter that the server reports by itself, since Postgres 14, tells why it only reads.
READ_ONLY = {
    "chosen": (f"{WHY_ONLY_READ} ({{said}}).", TO_WRITE),
    "in_hot_standby": ("This server is a standby, which only reads ({said}).", "Connect to the primary."),
    "default_transaction_read_only": (
        "Sessions of this role and database only read ({said}).",
        "Connect as a role that may write, or SET default_transaction_read_only = off if that is yours.",
    ),
    "": ("This transaction only reads ({said}).", "Write in another one."),
}


class StatementFailed(OneSentence, DatabaseError):
    """A statement was not carried out, for a reason that lies in the server, its settings or its other users.

    ``what`` happened comes first, the remedy after it. It is also of the class of Django's that it would be
    without us, and psycopg2's error is its cause. A cell shows at which of its lines it was met.
    """

    def __init__(self, what: str, *more: str) -> None:
        super().__init__(" ".join(filter(None, (what, *more))))
        self.what = what

    def _render_traceback_(self) -> list[str]:
        return [*super()._render_traceback_(), *(errors.places(self) if errors.places else ())]


class ConnectionLost(StatementFailed, OperationalError):
    """The session ended while a statement ran, or before it."""


class BrokenTransaction(StatementFailed, TransactionManagementError):
    """An error went through an atomic block, which takes no more statements."""


class TransactionOpen(StatementFailed, ProgrammingError):
    """Autocommit cannot be switched, nor a block begun that would, in the middle of a transaction."""


class _Closed(ConnectionLost, InterfaceError): ...


class _Ended(ConnectionLost, InternalError): ...


class _Operational(StatementFailed, OperationalError): ...


class _Internal(StatementFailed, InternalError): ...


class _Programming(StatementFailed, ProgrammingError): ...


LOSSES: dict[type[Error], type[ConnectionLost]] = {InterfaceError: _Closed, InternalError: _Ended}
FAILURES: dict[type[Error], type[StatementFailed]] = {
    OperationalError: _Operational,
    InternalError: _Internal,
    ProgrammingError: _Programming,
}


def told(
    error: Error, cause: psycopg2.Error, connection: BaseDatabaseWrapper, *, is_commit: bool
) -> StatementFailed | None:
    """Return what to raise instead of Django's ``error``, or None where it is about the statement itself.

    ``is_commit`` says that it was met at the end of a transaction.
    """
    if _is_lost(cause, connection):
        is_late = not cause.pgcode and isinstance(error, InterfaceError)
        what = ENDED.get(cause.pgcode or "") or _ending(connection, CLOSED if is_late else LOST)
        what = silence.why_given_up(connection.connection) or what
        kind: type[StatementFailed] = LOSSES.get(type(error), ConnectionLost)
        said = what, _rest(cause, connection, is_commit)
    else:
        reason = _reason(cause, connection)
        if reason is None or type(error) not in FAILURES:
            return None
        kind, said = FAILURES[type(error)], reason
    facts = _Facts(connection, cause)
    return kind(*(part.format_map(facts) for part in said))


def ending(connection: BaseDatabaseWrapper) -> str:
    """Return, in a sentence, how a session ended that nobody asked anything."""
    return _ending(connection, LOST).format_map(_Facts(connection))


def _ending(connection: BaseDatabaseWrapper, otherwise: str) -> str:
    notices = getattr(connection.connection, "notices", None) or [""]
    last = re.search(r"terminating connection (.*)", notices[-1])
    found = (code for said, code in ENDINGS.items() if last and re.search(said, last[1]))
    return ENDED.get(next(found, ""), otherwise)


def _is_lost(cause: psycopg2.Error, connection: BaseDatabaseWrapper) -> bool:
    if cause.pgcode in ENDED:
        return True
    is_of_connection = isinstance(cause, psycopg2.OperationalError | psycopg2.InterfaceError)
    if cause.pgcode in FAILED or not (is_of_connection or type(cause) is psycopg2.DatabaseError):
        return False
    raw = connection.connection
    return raw is None or bool(raw.closed) or (not cause.pgcode and BROKEN.search(str(cause)) is not None)


def _rest(cause: psycopg2.Error, connection: BaseDatabaseWrapper, is_commit: bool) -> str:
    """Return what holds of the data once the session is lost, and how to go on."""
    sql = (getattr(cause.cursor, "query", None) or b"")[:READ_BYTES]
    is_transaction = connection.in_atomic_block or not connection.autocommit
    is_commit = is_commit or COMMITS.match(sql) is not None
    # psycopg2 does not say which cursor it is where a COPY that it reads breaks off.
    is_reading = READS.match(sql) is not None or "PGRES_COPY_OUT" in str(cause)
    is_sent = not isinstance(cause, psycopg2.InterfaceError) and cause.pgcode not in IS_NOT_KEPT
    if is_sent and (is_commit or not (is_transaction or is_reading)):
        what = "the commit" if is_commit else "this statement"
        return f"It is not known whether {what} was kept: look before you run it again."
    anew = ": the next cell connects anew" if errors.is_in_kernel else ""
    if is_reading and not is_transaction:
        return f"Run it again{anew}."
    return f"{GONE} Run it again{anew}."


def _reason(cause: psycopg2.Error, connection: BaseDatabaseWrapper) -> tuple[str, str] | None:
    # Names of settings are the same in every language that a server may speak.
    if cause.pgcode == "53200" and "max_locks_per_transaction" in (cause.diag.message_hint or ""):
        return OUT_OF_LOCKS
    if cause.pgcode == "57014":
        return TOO_LONG if "statement timeout" in str(cause) else CANCELLED
    if cause.pgcode == "25006":
        status = connection.connection.get_parameter_status
        reported = [name for name in READ_ONLY if name and status(name) == "on"]
        return READ_ONLY["chosen" if connection.settings_dict.get("READ_ONLY") else [*reported, ""][0]]
    return FAILED.get(cause.pgcode or "")


class _Facts(dict[str, str]):
    """What the sentences name; a setting of the server, with its value where it is ours."""

    def __init__(self, connection: BaseDatabaseWrapper, cause: psycopg2.Error | None = None) -> None:
        home = connection.settings_dict.get("EMBEDDED")
        options = connection.settings_dict.get("OPTIONS", {})
        super().__init__(
            said=((cause and cause.diag.message_primary) or "").rstrip("."),
            role=options.get("assume_role") or connection.settings_dict.get("USER") or "of this session",
            disk=f"The disk that holds {home}" if home else "The disk of the server",
            who_blocks="who_blocks()" if errors.is_in_kernel else "python manage.py who_blocks",
        )
        self._session = connection.settings_dict.get("SESSION", {})

    def __missing__(self, setting: str) -> str:
        facts = filter(None, [self._session.get(setting), VARIABLES.get(setting)])
        return f"{setting} allows ({', '.join(facts)})" if setting in self._session else f"{setting} allows"
