"""The four things that a schema change passes through, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.apps import apps as installed
from django.db import DEFAULT_DB_ALIAS
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.questioner import MigrationQuestioner
from django.db.migrations.state import ProjectState

from workbench import evolved
from workbench.progress import Progress
from workbench.schema import sources
from workbench.schema.errors import SchemaError
from workbench.schema.history import History, Models, Point, connection_to, history_of
from workbench.schema.mend import mend
from workbench.schema.scratch import place_of
from workbench.schema.snapshot import Difference, Snapshot, compared, expected_tables, only, read
from workbench.show import SAME, WARNING, Grid, Part, Row, Shown, Words

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
    """Return an app's models, files, history and tables side by side, and where they disagree.

    Each disagreement comes with how to mend it. Tables of models and of migration files are what Django makes
    of them on this server. Raises SchemaError.

    Examples::

        states("catalog")
        states("catalog").disagreements
    """
    with Progress(f"Comparing the four states of {app_label}"):
        return _compared(app_label, using)


def _compared(app_label: str, using: str) -> States:
    connection = connection_to(using)
    history = history_of(connection)
    history.check(app_label)
    code, newest = Point(ProjectState.from_apps(installed), {}), history.newest()
    disagreements = list(_in_code(app_label, history, newest, code))
    try:
        now = history.now()
    except SchemaError as error:
        disagreements.append(Disagreement("The recorded history does not fit together.", str(error)))
        now = newest
    everything = read(connection, counted=False)
    classes, files = (
        expected_tables(connection, point.of(app_label, using), everything) for point in (code, newest)
    )
    recorded = now.of(app_label, using)
    made = files if now is newest else expected_tables(connection, recorded, everything)
    drift, reached = _drift(history, recorded, compared(everything, made, recorded), everything)
    disagreements += [*_in_history(app_label, history, reached), *drift]
    at = ("as loaded", newest.as_of.get(app_label, "zero"), recorded.migration, "as they are")
    tables = (classes, files, made, only(everything, app_label))
    return States(app_label, at, tables, tuple(disagreements))


def _in_code(app_label: str, history: History, newest: Point, code: Point) -> Iterator[Disagreement]:
    """Compare the classes with their file, and with the migration files."""
    label = installed.get_app_config(app_label)
    for path in sources.stale():
        if path.is_relative_to(Path(label.path)):
            yield Disagreement(f"{path.name} was edited after this kernel loaded it.", "Restart the kernel.")
    detector = MigrationAutodetector(newest.state, code.state, MigrationQuestioner())
    found = detector.changes(history.graph, trim_to_apps={app_label}).get(app_label, [])
    if said := [operation.describe() for migration in found for operation in migration.operations]:
        yield Disagreement(
            f"The classes are ahead of the files ({', '.join(said)}).",
            f"%manage makemigrations {app_label} writes the migration.",
        )


def _in_history(app_label: str, history: History, reached: str | None) -> Iterator[Disagreement]:
    """Compare the migration files with what is recorded, but for those that the tables have reached."""
    for name in history.gone(app_label):
        yield Disagreement(
            f"{name} is recorded as applied, and its file is gone.",
            f"Bring the file back, or forget the record with %manage migrate {app_label} --prune.",
        )
    migrations = history.of(app_label)
    names = [each.name for each in migrations]
    done = names[: names.index(reached) + 1] if reached in names else []
    missing = [name for name in names if (app_label, name) not in history.applied and name not in done]
    if missing:
        said = ", ".join(missing)
        yield Disagreement(
            f"Not applied: {said}.",
            f"%manage migrate {app_label} {missing[-1]} brings the database there.",
        )
    if history.is_evolved(app_label):
        before = ["zero", *(each.name for each in migrations if not evolved.is_one(each))][-1]
        yield Disagreement(
            f"{history.last(app_label)} was made in a cell; the files and the classes know nothing of it.",
            f"%evolve {app_label} --write keeps it, %manage migrate {app_label} {before} undoes it.",
        )


def _drift(
    history: History, recorded: Models, found: Difference, everything: Snapshot
) -> tuple[list[Disagreement], str | None]:
    """Say what the tables are otherwise than the recorded migrations made them, or which other migration they
    fit, and that.
    """
    if not found:
        return [], None
    label = recorded.app_label
    names = ["zero", *(each.name for each in history.of(label))]
    shapes = {(table.relation, frozenset(table.columns)) for table in everything}
    for name in [name for name in names if name != recorded.migration][-POINTS_TRIED:]:
        models = history.beside(label, None if name == "zero" else (label, name)).of(label, recorded.using)
        if _shapes(models) <= shapes and not everything - models:
            tables = "There are no tables" if name == "zero" else f"The tables are those of {name}"
            said = Disagreement(
                f"{tables}, and {recorded.migration} is recorded.",
                f"%manage migrate {label} {name} --fake records what is there.",
            )
            return [said], name
    return [
        Disagreement(f"The tables are not what the migrations made: {change}.", mend(change))
        for change in found
    ], None


def _shapes(models: Models) -> set[tuple[str, frozenset[str]]]:
    """Return the tables of the models with their columns' names, for which no database need be asked."""
    return {
        (place_of(model)[1], frozenset(str(field.column) for field in model._meta.local_concrete_fields))
        for model in models
        if model._meta.can_migrate(models.using)
    }
