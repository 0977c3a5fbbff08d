"""What squawk finds, where it says more than a rehearsal does; each finding belongs to its operation."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from workbench.schema import squawk
from workbench.schema.facts import Passage
from workbench.schema.squawk import FINDINGS, findings

FOUND = {
    "prefer-bigint-over-int": "CREATE TABLE book (id integer NOT NULL PRIMARY KEY)",
    "prefer-timestamp-tz": "ALTER TABLE book ADD COLUMN made timestamp",
    "ban-char-field": "ALTER TABLE book ADD COLUMN code char(3)",
    "identifier-too-long": f"ALTER TABLE book ADD COLUMN {'long' * 16} text",
    "ban-truncate-cascade": "TRUNCATE book CASCADE",
    "ban-drop-database": "DROP DATABASE books",
    "transaction-nesting": "BEGIN; SELECT 1; COMMIT",
    "ban-drop-view": "DROP VIEW shelves",
    "ban-drop-function": "DROP FUNCTION shelve()",
    "ban-drop-type": "DROP TYPE colour",
    "ban-drop-extension": "DROP EXTENSION citext",
    "ban-set-schema": "ALTER TABLE book SET SCHEMA old",
}
# What a rehearsal measures, what Django does, and what is a matter of taste.
NOT_FOUND = """\
CREATE INDEX by_title ON book (title)
ALTER TABLE book ALTER COLUMN pages TYPE bigint
ALTER TABLE book ALTER COLUMN pages SET NOT NULL
ALTER TABLE book ALTER COLUMN pages DROP NOT NULL
ALTER TABLE book ADD CONSTRAINT positive CHECK (pages > 0)
ALTER TABLE book ADD COLUMN pages bigint DEFAULT 1 NOT NULL
ALTER TABLE book ALTER COLUMN pages DROP DEFAULT
ALTER TABLE book DROP COLUMN pages CASCADE
ALTER TABLE book ADD COLUMN note varchar(10) NULL
ALTER TABLE book RENAME TO volume
ALTER TABLE book DROP CONSTRAINT positive
DROP TABLE book CASCADE
DROP SEQUENCE book_id_seq
CREATE TABLE t (id bigserial, n smallint)
INSERT INTO book (title) VALUES ('DROP VIEW shelves; it''s -- all ''one'' text')
this is not SQL""".splitlines()

needs_squawk = pytest.mark.skipif(
    shutil.which("squawk", path=f"{Path(sys.executable).parent}") is None, reason="squawk is not installed"
)


def of(*sql: str, is_atomic: bool = True) -> Passage:
    return Passage(sql=sql, is_atomic=is_atomic)


def test_without_squawk_nothing_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert findings([of("DROP VIEW shelves"), of()], 18) == [[], []]


@pytest.mark.skipif(sys.platform == "win32", reason="a script is a program here")
@pytest.mark.parametrize("does", ["echo Squawk!", "exit 2", "exec sleep 60", "exec yes '['"])
def test_a_program_that_is_not_squawk_finds_nothing(
    does: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "squawk"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(squawk, "TIMEOUT_SECONDS", 0.2)
    assert findings([of("DROP VIEW shelves")], 18) == [[]]


@needs_squawk
@pytest.mark.parametrize("version", [14, 18])
def test_each_finding_belongs_to_the_operation_whose_sql_it_is(version: int) -> None:
    passages = [passage for sql in FOUND.values() for passage in (of("SELECT 1", sql), of(), of("SELECT 1"))]
    found = findings(passages, version)
    assert [[each.rule for each in some] for some in found[::3]] == [[rule] for rule in FOUND]
    assert [*found[1::3], *found[2::3]] == [[]] * 2 * len(FOUND)


@needs_squawk
def test_what_a_rehearsal_measures_is_left_to_it() -> None:
    assert findings([of(sql) for sql in NOT_FOUND], 18) == [[]] * len(NOT_FOUND)


@needs_squawk
def test_a_rule_speaks_once_of_an_operation() -> None:
    sql = "CREATE TABLE t (\n  a integer,\n  b integer\n)  -- 2 times"
    assert [each.rule for each in findings([of(sql, sql)], 18)[0]] == ["prefer-bigint-over-int"]


@needs_squawk
def test_where_django_begins_no_transaction_one_may_be_begun_but_has_to_end() -> None:
    whole, open_ended = of("BEGIN; SELECT 1; COMMIT", is_atomic=False), of("BEGIN; SELECT 1", is_atomic=False)
    assert findings([whole, open_ended], 18) == [[], [FINDINGS["ban-uncommitted-transaction"]]]


@needs_squawk
def test_settings_that_lie_about_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".squawk.toml").write_text("excluded_rules = [")
    monkeypatch.chdir(tmp_path)
    assert findings([of("DROP VIEW shelves")], 18) == [[FINDINGS["ban-drop-view"]]]


def test_every_finding_is_two_sentences() -> None:
    for finding in FINDINGS.values():
        assert finding.message.endswith(".")
        assert finding.help.endswith(".")
    assert FINDINGS.keys() == FOUND.keys() | {"ban-uncommitted-transaction"}
