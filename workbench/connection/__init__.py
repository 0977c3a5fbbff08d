"""Which Postgres, and how to reach it."""

from workbench.connection.failures import ConnectionFailed
from workbench.connection.place import Place, server_of, where
from workbench.connection.queue import Queue, Session, Wait, who_blocks
from workbench.connection.url import DatabaseURLError, database

__all__ = [
    "ConnectionFailed",
    "DatabaseURLError",
    "Place",
    "Queue",
    "Session",
    "Wait",
    "database",
    "server_of",
    "where",
    "who_blocks",
]
