from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from pytest_django import DjangoDbBlocker

from tests.branches.conftest import clear
from tests.conftest import Manage
from tests.schema.places import settings_for
from workbench.branches import use

ALIAS = "terminal"


@pytest.fixture
def using(scratch_url: str, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    entry = connections.databases[ALIAS] = settings_for(scratch_url)
    root = entry["NAME"]
    with django_db_blocker.unblock():
        yield ALIAS
        use("main", ALIAS)
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.databases[ALIAS]
        clear(root)


def branch(line: str) -> str:
    """Return what the command prints."""
    output = StringIO()
    call_command("branch", "--database", ALIAS, *line.split(), stdout=output)
    return output.getvalue()


MISTAKES = {
    "drop": "main is never dropped: give the name of another branch.",
    "reset nowhere": "There is no branch nowhere: there is main.",
    "use nowhere": "There is no branch nowhere: there is main.",
    "diff nowhere": "There is no branch nowhere: there is main.",
    "diff main nowhere": "No app 'nowhere' is installed.",
    "list --database nope": "There is no database alias 'nope': there are default, terminal.",
    "create a@b": "'a@b' cannot be a branch's name: use letters, digits and . _ - /, and not ",
    "create x --expires soon": "Error: argument --expires: 'soon' is no time: write 30m, 2h or 3d",
    "creat x": "Error: argument VERB: invalid choice: 'creat' (choose from ",
}


def test_a_mistake_is_one_sentence(using: str) -> None:
    for line, said in MISTAKES.items():
        with pytest.raises(CommandError) as refused:
            branch(line)
        assert str(refused.value).startswith(said)
        assert "\n" not in str(refused.value)


def test_the_verbs_of_the_notebook_work_in_a_terminal(using: str) -> None:
    assert branch("create try --expires 2h") == "try is a copy of main.\n"
    assert branch("create blank --from empty") == "blank is empty.\n"
    use("try", using)
    connections[using].cursor().execute("CREATE TABLE catalog_x ()")
    assert branch("diff main catalog") == "catalog_x\n  + table    0 rows\n"
    assert branch("rename try fit") == "try is called fit now.\n"
    assert branch("reset") == "fit is again a copy of main.\n"
    assert branch("diff") == "No difference.\n"
    assert branch("drop") == "fit is dropped. This process is on main again.\n"
    head, *lines = branch("list").splitlines()
    assert head.split() == ["branch", "parent", "size", "age", "expires"]
    assert [line.split()[:2] for line in lines] == [["*", "main"], ["blank", "empty"]]


def test_a_program_can_read_where_one_is_and_what_there_is(using: str) -> None:
    branch("create try --expires 2h")
    main, made = json.loads(branch("list --json"))
    assert (main["branch"], main["is_main"], main["is_here"]) == ("main", True, True)
    assert (made["branch"], made["parent"], made["is_here"]) == ("try", "main", False)
    assert made["expires"] > made["created"]
    status = json.loads(branch("--json"))
    assert (status["branch"], status["database"]) == ("main", connections[using].settings_dict["NAME"])
    use("try", using)
    assert "branch    try\n" in branch("")


def test_to_use_one_is_a_matter_of_a_variable(manage: Manage, scratch_url: str) -> None:
    manage("branch", "create", "try", DATABASE_URL=scratch_url)
    told = manage("branch", "use", "try", DATABASE_URL=scratch_url)
    assert told.stdout == (
        "A command ends, and with it where it went: set WORKBENCH_BRANCH=try in the environment or in .env, "
        "and the next ones start there.\n"
    )
    there = manage("branch", DATABASE_URL=scratch_url, WORKBENCH_BRANCH="try")
    assert "branch    try\n" in there.stdout, there.stderr
    refused = manage("branch", "drop", "main", DATABASE_URL=scratch_url)
    assert refused.returncode == 1
    assert refused.stderr == "CommandError: main is never dropped: give the name of another branch.\n"
    manage("branch", "drop", "try", DATABASE_URL=scratch_url)
