"""Control-C in a process of a terminal: whenever it comes, it ends what runs, here and on the server."""

from __future__ import annotations

import os

import pytest

from tests.plain import BEGIN, told

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")

INTERRUPTED = """
import os, threading
frame("SELECT 1 AS n")
threading.Timer(0.7, os.kill, [os.getpid(), signal.SIGINT]).start()
began = time.monotonic()
try:
    {}
except KeyboardInterrupt:
    print(time.monotonic() - began < 15)
active = "SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%%' || %s || '%%'"
print(frame(active + " AND pid <> pg_backend_pid()", ["gener" + "ate_series"])["n"].item())
"""

CALLS = {
    "waiting": "frame('SELECT pg_sleep(20), n FROM generate_series(1, 2) AS n')",
    "among many rows": "frame('SELECT n FROM generate_series(1, 1000000000) AS n')",
    "among chunks": "list(frame.chunks('SELECT pg_sleep(20), n FROM generate_series(1, 2) AS n'))",
}

ALWAYS = """
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
    try:
        threading.Timer(random.uniform(0.02, 0.15), os.kill, [os.getpid(), signal.SIGINT]).start()
        {call}
    except BaseException as error:
        print(type(error).__name__)
print(Author.objects.filter(name="0").count())
"""
UNENDING = {
    "load": "load(Author, ({'name': str(n)} for n in itertools.count()))",
    "read": "read()",
    "free": "free()",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_control_c_ends_a_query_of_a_plain_process(call: str) -> None:
    assert told(BEGIN + INTERRUPTED.replace("{}", call)) == ["True", "0"]


@pytest.mark.parametrize("call", UNENDING.values(), ids=UNENDING)
def test_control_c_is_never_lost_whenever_it_comes(call: str) -> None:
    assert told(BEGIN + ALWAYS.format(call=call), timeout=60) == ["KeyboardInterrupt"] * 20 + ["0"]


def test_a_forked_process_is_interrupted_by_itself() -> None:
    said = told(
        BEGIN
        + """
import os, threading
frame("SELECT 1 AS n")

def fork():
    time.sleep(0.3)
    child = os.fork()
    if child:
        print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        return
    try:
        frame("SELECT 1 AS n")
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        os._exit(7)

# While the main thread is in a statement, of which the child's knows nothing.
forking = threading.Thread(target=fork)
forking.start()
print(frame("SELECT 42 AS n, pg_sleep(1)")["n"].item())
forking.join()
"""
    )
    assert sorted(said) == ["42", "child 7"]


def test_what_is_done_with_the_rows_of_a_cursor_is_interrupted_at_once() -> None:
    said = told(
        BEGIN
        + """
import os, threading
frame("SELECT 1 AS n")
cursor = connection.cursor()
cursor.execute("SELECT generate_series(1, 10)")
threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
began = time.monotonic()
try:
    for row in cursor:
        time.sleep(20)
except KeyboardInterrupt:
    print(time.monotonic() - began < 15, row, [*cursor][-1])
"""
    )
    assert said == ["True (1,) (10,)"]


def test_neither_the_transactions_nor_the_next_statements_suffer() -> None:
    said = told(
        BEGIN
        + """
import os, random, threading
from collections import Counter
from django.db import transaction
random.seed(1)
frame("SELECT 1 AS n")
cursor = connection.cursor()
seen = Counter()
for _ in range(100):
    try:
        threading.Timer(random.uniform(0.005, 0.03), os.kill, [os.getpid(), signal.SIGINT]).start()
        while True:
            with transaction.atomic(), transaction.atomic():
                cursor.execute("SELECT pg_sleep(0.0005)")
    except KeyboardInterrupt:
        seen["interrupted"] += 1
    cursor.execute("SELECT pg_sleep(0.01)")
    states = connection.in_atomic_block, connection.autocommit, connection.connection.autocommit
    seen["well"] += states == (False, True, True)
print(dict(seen))
""",
        timeout=60,
    )
    assert said == ["{'interrupted': 100, 'well': 100}"]


def test_what_was_to_follow_an_interrupted_commit_does_not_follow_the_next() -> None:
    said = told(
        BEGIN
        + """
import os, threading
from django.db import transaction
frame("SELECT 1 AS n")
cursor = connection.cursor()
cursor.execute(
    "CREATE TEMPORARY TABLE slow (n int);"
    "CREATE FUNCTION pg_temp.wait() RETURNS trigger LANGUAGE plpgsql"
    " AS 'BEGIN PERFORM pg_sleep(20); RETURN NULL; END';"
    "CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION pg_temp.wait()"
)
threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
try:
    with transaction.atomic():
        transaction.on_commit(lambda: print("first"))
        cursor.execute("INSERT INTO slow VALUES (1)")
except KeyboardInterrupt as error:
    print(error)
with transaction.atomic():
    transaction.on_commit(lambda: print("second"))
print(frame("SELECT count(*) AS n FROM slow")["n"].item())
"""
    )
    assert said == ["the query was cancelled.", "second", "0"]


def test_who_has_a_handler_of_ones_own_decides_what_is_to_end() -> None:
    said = told(
        BEGIN
        + """
import os, threading
frame("SELECT 1 AS n")
stop = []
signal.signal(signal.SIGINT, lambda *_: stop.append(True))
threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
while not stop:
    print(frame("SELECT 42 AS n, pg_sleep(1)")["n"].item())
"""
    )
    assert said == ["42"]
