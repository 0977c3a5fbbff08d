"""Frames in a process of a terminal: what it shows, and Control-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.throwaway import PROJECT, environment

pty = pytest.importorskip("pty", reason="Windows has no such terminals")

# A shell may have its children ignore SIGINT.
BEGIN = """
import signal, sys, time, django
signal.signal(signal.SIGINT, signal.default_int_handler)
django.setup()
from django.db import connection
from workbench.frames import frame
"""

READ = f"{BEGIN}\nread = frame('SELECT n, pg_sleep(0.015)::text AS t FROM generate_series(1, 120) AS n')"

INTERRUPTED = (
    BEGIN
    + """
frame("SELECT 1 AS n")
print("reading", flush=True)
began = time.monotonic()
try:
    {}
except KeyboardInterrupt:
    print(time.monotonic() - began, flush=True)
active = "SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%%' || %s || '%%'"
print(frame(active + " AND pid <> pg_backend_pid()", ["gener" + "ate_series"])["n"].item())
"""
)

CALLS = {
    "waiting": "frame('SELECT pg_sleep(20), n FROM generate_series(1, 2) AS n')",
    "among many rows": "frame('SELECT n FROM generate_series(1, 1000000000) AS n')",
    "among chunks": "list(frame.chunks('SELECT pg_sleep(20), n FROM generate_series(1, 2) AS n'))",
}


def start(code: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=environment({"WORKBENCH_PROGRESS": None}),
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        **options,
    )


@pytest.fixture
def in_terminal() -> Callable[[str], str]:
    """Run Python and return what a terminal gets to see of its stderr."""

    def run(code: str) -> str:
        master, slave = pty.openpty()
        process = start(code, stderr=slave, stdout=subprocess.DEVNULL)
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
    lines = [line for line in seen.split("\r\x1b[K") if line]
    shown = [line for line in seen.split("\r") if line and line != "\x1b[K"]
    assert len(lines) == 1, "It is erased once, in the end"
    assert seen.endswith("\r\x1b[K")
    assert "\n" not in seen
    assert len(shown) >= 2
    assert all(
        re.fullmatch(r"[\d,]+ rows, (waiting for \d+ s|[\d,]+ rows/s, \d+ s)\x1b\[K", line) for line in shown
    )


def test_a_terminal_shows_nothing_of_what_is_quick(in_terminal: Callable[[str], str]) -> None:
    assert in_terminal(f"{BEGIN}\nframe('SELECT 1 AS n'); time.sleep(1.3); frame('SELECT 1 AS n')") == ""


def test_a_pipe_gets_nothing() -> None:
    process = start(READ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.communicate(timeout=60) == ("", "")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_control_c_ends_a_query_of_a_plain_process(call: str) -> None:
    process = start(INTERRUPTED.replace("{}", call), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == "reading\n"
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (0, "")
    seconds, active = map(json.loads, out.split())
    assert seconds < 2
    assert active == 0


def test_control_c_is_never_lost_whenever_it_comes() -> None:
    code = f"""{BEGIN}
import itertools, os, random, threading
from catalog.models import Author
from django.core.management import call_command
from workbench.frames import load
call_command("migrate", verbosity=0)
random.seed(1)
for _ in range(30):
    seconds = random.uniform(0.02, 0.25)
    threading.Timer(seconds, os.kill, [os.getpid(), signal.SIGINT]).start()
    try:
        load(Author, ({{"name": str(n)}} for n in itertools.count()))
    except BaseException as error:
        print(type(error).__name__)
print(Author.objects.filter(name="0").count())
"""
    process = start(code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    said, _ = process.communicate(timeout=60)
    assert said.split() == ["KeyboardInterrupt"] * 30 + ["0"]
