"""Names and texts that would do harm if they were taken for SQL, HTML, paths or options."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.throwaway import EVERYTHING

NASTY = [
    "'; DROP TABLE victim; --",
    '"; DROP TABLE victim; --',
    'a"; CREATE TABLE injected (); --',
    '""',
    '"',
    'a"b',
    '"a"b"',
    '"a" (x int); DROP TABLE victim; --"',
    "a'b",
    "$$; DROP TABLE victim; $$",
    "a;b",
    "--end",
    "-rf",
    "/* a",
    "a */ b",
    "%s",
    "%(name)s",
    "100%",
    "%%",
    "{}",
    "{0}",
    "{name}",
    "../../etc/passwd",
    "a/../b",
    "..",
    "a\\b",
    "a\nb",
    "a\tb",
    "a\x1b[31mb",
    "a\x00b",
    " a ",
    "",
    "select",
    "ünïcödé",
    "名前",
    "🐘",
    "a\u202eb",
    "A" * 63,
    "é" * 32,
    "x" * 200,
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&amp;",
    "a.b",
    'victim"."b',
    "`id`",
    "$(id)",
]

# What is unlike words, but without halves of surrogates, which no text can be sent with.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
ANY = st.one_of(st.sampled_from(NASTY), TEXT, st.builds("{}{}".format, st.sampled_from(NASTY), TEXT))
# What Postgres takes for a name as it is: no NUL, not empty, at most 63 bytes.
NAMES = ANY.filter(lambda name: "\0" not in name and 0 < len(name.encode()) <= 63)


def examples(few: int) -> Any:
    """Return hypothesis' settings: few examples, or many where everything is tested."""
    return settings(
        max_examples=50 * few if os.environ.get(EVERYTHING) else few,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.filter_too_much,
        ],
    )


CONTENT = """
SELECT c.oid::regclass::text, c.relkind::text, obj_description(c.oid, 'pg_class'),
       (SELECT json_agg(json_build_array(attname, format_type(atttypid, atttypmod)) ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname NOT LIKE 'pg_temp%%'
UNION ALL SELECT nspname, 'schema', NULL, NULL FROM pg_namespace WHERE nspname NOT LIKE 'pg_%%'
UNION ALL SELECT rolname, 'role', NULL, NULL FROM pg_roles
UNION ALL SELECT datname, 'database', NULL, NULL FROM pg_database
UNION ALL SELECT proname, 'function', NULL, NULL FROM pg_proc WHERE oid >= 16384
UNION ALL SELECT typname, 'type', NULL, NULL FROM pg_type WHERE typtype = 'e'
"""


def content(cursor: Any) -> set[tuple[Any, ...]]:
    """Return all that a database and its server hold, but the rows."""
    cursor.execute(CONTENT.replace("%%", "%"))
    return set(cursor.fetchall())
