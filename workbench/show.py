"""How results look: as plain text and as HTML, from the same parts.

The colours are JupyterLab's own, so that they fit its themes, and never say what a sign does not say too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name

ADDED, REMOVED, CHANGED, WARNING, SAME = "+", "-", "~", "!", " "

STYLE = """<style>
.wb { font-size: var(--jp-code-font-size, 13px); }
.wb table { border-collapse: collapse; margin: 0 0 .8em; }
.wb .title { font-weight: bold; margin-top: .8em; }
.wb caption { text-align: left; font-weight: bold; padding: .2em 0; caption-side: top; }
.wb th, .wb td { text-align: left !important; vertical-align: top; padding: .15em .8em .15em .3em;
  border-bottom: 1px solid var(--jp-border-color2, #8884); white-space: pre-wrap; }
.wb td, .wb pre { font-family: var(--jp-code-font-family, monospace); }
.wb td.sign { font-weight: bold; }
.wb tr.added > td { background: color-mix(in srgb, var(--jp-success-color1, #388e3c) 18%, transparent); }
.wb tr.removed > td { background: color-mix(in srgb, var(--jp-error-color1, #d32f2f) 18%, transparent); }
.wb tr.changed > td, .wb tr.warning > td {
  background: color-mix(in srgb, var(--jp-warn-color1, #f57c00) 18%, transparent); }
.wb pre { margin: .2em 0 .8em; overflow-x: auto; background: none; color: inherit; }
.wb p { margin: .2em 0 .6em; }
.wb .k, .wb .kn, .wb .kc, .wb .kt {
  color: var(--jp-mirror-editor-keyword-color, inherit); font-weight: bold; }
.wb .s1, .wb .s2, .wb .s { color: var(--jp-mirror-editor-string-color, inherit); }
.wb .c1, .wb .cm { font-style: italic; }
.wb .mi { color: var(--jp-mirror-editor-number-color, inherit); }
</style>"""

CLASSES = {ADDED: "added", REMOVED: "removed", CHANGED: "changed", WARNING: "warning"}


@dataclass(frozen=True)
class Row:
    """Cells of one line; ``sign`` says what became of it."""

    cells: Sequence[str]
    sign: str = SAME


@dataclass(frozen=True)
class Grid:
    title: str
    rows: Sequence[Row]
    head: Sequence[str] = ()


@dataclass(frozen=True)
class Code:
    """Text in a language. What is folded is not in the plain text, and opens with a click in HTML."""

    text: str
    language: str
    title: str = ""
    is_folded: bool = False


@dataclass(frozen=True)
class Words:
    """A sentence or two."""

    text: str
    sign: str = SAME


Part = Grid | Code | Words


class Shown:
    """A mixin for results: they give their parts, and look alike everywhere."""

    def _parts(self) -> Iterable[Part]:
        raise NotImplementedError

    def __repr__(self) -> str:
        parts = [part for part in self._parts() if not (isinstance(part, Code) and part.is_folded)]
        return "\n\n".join(map(_plain, parts))

    def _repr_html_(self) -> str:
        return f'{STYLE}<div class="wb">{"".join(map(_html, self._parts()))}</div>'


def _plain(part: Part) -> str:
    if isinstance(part, Words):
        return f"{part.sign} {part.text}".lstrip()
    if isinstance(part, Code):
        return "\n".join(filter(None, [part.title, part.text.strip("\n")]))
    # Postgres writes some expressions over several lines.
    lines = [Row([" ".join(cell.split()) for cell in row.cells], row.sign) for row in part.rows]
    if part.head:
        lines.insert(0, Row(part.head))
    has_signs = any(row.sign != SAME for row in lines)
    widths = [
        max(len(row.cells[number]) for row in lines if number < len(row.cells))
        for number in range(max((len(row.cells) for row in lines), default=0))
    ]
    printed = [part.title] if part.title else []
    for row in lines:
        cells = [cell.ljust(width) for cell, width in zip(row.cells, widths, strict=False)]
        sign = f"{row.sign} " if has_signs else ""
        printed.append(f"  {sign}{'  '.join(cells)}".rstrip())
    return "\n".join(printed)


def _html(part: Part) -> str:
    if isinstance(part, Words):
        sign = f"<b>{escape(part.sign)}</b> " if part.sign != SAME else ""
        return f"<p>{sign}{escape(part.text)}</p>"
    title = escape(part.title)
    if isinstance(part, Code):
        lexer = get_lexer_by_name(part.language)
        text = highlight(part.text.strip("\n"), lexer, HtmlFormatter(nowrap=True))
        if part.is_folded:
            return f"<details><summary>{title}</summary><pre>{text}</pre></details>"
        return f'<div class="title">{title}</div><pre>{text}</pre>'
    has_signs = any(row.sign != SAME for row in part.rows)
    columns = max([len(part.head), *(len(row.cells) for row in part.rows)])
    lines = []
    if part.head:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in part.head)
        lines.append(f"<thead><tr>{'<th></th>' if has_signs else ''}{head}</tr></thead>")
    for row in part.rows:
        sign = f'<td class="sign">{escape(row.sign)}</td>' if has_signs else ""
        cells = [*row.cells, *[""] * (columns - len(row.cells))]
        css = CLASSES.get(row.sign)
        tag = f'<tr class="{css}">' if css else "<tr>"
        lines.append(f"{tag}{sign}{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    caption = f"<caption>{escape(part.title)}</caption>" if part.title else ""
    return f"<table>{caption}{''.join(lines)}</table>"
