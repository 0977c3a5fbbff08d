"""More rows than there is memory for, in a kernel under a limit of its own: 300 MB beyond what it has."""

from __future__ import annotations

import random
import re
import sys

import pytest

from tests.faults.expect import sentence, works
from tests.faults.fault import Seen, fault
from tests.faults.stage import Stage
from tests.kernel import Kernel

MORE = 300_000_000
LIMIT = f"""
import resource, psutil
unlimited = resource.getrlimit(resource.RLIMIT_AS)
frame("SELECT 1 AS one")
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + {MORE}, unlimited[1]))
"""
UNLIMITED = "resource.setrlimit(resource.RLIMIT_AS, unlimited)"

SOURCES = {
    "many numbers": "SELECT i, i * 2.5::float8 FROM (SELECT generate_series(1, 200000000) AS i) AS q",
    "many texts": "SELECT 'a text of some length ' || i AS t FROM (SELECT generate_series(1, 90000000) i) q",
    "many documents": "SELECT jsonb_build_object('a', i) AS d FROM (SELECT generate_series(1, 90000000) i) q",
    "few, but wide rows": "SELECT repeat('x', 2000000) AS t FROM (SELECT generate_series(1, 2000)) AS q",
}
NOT_LEFT = re.compile(
    r"Reading was given up after [\d,]+ rows, with .* left of the memory: read them in parts with frame\.ch.*"
)


def limited(stage: Stage) -> Kernel:
    if sys.platform != "linux":
        pytest.skip("limits are Linux'")
    kernel = stage.kernel(number=7)
    outcome = kernel.run(LIMIT)
    assert outcome.error == [], outcome
    return kernel


def too_large(what: str, sql: str) -> None:
    @fault("memory", f"frame of {what} for which there is none", share=0.3)
    def inject(stage: Stage, chance: random.Random) -> Seen:
        """A warning while little of it came, then a sentence while there is memory left; the kernel lives."""
        kernel = limited(stage)
        server = stage.embedded
        rows = server.count("catalog_author")
        in_transaction = chance.random() < 0.5
        begin = "with transaction.atomic():\n    " if in_transaction else ""
        outcome = kernel.run(f'{begin}frame("{sql}")', timeout=120)
        said = sentence(outcome)
        assert NOT_LEFT.fullmatch(said), said
        recovery = works(kernel)
        assert kernel.run(UNLIMITED).error == []
        return Seen(recovery, rows - server.count("catalog_author"))


for name, source in SOURCES.items():
    too_large(name, source)


@fault("memory", "frame.chunks of as many, under the same limit", share=0.3)
def in_parts(stage: Stage, chance: random.Random) -> Seen:
    """Read to the end."""
    kernel = limited(stage)
    count = chance.randrange(2_000_000, 5_000_000)
    sql = SOURCES["many texts"].replace("90000000", str(count))
    cell = f'sum(len(chunk) for chunk in frame.chunks("{sql}", rows=100_000))'
    outcome = kernel.run(cell, timeout=120)
    assert (outcome.error, outcome.result) == ([], str(count)), outcome
    recovery = works(kernel)
    assert kernel.run(UNLIMITED).error == []
    return Seen(recovery)
