"""Django's Postgres backend, for a server that may have to be started or woken first."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.db.backends.postgresql import base, client
from psycopg2 import OperationalError

from workbench.connection import embedded
from workbench.connection.failures import ConnectionFailed, delays, explain, passes

logger = logging.getLogger(__name__)


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

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()
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
            raise explain(error, conn_params) from error

    def _connect_embedded(self, home: Path, params: dict[str, Any]) -> Any:
        cluster = embedded.Cluster(home)
        try:
            if cluster.is_supervised():
                with contextlib.suppress(OperationalError):
                    return super().get_new_connection(params)
            embedded.start(home)
            params.update(cluster.address())
        except embedded.EmbeddedError as error:
            raise ConnectionFailed(str(error)) from None
        return super().get_new_connection(params)

    def _connect_patiently(self, params: dict[str, Any]) -> Any:
        for delay in delays():
            try:
                return super().get_new_connection(params)
            except OperationalError as error:
                if not passes(error):
                    raise
                logger.info("Waking %s", params.get("host"))
                time.sleep(delay)
        return super().get_new_connection(params)
