"""The JSON views under gunicorn and wrk, beside plain Django that does the guide's, deployed the same way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2

from tests.benchmarks.samples import sampled
from tests.benchmarks.server import AUTHORS, DATABASE, Server
from tests.throwaway import environment
from tests.wsgi import WORKERS, WebServer, web_server

CLIENTS = 200
SECONDS = 30
WARM_UP_SECONDS = 10
# A client that waits longer gives up.
TIMEOUT_SECONDS = 10
SAMPLE_SECONDS = 0.5
# What counts requests that failed.
FAILURES = ("refused", "broken", "statuses", "timeouts")

APPLICATIONS = {"workbench": "workbench.wsgi:application"}
GUIDE = "tests.benchmarks.guide:application"
# What is asked for; %d is a number of an author's, at random.
PATHS = {
    ("web-authors", "workbench"): "/catalog/authors/?after=%d",
    ("web-authors", "guide, a page"): "/catalog/page/?after=%d",
    ("web-authors", "guide"): "/catalog/authors/?%d",
    ("web-books", "workbench"): "/catalog/books/%d/",
    ("web-books", "guide"): "/catalog/books/%d/",
}


def measure(found: Server, work: str, method: str) -> dict[str, float]:
    """Return what ``CLIENTS`` met in ``SECONDS``.

    ``seconds`` is the time of all by the number of requests; ``p50``, ``p99`` and ``worst`` are what a client
    waited, in seconds. ``refused``, ``broken``, ``statuses`` (neither 2xx nor 3xx) and ``timeouts`` are how
    many failed. ``alone`` is what one client waits when there is no other. ``before``, ``half`` and ``after``
    are the resident bytes of all workers at first, in the middle and in the end; ``sessions`` is the most
    that the database saw of them.
    """
    assert shutil.which("wrk"), "wrk is needed: apt install wrk"
    variables = environment(
        {
            "DATABASE_URL": found.url("tcp"),
            "WORKBENCH_ENV_FILE": os.devnull,
            "DJANGO_SETTINGS_MODULE": "workbench.settings",
        }
    )
    with web_server(APPLICATIONS.get(method, GUIDE), variables) as web:
        alone = _alone(web, PATHS[work, method])
        _load(web, PATHS[work, method], WARM_UP_SECONDS)
        before = web.bytes
        with _watched(web, found) as samples:
            figures = _load(web, PATHS[work, method], SECONDS)
        after = web.bytes
    return {
        **figures,
        "seconds": figures["duration"] / max(figures["requests"], 1),
        "alone": alone,
        "before": before,
        "half": samples[len(samples) // 2][0],
        "after": after,
        "sessions": max(sessions for _, sessions in samples),
    }


def said(figures: dict[str, float]) -> str:
    failed = sum(figures[name] for name in FAILURES)
    before, half, after = (figures[name] / 1e6 for name in ("before", "half", "after"))
    return (
        f"{figures['requests']:,.0f} answered, {figures['requests'] / figures['duration']:.0f} a second, "
        f"{failed:,.0f} failed; p50 {figures['p50']:.3f} s, p99 {figures['p99']:.3f} s, one client alone "
        f"{figures['alone']:.3f} s; workers {before:.0f} MB, {half:.0f} half-way, {after:.0f} in the end; "
        f"{figures['sessions']:.0f} sessions"
    )


def _alone(web: WebServer, path: str) -> float:
    """Return the seconds of an answer, once the worker has imported what it needs and has a connection."""
    seconds = []
    for number in range(2 * WORKERS):
        began = time.perf_counter()
        with urllib.request.urlopen(web.address + path % (number + 1)) as response:
            response.read()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _load(web: WebServer, path: str, seconds: int) -> dict[str, float]:
    script = str(Path(__file__).with_name("wrk.lua"))
    options = (
        f"--threads 2 --connections {CLIENTS} --duration {seconds}s --timeout {TIMEOUT_SECONDS}s".split()
    )
    command = ["wrk", *options, "--script", script, web.address, "--", path, str(AUTHORS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


@contextmanager
def _watched(web: WebServer, found: Server) -> Iterator[list[tuple[int, int]]]:
    """Collect, while the block runs, the workers' memory and their number of sessions."""

    def look() -> tuple[int, int]:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND datname = %s AND pid <> pg_backend_pid()",
            [DATABASE],
        )
        ((sessions,),) = cursor.fetchall()
        return web.bytes, sessions

    with closing(psycopg2.connect(found.url("tcp"))) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        with sampled(look, SAMPLE_SECONDS) as samples:
            yield samples
