"""What stands at the cursor of a cell that is not finished yet, as Python would read it."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import product

# Stands for what is being typed.
MARK = "__at_the_cursor__"

# Behind a keyword, Python wants another one.
NAMES = (MARK, f"**{MARK}")

CLOSERS = {"(": ")", "[": "]", "{": "}"}
# What may be missing behind a cursor that Python needs to make sense of what is before it.
ENDINGS = ("", ": pass", " else 0", "\nfinally: pass")
# IPython's own lines mean nothing to Python. Of these magics, the rest of the line is Python.
TIMED = re.compile(r"^(\s*)%(?:time|timeit|prun)\s+(?:-\w\S*\s+)*")
NOT_PYTHON = re.compile(r"^(\s*)([%!?].*|[\w.%]+\?{1,2}\s*|[\w, ]+=\s*[%!].*)$", re.MULTILINE)


@dataclass(frozen=True)
class Cursor:
    """``fragment`` is what is typed of a word, or in a string; ``around`` are the nodes around it, from the
    inmost out, of which the first stands for it.
    """

    fragment: str
    is_in_string: bool
    around: tuple[ast.AST, ...]

    @cached_property
    def names(self) -> dict[str, Value]:
        """What the cell gives a name to before the cursor."""
        line = getattr(self.around[0], "lineno", 0)
        before = sorted(self._assigned(), key=lambda value: (value.name.lineno, value.name.col_offset))
        return {value.name.id: value for value in before if value.name.lineno <= line}

    def _assigned(self) -> Iterator[Value]:
        for node in ast.walk(self.around[-1]):
            is_around = node in self.around
            match node:
                case (
                    ast.For(target=ast.Name() as name, iter=each)
                    | ast.AsyncFor(target=ast.Name() as name, iter=each)
                ):
                    if each not in self.around:
                        yield Value(name, each, is_each=True)
                case (
                    ast.Assign(targets=[ast.Name() as name], value=value)
                    | ast.AnnAssign(target=ast.Name() as name, value=ast.expr() as value)
                    | ast.NamedExpr(target=ast.Name() as name, value=value)
                ) if not is_around:
                    yield Value(name, value)
                case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp() if is_around:
                    for part in node.generators:
                        if isinstance(part.target, ast.Name) and part.iter not in self.around:
                            yield Value(part.target, part.iter, is_each=True)


@dataclass(frozen=True)
class Value:
    """What a name stands for: an expression, or each item of one."""

    name: ast.Name
    of: ast.expr
    is_each: bool = False


def cursor(before: str, after: str = "") -> Cursor | None:
    """Read a cell around the cursor; None where that is no Python, or a comment, or in an f-string."""
    *lines, last = before.split("\n")
    last = TIMED.sub(r"\1", last)
    if last.lstrip().startswith(("%", "!", "?")):
        return None
    code = "\n".join([_python("\n".join(lines)), last] if lines else [last])
    found = _scan(code)
    if found is None:
        return None
    quote, start, closers, statement = found
    if not quote:
        start -= len(re.findall(r"\w*$", code)[0])
    marked = f"{code[:start]}{MARK}{quote}{closers}"
    rest, _, later = after.partition("\n")
    whole = "".join([code[:start], MARK, re.sub(r"^\w*", "", rest), "\n", _python(later)])
    around = _around(whole, marked, statement)
    return Cursor(code[start:], bool(quote), around) if around else None


def _scan(code: str) -> tuple[str, int, str, int] | None:
    """Return the quote that is open, where the string in it begins, what closes the brackets, and where the
    statement begins. None in a comment or an f-string.
    """
    brackets: list[str] = []
    statement = position = 0
    while position < len(code):
        letter = code[position]
        if letter == "#":
            position = code.find("\n", position)
            if position < 0:
                return None
        elif letter in "\"'":
            quote = letter * 3 if code.startswith(letter * 3, position) else letter
            end = _end(code, position + len(quote), quote)
            if end is None:
                if re.search(r"\b[rR]?[fFtT][rR]?$", code[:position]):
                    return None
                return quote, position + len(quote), "".join(reversed(brackets)), statement
            position = end - 1
        elif letter in CLOSERS:
            brackets.append(CLOSERS[letter])
        elif letter in CLOSERS.values() and brackets:
            brackets.pop()
        elif letter == "\n" and not brackets:
            statement = position + 1
        position += 1
    return "", len(code), "".join(reversed(brackets)), statement


def _end(code: str, position: int, quote: str) -> int | None:
    """Return where a string ends; None where it is open."""
    while position < len(code):
        if code.startswith(quote, position):
            return position + len(quote)
        if code[position] == "\n" and len(quote) == 1:
            return position  # Python would not go on.
        position += 2 if code[position] == "\\" else 1
    return None


def _python(lines: str) -> str:
    """Take out what only IPython understands."""
    return NOT_PYTHON.sub(r"\1pass", lines)


def _around(whole: str, marked: str, statement: int) -> tuple[ast.AST, ...]:
    alone = re.sub(r"^(elif|case|except)\b", "if", textwrap.dedent(marked[statement:]).strip())
    for text, name, ending in product((whole, marked, alone), NAMES, ENDINGS):
        with suppress(SyntaxError, ValueError):
            if path := _path(ast.parse(text.replace(MARK, name) + ending)):
                return path
    return ()


def _path(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Return the nodes from what is typed up to the whole."""
    is_it = MARK in (
        getattr(tree, "id", None),
        getattr(tree, "attr", None),
        getattr(tree, "value", None) if isinstance(tree, ast.Constant) else None,
    )
    for child in ast.iter_child_nodes(tree):
        if path := _path(child):
            return (*path, tree)
    return (tree,) if is_it else ()
