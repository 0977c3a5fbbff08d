"""The magic ``%branch``, and a line that says in every output on which branch its cell ran."""

from __future__ import annotations

from html import escape
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from IPython.core.interactiveshell import ExecutionInfo, InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.display import DisplayHandle, display
from pygments.token import Token

from workbench.branches import swept
from workbench.branches.kind import MAIN
from workbench.errors import listed, or_rather
from workbench.management import branching
from workbench.notebook.errors import CellError
from workbench.notebook.interrupt import before_cell
from workbench.notebook.line import Parser, words
from workbench.notebook.request import is_cell, request_id

# The verbs after which a kernel may be on another branch.
LEAVES = {"use", "drop", "rename"}
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
        label = Label(shell)
        before_cell(shell, label.begin)
        shell.events.register("post_run_cell", label.end)


@magics_class
class BranchMagics(Magics):
    @line_magic
    def branch(self, line: str) -> None:
        """Say where this kernel is, and work with branches: copies of the database.

        Examples::

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
    """What stands at the top of an output, where that is not about main.

    A cell of lines that go elsewhere says itself where it went. Another cell that does, says both.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._last: object = None
        self._shown = DisplayHandle()
        self._said = ""

    def begin(self, info: ExecutionInfo) -> None:
        if not is_cell(self._shell):
            return
        request = request_id(self._shell)
        is_in_another = request is not None and request == self._last
        self._last = request
        if is_in_another:
            return
        self._said = "" if _only_goes(info.raw_cell or "") else label()
        if self._said:
            self._shown = DisplayHandle()
            self._shown.display(_badge(self._said), raw=True)

    def end(self, *_: object) -> None:
        if self._said and (now := label() or f"On branch {MAIN}") != self._said:
            said = f"{self._said}, then o{now[1:]}"
            self._shown.update(_badge(said), raw=True)
            self._said = ""


def label() -> str:
    """Say on which branch this process is; "" on main."""
    names = {alias: connections.settings[alias].get("BRANCH") for alias in connections}
    said = [
        f"branch {name}" if alias == DEFAULT_DB_ALIAS else f"branch {name} of {alias}"
        for alias, name in names.items()
        if name and name != MAIN
    ]
    return f"On {listed(said)}" if said else ""


def _badge(said: str) -> dict[str, str]:
    return {"text/plain": said, "text/html": BADGE.format(escape(said))}


def _only_goes(cell: str) -> bool:
    """Tell whether a cell holds nothing but lines of %branch, of which one leaves the branch."""
    lines = [line.split() for line in cell.splitlines() if line.strip() and not line.startswith("#")]
    verbs = {line[1] for line in lines if len(line) > 1}
    return all(line[0] == "%branch" for line in lines) and bool(verbs & LEAVES)


def _with_branch(prompts: Any) -> Any:
    """Return a kind of prompts of IPython's in a terminal that say the branch, too."""

    class Prompts(prompts):  # type: ignore[misc]
        def in_prompt_tokens(self) -> list[tuple[Any, str]]:
            said = label()
            tokens: list[tuple[Any, str]] = super().in_prompt_tokens()
            return [(Token.Prompt, f"{said}: "), *tokens] if said else tokens

    return Prompts


def _say(said: list[str], **_: Any) -> None:
    print(branching.removed(said))
