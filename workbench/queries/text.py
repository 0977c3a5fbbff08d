"""SQL as people read it: one shape for what differs in values only, nothing secret, nothing endless."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from workbench.redaction import NAME, masked, without_addresses
from workbench.show import counted

# Longer values, and longer lists of them, are cut.
VALUE_LETTERS, LIST_VALUES, LIST_ROWS = 60, 8, 3
# What fits into a line stays in one; columns are wrapped there.
LINE_LETTERS = 90
# Beyond that, working on a text would cost more than sending it, or than anybody wants to read.
SHAPED_LETTERS, FORMATTED_LETTERS = 10_000, 6_000

BLANK = r"(?>\s|\(|--[^\n]*\n|/\*.*?\*/)*+"
STRING = r"(?:[Ee]'(?:[^'\\]++|''|\\.)*+'|'(?:[^']++|'')*+')"
NUMBER = r"(?<![\w.\"$])-?\d++(?:\.\d++)?+(?:e[+-]?\d++)?+(?![\w\"])"
VALUE = rf"(?:{STRING}|{NUMBER}|\b(?:NULL|true|false|DEFAULT)\b|%s)(?:::\w++(?: \w++)*+(?:\[\])?+)?+"
COMMA = r"\s*+,\s*+"
ROW = rf"\(\s*+(?:{VALUE}(?:{COMMA})?+)++\s*+\)"

VALUES = re.compile(rf'("[^"]*+")|({STRING}|{NUMBER})', re.DOTALL)
PLACEHOLDERS = re.compile(r"\(%s(?:, ?%s)++\)")
MANY_ROWS = re.compile(
    r"(\((?:%s(?:, \.\.\.)?+|, |DEFAULT)++\))(?:, ?\((?:%s(?:, \.\.\.)?+|, |DEFAULT)++\))++"
)
LONG = re.compile(STRING, re.DOTALL)
BYTES = re.compile(r"'\\x([0-9a-f]*+)'(?=::bytea)")
# Whole lists each, however long, so that none is gone through twice.
LIST = re.compile(rf"(?:{VALUE}{COMMA})++{VALUE}", re.DOTALL | re.IGNORECASE)
ROWS = re.compile(rf"(?:{ROW}{COMMA})++{ROW}", re.DOTALL | re.IGNORECASE)
TYPES = re.compile(rf"({STRING})|::[A-Z]+\b", re.DOTALL)
DECLARED = re.compile(r'DECLARE "[^"]*" (?:NO SCROLL |SCROLL )?CURSOR (?:WITH|WITHOUT) HOLD FOR ')
SAVEPOINT = re.compile(r"((?:ROLLBACK TO |RELEASE )?SAVEPOINT) .*", re.DOTALL)
DATA = re.compile(rf"{BLANK}(?:SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|VALUES|TABLE|COPY)\b", re.I | re.DOTALL)

# Names of columns whose values nobody shows.
HIDDEN = rf"\b\w*(?:{NAME}|session_data)\w*"
# What is selected holds no values, as a rule: a secret's name there hides nothing.
SELECTED = re.compile(r"\s*SELECT\b[^'$]*?\bFROM\b", re.IGNORECASE)
LITERALS = re.compile(rf"{STRING}|\$(\w*)\$.*?\$\1\$", re.DOTALL)


def shape(sql: str, *, is_bound: bool) -> str:
    """Return the statement with a placeholder for each value, and one for each list of them.

    Where values were bound to placeholders, those in the text are a part of it.
    """
    return _shape(sql, is_bound) if len(sql) <= SHAPED_LETTERS else sql


@lru_cache(maxsize=1024)
def _shape(sql: str, is_bound: bool) -> str:
    sql = sql.strip().rstrip(";")
    if not is_bound:
        sql = VALUES.sub(lambda found: found[1] or "%s", SAVEPOINT.sub(r"\1 ...", sql))
    return MANY_ROWS.sub(r"\1, ...", PLACEHOLDERS.sub("(%s, ...)", sql))


def shown(sql: str) -> str:
    """Return a statement with its values, without those that are secret, and with the long ones cut."""
    sql = without_secrets(sql) if DATA.match(sql) else masked(_short(sql))
    if len(sql) <= 40 * FORMATTED_LETTERS:
        sql = ROWS.sub(lambda found: _fewer(found[0], ROW, LIST_ROWS), sql)
        sql = LIST.sub(lambda found: _fewer(found[0], VALUE, LIST_VALUES), sql)
    if len(sql) > FORMATTED_LETTERS:
        sql = f"{sql[:FORMATTED_LETTERS]}... {len(sql) - FORMATTED_LETTERS:,} more letters"
    return sql


def without_secrets(sql: str) -> str:
    """Return what reads or writes rows, or a part of it, without secret values, and with long ones cut."""
    return without_addresses(_masked(_short(sql)))


def formatted(sql: str) -> str:
    """Return a statement as it reads well: keywords in capitals, and over several lines if it is long."""
    import sqlparse
    from sqlparse.exceptions import SQLParseError

    sql = sql.strip().rstrip(";")
    is_short = len(sql) <= LINE_LETTERS and "\n" not in sql
    layout: dict[str, Any] = {} if is_short else {"reindent": True, "wrap_after": LINE_LETTERS}
    try:
        text: str = sqlparse.format(sql, keyword_case="upper", **layout)
    except SQLParseError:  # It refuses what is too long for it.
        return sql
    # It takes some types for keywords.
    return TYPES.sub(lambda found: found[1] or found[0].lower(), text.strip())


def _short(sql: str) -> str:
    sql = BYTES.sub(lambda found: f"'{counted(len(found[1]) // 2, 'byte')}'", sql)
    return LONG.sub(lambda found: _cut(found[0]), sql)


def _cut(literal: str) -> str:
    if len(literal) <= VALUE_LETTERS:
        return literal
    return f"{literal[: VALUE_LETTERS // 2]}... {counted(len(literal) - 2, 'letter')}'"


def _fewer(text: str, item: str, most: int) -> str:
    items = re.findall(item, text, re.DOTALL | re.IGNORECASE)
    if len(items) <= most + 1:
        return text
    return f"{', '.join(items[:most])}, ... {len(items) - most:,} more"


def _masked(sql: str) -> str:
    """Return a statement without any text in it, if it names what is secret."""
    selected = SELECTED.match(sql)
    if not re.search(HIDDEN, sql[selected.end() if selected else 0 :], re.IGNORECASE):
        return sql
    return LITERALS.sub("'***'", sql)
