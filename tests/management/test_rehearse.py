"""manage.py rehearse: what it prints, and its exit status."""

from __future__ import annotations

import json

import psycopg2
import pytest

from tests.conftest import Manage


@pytest.fixture
def database(scratch_url: str, manage: Manage) -> dict[str, str]:
    place = {"DATABASE_URL": scratch_url, "WORKBENCH_YES": "1"}
    assert manage("migrate", "-v", "0", **place).returncode == 0
    assert manage("populate", **place).returncode == 0
    return place


def test_the_exit_status_says_how_it_went(manage: Manage, database: dict[str, str]) -> None:
    done = manage("rehearse", **database)
    assert (done.returncode, done.stdout) == (0, "Nothing to rehearse: everything asked for is applied.\n")
    wrong = manage("rehearse", "nothing", **database)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("CommandError: No app 'nothing' is installed")
    manage("migrate", "catalog", "0001", **database)
    hurts = manage("rehearse", "catalog", "0002", **database)
    assert hurts.returncode == 2, hurts.stderr
    assert "Every new row has to give catalog_author.country" in hurts.stdout
    assert manage("rehearse", "--tolerate", **database).returncode == 0
    assert "[ ] 0002_author_country" in manage("showmigrations", "catalog", **database).stdout


def test_it_is_told_as_json_and_as_a_comment(manage: Manage, database: dict[str, str]) -> None:
    manage("migrate", "catalog", "0001", **database)
    told = json.loads(manage("rehearse", "--json", **database).stdout)
    (step,) = told["steps"]
    assert (told["hurts"], told["failure"]) == (True, None)
    assert step["forwards"]["locks"][0]["mode"] == "ACCESS EXCLUSIVE"
    assert [verdict["rule"] for verdict in step["verdicts"]] == ["required"]
    comment = manage("rehearse", "--markdown", **database).stdout
    assert comment.startswith("### catalog.0002_author_country hurts\n")
    assert "⚠️ Add field country to author: Every new row" in comment
    assert "<details><summary>SQL of Add field country to author</summary>" in comment


def test_sessions_of_others_are_named_and_ended_on_demand(manage: Manage, database: dict[str, str]) -> None:
    other = psycopg2.connect(database["DATABASE_URL"], application_name="somebody")
    refused = manage("rehearse", "catalog", "zero", **database)
    assert refused.returncode == 1
    assert "somebody" in refused.stderr
    assert "password" not in refused.stderr
    done = manage("rehearse", "catalog", "zero", "--end", **database)
    assert done.returncode == 2, done.stderr
    with pytest.raises(psycopg2.OperationalError):
        other.cursor().execute("SELECT 1")
    other.close()
