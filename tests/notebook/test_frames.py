"""Frames in a real kernel: what is shown while they are read, and Control-C."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import pytest

from tests.kernel import Kernel

SLOW = "SELECT n, pg_sleep(0.02)::text AS slept FROM generate_series(1, 120) AS n"
ENDLESS = "SELECT n, repeat('x', 100) AS text FROM generate_series(1, 1000000000) AS n"
LONG = ENDLESS.replace("000000000", "0000000")
ACTIVE = """
SELECT count(*) AS n FROM pg_stat_activity
WHERE state = 'active' AND pid <> pg_backend_pid() AND datname = current_database()
"""

INTERRUPTED = {
    "waiting for the first row": "frame('SELECT pg_sleep(20)')",
    "among many rows": f"frame({ENDLESS!r})",
    "among chunks": f"for chunk in frame.chunks({LONG!r}, rows=100): pass",
    "between chunks": "for chunk in frame.chunks('SELECT 1 AS n'): time.sleep(20)",
    "in a transaction": "with transaction.atomic(): frame('SELECT pg_sleep(20)')",
    "loading": "load(Author, ({'name': str(n)} for n in itertools.count()))",
    "loading what waits": "load(Author, ({'name': str(n or time.sleep(20))} for n in range(30_000, -1, -1)))",
    "waiting for a lock": "load(Author, [{'name': 'locked out'}])",
}


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel({"WORKBENCH_PROGRESS": None}) as running:
        running.run("%manage migrate -v 0")
        running.run("from django.db import models; from django.db.models import Func, Value")
        running.run("import itertools, psycopg2, time; written = Author.objects.count()")
        running.run(
            "other = psycopg2.connect(**{**connection.get_connection_params(), 'cursor_factory': None})"
        )
        yield running


@pytest.mark.skipif(os.name == "nt", reason="a query is not interrupted there")
@pytest.mark.parametrize(("name", "cell"), INTERRUPTED.items(), ids=INTERRUPTED)
def test_control_c_ends_it_at_once_and_the_next_cell_works(kernel: Kernel, name: str, cell: str) -> None:
    if "lock" in name:
        kernel.run("other.cursor().execute('LOCK TABLE catalog_author')")
    began = time.monotonic()
    outcome = kernel.run(cell, interrupt_after=1.0)
    seconds = time.monotonic() - began
    kernel.run("other.rollback()")
    assert "KeyboardInterrupt" in "".join(outcome.error)
    assert seconds < 15
    assert kernel.run(f"frame({ACTIVE!r})['n'].item()").result == "0"
    assert kernel.run("Author.objects.count() == written").result == "True"
    assert kernel.run("len(frame('SELECT 1 AS n')), connection.in_atomic_block").result == "(1, False)"


@pytest.mark.skipif(os.name == "nt", reason="a query is not interrupted there")
def test_an_interrupted_frame_is_one_line(kernel: Kernel) -> None:
    for cell in ("frame('SELECT pg_sleep(20)')", f"frame({ENDLESS!r})"):
        outcome = kernel.run(cell, interrupt_after=0.7)
        assert outcome.error == ["KeyboardInterrupt: the query was cancelled."]


def test_a_refusal_is_one_line(kernel: Kernel) -> None:
    outcome = kernel.run("frame('UPDATE catalog_author SET name = 1')")
    (line,) = outcome.error
    assert line.startswith("frame reads what SELECT")


def test_a_frame_that_takes_long_shows_how_far_it_is(kernel: Kernel) -> None:
    outcome = kernel.run(f"read = frame({SLOW!r})")
    assert re.fullmatch(r"Reading, ([\d,]+ rows?, ([\d,]+ rows/s, )?)?\d+ s", outcome.result)
    assert re.fullmatch(r"Reading took \d+\.\d s: 120 rows, [\d,]+ rows/s", outcome.updated)
    assert (outcome.stdout, outcome.stderr) == ("", "")


def test_so_do_chunks_and_a_load_and_a_load_says_how_long_it_will_take(kernel: Kernel) -> None:
    outcome = kernel.run(f"for chunk in frame.chunks({SLOW!r}, rows=50): time.sleep(0.1)")
    assert re.fullmatch(r"Reading took \d+\.\d s: 120 rows, [\d,]+ rows/s", outcome.updated)
    slow = "({'name': 'slow', 'bio': str(time.sleep(0.02))} for _ in range(80))"
    outcome = kernel.run(
        f"with transaction.atomic(): n = load(Author, {slow}); transaction.set_rollback(True)\nn"
    )
    assert re.fullmatch(r"Loading took \d+\.\d s: 80 rows, [\d,]+ rows/s", outcome.updated)
    assert outcome.result.endswith("80")


def test_what_a_cell_leaves_half_read_does_not_go_on_showing(kernel: Kernel) -> None:
    outcome = kernel.run(f"chunks = frame.chunks({SLOW!r}, rows=10)\nfirst = next(chunks); time.sleep(1)")
    assert re.fullmatch(r"Reading took \d+\.\d s: 10 rows(, \d+ rows/s)?", outcome.updated)
    outcome = kernel.run("time.sleep(1.2)\nsum(len(chunk) for chunk in chunks)")
    assert (outcome.result, outcome.updated) == ("110", "")


def test_a_query_in_django_s_own_ways_is_seen_too_when_it_takes_long(kernel: Kernel) -> None:
    outcome = kernel.run("with connection.cursor() as cursor: cursor.execute('SELECT pg_sleep(2.2)')")
    assert re.fullmatch(r"Waiting for Postgres, [12] s", outcome.result)
    assert re.fullmatch(r"Waiting for Postgres took [23]\.\d s", outcome.updated)
    outcome = kernel.run("""
with transaction.atomic():
    Author.objects.create(name="slow")
    slept = Func(Value(2.2), function="pg_sleep", output_field=models.TextField())
    found = list(Author.objects.annotate(slept=slept)[:1])
    transaction.set_rollback(True)
""")
    assert re.fullmatch(r"Fetching authors, [12] s", outcome.result)
    assert re.fullmatch(r"Fetching authors took [23]\.\d s", outcome.updated)


def test_what_is_quick_shows_nothing(kernel: Kernel) -> None:
    outcome = kernel.run("read = frame('SELECT n FROM generate_series(1, 100000) AS n')")
    assert (outcome.result, outcome.updated) == ("", "")


def test_progress_can_be_turned_off() -> None:
    with Kernel({"WORKBENCH_PROGRESS": "0"}) as kernel:
        outcome = kernel.run(f"read = frame({SLOW!r}); len(read)")
    assert (outcome.result, outcome.updated, outcome.error) == ("120", "", [])
