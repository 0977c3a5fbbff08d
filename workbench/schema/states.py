"""The four things that a schema change passes through, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.apps import apps as installed
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.questioner import MigrationQuestioner
from django.db.migrations.state import ProjectState

from workbench.schema import evolved, sources
from workbench.schema.errors import SchemaError
from workbench.schema.history import History, Models, Point, history_of
from workbench.schema.show import ADDED, CHANGED, REMOVED, SAME, WARNING, Grid, Part, Row, Shown, Words
from workbench.schema.snapshot import Change, Snapshot, expected_tables, snapshot

NAMES = ("model classes", "migration files", "recorded history", "real tables")
ABSENT, DITTO = "—", "″"
# Tables are compared with so many other points of their app's history, to find one that they fit.
POINTS_TRIED = 10


@dataclass(frozen=True)
class Disagreement:
    """Where two of the four differ, and how to mend it."""

    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what} {self.mend}"


@dataclass(frozen=True, repr=False)
class States(Shown):
    """An app's tables as classes, files, records and the database have them. False where all agree."""

    app_label: str
    at: tuple[str, str, str, str]
    tables: tuple[Snapshot, Snapshot, Snapshot, Snapshot]
    disagreements: tuple[Disagreement, ...]

    def __bool__(self) -> bool:
        return bool(self.disagreements)

    def _parts(self) -> Iterator[Part]:
        yield Grid(self.app_label, [Row(["at", *self.at])], ("", *NAMES))
        for name in sorted({name for tables in self.tables for name in tables.tables}):
            rows = [
                Row([item, *_with_dittos(said)], SAME if len(set(said)) == 1 else WARNING)
                for item, said in self._items(name).items()
            ]
            yield Grid(name, rows, ("", *NAMES))
        if not self.disagreements:
            yield Words("All four agree.")
        for each in self.disagreements:
            yield Words(str(each), WARNING)

    def _items(self, name: str) -> dict[str, list[str]]:
        """Return the columns, constraints and indexes of a table, each as the four have it."""
        items: dict[str, list[str]] = {}
        for number, tables in enumerate(self.tables):
            table = tables.tables.get(name)
            if table is None:
                continue
            said = {column.name: str(column) for column in table.columns.values()}
            said |= {f"{each.kind} {each}": "yes" for each in table.rules}
            for item, text in said.items():
                items.setdefault(item, [ABSENT] * len(self.tables))[number] = text
        return items


def _with_dittos(said: list[str]) -> list[str]:
    """Say once what stands beside itself."""
    return [
        DITTO if number and text == said[number - 1] and text != ABSENT else text
        for number, text in enumerate(said)
    ]


def states(app_label: str, *, using: str = DEFAULT_DB_ALIAS) -> States:
    """Return an app's models, migration files, recorded history and tables, and where they disagree.

    Tables of models and migrations are what Django makes of them on this server. Raises SchemaError.
    """
    connection = connections[using]
    history = history_of(connection)
    history.find(app_label, "zero")
    classes = {model.__name__: model for model in installed.get_app_config(app_label).get_models()}
    code = Models(app_label, "the code", classes, using)
    newest = history.newest()
    files = _models(newest, app_label, using)
    disagreements = [*_in_code(app_label, history, newest), *_in_history(app_label, history)]
    try:
        recorded = _models(history.now(), app_label, using)
    except SchemaError as error:
        disagreements.append(Disagreement("The recorded history does not fit together.", str(error)))
        recorded = files
    real = snapshot(app_label, using=using)
    disagreements += _drift(app_label, history, recorded, real)
    made = [expected_tables(connection, models) for models in (code, files, recorded)]
    at = ("as loaded", files.migration, recorded.migration, "as they are")
    return States(app_label, at, (*made, real), tuple(disagreements))  # type: ignore[arg-type]


def _models(point: Point, app_label: str, using: str) -> Models:
    return Models(app_label, point.as_of.get(app_label, "zero"), point.models(app_label), using)


def _in_code(app_label: str, history: History, newest: Point) -> Iterator[Disagreement]:
    """Compare the classes with their file, and with the migration files."""
    label = installed.get_app_config(app_label)
    for path in sources.stale():
        if path.is_relative_to(Path(label.path)):
            yield Disagreement(f"{path.name} was edited after this kernel loaded it.", "Restart the kernel.")
    detector = MigrationAutodetector(newest.state, ProjectState.from_apps(installed), MigrationQuestioner())
    found = detector.changes(history.graph, trim_to_apps={app_label}).get(app_label, [])
    if said := [operation.describe() for migration in found for operation in migration.operations]:
        yield Disagreement(
            f"The classes are ahead of the files ({', '.join(said)}).",
            f"%manage makemigrations {app_label} writes the migration.",
        )


def _in_history(app_label: str, history: History) -> Iterator[Disagreement]:
    """Compare the migration files with what is recorded."""
    for name in history.gone(app_label):
        yield Disagreement(
            f"{name} is recorded as applied, and its file is gone.",
            f"Bring the file back, or forget the record with %manage migrate {app_label} --prune.",
        )
    missing = [each for each in history.of(app_label) if (app_label, each.name) not in history.applied]
    if missing:
        said = ", ".join(each.name for each in missing)
        yield Disagreement(
            f"Not applied: {said}.",
            f"%manage migrate {app_label} {missing[-1].name} brings the database there.",
        )
    if history.is_evolved(app_label):
        before = ["zero", *(each.name for each in history.of(app_label) if not evolved.is_one(each))][-1]
        yield Disagreement(
            f"{history.last(app_label)} was made in a cell; the files and the classes know nothing of it.",
            f"%%evolve --write keeps it, %manage migrate {app_label} {before} undoes it.",
        )


def _drift(app_label: str, history: History, recorded: Models, real: Snapshot) -> Iterator[Disagreement]:
    """Compare the tables with what the recorded migrations made."""
    found = real - recorded
    if not found:
        return
    names = [each.name for each in history.of(app_label) if each.name != recorded.migration]
    for name in names[-POINTS_TRIED:]:
        point = history.point((app_label, name))
        if not real - Models(app_label, name, point.models(app_label), recorded.using):
            yield Disagreement(
                f"The tables are those of {name}, and {recorded.migration} is recorded.",
                f"%manage migrate {app_label} {name} --fake records what is there.",
            )
            return
    for change in found:
        yield Disagreement(f"The tables are not what the migrations made: {change}.", _mend(change))


def _mend(change: Change) -> str:
    """Return the SQL that makes the table what the migrations say."""
    alter = f'ALTER TABLE "{change.table}"'
    name = f'"{change.name}"'
    if change.what == "table":
        return (
            f'DROP TABLE "{change.table}"; if nobody needs it.'
            if change.sign == ADDED
            else "Make it with the CREATE TABLE that timeline() shows."
        )
    if change.what == "column":
        if change.sign == CHANGED:
            return f"{alter} ALTER COLUMN {name} changes it back to {change.before}."
        return f"{alter} DROP {name};" if change.sign == ADDED else f"{alter} ADD {name} {change.before};"
    if change.what == "index":
        drop, add = f"DROP INDEX {name};", f'CREATE INDEX {name} ON "{change.table}" USING {change.before};'
    else:
        drop = f"{alter} DROP CONSTRAINT {name};"
        add = f"{alter} ADD CONSTRAINT {name} {change.what.upper()} {change.before};"
    return drop if change.sign == ADDED else add if change.sign == REMOVED else f"{drop} {add}"
