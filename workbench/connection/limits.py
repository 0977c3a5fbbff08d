"""What a person may choose that every session of this project is held to, by the server itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.connection.url import duration

VARIABLE = "WORKBENCH_STATEMENT_TIMEOUT"
# Of sessions that only read, if nothing else is said.
STATEMENT_TIMEOUT = "60s"

WHY_ONLY_READ = "This connection only reads, because WORKBENCH_READ_ONLY is set"
TO_WRITE = "Unset it and restart the kernel if you mean to write."
ONLY_READS = f"{WHY_ONLY_READ}. {TO_WRITE}"


def limits(entry: dict[str, Any], environ: Mapping[str, str], *, read_only: bool) -> dict[str, Any]:
    """Return an entry of DATABASES whose sessions are held to what ``environ`` says.

    A statement may take as long as WORKBENCH_STATEMENT_TIMEOUT says. Without it those that are ``read_only``
    have a minute, and for others the server's own limit holds. Raises ImproperlyConfigured.
    """
    session = dict(entry.get("SESSION", {}))
    if read_only:
        session["default_transaction_read_only"] = "on"
    if read_only or environ.get(VARIABLE, "").strip():
        session["statement_timeout"] = duration(environ, VARIABLE, default=STATEMENT_TIMEOUT)
    return {**entry, "SESSION": session, "READ_ONLY": read_only}
