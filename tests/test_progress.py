"""What a terminal shows of what takes long."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from textwrap import dedent

import pytest

from tests.plain import BEGIN, start
from tests.throwaway import HOME
from workbench.connection import embedded

pty = pytest.importorskip("pty", reason="Windows has no such terminals")
termios = pytest.importorskip("termios", reason="Windows has no such terminals")

READ = f"{BEGIN}\nread = frame('SELECT n, pg_sleep(0.015)::text AS t FROM generate_series(1, 120) AS n')"


@pytest.fixture
def in_terminal() -> Callable[..., str]:
    """Run Python and return what a terminal gets to see of its stderr."""
    embedded.start(HOME)  # Which takes long enough to be seen.

    def run(code: str, columns: int = 80, changes: Mapping[str, str | None] | None = None) -> str:
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, columns))
        process = start(code, changes, stderr=slave, stdout=subprocess.DEVNULL)
        os.close(slave)
        seen = b""
        while True:
            try:
                read = os.read(master, 1024)
            except OSError:  # Linux' end of a terminal that nobody writes to any more
                break
            if not read:
                break
            seen += read
        os.close(master)
        assert process.wait(timeout=60) == 0, seen
        return seen.decode()

    return run


def test_a_terminal_shows_one_line_that_is_gone_in_the_end(in_terminal: Callable[[str], str]) -> None:
    seen = in_terminal(READ)
    *shown, erased, rest = seen.removeprefix("\r").split("\r")
    assert "\n" not in seen
    assert len(shown) >= 2
    lines = [line.strip() for line in shown if line]
    assert all(re.fullmatch(r"Reading, ([\d,]+ rows?, ([\d,]+ rows/s, )?)?\d+ s", line) for line in lines)
    assert (erased.strip(), rest) == ("", "")
    assert len(erased) >= len(lines[-1])


def test_a_total_gives_a_bar_that_fits_the_terminal_and_a_time_that_never_is_zero(
    in_terminal: Callable[..., str],
) -> None:
    loading = f"{BEGIN}\nfrom workbench.progress import Progress\n" + dedent(
        """
        with Progress("Loading", 50) as progress:
            for n in range(50):
                time.sleep(0.03)
                progress.done += 1
            progress.now = "putting the indexes back"
            time.sleep(0.5)
        """
    )
    lines = [line.strip() for line in in_terminal(loading, columns=90).split("\r") if line.strip()]
    for line in lines[:-1]:
        bar = r"\[#+\.*\] Loading, \d\d of 50 rows, \d+ rows/s, [1-9] s to go"
        assert re.fullmatch(rf"{bar}|\[#+\] Loading: putting the indexes back, 50 rows, \d s", line)
    narrow = [line for line in in_terminal(loading, columns=40).split("\r") if line.strip()]
    assert all(len(line.rstrip()) < 40 and "[" not in line for line in narrow)


def test_a_migration_is_seen_while_it_runs_and_its_lines_are_whole(in_terminal: Callable[..., str]) -> None:
    seen = in_terminal(
        f"{BEGIN}\n"
        + dedent(
            """
            import sys
            from django.core.management import call_command
            from django.db.migrations import RunPython
            from importlib import import_module
            migration = import_module("catalog.migrations.0002_author_country").Migration
            migration.operations = [RunPython(lambda *_: time.sleep(1.6), RunPython.noop)]
            connection.cursor().execute("CREATE DATABASE slow")
            connection.close()
            connection.settings_dict["NAME"] = "slow"
            call_command("migrate", "catalog", stdout=sys.stderr, no_color=True)
            connection.close()
            connection.settings_dict["NAME"] = "workbench"
            connection.cursor().execute("DROP DATABASE slow")
            """
        ),
        columns=120,
    )
    lines = [line.rstrip() for line in seen.replace("\r\n", "\n").split("\n")]
    shown = [part.strip() for line in lines for part in line.split("\r") if part.strip()]
    assert "Applying catalog.0001_initial... OK" in shown
    assert shown[-1] == "Applying catalog.0002_author_country... OK"
    assert any(
        re.fullmatch(r"\[#+\.+\] Migrating: catalog.0002_author_country, 1 of 2 migrations, \d s", line)
        for line in shown
    )


def test_what_is_within_another_is_shown_in_its_place_and_threads_take_turns(
    in_terminal: Callable[..., str],
) -> None:
    nested = f"{BEGIN}\nimport threading\nfrom workbench.progress import Progress\n" + dedent(
        """
        def work():
            with Progress("Beside"):
                time.sleep(2.2)
        beside = threading.Thread(target=work)
        with Progress("Rehearsing") as outer:
            beside.start()
            outer.now = "forwards"
            with Progress("Copying main", 3_000_000, unit="bytes") as inner:
                time.sleep(0.5)
                inner.done = 1_500_000
                time.sleep(0.9)
            time.sleep(0.3)
        beside.join()
        """
    )
    lines = [line.strip() for line in in_terminal(nested, columns=120).split("\r") if line.strip()]
    copying = r"\[#+\.+\] Rehearsing: forwards: copying main, 1.5 MB of 3.0 MB, .*, \d s( to go)?"
    assert re.fullmatch(copying, lines[0])
    assert any(re.fullmatch(r"Rehearsing: forwards, \d s", line) for line in lines)
    assert re.fullmatch(r"Beside, \d s", lines[-1])


def test_a_terminal_that_cannot_go_back_in_a_line_gets_nothing(in_terminal: Callable[..., str]) -> None:
    assert in_terminal(f"{BEGIN}\nframe('SELECT pg_sleep(1.3)')", changes={"TERM": "dumb"}) == ""


def test_a_terminal_shows_nothing_of_what_is_quick(in_terminal: Callable[[str], str]) -> None:
    assert in_terminal(f"{BEGIN}\nframe('SELECT 1 AS n'); time.sleep(1.3); frame('SELECT 1 AS n')") == ""


def test_a_pipe_gets_nothing() -> None:
    process = start(READ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.communicate(timeout=60) == ("", "")
