"""Names as SQL has them, whatever characters they hold.

https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS
"""

from __future__ import annotations

import re

# What is SQL already: a quoted name, or one with its schema.
QUOTED = re.compile(r'"(?:[^"]|"")+"(?:\."(?:[^"]|"")+")*')
# What is once it is put between quotes.
PLAIN = re.compile(r'[^"]+(?:"\."[^"]+)*')
# What needs no quotes, unless it is a word of SQL's own.
BARE = re.compile(r"[a-z_][a-z0-9_$]*")


def quoted(name: str) -> str:
    """Return a name as SQL has it, in quotes."""
    return '"{}"'.format(name.replace('"', '""'))


def typed(name: str) -> str:
    """Return a name as a person types it: with quotes where it needs them."""
    return name if BARE.fullmatch(name) else quoted(name)


def of_table(db_table: str) -> str:
    """Return what a model says is its table, as SQL has it. What is written so already stays as it is.

    ``schema"."table``, which many projects write for a table in another schema, is that table.
    """
    if QUOTED.fullmatch(db_table):
        return db_table
    return f'"{db_table}"' if PLAIN.fullmatch(db_table) else quoted(db_table)
