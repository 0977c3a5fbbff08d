"""Changed model classes in a cell -> the migration that Django would write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import ismethod, signature
from pathlib import Path
from typing import Any

from django.db import DEFAULT_DB_ALIAS, models
from django.db.migrations import Migration, RunPython
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.graph import MigrationGraph
from django.db.migrations.questioner import MigrationQuestioner
from django.db.migrations.state import ModelState, ProjectState
from django.db.migrations.writer import MigrationWriter

from workbench import evolved
from workbench.schema import cell as cells
from workbench.schema.cell import BACKWARDS, FORWARDS, Cell
from workbench.schema.effects import Effect, effects
from workbench.schema.errors import SchemaError
from workbench.schema.history import History, Key, Point, connection_to, history_of
from workbench.show import Code, Grid, Part, Row, Shown, Words

# Where functions of the cell would have to be imported from, until they stand in the migration's own file.
CELL_MODULE = "workbench_cell"
FUTURE = re.compile(r"^from __future__ .*$", re.MULTILINE)
CLASS = "\n\n\nclass Migration("


@dataclass(frozen=True)
class Answers:
    """What makemigrations would ask.

    ``renames`` maps ``Author`` or ``Author.name`` to a new name; ``defaults`` maps ``Author.born`` to a
    Python expression for the rows that are there; ``backfilled`` names fields whose rows have values already;
    ``removed`` names models that go. With ``no_renames`` what looks like a rename is none.
    """

    renames: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    backfilled: Sequence[str] = ()
    removed: Sequence[str] = ()
    no_renames: bool = False

    def __bool__(self) -> bool:
        return bool(self.renames or self.defaults or self.backfilled or self.removed)


@dataclass(frozen=True)
class Planned:
    """A migration that has no file yet."""

    name: str
    text: str
    effects: tuple[Effect, ...]
    migration: Migration = field(repr=False, compare=False)

    @property
    def sql(self) -> str:
        return "\n".join(effect.sql for effect in self.effects)


@dataclass(frozen=True, repr=False)
class Evolution(Shown):
    """The migrations that lead from ``after`` to what a cell defines; none where that changes nothing."""

    app_label: str
    after: str
    steps: tuple[Planned, ...]
    point: Point = field(compare=False)
    earlier: Evolution | None = field(default=None, compare=False)
    using: str = field(default=DEFAULT_DB_ALIAS, compare=False)

    def __bool__(self) -> bool:
        return bool(self.steps)

    @property
    def chain(self) -> list[Planned]:
        """All that is not in the database yet: what this one builds on, too."""
        return [*(self.earlier.chain if self.earlier else []), *self.steps]

    def _parts(self) -> Iterator[Part]:
        if not self.steps:
            yield Words(f"No change: this is what {self.app_label} is as of {self.after}.")
            return
        for step in self.steps:
            yield Code(step.text, "python", f"{self.app_label}/migrations/{step.name}.py")
            yield Code(step.sql, "postgres", "SQL")
            yield Grid("What it means", [Row(effect.said) for effect in step.effects])


def evolve(
    app_label: str,
    source: str,
    *,
    answers: Answers | None = None,
    name: str | None = None,
    start: str | Evolution | None = None,
    namespace: Mapping[str, Any] | None = None,
    using: str = DEFAULT_DB_ALIAS,
) -> Evolution:
    """Return the migrations that makemigrations would write if ``source`` stood in the app's models.py.

    Models that ``source`` does not define stay as they are. ``start`` is where the change starts: the name of
    a migration, an evolution to build on, or None for where the database is. Instead of classes, functions
    ``forwards`` and ``backwards`` (of ``apps`` and ``schema_editor``) make a data migration.

    The migration is run on empty tables of its own, so SQL, locks, rewrites and reads are what Postgres did.
    Raises SchemaError: at the line of the cell that is wrong, or with the answer that is needed.
    """
    connection = connection_to(using)
    history = history_of(connection)
    history.check(app_label)
    if gone := history.gone(app_label):
        raise SchemaError(
            f"{gone[0]} is recorded as applied, and its file is gone: bring it back, or forget the record "
            f"with %manage migrate {app_label} --prune."
        )
    if name is not None and not name.isidentifier():
        raise SchemaError(f"{name!r} is no name for a migration: letters, digits and _ make one.")
    if isinstance(start, Evolution):
        if (start.app_label, start.using) != (app_label, using):
            raise SchemaError(
                f"What it goes on from is of {start.app_label} in the database {start.using!r}: start anew."
            )
        before, earlier = start.point, start
    else:
        key = history.find(app_label, start or "zero")
        before, earlier = history.beside(app_label, key) if start else history.now(), None
    base = _copy(before)
    cell = cells.run(app_label, source, namespace or {}, base.state.apps)
    answers = Answers() if answers is None else answers
    if FORWARDS in cell.functions:
        last = before.as_of.get(app_label)
        migration = _data_migration(app_label, cell, last, name)
        source = _text(migration, cell).partition(CLASS)[0]
        # Running a cell again is no second migration. What comes before may be in a file, or in a cell only.
        there = (
            earlier.chain[-1].text if earlier and earlier.chain else _file(history, (app_label, last or ""))
        )
        is_done = there.partition(CLASS)[0].endswith(source)
        migrations = [] if is_done else [migration]
    elif not source.strip() and not answers:
        migrations = []
    else:
        migrations = _detect(app_label, cell, before, answers, name)
    after, steps = _copy(before), []
    for migration in migrations:
        text = _text(migration, cell)
        loaded = _loaded(text, migration)
        moved = _moved(after, loaded)
        found = effects(connection, after.state, loaded, _touched(app_label, after, moved))
        steps.append(Planned(migration.name, text, tuple(found), loaded))
        after = moved
    return Evolution(app_label, before.as_of.get(app_label, "zero"), tuple(steps), after, earlier, using)


def _copy(point: Point) -> Point:
    """Return the same point with classes of its own."""
    state = ProjectState(dict(point.state.models), point.state.real_apps)
    return Point(state, dict(point.as_of))


def _moved(point: Point, migration: Migration) -> Point:
    after = _copy(point)
    after.state = migration.mutate_state(after.state)
    after.as_of[migration.app_label] = migration.name
    return after


def _detect(app_label: str, cell: Cell, before: Point, answers: Answers, name: str | None) -> list[Migration]:
    """Compare the point with itself, changed by the cell's classes."""
    state = before.state.clone()
    there = {known: each for (label, known), each in state.models.items() if label == app_label}
    for removed in answers.removed:
        if removed.lower() not in there:
            raise SchemaError(f"There is no model {removed} to remove: {app_label} has {_names(there)}.")
        if removed.lower() in {model._meta.model_name for model in cell.models}:
            raise cell.error(f"{removed} is in the cell, so it cannot go.", model=removed)
        state.remove_model(app_label, removed.lower())
        del there[removed.lower()]
    # Models first: Writer.bio is a field of what Author is renamed to.
    for old, new in sorted(answers.renames.items(), key=lambda pair: "." in pair[0]):
        model, _, attribute = old.partition(".")
        if model.lower() not in there or (attribute and attribute not in there[model.lower()].fields):
            raise SchemaError(f"There is no {old} to rename: {app_label} has {_names(there)}.")
        if not attribute:
            if new.lower() in there:
                raise SchemaError(f"{old} cannot become {new}: {app_label} has a {new} already.")
            state.rename_model(app_label, model, new)
            there[new.lower()] = there.pop(model.lower())
    if not cell.models and not answers.removed:
        raise SchemaError(
            f"The cell defines no model of {app_label}, and no function {FORWARDS}(apps, schema_editor)."
        )
    changed = [ModelState.from_model(model) for model in cell.models]
    for each in changed:
        state.models[app_label, each.name_lower] = each
    state = ProjectState(state.models, state.real_apps)
    _check(cell, state, changed)
    questioner = _Questioner(app_label, cell, answers, state)
    graph = MigrationGraph()
    for key in before.as_of.items():
        graph.add_node(key, None)
    detector = MigrationAutodetector(before.state, state, questioner)
    found = detector.changes(graph, trim_to_apps={app_label}, migration_name=name)
    questioner.refuse_the_unasked()
    return found.get(app_label, [])


def _check(cell: Cell, state: ProjectState, changed: Iterable[ModelState]) -> None:
    """Raise the first of Django's own errors about the changed models."""
    try:
        apps = state.apps
    except Exception as error:
        said = re.sub(r"<function .*> contains", "A field contains", str(error).partition("\n")[0])
        found = re.findall(r"'(?:\w+\.)?(\w+)'|to \w+\.(\w+)|manager (\w+)", said)
        words = [word for words in found for word in words if word]
        owner = re.search(r"field \w+\.(\w+)\.(\w+)", said)
        raise cell.error(
            said, model=owner[1] if owner else "", words=[owner[2], *words] if owner else words
        ) from None
    for each in changed:
        model = apps.get_model(each.app_label, each.name)
        if not ismethod(model.check):
            raise cell.error("'check' is a method that Django needs.", model=each.name, words=["check"])
        # A state holds a set here, which the check takes for a mistake.
        model._meta.unique_together = tuple(model._meta.unique_together)
        for message in model.check(databases=[DEFAULT_DB_ALIAS]):
            if message.is_serious():
                raise cells.wrong(cell, message)


class _Questioner(MigrationQuestioner):
    """Answers what the cell's first line answers, and says how to answer what it doesn't."""

    def __init__(self, app_label: str, cell: Cell, answers: Answers, state: ProjectState) -> None:
        super().__init__(specified_apps={app_label})
        self._label, self._cell, self._answers, self._state = app_label, cell, answers, state
        self._open = {*answers.renames, *answers.defaults, *answers.backfilled}

    def ask_initial(self, app_label: str) -> bool:
        return app_label == self._label

    def ask_rename(self, model_name: str, old_name: str, new_name: str, field_instance: Any) -> bool:
        return self._is_rename(f"{self._model(model_name)}.{old_name}", new_name)

    def ask_rename_model(self, old_model_state: ModelState, new_model_state: ModelState) -> bool:
        return self._is_rename(old_model_state.name, new_model_state.name)

    def ask_not_null_addition(self, field_name: str, model_name: str) -> Any:
        return self._default(model_name, field_name, "give the field a default, db_default or null=True")

    def ask_auto_now_add_addition(self, field_name: str, model_name: str) -> Any:
        return self._default(model_name, field_name, "give the field null=True", "timezone.now")

    def ask_not_null_alteration(self, field_name: str, model_name: str) -> Any:
        name = f"{self._model(model_name)}.{field_name}"
        if name in self._answers.backfilled:
            self._open.discard(name)
            return models.NOT_PROVIDED
        return self._default(model_name, field_name, f"if no row is NULL any more add --backfilled {name}")

    def refuse_the_unasked(self) -> None:
        for name in sorted(self._open):
            if new := self._answers.renames.get(name):
                raise SchemaError(
                    f"{name} to {new} is no rename: {name} must be gone from the cell, and {new} must be new "
                    f"and otherwise defined alike. Rename first, change in a second step."
                )
            raise SchemaError(f"{name} needs no default: nothing asks for one.")

    def _is_rename(self, old: str, new: str) -> bool:
        if self._answers.renames.get(old) == new:
            self._open.discard(old)
            return True
        if self._answers.no_renames or old in self._answers.renames:
            return False
        kind, what = ("a column", "its values") if "." in old else ("a table", "its rows")
        raise SchemaError(
            f"{old} is gone and {new} is new: if that is a rename, add --rename {old}={new} to the first "
            f"line and {what} stay; if not, add --no-renames, which drops {kind} and makes another."
        )

    def _default(self, model_name: str, field_name: str, other_way: str, example: str = "...") -> Any:
        model = self._model(model_name)
        name = f"{model}.{field_name}"
        self._open.discard(name)
        if name not in self._answers.defaults:
            raise self._cell.error(
                f"{name} needs a value for the rows that are there: add --default {name}={example} to the "
                f"first line, or {other_way}.",
                model=model,
                words=[field_name],
            )
        expression = self._answers.defaults[name]
        try:
            return eval(expression, dict(self._cell.names))
        except Exception as error:
            raise SchemaError(f"--default {name}={expression}: {type(error).__name__}: {error}") from None

    def _model(self, model_name: str) -> str:
        name: str = self._state.models[self._label, model_name.lower()].name
        return name


def _data_migration(app_label: str, cell: Cell, last: str | None, name: str | None) -> Migration:
    if cell.models:
        raise cell.error(
            f"A cell makes a data migration of {FORWARDS}(), or changes classes: make two of it.",
            model=cell.models[0].__name__,
        )
    number = (MigrationAutodetector.parse_number(last) or 0) + 1 if last else 1
    migration = Migration(f"{number:04}_{name or 'data'}", app_label)
    if last:
        migration.dependencies = [(app_label, last)]  # type: ignore[misc]
    code, reverse_code = (cell.functions.get(name) for name in (FORWARDS, BACKWARDS))
    for each, function in ((FORWARDS, code), (BACKWARDS, reverse_code)):
        if function is not None:
            try:
                signature(function).bind(None, None)
            except TypeError as error:
                said = f"{each}() is given apps and schema_editor: {error}."
                raise cell.error(said, model=each) from None
    migration.operations = [RunPython(code, reverse_code)]  # type: ignore[arg-type, misc]
    return migration


def _text(migration: Migration, cell: Cell) -> str:
    """Return the migration's file, with the code of a data migration in it."""
    is_data = any(isinstance(operation, RunPython) for operation in migration.operations)
    for function in cell.functions.values() if is_data else ():
        if function.__module__ == cell.names["__name__"]:
            function.__module__ = CELL_MODULE
    try:
        text: str = MigrationWriter(migration, include_header=False).as_string()
    except ValueError as error:
        operation: Any = migration.operations[0]
        model, name = getattr(operation, "model_name", ""), getattr(operation, "name", "")
        named = next((each.__name__ for each in cell.models if each._meta.model_name == model), name)
        raise cell.error(str(error).partition("\n")[0], model=named, words=[name]) from None
    if not is_data:
        return text
    text = text.replace(f"import {CELL_MODULE}\n", "").replace(f"{CELL_MODULE}.", "")
    head, _, body = text.partition(CLASS)
    source = cell.source.strip()
    future = "\n".join(FUTURE.findall(source))
    source = FUTURE.sub("", source).strip()
    gap = "\n" if source.startswith(("import ", "from ")) else "\n\n\n"
    return f"{future}\n\n{head.strip()}{gap}{source}{CLASS}{body}".lstrip()


def _loaded(text: str, migration: Migration) -> Migration:
    """Return the migration as its file gives it. Raises SchemaError where it lacks what only the cell has."""
    try:
        return evolved.loaded(text, migration.app_label, migration.name)
    except Exception as error:
        raise SchemaError(
            f"The migration cannot stand alone ({error}): what its fields refer to must be in the app's "
            f"models.py, or in another module."
        ) from None


def _touched(app_label: str, before: Point, after: Point) -> set[type[models.Model]]:
    """Return the models whose tables a migration may change, or refer to."""
    apps = before.state.apps
    ours = [model for model in apps.get_models() if model._meta.app_label == app_label]
    touched = {*ours, *(each.related_model for model in ours for each in model._meta.related_objects)}
    for model in after.models(app_label).values():
        for each in (*model._meta.local_fields, *model._meta.local_many_to_many):
            related = each.remote_field.model._meta if each.remote_field else None
            if related and (related.app_label, related.model_name) in before.state.models:
                touched.add(apps.get_model(related.app_label, related.model_name))
    return touched


def _names(there: Mapping[str, ModelState]) -> str:
    return ", ".join(sorted(each.name for each in there.values())) or "no models"


def write(evolution: Evolution) -> list[Path]:
    """Put the migrations into the app's folder, and return the new files.

    An evolution without a change writes what was applied from cells before. Raises SchemaError where the
    files go another way.
    """
    history = history_of(connection_to(evolution.using))
    label = evolution.app_label
    steps = evolution.chain or [
        Planned(each.name, _file(history, (label, each.name)), (), each)
        for each in history.of(label)
        if evolved.is_one(each)
    ]
    found = []
    for step in _new(history, label, steps, history.newest().as_of.get(label)):
        writer = MigrationWriter(step.migration)
        header = writer.as_string().partition("\n\n")[0]
        Path(writer.path).write_text(f"{header}\n\n{step.text}", encoding="utf-8")
        found.append(Path(writer.path))
    return found


def keep(evolution: Evolution) -> set[Key]:
    """Put the migrations where evolved ones lie, and return their keys, for evolved.offered().

    Raises SchemaError where the files go another way.
    """
    history = history_of(connection_to(evolution.using))
    label = evolution.app_label
    last = history.of(label)
    steps = _new(history, label, evolution.chain, last[-1].name if last else None)
    for step in steps:
        evolved.write(history.connection, label, step.name, step.text)
    return {(label, step.name) for step in steps}


def _new(history: History, label: str, steps: Iterable[Planned], last: str | None) -> list[Planned]:
    """Return the steps that are no files yet, if they follow the last that is."""
    new = []
    for step in steps:
        if not _is_file(history, label, step):
            if last != dict(step.migration.dependencies).get(label):
                raise SchemaError(
                    f"{step.name} is not the next: {label} goes on to {last or 'zero'} already. Migrate "
                    f"there, or start with --from {last or 'zero'}."
                )
            new.append(step)
            last = step.name
    return new


def _is_file(history: History, label: str, step: Planned) -> bool:
    there = history.loader.disk_migrations.get((label, step.name))
    if there is None or evolved.is_one(there):
        return False
    canonical = MigrationWriter(there, include_header=False).as_string()
    return canonical == step.text or step.text in _file(history, (label, step.name))


def _file(history: History, key: Key) -> str:
    """Return the text of a migration's file, the app's own or one from a cell; "" where there is none."""
    there = history.loader.disk_migrations.get(key)
    if there is None or evolved.is_one(there):
        return evolved.text(history.connection, *key)
    return Path(MigrationWriter(there).path).read_text(encoding="utf-8")
