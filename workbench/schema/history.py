"""The models as of a migration, and which migrations a database has applied."""

from __future__ import annotations

import importlib
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from traceback import walk_tb
from typing import Any

from django.apps import apps as installed
from django.apps.registry import Apps
from django.core.exceptions import FieldError
from django.db import DEFAULT_DB_ALIAS, ProgrammingError, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.exceptions import BadMigrationError, NodeNotFoundError
from django.db.migrations.graph import MigrationGraph
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState
from psycopg2 import errors

from workbench import evolved
from workbench.errors import or_rather
from workbench.progress import Progress
from workbench.schema.errors import NotInHistory, SchemaError

Key = tuple[str, str]

# Each holds all classes of a project, once one of them was asked for.
POINTS_KEPT = 16


def models_at(app_label: str, migration: str | None = None, *, using: str = DEFAULT_DB_ALIAS) -> Models:
    """Return the models of an app as they were after a migration.

    The database stays where it is. ``migration`` is a name or how it begins; ``"zero"`` is before the first,
    None after the last. A migration that was squashed can be named too. The classes query and write like any
    others, with fields and those managers that have ``use_in_migrations``; methods are not part of the
    history (https://docs.djangoproject.com/en/5.2/topics/migrations/#historical-models).

    Raises SchemaError: no such app or migration, or files that do not fit together.

    Examples::

        models_at("catalog", "0001")
        frame(models_at("catalog", "0001").Author)
    """
    history = history_of(connection_to(using))
    return history.beside(app_label, history.find(app_label, migration)).of(app_label, using)


class Models:
    """The models of one app at one point of its history, as attributes, and by iteration."""

    def __init__(
        self, app_label: str, migration: str, classes: Mapping[str, type[models.Model]], using: str
    ) -> None:
        self.app_label = app_label
        self.migration = migration
        self.using = using
        self._classes = classes

    def __getattr__(self, name: str) -> type[models.Model]:
        if name.startswith("__"):
            raise AttributeError(name)  # copy and pickle ask before anything is set.
        try:
            return self.__dict__["_classes"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise NotInHistory(f"{self} has no {name}{or_rather(name, dir(self))}") from None

    def __iter__(self) -> Iterator[type[models.Model]]:
        return iter(self._classes.values())

    def __dir__(self) -> list[str]:
        return list(self._classes)

    def __repr__(self) -> str:
        return f"{self.app_label} as of {self.migration} ({', '.join(self._classes) or 'no models'})"


class Point:
    """The models of every app after some migrations.

    ``state`` is Django's, ``as_of`` names the last migration of each app, ``apps`` holds the classes.
    """

    def __init__(self, state: ProjectState, as_of: dict[str, str]) -> None:
        self.state = state
        self.as_of = as_of

    @cached_property
    def apps(self) -> Apps:
        try:
            with Progress("Making the models of the migrations"):
                registry: Apps = self.state.apps
        except (FieldError, ValueError) as error:  # Names, lazy references, bases.
            said = str(error).partition("\n")[0]
            raise SchemaError(f"The models of these migrations do not fit together: {said}") from error
        for model in registry.get_models(include_auto_created=True, include_swapped=True):
            # A migration that was edited after it was applied may add one twice; a table has it once.
            model._meta.indexes = [*{index.name: index for index in model._meta.indexes}.values()]
            if as_of := self.as_of.get(model._meta.app_label):
                _mark(model, as_of)
        return registry

    def models(self, app_label: str) -> dict[str, type[models.Model]]:
        """Return the classes of one app by their names; {} where it has none at this point."""
        return {
            model.__name__: model for model in self.apps.get_models() if model._meta.app_label == app_label
        }

    def of(self, app_label: str, using: str) -> Models:
        return Models(app_label, self.as_of.get(app_label, "zero"), self.models(app_label), using)


class History:
    """The migration files, and what one database has recorded of them. See history_of()."""

    def __init__(self, connection: BaseDatabaseWrapper, recorded: Mapping[Key, datetime]) -> None:
        self.recorded = recorded
        self._alias = connection.alias
        self.loader = self._load()
        self.graph = self.loader.graph
        self.applied = set(self.loader.applied_migrations) & set(self.graph.nodes)
        self._points: OrderedDict[frozenset[Key], Point] = OrderedDict()

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """Of this thread."""
        return connections[self._alias]

    def _load(self, **options: bool) -> MigrationLoader:
        try:
            with Progress("Reading the migrations"):
                return MigrationLoader(self.connection, **options)
        except Exception as error:  # They are Python, and may do anything.
            said = str(error).rstrip(".")
            if not isinstance(error, BadMigrationError | NodeNotFoundError | SyntaxError):
                frame, line = [*walk_tb(error.__traceback__)][-1]
                said = f"{type(error).__name__}: {said} ({Path(frame.f_code.co_filename).name}, line {line})"
            raise SchemaError(f"The migration files cannot be loaded: {said}.") from error

    def check(self, app_label: str) -> None:
        """Raise SchemaError where there is no such app, or it has no history."""
        check_label(app_label)
        if app_label in self.loader.unmigrated_apps:
            raise SchemaError(f"The app {app_label} has no migrations: its models have one state only.")

    def find(self, app_label: str, name: str | None) -> Key | None:
        """Return the migration that is meant, None for zero. Raises SchemaError."""
        self.check(app_label)
        if name == "zero":
            return None
        if name is None:
            return self._newest(app_label)
        every = {*self.graph.nodes, *self.loader.disk_migrations}
        names = sorted(known for label, known in every if label == app_label)
        matches = [known for known in names if known == name] or [
            known for known in names if known.startswith(name)
        ]
        # A squashed migration and the first that it replaces begin alike.
        matches = [known for known in matches if (app_label, known) in self.graph.nodes] or matches
        if len(matches) > 1:
            raise SchemaError(f"{name!r} may be {' or '.join(matches)} of {app_label}: say more of the name.")
        if not matches:
            if gone := [known for known in self.gone(app_label) if known.startswith(name)]:
                raise SchemaError(f"{app_label}.{gone[0]} is recorded as applied, and its file is gone.")
            guess = or_rather(name, names, f": it has {', '.join(names[-5:]) or 'none'}.")
            raise SchemaError(f"{app_label} has no migration {name!r}{guess}")
        return app_label, matches[0]

    def _newest(self, app_label: str) -> Key | None:
        leaves = self.graph.leaf_nodes(app_label)
        if len(leaves) > 1:
            said = " and ".join(name for _, name in leaves)
            raise SchemaError(f"{app_label} has two ends, {said}: merge them with makemigrations --merge.")
        return leaves[0] if leaves else None

    def beside(self, app_label: str, key: Key | None) -> Point:
        """Return the models after a migration of an app; of the others all that is applied, and needs no more
        of this one.
        """
        loader = self._unsquashed if key and key not in self.graph.nodes else self.loader
        graph = loader.graph
        own = set(graph.forwards_plan(key)) if key else set()
        kept = own | (set(loader.applied_migrations) & set(graph.nodes))
        later = [step for step in kept - own if step[0] == app_label]
        while later:
            step = later.pop()
            if step in kept:
                kept.remove(step)
                later += [child.key for child in graph.node_map[step].children]
        return self._at(_ends(kept, graph), loader)

    def newest(self) -> Point:
        """Return the models after all migration files of the code."""
        files = {key for key, migration in self.graph.nodes.items() if not evolved.is_one(migration)}
        return self._at(_ends(files, self.graph), self.loader)

    def now(self) -> Point:
        """Return the models after what is applied. Raises SchemaError where that does not fit together."""
        return self._at(self._applied_leaves(), self.loader)

    def fresh(self) -> Point:
        """Return what now() does, with classes of its own, made already."""
        point = self._make(self._applied_leaves(), self.loader)
        _ = point.apps
        return point

    def _applied_leaves(self) -> list[Key]:
        for key in self.applied:
            if missing := sorted(
                parent.key for parent in self.graph.node_map[key].parents if parent.key not in self.applied
            ):
                raise SchemaError(
                    f"{_said(key)} is applied, but {_said(missing[0])}, which it needs, is not: "
                    f"if its tables are there, run MigrationRecorder(connection).record_applied{missing[0]}."
                )
        return _ends(self.applied, self.graph)

    def plan(self, keys: Iterable[Key], loader: MigrationLoader | None = None) -> list[Key]:
        """Return these migrations and all that they depend on, in their order."""
        graph = (loader or self.loader).graph
        return list(OrderedDict.fromkeys(step for key in keys for step in graph.forwards_plan(key)))

    def _at(self, keys: Iterable[Key], loader: MigrationLoader) -> Point:
        wanted = frozenset(keys)
        if wanted not in self._points:
            self._points[wanted] = self._make(sorted(wanted), loader)
            if len(self._points) > POINTS_KEPT:
                self._points.popitem(last=False)
        self._points.move_to_end(wanted)
        return self._points[wanted]

    def _make(self, keys: Iterable[Key], loader: MigrationLoader) -> Point:
        state = ProjectState(real_apps=loader.unmigrated_apps)
        as_of = {}
        plan = self.plan(keys, loader)
        with Progress("Going through the migrations", len(plan), unit="migrations") as progress:
            for label, name in plan:
                try:
                    loader.graph.nodes[label, name].mutate_state(state, preserve=False)
                except Exception as error:
                    said = f"{type(error).__name__}: {error}"
                    raise SchemaError(f"{label}.{name} does not fit what comes before it: {said}.") from error
                as_of[label] = name
                progress.done += 1
        return Point(state, as_of)

    @cached_property
    def _unsquashed(self) -> MigrationLoader:
        return self._load(replace_migrations=False)

    def of(self, app_label: str) -> list[Migration]:
        """Return the app's migrations in their order."""
        plan = self.plan(self.graph.leaf_nodes(app_label))
        return [self.graph.nodes[key] for key in plan if key[0] == app_label]

    def is_newest(self, app_label: str) -> bool:
        """Tell whether all migrations of the app are applied; True where it has none."""
        return all(key in self.applied for key in self.graph.leaf_nodes(app_label))

    def last(self, app_label: str) -> str:
        """Return the name of the last migration of the app that is applied; "" where none is."""
        return self._last_applied.get(app_label, "")

    @cached_property
    def _last_applied(self) -> dict[str, str]:
        return {
            label: name for label, name in self.plan(sorted(self.applied)) if (label, name) in self.applied
        }

    def is_evolved(self, app_label: str) -> bool:
        """Tell whether a migration made in a cell is applied, of which the code's classes know nothing."""
        return any(
            label == app_label and evolved.is_one(self.graph.nodes[label, name])
            for label, name in self.applied
        )

    def gone(self, app_label: str) -> list[str]:
        """Return the names that are recorded as applied, and have no file any more."""
        known = set(self.loader.disk_migrations)
        known.update(key for squash in self.loader.replacements.values() for key in squash.replaces)
        return [name for label, name in self.recorded if label == app_label and (label, name) not in known]


_histories: dict[str, tuple[object, History]] = {}


def remembered(alias: str) -> History | None:
    """Return the history as this process last read it, without asking the database; None if it never did."""
    _, history = _histories.get(alias, (None, None))
    return history


def history_of(connection: BaseDatabaseWrapper, recorded: Mapping[Key, datetime] | None = None) -> History:
    """Return the history as the files and the database have it now, made anew only when either has changed.

    Costs one round trip without ``recorded``.
    """
    recorded = recorded_in(connection) if recorded is None else recorded
    seen = (tuple(recorded.items()), evolved.folder(connection), _files(connection))
    before, history = _histories.get(connection.alias, (None, None))
    if history is None or before != seen:
        history = History(connection, recorded)
        _histories[connection.alias] = (seen, history)
    return history


def recorded_in(connection: BaseDatabaseWrapper, *, may_fail: bool = False) -> dict[Key, datetime]:
    """Return when each migration was applied, in that order, as django_migrations says. One round trip.

    Two more in an open transaction, which a missing table would spoil, if the table was never seen, or if
    reading it ``may_fail``.
    """
    history = remembered(connection.alias)
    known = history is not None and history.recorded
    is_open = connection.in_atomic_block or not connection.get_autocommit()
    kept = is_open and (may_fail or not known)
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    try:
        # psycopg2's own cursor: a person who counts queries, or looks at them, finds those of the cell.
        with (
            transaction.atomic(connection.alias) if kept else nullcontext(),
            connection.wrap_database_errors,
            connection.create_cursor() as cursor,
        ):
            cursor.execute("SELECT app, name, applied FROM django_migrations ORDER BY id")
            return {(app, name): applied for app, name, applied in cursor.fetchall()}
    except ProgrammingError as error:
        if isinstance(error.__cause__, errors.UndefinedTable):
            return {}
        raise


def connection_to(alias: str) -> BaseDatabaseWrapper:
    """Return Django's connection. Raises SchemaError where there is no such alias."""
    if alias not in connections:
        raise SchemaError(f"There is no database alias {alias!r}: there are {', '.join(connections)}.")
    return connections[alias]


def check_label(app_label: str) -> None:
    """Raise SchemaError where no such app is installed."""
    if app_label not in installed.app_configs:
        guess = or_rather(app_label.rpartition(".")[2], installed.app_configs)
        raise SchemaError(f"No app {app_label!r} is installed{guess}")


def is_historical(model: type[models.Model]) -> bool:
    return "as_of_migration" in vars(model)


def _ends(keys: set[Key], graph: MigrationGraph) -> list[Key]:
    """Return those that none of the others depends on."""
    return sorted(keys - {parent.key for key in keys for parent in graph.node_map[key].parents})


def _files(connection: BaseDatabaseWrapper) -> frozenset[tuple[str, int]]:
    """Return the migration files, each with when it was changed."""
    folders = [*evolved.folder(connection).glob("*")]
    for config in installed.get_app_configs():
        module, _ = MigrationLoader.migrations_module(config.label)
        if found := getattr(sys.modules.get(module or ""), "__path__", None):
            folders += map(Path, found)
        else:  # An app's first migration makes a package that nobody has imported yet.
            parent, _, last = (module or "").rpartition(".")
            folders += [Path(folder, last) for folder in getattr(sys.modules.get(parent), "__path__", [])]
    importlib.invalidate_caches()
    return frozenset(
        (str(path), path.stat().st_mtime_ns) for folder in folders for path in folder.glob("*.py")
    )


def _mark(model: type[models.Model], as_of: str) -> None:
    """Let a class say at which migration it is, and its instances what they lack."""
    model.as_of_migration = as_of  # type: ignore[attr-defined]
    model.__getattr__ = _lacking  # type: ignore[attr-defined]
    model.__class__ = _metaclass(type(model))  # type: ignore[arg-type, method-assign]


@cache
def _metaclass(base: Any) -> Any:
    """Return the type of historical classes: the only place where the repr of a class can be said."""

    def represent(model: Any) -> str:
        return f"<class '{model._meta.label}' as of {model.as_of_migration}>"

    return type(base.__name__, (base,), {"__repr__": represent, "__getattr__": _lacking_class})


def _lacking(instance: models.Model, name: str) -> Any:
    model = type(instance)
    if not name.startswith("_") and hasattr(model, name):
        # It has, and what it found is an error of its own: RelatedObjectDoesNotExist.
        return object.__getattribute__(instance, name)
    return _lacking_class(model, name)


def _lacking_class(model: Any, name: str) -> Any:
    if "_meta" not in vars(model) or "as_of_migration" not in vars(model):
        raise AttributeError(f"type object {model.__name__!r} has no attribute {name!r}")
    said = f"{model.__name__} as of {model.as_of_migration} has no {name}"
    real = installed.all_models[model._meta.app_label].get(model._meta.model_name or "")
    if real is not None and not name.startswith("_") and hasattr(real, name):
        is_field = name in {field.name for field in real._meta.get_fields()}
        said += f", which {real.__module__}.{real.__name__} has" + (
            "" if is_field else ": methods and properties are not part of the history"
        )
    raise NotInHistory(f"{said}.")


def _said(key: Key) -> str:
    return ".".join(key)
