"""Python files of models and migrations that were edited after this process loaded them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from django.apps import apps as installed
from django.db.migrations.loader import MigrationLoader

# Per file: when it was changed, and what is in it. Touching it, or another git branch and back, is no edit.
_seen: dict[Path, tuple[int, bytes]] = {}
_loaded: dict[Path, bytes] = {}
_modules = 0


def changed() -> list[Path]:
    """Return the files that were edited since the last call. The first call is where that begins."""
    _discover()
    found = []
    for path, (moment, content) in _seen.items():
        try:
            if path.stat().st_mtime_ns == moment:
                continue
            now = _content(path)
            _seen[path] = (path.stat().st_mtime_ns, now)
        except OSError:
            continue  # Deleted, or being written: an editor puts it back.
        if now not in (content, _loaded[path]):
            found.append(path)
    return found


def stale() -> list[Path]:
    """Return all files that are not what this process loaded. What changed() has not told yet, it will."""
    _discover()
    return [path for path in _seen if path.exists() and _content(path) != _loaded[path]]


def _discover() -> None:
    """Begin with the files of modules that were loaded since."""
    global _modules
    if _modules == len(sys.modules):
        return
    _modules = len(sys.modules)
    packages = {MigrationLoader.migrations_module(config.label)[0] for config in installed.get_app_configs()}
    names = {model.__module__ for model in installed.get_models()}
    names |= {name for name in sys.modules if name.rpartition(".")[0] in packages}
    for name in names:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None or "site-packages" in file or (path := Path(file)) in _seen:
            continue
        try:
            _loaded[path] = _content(path)
            _seen[path] = (path.stat().st_mtime_ns, _loaded[path])
        except OSError:
            continue


def _content(path: Path) -> bytes:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).digest()
