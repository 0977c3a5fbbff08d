"""SQL as a command prints it, laid out and coloured where there is HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from workbench.show import Code, Part, Shown

# What fits into a line stays in one.
WIDTH = 90
INDENT = "\n    "

# What is quoted is one token. A quote that is never closed here is a text over several lines.
TOKENS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|, *|[()]|[^'"(),]+|.""")
CLAUSES = re.compile(r" (?=(?:ADD CONSTRAINT|FOREIGN KEY|WHERE)\b)")


@dataclass(frozen=True, repr=False)
class Printed(Shown):
    """SQL that a command printed, which its text is."""

    sql: str

    def _parts(self) -> Iterator[Part]:
        yield Code(self.sql, "postgres")

    def _repr_html_(self) -> str:
        laid_out = replace(self, sql="\n".join(map(_line, self.sql.splitlines())))
        return super(Printed, laid_out)._repr_html_()


def _line(line: str) -> str:
    """Return a long line over several: a table's columns each on one, other statements by their clauses."""
    if len(line) <= WIDTH or line.startswith("--"):
        return line
    is_table = line.startswith("CREATE TABLE")
    depth, parts = 0, []
    for token in TOKENS.findall(line):
        sign = token.strip()
        depth += (sign == "(") - (sign == ")")
        if is_table and sign == "(" and depth == 1:
            parts += [token, INDENT]
        elif is_table and sign == ")" and depth == 0:
            parts += ["\n", token]
        elif sign == "," and depth == is_table:
            parts += [sign, INDENT]
        elif is_table or token[0] in "'\"":
            parts.append(token)
        else:
            parts.append(CLAUSES.sub(INDENT, token))
    return "".join(parts)
