"""Readings that are too large, under limits of the test's own: 600 MB are never exceeded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.throwaway import EVERYTHING, PROJECT, environment
from workbench.frames import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux'")

# Reads SQL with so many bytes more than it has, and says what came of it, and what it holds afterwards.
READS = """
import resource, sys, warnings
import django
django.setup()
import psutil
from django.db import connection, transaction
from workbench.frames import frame
frame("SELECT 1 AS one")
process = psutil.Process()
before = process.memory_info()
most = before.vms + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
with transaction.atomic():
    connection.cursor().execute("CREATE TEMPORARY TABLE mine AS SELECT 42 AS row")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        try:
            print(len(frame(sys.argv[2])))
        except Exception as error:
            print(type(error).__name__, error)
    for warning in told:
        print(warning.category.__name__, warning.message, "at", warning.lineno)
    print("kept", process.memory_info().rss - before.rss < 80_000_000)
    print("usable", frame("SELECT row FROM mine")["row"][0])
"""
LINE = READS.splitlines().index("            print(len(frame(sys.argv[2])))") + 1
IN_PARTS = r"read them in parts with frame\.chunks\(\.\.\., rows=100_000\), or fewer rows or columns\."

GIVEN_UP = (
    r"FrameError Reading was given up after [\d,]+ rows, with (\d+ [kM]B|nothing) left of the memory: "
    rf"{IN_PARTS}"
)
USABLE = ["kept True", "usable 42"]

MANY = "SELECT i, 'a text of some length ' || i AS text FROM (SELECT generate_series(1, {}) AS i) AS q"


def read(sql: str, more: int = 300_000_000) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", READS, str(more), sql],
        cwd=PROJECT,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_it_is_said_while_little_came_and_given_up_before_the_memory_is_and_the_transaction_goes_on() -> None:
    said, warning, *rest = read(MANY.format(100_000_000))
    expected = (
        rf"FrameWarning About 100,000,000 rows will come, which take about \d\.\d GB of memory, and "
        rf"\d+ MB were left: {IN_PARTS} at {LINE}"
    )
    assert re.fullmatch(expected, warning), warning
    assert re.fullmatch(GIVEN_UP, said), said
    assert rest == USABLE


@pytest.mark.skipif(not os.environ.get(EVERYTHING), reason="takes long")
@pytest.mark.parametrize(
    "sql",
    [
        # Larger than what comes between two looks, at once.
        "SELECT repeat('x', 3000000) FROM (SELECT generate_series(1, 1000)) AS q",
        "SELECT CASE WHEN i > 5000 THEN repeat('x', 500000) END FROM (SELECT generate_series(1, 9000) i) q",
        # Python's objects take many times what they are on the wire.
        "SELECT jsonb_build_object('a', i), gen_random_uuid() FROM (SELECT generate_series(1, 50000000) i) q",
    ],
    ids=["wide rows", "wide rows, later", "objects"],
)
def test_rows_of_any_kind_are_given_up_in_time(sql: str) -> None:
    said, *_, kept, usable = read(sql)
    assert re.fullmatch(GIVEN_UP, said), said
    assert [kept, usable] == USABLE


def test_what_fits_is_read_and_nothing_is_said() -> None:
    assert read(MANY.format(500_000), 500_000_000) == ["500000", *USABLE]


# As Linux' documentation has them; a container sees its own cgroup in the place of the first.
VERSION_2 = {"a/memory.max": "max", "a/b/memory.max": "500000000", "memory.max": "900000000"}
VERSION_1 = {"memory/a/memory.limit_in_bytes": "9223372036854771712", "memory/memory.limit_in_bytes": "400"}


@pytest.mark.parametrize(
    ("membership", "files", "limits"),
    [
        ("0::/a/b", VERSION_2, [500_000_000, 900_000_000]),
        ("0::/", VERSION_2, [900_000_000]),
        ("0::/elsewhere/x", VERSION_2, [900_000_000]),
        ("9:name=systemd:/\n4:memory:/a\n0::/", VERSION_1, [400]),
        ("4:memory:/docker/0123", VERSION_1, [400]),
        ("0::/", {}, []),
    ],
)
def test_the_limits_of_a_cgroup_and_of_those_above_it_count(
    tmp_path: Path, membership: str, files: dict[str, str], limits: list[int]
) -> None:
    for name, limit in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{limit}\n")
    assert [limit.bytes for limit in memory.cgroup_limits(membership, tmp_path)] == limits


def test_files_that_the_system_keeps_in_memory_are_not_used_up(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("800\n")
    (tmp_path / "memory.stat").write_text("anon 500\nfile 300\ninactive_file 200\nactive_file 100\n")
    limits = memory.cgroup_limits("0::/", tmp_path)
    assert memory.memory(limits) == (400, 1000)


def test_this_machines_own_cgroups_are_read() -> None:
    found = memory.memory(memory.our_limits())
    assert 0 < found.left <= found.total <= psutil.virtual_memory().total
