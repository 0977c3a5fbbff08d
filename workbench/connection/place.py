"""Where a connection leads, said in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.connection.url import is_neon
from workbench.errors import OneSentence
from workbench.show import printable

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper


@dataclass(frozen=True)
class Place:
    """A database and the server it is on. Safe to show: it holds no role and no password."""

    version: str
    server: str
    database: str
    is_embedded: bool
    # The name of the branch; "" for the database that DATABASE_URL names.
    branch: str = ""
    # Whether sessions only read: by choice, or because the role, the database or the server is set so.
    is_read_only: bool = False

    def __str__(self) -> str:
        branch = f", branch {self.branch}" if self.branch else ""
        read_only = ", read-only" if self.is_read_only else ""
        place = f"PostgreSQL {self.version}, {self.server}, database {self.database}{branch}{read_only}"
        return printable(place)

    __repr__ = __str__


def where(alias: str = "default") -> Place:
    """Return which Postgres this is: the server, the database and the branch.

    It is the one that the connection named ``alias`` leads to. Costs one round trip. Raises OneSentence where
    there is no such alias.

    Example::

        where()
    """
    connection = connection_to(alias)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'), current_database(), pg_is_in_recovery() "
            "OR current_setting('default_transaction_read_only')::bool"
        )
        version, database, is_read_only = cursor.fetchone()
    config = connection.settings_dict
    return Place(
        version=version.split()[0],
        server=server_of(config),
        database=database,
        is_embedded=bool(config.get("EMBEDDED")),
        branch=config.get("BRANCH") or "",
        is_read_only=is_read_only,
    )


def connection_to(alias: str) -> BaseDatabaseWrapper:
    """Return Django's connection. Raises OneSentence where there is no such alias."""
    from django.db import connections

    if alias not in connections:
        raise OneSentence(f"There is no database alias {alias!r}: there are {', '.join(connections)}.")
    return connections[alias]


def server_of(config: dict[str, Any]) -> str:
    """Say which server an entry of DATABASES leads to. Safe to show."""
    if config.get("EMBEDDED"):
        return "the embedded server"
    host = config["HOST"] or config["OPTIONS"].get("host") or "the local server"
    if is_neon(host):
        return f"Neon at {host}"
    return f"{host}:{config['PORT']}" if config["PORT"] else host
