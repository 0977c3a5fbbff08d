"""Django's Postgres backend, for a server that may have to be started or woken first."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from django.db.backends.postgresql import base, client
from psycopg2 import OperationalError

from workbench.connection import embedded
from workbench.connection.failures import ConnectionFailed, delays, explain, passes
from workbench.connection.sessions import Connection, holds_transaction
from workbench.progress import Progress

logger = logging.getLogger(__name__)

# What finds the branch that a process is told to start on, and puts its address into the settings. The app
# sets it: this room knows nothing of branches.
find_branch: Callable[[DatabaseWrapper], None] | None = None


class DatabaseClient(client.DatabaseClient):
    """psql for ``dbshell``: for the embedded server, the one that came with it if no other is installed."""

    def runshell(self, parameters: Iterable[str]) -> None:
        if home := self.connection.settings_dict.get("EMBEDDED"):
            from workbench.connection.supervisor import Owner, binary

            self.connection.ensure_connection()
            address = embedded.Cluster(Path(home)).address()
            self.connection.settings_dict["HOST"] = address["host"]
            self.connection.settings_dict["PORT"] = address["port"]
            self.connection.settings_dict["PASSWORD"] = address.get("password", "")
            os.environ |= {"PGSSLMODE": address["sslmode"], "PGCHANNELBINDING": address["channel_binding"]}
            if shutil.which(self.executable_name) is None:
                os.environ["PATH"] += os.pathsep + str(binary("psql", Owner()).parent)
        super().runshell(parameters)


class DatabaseWrapper(base.DatabaseWrapper):
    client_class = DatabaseClient
    # Where the open connection leads to; None if that is over.
    leads_to: tuple[Any, ...] | None = None

    def ensure_connection(self) -> None:
        """Connect, and anew where the settings lead elsewhere by now: on a branch, in every thread.

        A transaction is ended where it was begun.
        """
        raw = self.connection
        is_elsewhere = raw is not None and self.leads_to != address(self.settings_dict)
        if is_elsewhere and not holds_transaction(self):
            self.close()
        super().ensure_connection()

    def copy(self, alias: str | None = None) -> DatabaseWrapper:
        self._find_branch()
        copied: DatabaseWrapper = super().copy(alias)
        return copied

    def _find_branch(self) -> None:
        if find_branch is not None and self.settings_dict.get("BRANCH"):
            find_branch(self)

    def get_connection_params(self) -> dict[str, Any]:
        self._find_branch()
        self.leads_to = address(self.settings_dict)
        params = super().get_connection_params()
        params.setdefault("connection_factory", Connection)
        if home := self.settings_dict.get("EMBEDDED"):
            try:
                params.update(embedded.lease(Path(home)).address())
            except embedded.EmbeddedError as error:
                raise ConnectionFailed(str(error)) from None
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect, starting the embedded server or waking a sleeping one where need be.

        Only this is ever tried again, never a statement: that one may have run.
        """
        home = self.settings_dict.get("EMBEDDED")
        try:
            if home:
                return self._connect_embedded(Path(home), conn_params)
            return self._connect_patiently(conn_params)
        except OperationalError as error:
            is_gone = f'database "{conn_params.get("dbname")}" does not exist' in str(error)
            if is_gone and (branch := self.settings_dict.get("BRANCH")):
                raise ConnectionFailed(
                    f"There is no branch {branch} any more: %branch use main goes back."
                ) from error
            raise explain(error, conn_params) from error

    def _connect_embedded(self, home: Path, params: dict[str, Any]) -> Any:
        cluster = embedded.Cluster(home)
        try:
            if cluster.is_supervised():
                with contextlib.suppress(OperationalError):
                    return super().get_new_connection(params)
            is_new = not cluster.data.exists()
            with Progress(f"{'Setting up' if is_new else 'Starting'} the embedded Postgres"):
                embedded.start(home)
            params.update(cluster.address())
        except embedded.EmbeddedError as error:
            raise ConnectionFailed(str(error)) from None
        return super().get_new_connection(params)

    def _connect_patiently(self, params: dict[str, Any]) -> Any:
        with Progress("Connecting") as progress:
            for delay in delays():
                try:
                    return super().get_new_connection(params)
                except OperationalError as error:
                    if not passes(error):
                        raise
                    logger.info("Waking %s", params.get("host"))
                    progress.now = "the server is not there yet"
                    time.sleep(delay)
            return super().get_new_connection(params)


def address(settings: dict[str, Any]) -> tuple[Any, ...]:
    """Return what tells whether two entries of DATABASES lead to the same database."""
    return tuple(settings.get(part) for part in ("NAME", "USER", "PASSWORD", "HOST", "PORT"))
