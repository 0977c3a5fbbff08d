"""Failures to connect: which of them pass by themselves, and what to tell the person about the others.

The texts are libpq's, Postgres' (https://www.postgresql.org/docs/current/errcodes-appendix.html) and those of
Neon's proxy (https://github.com/neondatabase/neon, proxy/src). psycopg2 sets no ``pgcode`` on a connection
that was never made, so the text is all there is to go by.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from typing import Any

from django.db import OperationalError

from workbench import errors
from workbench.errors import OneSentence

ATTEMPTS = 5
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 4.0
# Where each attempt times out, on each of the host's addresses, five of them would take minutes.
PATIENCE_SECONDS = 10.0

# A sleeping compute that wakes, a server that restarts, a proxy at its limit for a moment.
PASSING = re.compile(
    r"couldn't connect to compute node"
    r"|terminating connection due to administrator command"
    r"|ssl connection has been closed unexpectedly"
    r"|ssl syscall error: eof detected"
    r"|connection reset by peer"
    r"|server closed the connection unexpectedly"
    r"|the database system is (starting up|shutting down|not yet accepting connections|in recovery mode)"
    r"|failed to acquire permit to connect to the database"
    r"|timeout expired|timed out",
    re.IGNORECASE,
)

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
        r"unsupported startup parameter",
        "{server} is a pooler that refuses a setting of the connection: take options= out of DATABASE_URL.",
    ),
    (
        r"too many clients|remaining connection slots|too many connections",
        "{server} has no free connection: close other notebooks, or raise its max_connections.",
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


def passes(error: Exception) -> bool:
    """Tell whether a new attempt to connect, a little later, may well succeed."""
    return PASSING.search(str(error)) is not None


def delays() -> Iterator[float]:
    """Yield the seconds to wait before each new attempt, with jitter so that clients don't return as one.

    Once the attempts have used up our patience, the last of them is due.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    longest = FIRST_DELAY_SECONDS
    for _ in range(ATTEMPTS - 1):
        if time.monotonic() > deadline:
            return
        yield random.uniform(longest / 2, longest)
        longest = min(longest * 2, LONGEST_DELAY_SECONDS)
