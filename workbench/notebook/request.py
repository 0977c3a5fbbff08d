"""What a frontend asks of the kernel: cells of a person's, and what it wants to know for itself."""

from __future__ import annotations

from typing import Any


def request_id(shell: Any) -> object:
    """Return what tells one request from another, None in a terminal. A cell within a cell is of its own."""
    return _parent(shell).get("header", {}).get("msg_id")


def is_cell(shell: Any) -> bool:
    """Tell whether what runs is a cell, and not what a frontend asks for itself.

    VS Code fills its list of variables by code that is not silent, and takes the first output for the answer
    (``executeSilently`` in https://github.com/microsoft/vscode-jupyter). It is known by not being stored,
    though somebody is there to answer: nbval stores nothing either, and lets nobody answer.
    """
    asked = content(shell)
    is_stored = asked.get("store_history", True) or not asked.get("allow_stdin", True)
    return bool(is_stored and not asked.get("silent"))


def content(shell: Any) -> dict[str, Any]:
    """Return what the request says that runs, as Jupyter's protocol has it; {} in a terminal."""
    said: dict[str, Any] = _parent(shell).get("content", {})
    return said


def _parent(shell: Any) -> dict[str, Any]:
    get_parent = getattr(shell, "get_parent", None)
    return get_parent() if get_parent else {}
