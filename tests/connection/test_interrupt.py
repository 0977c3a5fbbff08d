"""Control-C in a process of a terminal: whenever it comes, it ends what runs, here and on the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

from tests.plain import BEGIN, start

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")

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

ALWAYS = (
    BEGIN
    + """
import itertools, os, random, threading, weakref
from catalog.models import Author
from django.core.management import call_command
from workbench.connection import interrupt
from workbench.frames import load

class Freed:
    def __del__(self): str(self)

def free():
    interrupt.watch()
    kept = weakref.WeakKeyDictionary()
    while True:
        kept[Freed()] = 1

def read():
    for _ in frame.chunks("SELECT n, repeat('x', 40) AS text FROM generate_series(1, 100000000) AS n"):
        pass

call_command("migrate", verbosity=0)
random.seed(1)
for _ in range(20):
    threading.Timer(random.uniform(0.02, 0.15), os.kill, [os.getpid(), signal.SIGINT]).start()
    try:
        {call}
    except BaseException as error:
        print(type(error).__name__)
print(Author.objects.filter(name="0").count())
"""
)
UNENDING = {
    "load": "load(Author, ({'name': str(n)} for n in itertools.count()))",
    "read": "read()",
    "free": "free()",
}


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


@pytest.mark.parametrize("call", UNENDING.values(), ids=UNENDING)
def test_control_c_is_never_lost_whenever_it_comes(call: str) -> None:
    code = ALWAYS.format(call=call)
    process = start(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, error = process.communicate(timeout=60)
    assert said.split() == ["KeyboardInterrupt"] * 20 + ["0"]
    assert error == ""


def test_a_forked_process_is_interrupted_by_itself() -> None:
    code = (
        BEGIN
        + """
import os
frame("SELECT 1 AS n")
child = os.fork()
if not child:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        os._exit(7)
print(frame("SELECT 42 AS n, pg_sleep(0.5)")["n"].item(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    process = start(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.communicate(timeout=30) == ("42 7\n", "")
