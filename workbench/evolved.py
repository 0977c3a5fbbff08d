"""Migrations that were made in a cell and applied, without a file among the app's own.

Their files lie in ``WORKBENCH_HOME/evolved``, in a folder for each database. Django's loader sees one while
the database that it loads for has it recorded as applied, so every command knows it, can undo it, and then
has never heard of it. One that is not applied must stay hidden: migrate would apply it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

_offered: set[tuple[str, str]] = set()
_made: dict[tuple[str, str], type[Migration]] = {}


def install() -> None:
    """Let every MigrationLoader of this process see applied migrations of this kind."""
    load_disk = MigrationLoader.load_disk

    @wraps(load_disk)
    def load(self: MigrationLoader) -> None:
        load_disk(self)
        for (label, name), kind in _made.items():
            self.disk_migrations.setdefault((label, name), kind(name, label))
        if self.connection is None:
            return
        files = {(path.parent.name, path.stem): path for path in folder(self.connection).glob("*/*.py")}
        if not files:
            return
        applied = {*MigrationRecorder(self.connection).applied_migrations(), *_offered}
        for key in files.keys() & applied:
            if key[0] in self.migrated_apps and key not in self.disk_migrations:
                text = files[key].read_text(encoding="utf-8")
                self.disk_migrations[key] = loaded(text, *key, str(files[key]))

    MigrationLoader.load_disk = load  # type: ignore[method-assign]


def folder(connection: BaseDatabaseWrapper) -> Path:
    """Return where the files of a database lie: by its name, server and port."""
    return _folder(connection.settings_dict)


def _folder(config: Mapping[str, Any]) -> Path:
    server = config["HOST"] or config["OPTIONS"].get("host") or ""
    place = f"{config['NAME']} {server} {config['PORT']}".strip()
    return _home() / quote(place, safe=" ")


def _home() -> Path:
    return Path(getattr(settings, "WORKBENCH_HOME", ".workbench"), "evolved")


def is_any() -> bool:
    """Tell whether any database has files of this kind."""
    return any(_home().glob("*"))


def carry(source: Mapping[str, Any], target: Mapping[str, Any]) -> None:
    """Give a database the files that another one has, and no others; both are entries of DATABASES."""
    if _folder(source) == _folder(target):
        return
    remove(target)
    if _folder(source).exists():
        shutil.copytree(_folder(source), _folder(target))


def move(source: Mapping[str, Any], target: Mapping[str, Any]) -> None:
    """Let the files follow a database that has another entry of DATABASES now."""
    if _folder(source) != _folder(target):
        carry(source, target)
        remove(source)


def remove(config: Mapping[str, Any]) -> None:
    """Remove the files of a database that is no more; ``config`` is its entry of DATABASES."""
    shutil.rmtree(_folder(config), ignore_errors=True)


def write(connection: BaseDatabaseWrapper, app_label: str, name: str, text: str) -> None:
    path = folder(connection) / app_label / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def text(connection: BaseDatabaseWrapper, app_label: str, name: str) -> str:
    """Return the file of one; "" where there is none."""
    path = folder(connection) / app_label / f"{name}.py"
    return path.read_text(encoding="utf-8") if path.exists() else ""


@contextmanager
def offered(keys: set[tuple[str, str]]) -> Iterator[None]:
    """Show these to the loader though they are not applied yet."""
    _offered.update(keys)
    try:
        yield
    finally:
        _offered.difference_update(keys)


@contextmanager
def made(migrations: Mapping[tuple[str, str], type[Migration]]) -> Iterator[None]:
    """Show these to the loader, though no file holds them."""
    _made.update(migrations)
    try:
        yield
    finally:
        for key in migrations:
            del _made[key]


def is_one(migration: Migration) -> bool:
    return type(migration).__module__.startswith(__name__)


def loaded(text: str, app_label: str, name: str, file: str = "") -> Migration:
    """Return the migration that a file's text makes.

    Not by importing the file: bytecode is kept by the second, and a cell is changed and run within one.
    """
    module = ModuleType(f"{__name__}.{app_label}.{name}")
    exec(compile(text, file or f"{name}.py", "exec"), vars(module))
    migration: Migration = module.Migration(name, app_label)
    return migration
