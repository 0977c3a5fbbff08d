"""What squawk, a linter of SQL, finds that running the SQL does not show: https://squawkhq.com"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from workbench.schema.facts import Passage

TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Finding:
    """``help`` says what to do instead; each is a sentence."""

    rule: str
    message: str
    help: str


# Left out are squawk's rules about
# - what a rehearsal measures, or Postgres refuses: locks, rewrites, rows read, CONCURRENTLY, NOT VALID,
#   columns and tables that go, columns that are required, syntax;
# - timeouts, which are the deployment's, and IF EXISTS: Django runs a migration whole, or not;
# - taste: text for varchar, identity for serial, no smallint, no domains, schemas named, an order in an enum;
# - what Django does by itself: it drops defaults, NOT NULL, sequences, and constraints that it makes again.
FINDINGS = {
    finding.rule: finding
    for finding in (
        Finding(
            "prefer-bigint-over-int",
            "An integer ends at 2,147,483,647, and to make it a bigint later writes the whole table anew.",
            "Take a BigIntegerField or BigAutoField for what may grow beyond that.",
        ),
        Finding(
            "prefer-timestamp-tz",
            "A timestamp without time zone forgets at which offset it was written.",
            "Take timestamptz, as Django's DateTimeField does.",
        ),
        Finding(
            "ban-char-field",
            "A char is filled up with blanks, which count in some comparisons and not in others.",
            "Take varchar or text.",
        ),
        Finding(
            "identifier-too-long",
            "Postgres cuts a name after 63 bytes without a word, and two long names may become the same.",
            "Shorten it.",
        ),
        Finding(
            "ban-truncate-cascade",
            "CASCADE empties every table that refers to this one too, and those that refer to them.",
            "Name each table that is meant.",
        ),
        Finding(
            "ban-drop-database",
            "It drops a database, which no migration brings back.",
            "Do that by hand.",
        ),
        Finding(
            "transaction-nesting",
            "It begins or ends a transaction inside the migration's own, which then is no longer one whole.",
            "Leave BEGIN and COMMIT to Django, or make the migration atomic = False.",
        ),
        Finding(
            "ban-uncommitted-transaction",
            "It begins a transaction and does not end it.",
            "Add COMMIT, or leave BEGIN and COMMIT to Django.",
        ),
        Finding(
            "ban-drop-view",
            "Code that runs now may still ask for the view.",
            "Drop it a release after the last code that does.",
        ),
        Finding(
            "ban-drop-function",
            "Code that runs now, or a trigger, may still call the function.",
            "Drop it a release after the last code that does.",
        ),
        Finding(
            "ban-drop-type",
            "Code that runs now may still name the type.",
            "Drop it a release after the last code that does.",
        ),
        Finding(
            "ban-drop-extension",
            "Code that runs now may still use the extension's types and functions.",
            "Drop it a release after the last code that does.",
        ),
        Finding(
            "ban-set-schema",
            "Code that runs now looks for it in its old schema.",
            "Leave a view under the old name until no code asks for it.",
        ),
    )
}


def findings(passages: Sequence[Passage], server_version: int) -> list[list[Finding]]:
    """Return what squawk finds in the SQL of each operation, each rule once; nothing where it cannot be run.

    ``server_version`` is Postgres' major one. squawk has no wheel for some platforms.
    """
    # Django's own transaction is not in the SQL, and a statement may end in a remark.
    texts = [
        "\n;\n".join(["BEGIN", *each.sql, "COMMIT;"] if each.is_atomic else [*each.sql, ""])
        for each in passages
    ]
    firsts = [0, *accumulate(text.count("\n") + 1 for text in texts)]
    found: list[dict[str, Finding]] = [{} for _ in passages]
    for each in _squawk("\n".join(texts), server_version):
        owner = bisect_right(firsts, each["line"]) - 1
        if finding := FINDINGS.get(each["rule_name"]):
            found[owner][finding.rule] = finding
    return [list(each.values()) for each in found]


def _squawk(sql: str, server_version: int) -> list[dict[str, Any]]:
    beside = Path(sys.executable).parent
    program = shutil.which("squawk", path=str(beside)) or shutil.which("squawk")
    if program is None:
        return []
    # A file of settings that it happens to find would make it say something else elsewhere.
    options = ["--reporter", "json", "--pg-version", str(server_version), "--config", os.devnull]
    try:
        done = subprocess.run(
            [program, *options], input=sql, capture_output=True, encoding="utf-8", timeout=TIMEOUT_SECONDS
        )
        found: list[dict[str, Any]] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []  # Another program of that name, say.
    return found
