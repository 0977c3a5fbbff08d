"""How results look: as plain text and as HTML, from the same parts, with the one look that DataFrames share.

The colours are those of JupyterLab or VS Code, or mixed from the text's own, so that they fit any theme; they
never say what a sign does not say too. Nothing needs JavaScript.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name

ADDED, REMOVED, CHANGED, WARNING, SAME = "+", "-", "~", "!", " "
CLASSES = {ADDED: "added", REMOVED: "removed", CHANGED: "changed", WARNING: "warning"}

# On one line, which is all that a notebook's diff then shows of it. !important and the doubled class stand
# where JupyterLab or VS Code have rules for every table.
STYLE = " ".join(
    """<style>
.wb { --faint: color-mix(in srgb, currentColor 74%, transparent);
    --line: color-mix(in srgb, currentColor 20%, transparent);
    --mono: var(--jp-code-font-family, var(--vscode-editor-font-family, monospace));
    font-size: var(--jp-code-font-size, var(--vscode-editor-font-size, 13px)); }
.wb .wide { margin: 2px; overflow-x: auto; }
.wb .wide:has(caption:focus-visible), .wb summary:focus-visible { outline-offset: 0;
    outline: 2px solid var(--jp-brand-color1, var(--vscode-focusBorder, Highlight)); }
.wb table { width: auto; margin: 0 0 .8em; table-layout: auto; border-collapse: separate; border-spacing: 0;
    color: inherit; font-size: inherit; font-variant-numeric: tabular-nums; }
.wb caption, .wb .title { padding: .2em 0; caption-side: top; color: inherit; text-align: left;
    font-weight: bold; }
.wb .dataframe caption, .wb .wide caption { position: sticky; left: 0; width: 0; white-space: nowrap;
    outline: none; }
.wb thead, .wb thead tr, .wb.wb tbody tr { background: none; }
.wb.wb tbody tr:hover { background: color-mix(in srgb, currentColor 6%, transparent); }
.wb th, .wb td { padding: .2em 1em .2em .3em; border: none; border-bottom: 1px solid var(--line) !important;
    vertical-align: top; text-align: start !important; line-height: 1.4; white-space: pre-wrap;
    font-weight: normal; }
.wb thead th, .wb .dataframe th { font-weight: bold; }
.wb thead th, .wb thead td { vertical-align: bottom; }
.wb thead tr:last-child > * { border-bottom-color: currentColor !important; }
.wb td, .wb pre { font-family: var(--mono); }
.wb .n { text-align: right !important; }
.wb .sign { font-weight: bold; }
.wb .added > * { background: color-mix(in srgb, var(--jp-success-color1, #388e3c) 18%, transparent); }
.wb .removed > * { background: color-mix(in srgb, var(--jp-error-color1, #d32f2f) 18%, transparent); }
.wb .changed > *, .wb .warning > * {
    background: color-mix(in srgb, var(--jp-warn-color1, #f57c00) 18%, transparent); }
.wb .dataframe { width: max-content; }
.wb .dataframe caption { caption-side: bottom; color: var(--faint); font-weight: normal; }
.wb .dataframe td, .wb .dataframe th { font-family: inherit; white-space: pre; }
.wb .pinned tr > :first-child:not([colspan]) { position: sticky; left: 0; box-shadow: 1px 0 var(--line);
    background: var(--jp-layout-color0, var(--vscode-editor-background, Canvas));
    color: var(--jp-content-font-color1, var(--vscode-editor-foreground, CanvasText)); }
.wb i { color: var(--faint); font-weight: normal; user-select: none; }
.wb summary { cursor: pointer; }
.wb td details[open], .wb th details[open] { width: 40em; max-width: 70vw; white-space: pre-wrap; }
.wb td summary, .wb th summary { white-space: nowrap; }
.wb td details[open] > summary, .wb th details[open] > summary { width: 1em; overflow: hidden; }
.wb.wb pre { margin: .2em 0 .8em; overflow-x: auto; white-space: pre; background: none; color: inherit; }
.wb p { margin: .2em 0 .6em; }
.wb .k, .wb .kn, .wb .kc, .wb .kt { font-weight: bold;
    color: var(--jp-mirror-editor-keyword-color, inherit); }
.wb .s1, .wb .s2, .wb .s { color: var(--jp-mirror-editor-string-color, inherit); }
.wb .c1, .wb .cm { font-style: italic; }
.wb .mi { color: var(--jp-mirror-editor-number-color, inherit); }
</style>""".split()
)

# Tables of so many characters a line fit on most screens.
WIDE = 100
# What would not be seen, or would disturb what is around it: controls, marks of direction, what has no width,
# halves of surrogates. Joiners do their work between letters beyond Latin, and in emoji.
UNSEEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
    "|(?<![^\0-\u02ff])[\u200c\u200d]"
)
NUMBER = re.compile(r"(< )?[-+]?\d[\d,.]*( ?(%|bytes?|[kMGT]B|ms|s|min|h|d|rows?))?( \d+ (s|min|h))?")


@dataclass(frozen=True)
class Row:
    """Cells of one line; ``sign`` says what became of it."""

    cells: Sequence[str]
    sign: str = SAME


@dataclass(frozen=True)
class Grid:
    """Rows under a title. The column ``named_by`` is the one that the others tell about."""

    title: str
    rows: Sequence[Row]
    head: Sequence[str] = ()
    named_by: int = 0


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
        return printable("\n\n".join(map(_plain, parts)))

    def _repr_html_(self) -> str:
        return dressed("\n".join(map(_html, self._parts())))


def dressed(html: str, *, has_mathematics: bool = False) -> str:
    """Return HTML with the look of results; a $ in it is a $, not the beginning of a formula.

    Example::

        dressed("<table><tr><td class='n'>1</td></tr></table>")
    """
    classes = "wb" if has_mathematics else "wb tex2jax_ignore mathjax_ignore"
    return f'{STYLE}\n<div class="{classes}">{html}</div>'


def table(caption: str, lines: str, width: int, css: str = "") -> str:
    """Return an HTML table; one that is wider than most screens scrolls within its output, with keys too.

    ``width`` is the number of characters of a line.

    Example::

        table("2 rows", "<tr><td>1</td></tr><tr><td>2</td></tr>", width=1)
    """
    is_wide = width > WIDE
    # The caption takes the keys, not what scrolls: every click on a cell would focus that, where JupyterLab's
    # keys, such as Shift Enter, are to work. On the caption its use for arrows is not wanted.
    keys = ' tabindex="0" data-lm-suppress-shortcuts' if is_wide else ""
    head = f"<caption{keys}>{caption}</caption>\n" if caption else ""
    css = f' class="{css}"' if css else ""
    html = f"<table{css}>{head}{lines}</table>"
    return f'<div class="wide">{html}</div>' if is_wide else html


def visible(text: str) -> str:
    """Return a text as HTML in which nothing is invisible but blanks, tabs and ends of lines.

    Example::

        visible("a\\u200bb")  # 'a<i>\\\\u200b</i>b'
    """
    return UNSEEN.sub(_named, escape(text, quote=False))


def printable(text: str) -> str:
    """Return a text in which nothing is invisible: a name in a database may hold what a terminal obeys.

    Example::

        printable("a\\x1b[31mb")  # 'a\\\\x1b[31mb'
    """
    return UNSEEN.sub(_escaped, text)


def counted(number: int, what: str) -> str:
    """Say how many there are.

    Example::

        counted(1_000, "row")  # "1,000 rows"
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}" if number else f"no {what}s"


def _named(match: re.Match[str]) -> str:
    return f"<i>{_escaped(match)}</i>"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\{f'x{code:02x}' if code < 256 else f'u{code:04x}' if code < 65536 else f'U{code:08x}'}"


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
    numbers = _numbers(part)
    widths = [
        max(len(row.cells[number]) for row in lines if number < len(row.cells))
        for number in range(max((len(row.cells) for row in lines), default=0))
    ]
    printed = [part.title] if part.title else []
    for row in lines:
        cells = [
            cell.rjust(width) if number in numbers else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row.cells, widths, strict=False))
        ]
        sign = f"{row.sign} " if has_signs else ""
        printed.append(f"  {sign}{'  '.join(cells)}".rstrip())
    return "\n".join(printed)


def _numbers(grid: Grid) -> set[int]:
    """Return which columns hold numbers, whose digits are to stand below each other."""
    columns: dict[int, list[str]] = {}
    for row in grid.rows:
        for number, cell in enumerate(row.cells):
            if cell:
                columns.setdefault(number, []).append(cell)
    return {number for number, cells in columns.items() if all(map(NUMBER.fullmatch, cells))}


def _html(part: Part) -> str:
    if isinstance(part, Words):
        sign = f"<b>{escape(part.sign)}</b> " if part.sign != SAME else ""
        return f"<p>{sign}{visible(part.text)}</p>"
    if isinstance(part, Code):
        title = visible(part.title)
        lexer = get_lexer_by_name(part.language)
        text = highlight(part.text.strip("\n"), lexer, HtmlFormatter(nowrap=True))
        if part.is_folded:
            return f"<details><summary>{title}</summary><pre>{text}</pre></details>"
        return f'<div class="title">{title}</div><pre>{text}</pre>'
    return _table(part)


def _table(grid: Grid) -> str:
    has_signs = any(row.sign != SAME for row in grid.rows)
    numbers = _numbers(grid)
    columns = max([len(grid.head), *(len(row.cells) for row in grid.rows)])

    def line(row: Row, *, is_head: bool = False) -> str:
        said = CLASSES.get(row.sign)
        html = f'<tr class="{said}">' if said else "<tr>"
        if has_signs:
            label = f' aria-label="{said}"' if said else ""
            html += f'<td class="sign"{label}>{escape(row.sign.strip())}</td>'
        for number, text in enumerate([*row.cells, *[""] * (columns - len(row.cells))]):
            scope = "col" if is_head else "row" if number == grid.named_by else ""
            tag, attribute = ("th", f' scope="{scope}"') if scope and text else ("td", "")
            attribute += ' class="n"' if number in numbers else ""
            html += f"<{tag}{attribute}>{visible(text)}</{tag}>"
        return f"{html}</tr>"

    head = f"<thead>{line(Row(grid.head), is_head=True)}</thead>\n" if grid.head else ""
    body = "\n".join(map(line, grid.rows))
    width = _narrowest(grid, columns)
    caption = grid.title or (counted(len(grid.rows), "row") if width > WIDE else "")
    return table(visible(caption), head + body, width)


def _narrowest(grid: Grid, columns: int) -> int:
    """Return how many characters a line has when every cell is broken wherever it can be."""
    longest = [0] * columns
    for cells in [grid.head, *(row.cells for row in grid.rows)]:
        for number, cell in enumerate(cells):
            longest[number] = max(longest[number], *map(len, cell.split()), 0)
    return sum(longest) + 2 * columns
