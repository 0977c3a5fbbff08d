from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel import Kernel

SECOND = "%workbench lists what can be done."


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel() as running:
        yield running


def test_a_run_that_nobody_watches_is_not_greeted(kernel: Kernel) -> None:
    assert kernel.run("where().database[:0]").result == "''"


def test_the_first_cell_that_connects_says_where_it_is_and_no_other(kernel: Kernel) -> None:
    kernel.run("%manage migrate -v 0\n%manage migrate catalog zero --yes -v 0\nconnection.close()")
    assert kernel.run("1 + 1", attended=True).result == "2"
    said = kernel.run("connection.ensure_connection()", attended=True).result
    assert said.startswith("PostgreSQL ")
    assert said.endswith(f", database {_database(kernel)}; 2 migrations pending. {SECOND}")
    assert kernel.run("where().database[:0]", attended=True).result == "''"


def test_what_a_frontend_asks_for_itself_is_not_greeted_but_the_next_cell_is(kernel: Kernel) -> None:
    kernel.run("%manage migrate -v 0\nconnection.close()")
    assert kernel.run("connection.ensure_connection()", attended=True, silent=True).result == ""
    assert kernel.run("None", attended=True).result.endswith(f"; all migrations applied. {SECOND}")


def test_another_branch_is_named(kernel: Kernel) -> None:
    kernel.run("%branch create greeted\nconnection.close()")
    said = kernel.run("%branch use greeted\nconnection.ensure_connection()", attended=True).result
    kernel.run("%branch use main\n%branch drop greeted")
    assert ", branch greeted; " in said


def test_a_server_that_cannot_be_reached_is_told_by_the_cell_alone() -> None:
    with Kernel({"DATABASE_URL": "postgresql://nobody:secret@127.0.0.1:1/nowhere"}) as kernel:
        outcome = kernel.run("Author.objects.count()", attended=True)
        assert outcome.result == ""
        assert outcome.error
        assert "secret" not in str(outcome)


def _database(kernel: Kernel) -> str:
    return kernel.run("where().database").result.strip("'")
