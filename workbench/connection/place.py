"""Where a connection leads, said in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.connection.url import is_neon


@dataclass(frozen=True)
class Place:
    """A database and the server it is on. Safe to show: it holds no role and no password."""

    version: str
    server: str
    database: str
    is_embedded: bool
    # The name of the branch; "" for the database that DATABASE_URL names.
    branch: str = ""

    def __str__(self) -> str:
        branch = f", branch {self.branch}" if self.branch else ""
        return f"PostgreSQL {self.version}, {self.server}, database {self.database}{branch}"

    __repr__ = __str__


def where(alias: str = "default") -> Place:
    """Return which Postgres this is: the server, the database and the branch.

    It is the one that the connection named ``alias`` leads to. Costs one round trip.

    Example::

        where()
    """
    from django.db import connections

    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version'), current_database()")
        version, database = cursor.fetchone()
    config = connection.settings_dict
    return Place(
        version=version.split()[0],
        server=server_of(config),
        database=database,
        is_embedded=bool(config.get("EMBEDDED")),
        branch=config.get("BRANCH") or "",
    )


def server_of(config: dict[str, Any]) -> str:
    """Say which server an entry of DATABASES leads to. Safe to show."""
    if config.get("EMBEDDED"):
        return "the embedded server"
    host = config["HOST"] or config["OPTIONS"].get("host") or "the local server"
    if is_neon(host):
        return f"Neon at {host}"
    return f"{host}:{config['PORT']}" if config["PORT"] else host
