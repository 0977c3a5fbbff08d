"""Which Postgres, and how to reach it."""

from workbench.connection.failures import ConnectionFailed, ConnectionLost, StatementFailed
from workbench.connection.limits import limits
from workbench.connection.place import Place, server_of, where
from workbench.connection.queue import Queue, Session, Wait, who_blocks
from workbench.connection.url import DatabaseURLError, database, duration

__all__ = [
    "ConnectionFailed",
    "ConnectionLost",
    "DatabaseURLError",
    "Place",
    "Queue",
    "Session",
    "StatementFailed",
    "Wait",
    "database",
    "duration",
    "limits",
    "server_of",
    "where",
    "who_blocks",
]
