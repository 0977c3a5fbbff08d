from __future__ import annotations

import pytest

from workbench.schema.losses import Names


@pytest.mark.parametrize(
    ("sql", "dropped"),
    [
        ('DROP TABLE "a_b" CASCADE;', [('"a_b"', "")]),
        ('drop table if exists a, "B" cascade', [("a", ""), ('"B"', "")]),
        ('DROP /* x */ TABLE "public" . "a"', [('"public" . "a"', "")]),
        ("TRUNCATE a", [("a", "")]),
        ('ALTER TABLE "a" DROP COLUMN "c" CASCADE;', [('"a"', '"c"')]),
        ("-- tidy up\nALTER TABLE a DROP COLUMN c", [("a", "c")]),
        ("ALTER TABLE a DROP c", [("a", "c")]),
        ("ALTER TABLE a ADD COLUMN d int, DROP COLUMN IF EXISTS c", [("a", "c")]),
        ("ALTER TABLE other ADD x int; ALTER TABLE a DROP COLUMN c", [("a", "c")]),
        ("ALTER TABLE a RENAME TO b; DROP TABLE b", [("a", "")]),
        ('ALTER TABLE "a" RENAME COLUMN "c" TO "d"; ALTER TABLE "a" DROP COLUMN "d"', [('"a"', '"c"')]),
        ("ALTER TABLE a RENAME TO b; ALTER TABLE b RENAME c TO d; ALTER TABLE b DROP d", [("a", "c")]),
        ('ALTER TABLE "a" ALTER COLUMN "c" DROP DEFAULT;', []),
        ('ALTER TABLE "a" ALTER COLUMN "c" DROP NOT NULL;', []),
        ('ALTER TABLE "a" DROP CONSTRAINT "c";', []),
        ("COMMENT ON TABLE a IS 'never drop table a'", []),
        ('DROP INDEX IF EXISTS "a_c";', []),
    ],
)
def test_what_a_statement_drops_is_known_by_the_names_of_today(
    sql: str, dropped: list[tuple[str, str]]
) -> None:
    assert list(Names().dropped(sql)) == dropped
