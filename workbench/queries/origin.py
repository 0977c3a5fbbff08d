"""Who asks, from which line, and what for: read from the stack at the moment that a statement is sent."""

from __future__ import annotations

import inspect
import linecache
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from django.apps import apps
from django.conf import settings
from django.db import models
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.models import query
from django.db.models.fields import related_descriptors as descriptors
from django.db.models.query_utils import DeferredAttribute

# Between the one who asks and the statement: libraries, and what the kernel puts around Django's own.
BETWEEN = {"asgiref", "contextlib", "django", "functools", "psycopg2"}
AROUND = {"workbench.notebook.querysets", "workbench.notebook.waiting"}
# Those of the workbench's modules that ask in a person's name. What others ask is the workbench's own.
FRAMES = "workbench.frames"
COMMANDS = ("workbench.management", "workbench.notebook.magics", "workbench.schema.executor")
FOR_PEOPLE = (FRAMES, *COMMANDS)
HOUSEHOLD = "workbench"


class Need(NamedTuple):
    """What a statement was for: an attribute read of a ``model``'s instance, or a queryset's method."""

    kind: str
    model: type[models.Model]
    name: str = ""


class Found(NamedTuple):
    """A need, and the instance or queryset that has it."""

    need: Need
    subject: Any


@dataclass(frozen=True)
class Origin:
    """Where a statement comes from.

    ``asker`` is a module, the person's own if ``is_own``. ``line`` is the cell's, ``place`` the file and line
    of the person's own code that is nearest to the statement, and ``name`` how that is shown: "" if it is the
    cell's line.
    """

    asker: str = ""
    is_own: bool = False
    file: str = ""
    line: int | None = None
    place: tuple[str, int] | None = None
    name: str = ""
    found: Found | None = None


def origin(frame: FrameType | None, until: FrameType | None, files: frozenset[str]) -> Origin | None:
    """Return where a statement comes from that is about to be sent below ``frame``; None for housekeeping.

    The stack is read up to the frame ``until``. The cell is what runs there as ``__main__`` on top level, and
    ``files``.
    """
    marked: tuple[Callable[[FrameType], Found | None], FrameType] | None = None
    is_settled = False
    asker = None
    is_own = False
    place = None
    name = ""
    cells: list[tuple[str, int]] = []
    tops: set[str] = set()
    marks = _marks()
    while frame is not None:
        code = frame.f_code
        module = frame.f_globals.get("__name__") or ""
        if asker is None:
            if code is _HEALTH:
                return None
            if not is_settled and (mark := marks.get(id(code))) is not None:
                marked, is_settled = (mark, frame), mark in _SETTLING
            if module.partition(".")[0] not in BETWEEN and module not in AROUND:
                if _is_household(module):
                    return None
                asker = module
                is_own = module.startswith(FRAMES) or _is_persons(frame, files)
        if asker is not None:
            file = code.co_filename
            is_cell = _is_cells(frame, files)
            if is_cell:
                cells.append((file, frame.f_lineno))
                if not code.co_flags & inspect.CO_OPTIMIZED:
                    tops.add(file)
            if place is None and (is_cell or shown_name(file)):
                place = (file, frame.f_lineno)
                name = _function(code) if is_cell else f"{shown_name(file)}:{frame.f_lineno}"
        if frame is until:
            break
        frame = frame.f_back
    files = files | tops
    file, line = next((each for each in cells if each[0] in files), ("", None))
    # How a command goes about it is its own matter.
    is_for_command = (asker or "").startswith(COMMANDS)
    found = marked[0](marked[1]) if marked and not is_for_command else None
    return Origin(asker or "", is_own, file, line, place, "" if place == (file, line) else name, found)


def persons(frame: FrameType | None, until: FrameType | None, files: frozenset[str]) -> Iterator[FrameType]:
    """Yield the frames of the person's own code, from the outermost."""
    found = []
    while frame is not None:
        if _is_persons(frame, files):
            found.append(frame)
        if frame is until:
            break
        frame = frame.f_back
    yield from reversed(found)


@lru_cache(maxsize=1024)
def shown_name(file: str) -> str:
    """Return a file of the project's as it can be shown; "" for those of libraries and of the workbench."""
    project = Path(getattr(settings, "BASE_DIR", Path.cwd()))
    path = Path(file)
    libraries = [Path(sys.prefix), Path(sys.base_prefix), project / HOUSEHOLD]
    is_ours = path.is_absolute() and path.is_relative_to(project)
    if not is_ours or any(path.is_relative_to(each) for each in libraries) or "site-packages" in path.parts:
        return ""
    return path.relative_to(project).as_posix()


def _is_cells(frame: FrameType, files: frozenset[str]) -> bool:
    file = frame.f_code.co_filename
    if file.startswith("<") and not linecache.getlines(file):
        return False  # What %time makes of a line.
    return file in files or frame.f_globals.get("__name__") == "__main__"


def _is_persons(frame: FrameType, files: frozenset[str]) -> bool:
    return _is_cells(frame, files) or bool(shown_name(frame.f_code.co_filename))


def _function(code: CodeType) -> str:
    """Return how code of another cell is called, whose file has a path that nobody knows."""
    name = code.co_qualname.partition(".<locals>")[0]
    return "a function of a cell" if name.startswith("<") else f"{name}()"


def _is_household(module: str) -> bool:
    if module != HOUSEHOLD and not module.startswith(f"{HOUSEHOLD}."):
        return False
    return not any(module == each or module.startswith(f"{each}.") for each in FOR_PEOPLE)


# What Django asks before the first statement, to see if a connection lives.
_HEALTH = DatabaseWrapper.is_usable.__code__


def _forward(frame: FrameType) -> Found | None:
    held = frame.f_locals
    field, instance = held["self"].field, held["instance"]
    return Found(Need("forward", type(instance), field.name), instance)


def _one(frame: FrameType) -> Found | None:
    held = frame.f_locals
    related, instance = held["self"].related, held["instance"]
    return Found(Need("one", type(instance), related.field.related_query_name()), instance)


def _deferred(frame: FrameType) -> Found | None:
    held = frame.f_locals
    return Found(Need("deferred", type(held["instance"]), held["self"].field.name), held["instance"])


def _generic(frame: FrameType) -> Found | None:
    held = frame.f_locals
    return Found(Need("generic", type(held["instance"]), held["self"].name), held["instance"])


def _queryset(kind: str) -> Callable[[FrameType], Found | None]:
    def mark(frame: FrameType) -> Found | None:
        held = frame.f_locals
        # get() filters a clone.
        queryset = held.get("clone", held["self"])
        return Found(Need(kind, queryset.model), queryset)

    return mark


def _instance(kind: str) -> Callable[[FrameType], Found | None]:
    def mark(frame: FrameType) -> Found | None:
        instance = frame.f_locals["self"]
        return Found(Need(kind, type(instance)), instance)

    return mark


def _prefetch(frame: FrameType) -> Found | None:
    return None


# Those beyond which there is nothing more to learn.
_SETTLING: set[Any] = {_forward, _one, _deferred, _generic, _prefetch}


@cache
def _marks() -> dict[int, Callable[[FrameType], Found | None]]:
    """Return what to make of a frame by the identity of its code, whose hash would take longer."""
    made: dict[Any, Callable[[FrameType], Found | None]] = {
        descriptors.ForwardManyToOneDescriptor.__get__: _forward,
        descriptors.ReverseOneToOneDescriptor.__get__: _one,
        DeferredAttribute.__get__: _deferred,
        query.prefetch_one_level: _prefetch,
        query.QuerySet._fetch_all: _queryset("all"),
        query.QuerySet._iterator: _queryset("all"),  # type: ignore[attr-defined]
        query.QuerySet.create: _queryset("insert"),
        query.QuerySet.bulk_create: _queryset("many"),
        query.QuerySet.bulk_update: _queryset("many"),
        models.Model.save_base: _instance("save"),
        models.Model.delete: _instance("remove"),
    }
    for name in ("count", "exists", "aggregate", "get", "first", "last", "update", "delete", "get_or_create"):
        made[getattr(query.QuerySet, name)] = _queryset(name)
    made[query.QuerySet.update_or_create] = _queryset("update_or_create")
    if apps.is_installed("django.contrib.contenttypes"):
        from django.contrib.contenttypes.fields import GenericForeignKey

        made[GenericForeignKey.__get__] = _generic
    return {id(inspect.unwrap(function).__code__): mark for function, mark in made.items()}
