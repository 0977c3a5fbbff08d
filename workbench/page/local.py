"""Which apps are shown, and which tables are theirs.

Whoever is shown the page sees their rows. So only apps of the project itself are shown, not the ones that
were installed, with their accounts and sessions, and of those no column that holds a secret by its name.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from django.apps import AppConfig, apps
from django.conf import settings

from workbench.schema.scratch import Place, place_of


def local_apps() -> list[str]:
    """Return the labels of the project's own apps that have models or migrations, in the settings' order."""
    return [
        config.label
        for config in apps.get_app_configs()
        if _is_local(config) and (any(config.get_models()) or Path(config.path, "migrations").is_dir())
    ]


def owned(app_label: str, names: Mapping[int, tuple[str, str, bool]]) -> list[int]:
    """Return the oids of the tables that are an app's, given each one's schema, name, and if it is searched.

    Those of models, and those of no model whose name starts with the app's: they were one's at another
    migration. A table that an app which is not local has a model of is nobody's.
    """
    owners: dict[Place, set[str]] = {}
    for model in apps.get_models(include_auto_created=True):
        if not model._meta.proxy:
            owners.setdefault(place_of(model), set()).add(model._meta.app_label)
    local = set(local_apps())
    found = []
    for oid, (schema, name, is_searched) in names.items():
        labels = owners.get((schema, name), set()) | (
            owners.get((None, name), set()) if is_searched else set()
        )
        is_of_old = not labels and is_searched and name.startswith(f"{app_label}_")
        if is_of_old or (app_label in labels and labels <= local):
            found.append(oid)
    return found


def called(app_label: str, relation: str) -> str:
    """Return a table's name without its app's."""
    return relation.removeprefix(f"{app_label}_") or relation


def plural(app_label: str, relation: str) -> str:
    """Return what rows of an app's table are called, as its model says if the code has one."""
    for model in apps.get_models(include_auto_created=True):
        if model._meta.app_label == app_label and place_of(model)[1] == relation and not model._meta.proxy:
            return str(
                model._meta.verbose_name_plural
                if not model._meta.auto_created
                else called(app_label, relation)
            )
    return called(app_label, relation)


def _is_local(config: AppConfig) -> bool:
    path = Path(config.path).resolve()
    return path.is_relative_to(Path(settings.BASE_DIR).resolve()) and not any(
        path.is_relative_to(folder) for folder in _installed()
    )


@cache
def _installed() -> tuple[Path, ...]:
    """Return where pip puts packages: often within the project."""
    return tuple(Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib"))
