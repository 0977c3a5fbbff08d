"""Django's Postgres backend, for a connection that waits for no server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from psycopg2 import OperationalError

from workbench.connection import embedded
from workbench.connection.backend import base
from workbench.connection.failures import ConnectionFailed

NOT_RUNNING = "The embedded Postgres does not run: it starts with the next cell or command that needs it."


class DatabaseWrapper(base.DatabaseWrapper):
    def _connect_embedded(self, home: Path, params: dict[str, Any]) -> Any:
        """Connect to the server if it runs, and else leave it alone: somebody may just have stopped it."""
        try:
            return self._connect(params)
        except OperationalError:
            if not embedded.Cluster(home).answers("postgres"):
                raise ConnectionFailed(NOT_RUNNING) from None
            # What is said of the failure names this, and not a folder of this machine.
            params.update(host="The embedded Postgres", port=None)
            raise

    def _connect_patiently(self, params: dict[str, Any]) -> Any:
        return self._connect(params)

    def _connect(self, params: dict[str, Any]) -> Any:
        return super(base.DatabaseWrapper, self).get_new_connection(params)
