"""What sessions are called: by the notebook, or the command, that they are of."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest

from tests.conftest import Manage, scratch
from tests.kernel import Kernel
from tests.plain import told
from tests.throwaway import PROJECT
from workbench.connection import Session
from workbench.connection.program import program

ASK = "SELECT current_setting('application_name')"
NAME = f"""
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute({ASK!r})
    print(cursor.fetchone()[0])
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with scratch() as made:
        yield made


NOTEBOOKS = {
    "/home/ada/notebooks/01_migrate.ipynb": "01_migrate.ipynb",
    "lessons/01-jvsc-0b0f3a52-6a3e-4e0f-9d3c-4d5f0c2b1a99.ipynb": "01.ipynb",
    # JupyterLab's name for what has no file.
    "0b0f3a52-6a3e-4e0f-9d3c-4d5f0c2b1a99": "a notebook",
    "": "a notebook",
    "übungen.ipynb": "übungen.ipynb",
    # Postgres cuts off what is longer, of each letter of these four times as much.
    f"{'я' * 100}.ipynb": f"{'я' * 5}.ipynb",
    f"{'long ' * 100}.ipynb": f"{'long ' * 9}l.ipynb",
}


def test_a_kernel_s_are_called_by_its_notebook_s_file_alone(url: str) -> None:
    first, *_ = NOTEBOOKS
    with Kernel({"DATABASE_URL": url, "JPY_SESSION_NAME": first}) as kernel:
        assert kernel.run(NAME).stdout == f"workbench: {NOTEBOOKS[first]}\n"
        # What a notebook starts is another program.
        command = [sys.executable, str(PROJECT / "manage.py"), "shell", "-v", "0", "-c", NAME]
        child = kernel.run(f"import os, subprocess\nsubprocess.run({command}, capture_output=True).stdout")
        assert child.result == r"b'workbench: shell\n'"
        for path, name in NOTEBOOKS.items():
            called = kernel.run(
                f"os.environ['JPY_SESSION_NAME'] = {path!r}\n"
                f"from workbench.connection.program import application_name\n"
                f"connection.close()\n"
                f"connection.settings_dict['OPTIONS']['application_name'] = application_name(){NAME}"
            )
            assert program(called.stdout.strip()) == name, called.error


def test_a_command_s_are_called_by_its_name(url: str, manage: Manage) -> None:
    done = manage("shell", "-v", "0", "-c", NAME, DATABASE_URL=url)
    assert done.stdout == "workbench: shell\n", done.stderr
    code = f"import django; django.setup(){NAME}"
    assert told(code, {"DATABASE_URL": url}) == ["workbench"]


def test_a_name_of_the_person_s_own_stays(url: str, manage: Manage) -> None:
    done = manage("shell", "-v", "0", "-c", NAME, DATABASE_URL=f"{url}&application_name=mine")
    assert done.stdout == "mine\n", done.stderr


def test_what_is_ours_is_named_and_what_is_not_has_its_process_and_role(url: str) -> None:
    called = psycopg2.connect(url, application_name="workbench: lesson é.ipynb")
    with closing(called) as connection, connection.cursor() as cursor:
        cursor.execute(ASK)
        ((told,),) = cursor.fetchall()
    ours = Session(7, "workbench", told, state="idle", seconds=480)
    assert str(ours) == "lesson é.ipynb (idle for 8 min)"
    assert ours.who == "lesson é.ipynb, workbench"
    theirs = Session(7, "ada", "psql", state="idle", seconds=480)
    assert str(theirs) == "process 7 (psql, ada, idle for 8 min)"
    assert str(Session(7, "workbench", "workbench")) == "process 7 (workbench)"
