from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel import Kernel


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as running:
        running.run("%manage migrate -v 0")
        yield running


def test_a_command_prints_into_the_cell(kernel: Kernel) -> None:
    outcome = kernel.run("%manage showmigrations catalog")
    assert outcome.stdout == "catalog\n [X] 0001_initial\n [X] 0002_author_country\n"
    assert (outcome.stderr, outcome.error) == ("", [])


def test_what_a_command_returns_is_not_shown_twice(kernel: Kernel) -> None:
    outcome = kernel.run("%manage sqlmigrate catalog 0002")
    assert outcome.stdout.count("ADD COLUMN") == 1
    assert outcome.result == ""


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


@pytest.mark.parametrize("line", ["migrate --help", "help migrate"])
def test_help_prints_and_does_not_end_the_kernel(kernel: Kernel, line: str) -> None:
    outcome = kernel.run(f"%manage {line}")
    assert outcome.stdout.startswith("usage: %manage migrate")
    assert outcome.error == []


def test_without_a_command_it_lists_them(kernel: Kernel) -> None:
    for line in ("%manage", "%manage help"):
        listed = kernel.run(line).stdout.split()
        assert {"migrate", "populate", "embedded"} <= set(listed)
        assert "runserver" not in listed
