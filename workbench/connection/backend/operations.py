"""Django's operations on Postgres, with names that may hold any character."""

from __future__ import annotations

from django.db.backends.postgresql import operations

from workbench.connection import names


class DatabaseOperations(operations.DatabaseOperations):
    def quote_name(self, name: str) -> str:
        """Return a name as SQL has it. After a quote within one, Django's own would let the rest be SQL."""
        return names.of_table(name)
