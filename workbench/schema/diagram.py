"""A snapshot as an entity-relationship diagram in Mermaid, which JupyterLab draws by itself.

The grammar: https://mermaid.js.org/syntax/entityRelationshipDiagram.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from django.db import DEFAULT_DB_ALIAS, connections

from workbench.schema.history import Models
from workbench.schema.snapshot import Snapshot, Table, expected_tables, snapshot

SHORT_TYPES = {
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "time without time zone": "time",
    "time with time zone": "timetz",
    "double precision": "float8",
    "bit varying": "varbit",
}
FOREIGN_KEY = re.compile(r"\((?P<columns>[^)]*)\) REFERENCES (?P<table>.+?)\((?P<targets>[^)]*)\)")


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
    """Return a diagram of the tables: all, those of an app by its label, of a snapshot, or of models_at().

    A line between two tables is a foreign key; it begins with ``||`` where every row must have one, with
    ``|o`` where it may be NULL. Raises SchemaError.
    """
    if isinstance(what, Models):
        what = expected_tables(connections[what.using], what)
    elif not isinstance(what, Snapshot):
        what = snapshot(*([what] if what else []), using=using)
    return Diagram("\n".join(["erDiagram", *_lines(what)]))


def _lines(tables: Snapshot) -> Iterator[str]:
    for table in tables:
        keys = _keys(table)
        yield f"    {_quoted(table.name)} {{"
        for column in table.columns.values():
            words = [_type(column.type), _word(column.name), ", ".join(keys.get(column.name, ()))]
            if column.is_nullable:
                words.append('"NULL"')
            yield f"        {' '.join(filter(None, words))}"
        yield "    }"
    for table in tables:
        for each in table.constraints:
            if each.kind != "foreign key" or not (found := FOREIGN_KEY.match(str(each))):
                continue
            target = _bare(found["table"])
            columns = _split(found["columns"])
            if target in tables.tables:
                may_miss = any(table.columns[column].is_nullable for column in columns)
                is_one = _is_unique(table, columns)
                line = f"{'|o' if may_miss else '||'}--{'o|' if is_one else 'o{'}"
                yield f"    {_quoted(target)} {line} {_quoted(table.name)} : {_quoted(', '.join(columns))}"


def _keys(table: Table) -> dict[str, list[str]]:
    """Return what Mermaid calls the keys of each column: PK, FK, UK."""
    keys: dict[str, list[str]] = {}
    for kind, word in (("primary key", "PK"), ("foreign key", "FK"), ("unique", "UK")):
        for each in table.constraints:
            if each.kind == kind:
                columns = _split(str(each)[1:].partition(")")[0])
                for column in columns if word != "UK" or len(columns) == 1 else []:
                    keys.setdefault(column, []).append(word)
    return {column: list(dict.fromkeys(words)) for column, words in keys.items()}


def _is_unique(table: Table, columns: list[str]) -> bool:
    return any(
        each.kind in ("primary key", "unique") and _split(str(each)[1:].partition(")")[0]) == columns
        for each in table.constraints
    )


def _split(columns: str) -> list[str]:
    return [_bare(column.strip()) for column in columns.split(",")]


def _bare(name: str) -> str:
    return name.strip('"').replace('""', '"')


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"\w+", name, re.ASCII) else f'"{name.replace(chr(34), chr(39))}"'


def _word(name: str) -> str:
    """Return a name that the grammar allows for a column."""
    word = re.sub(r"[^\w-]", "_", name, flags=re.ASCII)
    return word if re.match(r"[A-Za-z_]", word) else f"_{word}"


def _type(name: str) -> str:
    for long, short in SHORT_TYPES.items():
        name = name.replace(long, short)
    return re.sub(r"[^\w()\[\]-]", "_", name.replace(",", "-"), flags=re.ASCII)
