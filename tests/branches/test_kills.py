"""Processes that are killed while they work with branches, thirty times."""

from __future__ import annotations

import hashlib
import random
import subprocess
import time

from django.db import connections

from tests.branches.conftest import ALIAS, Place, databases
from workbench.branches import branches, create, drop
from workbench.schema.snapshot import Snapshot, read

KILLS = 30
# The longest that a process is let work, in seconds: longer than any of these takes.
LONGEST = 0.25

# What each process does, again and again, until it is killed. It has a branch "old" to work on.
WORK = {
    "create": "create('new'); drop('new')",
    "reset": "reset('old')",
    "drop": "drop('old'); create('old')",
    "rename": "rename('old', 'renamed'); rename('renamed', 'old')",
    "a block": "with branch('scratch'): connection.cursor().execute('DELETE FROM thing')",
    "rehearse": "rehearse('catalog', [migrations.RunSQL('DELETE FROM thing')])",
}


def rows() -> str:
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("SELECT string_agg(thing::text, ',' ORDER BY id) FROM thing")
        return hashlib.sha256(cursor.fetchone()[0].encode()).hexdigest()


def state() -> tuple[Snapshot, str]:
    found = read(connections[ALIAS]), rows()
    connections[ALIAS].close()
    return found


def start(place: Place, verb: str) -> subprocess.Popen[str]:
    """Start a process that is ready to work, and begins when it is told to."""
    return place.start(f"print('ready', flush=True); sys.stdin.readline()\nwhile True:\n    {WORK[verb]}")


def test_whenever_a_process_is_killed_main_is_as_it_was_and_the_next_list_is_clean(place: Place) -> None:
    chance = random.Random(20261124)
    root = connections[ALIAS].settings_dict["NAME"]
    before = state()
    working: dict[int, subprocess.Popen[str]] = {}
    for number in range(KILLS):
        verb = [*WORK][number % len(WORK)]
        if "old" not in branches(ALIAS):
            create("old", using=ALIAS)
        for each in branches(ALIAS):
            if each.name not in ("main", "old"):
                drop(each.name, using=ALIAS)
        # The next one gets ready meanwhile.
        process = working.pop(number, None) or start(place, verb)
        if number + 1 < KILLS:
            working[number + 1] = start(place, [*WORK][(number + 1) % len(WORK)])
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.stdin.write("\n")
            process.stdin.flush()
            time.sleep(chance.uniform(0, LONGEST))
            process.kill()
            assert process.stderr is not None
            assert process.stderr.read() == "", verb
        place.wait_for_end()
        listed = {f"{root}@{each.name}" for each in branches(ALIAS) if not each.is_main}
        assert {*databases(root)} == {root, *listed}, verb
        assert listed <= {f"{root}@{name}" for name in ("old", "new", "renamed")}, verb
        assert state() == before, verb
