"""A namespace whose models follow the database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from django.apps import apps as installed
from django.apps.registry import Apps
from django.db import DEFAULT_DB_ALIAS, ProgrammingError, models, router
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2 import errors

from workbench.errors import listed
from workbench.schema.errors import SchemaError, StaleModel
from workbench.schema.history import History, Key, Point, history_of, is_historical, recorded_in

Model = type[models.Model]

# So many names or differences are said in one sentence.
LISTED = 4
_listed = partial(listed, most=LISTED)
COLUMN = re.compile(r'column "?(?:\w+\.)?(\w+)"? ')


class Follower:
    """Keeps the names of models in a namespace at what the database has applied.

    A name stands for the real class where all migrations of its app are applied, else for the historical one.
    It is let go as soon as it holds something else: what a person assigned stays.
    """

    def __init__(self, namespace: MutableMapping[str, Any]) -> None:
        self._namespace = namespace
        self._bound: dict[str, Model] = {}
        self._real: dict[str, Model] = {}
        for name, value in namespace.items():
            if isinstance(value, type) and issubclass(value, models.Model) and value._meta.apps is installed:
                self._real[name] = self._bound[name] = value
        # What is said, once, of a history that cannot be followed.
        self._failed: dict[str, str] = {}
        self._applied: dict[str, frozenset[Key]] = {}
        self._points: dict[str, Point] = {}
        # Where an app is, if it is not at its newest; "" before its first migration.
        self._behind: dict[str, dict[str, str]] = {}
        self._last: dict[str, dict[str, str]] = {}
        # The apps of each registry that the database has moved away from.
        self._retired: WeakKeyDictionary[Apps, set[str]] = WeakKeyDictionary()

    @property
    def names(self) -> set[str]:
        """The names that follow."""
        return {name for name, model in self._bound.items() if self._namespace.get(name) is model}

    def let_go(self, names: Iterable[str]) -> None:
        """Stop following names that the person assigns."""
        for name in names:
            self._bound.pop(name, None)
            self._real.pop(name, None)

    def leave(self, alias: str) -> None:
        """Take what is found next at an alias for another database's, whose history nobody has changed."""
        self._applied.pop(alias, None)

    def look(
        self, connection: BaseDatabaseWrapper, *, by_others: bool = True, may_fail: bool = False
    ) -> list[str]:
        """Read the recorded history, let the names follow, and return what became of them, a sentence each.

        Costs one round trip, and no more where nothing has changed. Never raises for a history that makes no
        sense: that is a sentence too. Where reading it ``may_fail``, an open transaction stays whole.
        """
        recorded = recorded_in(connection, may_fail=may_fail)
        alias = connection.alias
        before = self._applied.get(alias)
        if before == recorded.keys() and alias not in self._failed:
            return []
        self._applied[alias] = frozenset(recorded)
        behind_before = self._behind.get(alias, {})
        try:
            said = self._follow(connection, recorded)
        except BaseException:
            # Interrupted halfway: the next look begins anew.
            self._applied.pop(alias)
            self._behind[alias] = behind_before
            raise
        if alias not in self._failed and by_others and before not in (None, recorded.keys()):
            # The last of each app, in the order of applying, whether it has a file here or not.
            last = dict([*recorded])
            labels = sorted({label for label, _ in before ^ recorded.keys()})
            others = [f"Another session migrated {label} to {last.get(label, 'zero')}." for label in labels]
            return [*others, *said]
        return said

    def _follow(self, connection: BaseDatabaseWrapper, recorded: Mapping[Key, Any]) -> list[str]:
        """Let the names follow, and return what became of them."""
        alias = connection.alias
        try:
            history = history_of(connection, recorded)
            behind = self._behind_of(history)
            point = history.fresh() if any(behind.values()) else None
            self._last[alias] = {label: history.last(label) for label in installed.app_configs}
        except SchemaError as error:
            sentence = f"The models in this kernel cannot follow the database. {error}"
            was, self._failed[alias] = self._failed.get(alias), sentence
            return [] if was == sentence else [sentence]
        self._failed.pop(alias, None)
        return [
            sentence for label in self._move(alias, behind, point) for sentence in self._rebind(alias, label)
        ]

    def _behind_of(self, history: History) -> dict[str, str]:
        """Return the apps whose real classes do not fit, each with the migration that it is at."""
        behind = {}
        for label in {key[0] for key in history.graph.nodes}:
            if not history.is_newest(label) or history.is_evolved(label):
                behind[label] = history.last(label)
        return behind

    def _move(self, alias: str, behind: dict[str, str], point: Point | None) -> list[str]:
        """Remember where the apps are, retire the classes of where they were, and return which have moved."""
        was = self._behind.get(alias, {})
        changed = sorted(label for label in {*was, *behind} if was.get(label) != behind.get(label))
        if old := self._points.pop(alias, None):
            self._retired.setdefault(old.apps, set()).update(changed)
        if point is not None:
            self._points[alias] = point
        self._behind[alias] = behind
        return sorted({*changed, *(label for label, at in behind.items() if at)})

    def _rebind(self, alias: str, label: str) -> list[str]:
        """Bind an app's names to what fits, and say so."""
        point = self._points.get(alias)
        at = self._behind[alias].get(label)
        then = point.models(label) if point and at else {}
        back: list[str] = []
        moved: dict[str, Model] = {}
        for name, real in list(self._real.items()):
            if real._meta.app_label != label or router.db_for_write(real) != alias:
                continue
            if self._namespace.get(name) is not self._bound[name]:
                continue
            fits = then.get(real.__name__, real)
            if self._bound[name] is not fits and (fits is real or not _same(self._bound[name], fits)):
                if fits is real:
                    back.append(name)
                else:
                    moved[name] = fits
            self._bound[name] = self._namespace[name] = fits
        moved |= self._bind_others(alias, label, then)
        said = []
        if moved:
            said.append(f"{_listed(moved)} {_are(moved)} now as of {at}{self._lacking(moved, label, then)}.")
        if back and at is None:
            modules = sorted({self._real[name].__module__ for name in back})
            said.append(
                f"{_listed(back)} {_are(back)} the class{_es(back)} of {' and '.join(modules)} again."
            )
        elif back:
            point_said = f" as of {at}" if at else f": no migration of {label} is applied"
            said.append(f"There is no {_listed(back, 'or')} in the database{point_said}.")
        return said

    def _bind_others(self, alias: str, label: str, then: dict[str, Model]) -> dict[str, Model]:
        """Bind what the code has no class for any more, where the name is free; unbind what is over."""
        before = {
            name: model
            for name, model in self._bound.items()
            if name not in self._real
            and model._meta.app_label == label
            and router.db_for_write(model) == alias
        }
        for name in before:
            if name in self.names:
                del self._namespace[name]
            del self._bound[name]
        real = {model.__name__ for model in installed.get_app_config(label).get_models()}
        added = {
            name: model
            for name, model in then.items()
            if name not in real
            and name not in self._namespace
            and not model._meta.auto_created
            and router.db_for_write(model) == alias
        }
        self._bound |= added
        self._namespace.update(added)
        return {
            name: model
            for name, model in added.items()
            if name not in before or not _same(before[name], model)
        }

    def _lacking(self, moved: dict[str, Model], label: str, then: dict[str, Model]) -> str:
        """Say how the historical classes differ from the real ones."""
        real = {name: model for name, model in self._real.items() if model._meta.app_label == label}
        said = [f"there is no {name}" for name, model in real.items() if model.__name__ not in then]
        for name, model in moved.items():
            if name not in self._real:
                continue
            was, is_ = _fields(model), _fields(self._real[name])
            if lost := [each for each in is_ if each not in was]:
                said.append(f"{name} has no {_listed(lost, 'or')}")
            if more := [each for each in was if each not in is_]:
                said.append(f"{name} has {_listed(more)}")
        if not said:
            return ""
        return f": {', '.join(said[:LISTED])}{', ...' if len(said) > LISTED else ''}"

    def check(self, model: Model) -> None:
        """Raise StaleModel for a class that the database has moved away from."""
        if model._meta.app_label not in self._retired.get(model._meta.apps, ()):
            return
        name, label = model.__name__, model._meta.app_label
        at = self._last.get(router.db_for_read(model), {}).get(label)
        if at == model.as_of_migration:  # type: ignore[attr-defined]
            return  # The database came back.
        raise StaleModel(
            f"This {name} is as of {model.as_of_migration}, "  # type: ignore[attr-defined]
            f"and the database is at {at or 'zero'} now: make the query, or the instance, "
            f"anew from {name}."
        )

    def explained(
        self, error: ProgrammingError, sql: str, alias: str, asked: Iterable[Model] = ()
    ) -> StaleModel | None:
        """Return what is behind a missing table or column: an app whose migrations are not all applied."""
        if not isinstance(error.__cause__, errors.UndefinedColumn | errors.UndefinedTable):
            return None
        said = str(error).partition("\n")[0]
        if column := COLUMN.match(said):
            known = {
                field.column for model in (*installed.get_models(), *asked) for field in model._meta.fields
            }
            if column[1] not in known:
                return None
        option = "" if alias == DEFAULT_DB_ALIAS else f" --database {alias}"
        for label, at in self._behind.get(alias, {}).items():
            tables = [model._meta.db_table for model in installed.get_app_config(label).get_models()]
            if any(table in sql for table in tables):
                if not at:
                    advice = f"%manage migrate {label}{option} makes its tables."
                    return StaleModel(f"{said}: no migration of {label} is applied. {advice}")
                return StaleModel(
                    f"{said}: the database is at {at} of {label}, and the query is not. Make it anew from "
                    f"the model, or run %manage migrate {label}{option}."
                )
        for model in asked:
            label = model._meta.app_label
            last = self._last.get(alias, {}).get(label)
            if is_historical(model) and model.as_of_migration != last:  # type: ignore[attr-defined]
                return StaleModel(
                    f"{said}: this {model.__name__} is as of {model.as_of_migration}, "  # type: ignore[attr-defined]
                    f"and the database is at {last or 'zero'}."
                )
        return None


def _same(one: Model, other: Model) -> bool:
    """Tell whether two classes are of one migration."""
    return is_historical(one) and one.as_of_migration == other.as_of_migration  # type: ignore[attr-defined]


def _fields(model: Model) -> list[str]:
    return [field.name for field in (*model._meta.fields, *model._meta.many_to_many)]


def _are(names: Iterable[str]) -> str:
    return "are" if len([*names]) > 1 else "is"


def _es(names: Iterable[str]) -> str:
    return "es" if len([*names]) > 1 else ""
