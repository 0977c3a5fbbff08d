"""A snapshot as an entity-relationship diagram in Mermaid, which JupyterLab draws by itself.

The grammar: https://mermaid.js.org/syntax/entityRelationshipDiagram.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from django.db import DEFAULT_DB_ALIAS

from workbench.schema.history import Models, connection_to
from workbench.schema.snapshot import Snapshot, Table, expected_tables, only, read
from workbench.show import printable

SHORT_TYPES = {
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "time without time zone": "time",
    "time with time zone": "timetz",
    "double precision": "float8",
    "bit varying": "varbit",
}
# Words of Mermaid's grammar, as tables' names begin with them, and as columns.
KEYWORDS = re.compile(
    r"one|only|to|many|zero|optionally|u$|class|style|end|erdiagram|title|acc|subgraph|direction",
    re.IGNORECASE,
)
KEYS = re.compile(r"^(pk|fk|uk)\b", re.IGNORECASE)
PLAIN = re.compile(r"[A-Za-z_]\w*", re.ASCII)
# What a quoted name may not hold, by what looks like it.
LOOKALIKES = str.maketrans({"%": "％", "\\": "＼", '"': "＂", "\n": " ", "\r": " "})


@dataclass(frozen=True)
class Diagram:
    """Mermaid text: ``print(diagram())`` gives what other tools need to draw it."""

    source: str

    def __str__(self) -> str:
        return self.source

    __repr__ = __str__

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/vnd.mermaid": self.source, "text/plain": self.source}


def diagram(what: Snapshot | Models | str | None = None, *, using: str = DEFAULT_DB_ALIAS) -> Diagram:
    """Return a diagram of the tables and the foreign keys between them.

    All tables, those of an app by its label, of a snapshot, or of models_at(). A line between two is a
    foreign key; it begins with ``||`` where every row must have one, with ``|o`` where it may be NULL. Raises
    SchemaError.

    Examples::

        diagram("catalog")
        diagram(models_at("catalog", "0001"))
    """
    if isinstance(what, Models):
        what = expected_tables(connection_to(what.using), what)
    elif not isinstance(what, Snapshot):
        everything = read(connection_to(using), counted=False)
        what = only(everything, what) if what else everything
    return Diagram("\n".join(["erDiagram", *_lines(what)]))


def _lines(tables: Snapshot) -> Iterator[str]:
    by_sql_name = {table.sql_name: table for table in tables}
    for table in tables:
        keys = _keys(table)
        yield f"    {_entity(table.name)} {{"
        for column in table.columns.values():
            words = [_type(column.type), _word(column.name), ", ".join(keys.get(column.name, ()))]
            if column.is_nullable:
                words.append('"NULL"')
            yield f"        {' '.join(filter(None, words))}"
        yield "    }"
    for table in tables:
        for each in table.constraints:
            if target := by_sql_name.get(each.target or ""):
                may_miss = any(table.columns[column].is_nullable for column in each.columns)
                line = f"{'|o' if may_miss else '||'}--{'o|' if _is_unique(table, each.columns) else 'o{'}"
                role = _entity(", ".join(each.columns))
                yield f"    {_entity(target.name)} {line} {_entity(table.name)} : {role}"


def _keys(table: Table) -> dict[str, list[str]]:
    """Return what Mermaid calls the keys of each column: PK, FK, UK."""
    keys: dict[str, list[str]] = {}
    for kind, word in (("primary key", "PK"), ("foreign key", "FK"), ("unique", "UK")):
        for each in table.constraints:
            if each.kind == kind and (word != "UK" or len(each.columns) == 1):
                for column in each.columns:
                    keys.setdefault(column, []).append(word)
    return {column: list(dict.fromkeys(words)) for column, words in keys.items()}


def _is_unique(table: Table, columns: tuple[str, ...]) -> bool:
    """Tell whether no two rows have the same values there."""
    return any(
        each.kind in ("primary key", "unique") and {*each.columns} <= {*columns} for each in table.constraints
    )


def _entity(name: str) -> str:
    """Return a table's name, or a line's, as the grammar allows it."""
    if PLAIN.fullmatch(name) and not KEYWORDS.match(name):
        return name
    return f'"{printable(name).translate(LOOKALIKES)}"'


def _word(name: str) -> str:
    """Return a column's name as the grammar allows it."""
    word = re.sub(r"[^\w\u00C0-\uFFFF-]|[\u2010-\u2BFF]", "_", name, flags=re.ASCII)
    if not re.match(r"[A-Za-z_\u00C0-\uFFFF]", word):
        word = f"_{word}"
    return KEYS.sub(r"\1_", word)


def _type(name: str) -> str:
    for long, short in SHORT_TYPES.items():
        name = name.replace(long, short)
    name = re.sub(r"[^\w()\[\]-]", "_", name.replace(",", "-").replace("- ", "-"), flags=re.ASCII)
    return f"_{name}" if not PLAIN.match(name) or KEYS.match(name) else name
