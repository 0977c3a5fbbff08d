from __future__ import annotations

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from workbench.frames.errors import FrameError


def connection_of(alias: str) -> BaseDatabaseWrapper:
    """Return Django's connection to a Postgres that COPY works with. Raises FrameError."""
    if alias not in connections:
        names = ", ".join(connections)
        raise FrameError(f"There is no database alias {alias!r}: settings.DATABASES names {names}.")
    connection = connections[alias]
    if connection.vendor != "postgresql":
        raise FrameError(f"The alias {alias!r} is {connection.display_name}, and COPY is Postgres' own.")
    connection.ensure_connection()
    with connection.wrap_database_errors:
        encoding = connection.connection.get_parameter_status("client_encoding")
    if encoding != "UTF8":
        raise FrameError(f"The connection's client_encoding is {encoding}: SET client_encoding TO 'UTF8'.")
    return connection
