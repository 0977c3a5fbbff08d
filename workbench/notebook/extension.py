"""The IPython extension: Django set up, every model imported, a connection that each cell can rely on."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from IPython.core.interactiveshell import InteractiveShell

from workbench import errors
from workbench.notebook import kept
from workbench.notebook.errors import CellError


def load_ipython_extension(shell: InteractiveShell) -> None:
    errors.is_in_kernel = True
    kept.register(shell)
    try:
        shell.push(_imported(), interactive=True)
    except Exception as error:
        _refuse(shell, error)
        return
    from workbench.notebook import (
        branch,
        cells,
        completion,
        display,
        follow,
        greeting,
        guesses,
        guide,
        idle,
        inspector,
        interrupt,
        magics,
        queries,
        querysets,
        tables,
        tracebacks,
        waiting,
    )

    # First: it is about what the others do.
    interrupt.register(shell)
    magics.register(shell)
    cells.register(shell)
    branch.register(shell)
    queries.register(shell)
    follow.register(shell)
    idle.register(shell)
    greeting.register(shell)
    display.register(shell)
    waiting.register(shell)
    guide.register(shell)
    inspector.register(shell)
    completion.register(shell)
    tables.register(shell)
    querysets.register(shell)
    tracebacks.register(shell)
    guesses.register(shell)


def _imported() -> dict[str, Any]:
    """Set Django up and return the names that shell_plus would import."""
    import django

    django.setup()
    from django.core.management.color import no_style
    from django_extensions.management.shells import import_objects

    names: dict[str, Any] = import_objects({"dont_load": [], "quiet_load": True}, no_style())
    return names


def _refuse(shell: InteractiveShell, error: Exception) -> None:
    """Make every cell say why there is no Django here, instead of failing on the first name it misses."""
    said = str(error) if isinstance(error, ImproperlyConfigured) else f"{type(error).__name__}: {error}"
    refusal = CellError(f"Django could not be set up. {said} (After mending it, restart the kernel.)")
    shell.push({"__not_set_up__": refusal}, interactive=False)
    shell.input_transformers_post.append(lambda lines: ["raise __not_set_up__\n"])
