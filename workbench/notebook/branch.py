"""The magic ``%branch``, and a line that says in every output on which branch its cell ran."""

from __future__ import annotations

from html import escape
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.display import display
from pygments.token import Token

from workbench.branches import swept
from workbench.branches.kind import MAIN
from workbench.errors import listed, or_rather
from workbench.management import branching
from workbench.notebook.errors import CellError
from workbench.notebook.line import Parser, words

BADGE = (
    '<div style="display: inline-block; padding: 0 .6em; border-radius: 3px; '
    "font-size: var(--jp-code-font-size, 13px); color: var(--jp-ui-font-color1, inherit); "
    "border: 1px solid var(--jp-brand-color1, #1976d2); "
    'background: color-mix(in srgb, var(--jp-brand-color1, #1976d2) 15%, transparent)">{}</div>'
)


def register(shell: InteractiveShell) -> None:
    shell.register_magics(BranchMagics)
    swept.connect(_say, weak=False)
    if hasattr(shell, "prompts"):
        shell.prompts = _with_branch(type(shell.prompts))(shell)
    else:
        shell.events.register("pre_run_cell", Label(shell).show)


@magics_class
class BranchMagics(Magics):
    @line_magic
    def branch(self, line: str) -> None:
        """Say where this kernel is, or work with branches: copies of the database to try things on.

        Example::

            %branch
            %branch create try-country --expires 2h
            %branch use try-country
            %branch list
            %branch diff main
            %branch reset
            %branch drop

        --from main (or empty, or another branch) copies that instead of where you are. Where other sessions
        are in the way, --end ends them.
        """
        asked = words(line)
        if asked and not asked[0].startswith("-") and asked[0] not in branching.VERBS:
            guess = or_rather(asked[0], branching.VERBS, f": there is {listed(branching.VERBS)}.")
            raise CellError(f"There is no %branch {asked[0]}{guess}")
        parser = Parser("%branch")
        branching.add_arguments(parser)
        display(branching.answer(vars(parser.parse_args(asked))))


class Label:
    """What stands at the top of an output, where that is not about main."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._last: object = None

    def show(self, *_: object) -> None:
        request = _request(self._shell)
        is_in_another = request is not None and request == self._last
        self._last = request
        if (said := label()) and not is_in_another:
            display({"text/plain": said, "text/html": BADGE.format(escape(said))}, raw=True)


def label() -> str:
    """Say on which branch this process is; "" on main."""
    names = {alias: connections.settings[alias].get("BRANCH") for alias in connections}
    return ", ".join(
        f"branch {name}" if alias == DEFAULT_DB_ALIAS else f"branch {name} of {alias}"
        for alias, name in names.items()
        if name and name != MAIN
    )


def _request(shell: Any) -> object:
    """Return what the kernel was asked: the same for a cell that a cell runs."""
    get_parent = getattr(shell, "get_parent", None)
    return get_parent().get("header", {}).get("msg_id") if get_parent else None


def _with_branch(prompts: Any) -> Any:
    """Return a kind of prompts of IPython's in a terminal that say the branch, too."""

    class Prompts(prompts):  # type: ignore[misc]
        def in_prompt_tokens(self) -> list[tuple[Any, str]]:
            said = label()
            tokens: list[tuple[Any, str]] = super().in_prompt_tokens()
            return [(Token.Prompt, f"{said} "), *tokens] if said else tokens

    return Prompts


def _say(said: list[str], **_: Any) -> None:
    print(branching.removed(said))
