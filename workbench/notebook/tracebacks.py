"""Tracebacks of the person's own code.

What happens in libraries is left out, and so is an error that another one only repeats: ``%tb`` shows all.
It is a mode of IPython's beside its others, which ``%xmode`` chooses from.
"""

from __future__ import annotations

import linecache
import sys
from functools import partial, wraps
from pathlib import Path
from types import TracebackType
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.ultratb import AutoFormattedTB
from IPython.utils.PyColorize import theme_table
from pygments.token import Token

from workbench import errors
from workbench.notebook.display import short
from workbench.notebook.guesses import meant
from workbench.notebook.misuse import misuse
from workbench.notebook.persons import is_own, module
from workbench.show import counted

OWN, WHOLE = "Own", "Context"
# So many of the person's own frames are shown.
MOST = 20


def register(shell: InteractiveShell) -> None:
    shell.InteractiveTB = Tracebacks(shell)
    errors.places = partial(places, shell)
    show: Any = shell.find_line_magic("tb")

    @wraps(show)
    def tb(line: str) -> None:
        is_own = shell.InteractiveTB.mode == OWN
        show(line or (WHOLE if is_own else ""))

    shell.magics_manager.register_function(tb, "line", "tb")


class Tracebacks(AutoFormattedTB):
    """IPython's, with one more mode, which is the one to begin with."""

    def __init__(self, shell: InteractiveShell) -> None:
        options = {"theme_name": shell.colors, "tb_offset": 1, "call_pdb": shell.call_pdb}
        super().__init__(mode=shell.xmode, **options)  # type: ignore[no-untyped-call]
        self._shell = shell
        self.valid_modes.append(OWN)
        self.verbose_modes.append(OWN)
        self._join_chars[OWN] = "\n"
        # Of the exception that is formatted next: how many frames are left out.
        self._hidden = 0
        if self.mode == WHOLE:
            self.set_mode(OWN)

    def structured_traceback(
        self,
        etype: type,
        evalue: BaseException | None,
        etb: TracebackType | None = None,
        tb_offset: int | None = None,
        context: int = 5,
    ) -> list[str]:
        if etype is None:
            etype, evalue, etb = sys.exc_info()  # type: ignore[unreachable]
        shown = etb
        if self.mode == OWN:
            if said := misuse(evalue, etb, self._shell):
                return [said]
            shown, self._hidden = own(etb)
            if shown is None:
                shown, self._hidden = etb, 0
        return super().structured_traceback(etype, evalue, shown, tb_offset, context)

    def get_parts_of_chained_exception(
        self, evalue: BaseException | None
    ) -> tuple[type, BaseException, TracebackType] | None:
        if self.mode != OWN:
            return super().get_parts_of_chained_exception(evalue)
        text, seen = str(evalue), set[int]()
        while (parts := super().get_parts_of_chained_exception(evalue)) and id(evalue) not in seen:
            seen.add(id(evalue))
            kind, evalue, trace = parts
            shown, hidden = own(trace)
            # Django says again what its driver said.
            if shown is not None or str(evalue) != text:
                self._hidden = hidden
                return kind, evalue, shown  # type: ignore[return-value]
        return None

    def format_exception(self, etype: Any, evalue: Any) -> list[str]:
        hidden, self._hidden = self._hidden, 0
        lines = super().format_exception(etype, evalue)  # type: ignore[no-untyped-call]
        return [*([self._said(hidden)] if hidden else []), *lines, *filter(None, [meant(evalue)])]

    def _said(self, hidden: int) -> str:
        said = f"[... {counted(hidden, 'frame')} not shown: %tb shows all]"
        parts = [(Token, "    "), (Token.ExcName, said), (Token, "\n")]
        return theme_table[self._theme_name].format(parts)


def places(shell: InteractiveShell, error: BaseException) -> list[str]:
    """Return the lines of the person's own that an error went through; none where there is only one."""
    trace, _ = own(error.__traceback__)
    found: list[str] = []
    is_obvious = True
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        named = shell.compile.format_code_name(file)
        lines = linecache.getlines(file)
        is_obvious = is_obvious and not found and sum(not line.isspace() for line in lines) <= 1
        text = lines[trace.tb_lineno - 1].strip() if trace.tb_lineno <= len(lines) else ""
        found.append(f"{' '.join(named) if named else short(Path(file))}, line {trace.tb_lineno}: {text}")
        trace = trace.tb_next
    return [] if is_obvious else found


def own(trace: TracebackType | None) -> tuple[TracebackType | None, int]:
    """Return a traceback of the person's own frames only, None without any, and how many are left out."""
    kept = []
    hidden = 0
    while trace is not None:
        if is_own(trace.tb_frame):
            kept.append(trace)
        elif module(trace.tb_frame).partition(".")[0] != "IPython":  # Which leaves itself out.
            hidden += 1
        trace = trace.tb_next
    if len(kept) > MOST:  # It calls itself.
        hidden += len(kept) - MOST
        kept[MOST // 2 : -MOST // 2] = []
    shown = None
    for each in reversed(kept):
        shown = TracebackType(shown, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return shown, hidden
