from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import pytest

from tests.conftest import Manage
from tests.kernel import Kernel
from workbench.notebook.printed import Printed


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as running:
        running.run("%manage migrate -v 0")
        yield running


def test_a_command_prints_into_the_cell(kernel: Kernel) -> None:
    outcome = kernel.run("%manage showmigrations catalog")
    assert outcome.stdout == "catalog\n [X] 0001_initial\n [X] 0002_author_country\n"
    assert (outcome.stderr, outcome.error) == ("", [])


def test_sql_is_shown_once_as_django_prints_it(kernel: Kernel, manage: Manage) -> None:
    outcome = kernel.run("%manage sqlmigrate catalog 0001")
    assert (outcome.stdout, outcome.stderr) == ("", "")
    assert outcome.result == manage("sqlmigrate", "catalog", "0001").stdout.strip()


def test_in_html_its_long_statements_stand_on_several_lines_and_are_the_same() -> None:
    column = "\"id\" numeric(9, 2) DEFAULT ', ( ''' NOT NULL"
    table = f'CREATE TABLE "a, (b" ({column}, "b" text CHECK ("b" IN (\'{"x" * 50}\', \')\')));'
    references = 'FOREIGN KEY ("b") REFERENCES "c WHERE d" ("id");'
    key = f'ALTER TABLE "a" ADD CONSTRAINT "a_b_fk_to_another_table" {references}'
    text = f"BEGIN;\n-- {table}\n{table}\n{key}\nCOMMIT;"
    html = Printed(text)._repr_html_()
    shown = unescape(re.sub(r"<[^>]*>", "", html.partition("<pre>")[2])).strip()
    assert "".join(shown.split()) == "".join(text.split())
    assert f"-- {table}" in shown
    assert f'\n    {column},\n    "b" text' in shown
    assert f"\n    {references}" in shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("migrat", "There is no command 'migrat': did you mean migrate?"),
        ("xyzzy", "There is no command 'xyzzy': %manage help lists them."),
        ("migrate nowhere", "No installed app with label 'nowhere'."),
        ("migrate catalog 0009", "Cannot find a migration matching '0009' from app 'catalog'."),
        ("migrate --fast", "Error: unrecognized arguments: --fast"),
        ("sqlmigrate", "Error: the following arguments are required: app_label, migration_name"),
        ("populate --database 'x", "This line cannot be read: No closing quotation. Close its quotes."),
        ("populate --database nope", "There is no database alias 'nope'."),
        ("runserver", "runserver needs a terminal: run 'python manage.py runserver' there."),
        ("flush", "flush asks a question, which cannot be answered here"),
        (
            "makemigrations --check --name x --empty",
            "You must supply at least one app label when using --empty.",
        ),
    ],
)
def test_a_mistake_is_one_line_without_a_traceback(kernel: Kernel, line: str, said: str) -> None:
    outcome = kernel.run(f"%manage {line}")
    (shown,) = outcome.error
    assert shown.startswith(said)
    assert "\n" not in shown


def test_an_error_of_the_database_is_one_line(kernel: Kernel) -> None:
    kernel.run("%manage migrate sessions zero -v 0")
    (shown,) = kernel.run("%manage clearsessions").error
    assert shown == (
        'relation "django_session" does not exist: no migration of sessions is applied. '
        "%manage migrate sessions makes its tables."
    )
    kernel.run("%manage migrate -v 0")


def test_a_remedy_is_a_line_for_a_cell(kernel: Kernel) -> None:
    kernel.run("%manage migrate catalog zero -v 0")
    (shown,) = kernel.run("%manage populate").error
    assert shown == "The catalog has no tables in this database yet: %manage migrate makes them."
    kernel.run("%manage migrate -v 0")


@pytest.mark.parametrize("line", ["migrate --help", "help migrate"])
def test_help_prints_and_does_not_end_the_kernel(kernel: Kernel, line: str) -> None:
    outcome = kernel.run(f"%manage {line}")
    assert outcome.stdout.startswith("usage: %manage migrate")
    assert outcome.error == []


def test_without_a_command_it_lists_them_the_projects_own_first(kernel: Kernel) -> None:
    for line in ("%manage", "%manage help"):
        first, second, third, others, last = kernel.run(line).result.split("\n\n")
        assert first == "catalog\n  populate  Adds three authors and their seven books."
        assert second.startswith("workbench\n  analyst ")
        assert third.startswith("django\n  makemigrations  Creates new migration(s) for apps.")
        assert "flush" not in first + second + third
        assert {"flush,", "reset_db,", "changepassword,"} <= set(others.split())
        assert not {"migrate,", "populate", "runserver,", "check,"} & set(others.split())
        assert "runserver" in last
