"""``manage.py who_blocks``, of a line that stands in a database of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import psycopg2
import pytest

from tests.conftest import Manage
from tests.throwaway import PROJECT, environment


@pytest.fixture
def line(scratch_url: str) -> Iterator[tuple[int, int]]:
    """The process ids of who holds a table, and of who waits for it."""
    holder, waiting = (psycopg2.connect(scratch_url, application_name="psql") for _ in range(2))
    cursor = holder.cursor()
    cursor.execute("CREATE TABLE author (id int)")
    holder.commit()
    cursor.execute("LOCK TABLE author")

    def wait() -> None:
        with suppress(psycopg2.Error):
            waiting.cursor().execute("SELECT FROM author")

    thread = threading.Thread(target=wait)
    thread.start()
    pids = holder.info.backend_pid, waiting.info.backend_pid
    while not cursor.rowcount > 0:
        cursor.execute("SELECT FROM pg_locks WHERE pid = %s AND NOT granted", pids[1:])
    yield pids
    holder.close()
    thread.join()
    waiting.close()


def test_an_unknown_database_is_a_line(manage: Manage) -> None:
    done = manage("who_blocks", "--database", "nowhere")
    assert done.returncode != 0
    assert "invalid choice: 'nowhere'" in done.stderr.splitlines()[-1]


def test_it_tells_who_waits_for_whom(manage: Manage, scratch_url: str, line: tuple[int, int]) -> None:
    holder, waiting = line
    done = manage("who_blocks", DATABASE_URL=scratch_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"process {holder} (psql, workbench, idle in transaction for" in done.stdout
    assert f"SELECT pg_terminate_backend({holder})" in done.stdout

    done = manage("who_blocks", "--json", DATABASE_URL=scratch_url)
    (wait,) = json.loads(done.stdout)["waits"]
    assert (wait["session"]["pid"], wait["wanted"]) == (waiting, "ACCESS SHARE on author")
    assert [root["pid"] for root in wait["roots"]] == [holder]


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals on Windows")
def test_it_looks_again_and_again_until_it_is_interrupted(scratch_url: str) -> None:
    with subprocess.Popen(
        [sys.executable, str(PROJECT / "manage.py"), "who_blocks", "--json", "--watch", "0.1"],
        env=environment({"DATABASE_URL": scratch_url}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        looks = [json.loads(watching.stdout.readline()) for _ in range(3)]
        watching.send_signal(signal.SIGINT)
        assert watching.stderr.read() == ""
    assert watching.returncode == 0
    assert [look["waits"] for look in looks] == [[], [], []]
