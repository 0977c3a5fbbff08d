"""Every fault many times, and the table of what came of it."""

from __future__ import annotations

import argparse
import sys

from tests.faults.fault import faults
from tests.faults.run import Row, run
from tests.throwaway import pytest_sessionfinish

TIMES = 10
HEADINGS = ("Fault", "Times tried", "Outcome", "Longest recovery", "Rows lost")


def table(rows: list[Row], markdown: bool) -> str:
    lines = [HEADINGS, *(row.cells for row in rows)]
    if markdown:
        lines.insert(1, ("---",) * len(HEADINGS))  # type: ignore[arg-type]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    widths = [max(len(cells[column]) for cells in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in lines
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same number injects the same faults")
    parser.add_argument("--times", type=int, default=TIMES, help="how often each is tried")
    parser.add_argument("--only", default="", metavar="WORD", help="those whose name has this in it")
    parser.add_argument("--markdown", action="store_true", help="the table as README has it")
    asked = parser.parse_args()
    if not faults(asked.only):
        parser.error(f"no fault has {asked.only!r} in its name")
    try:
        rows = run(asked.only, asked.seed, asked.times)
    finally:
        pytest_sessionfinish()
    print(table(rows, asked.markdown))
    tried = sum(int(row.cells[1]) for row in rows)
    failed = sum(len(row.failed) for row in rows)
    lost = sum(each.lost for row in rows for each in row.seen)
    print(f"\n{tried} faults, {failed} with another outcome than expected, {lost} rows lost.")
    return 1 if failed or lost else 0


if __name__ == "__main__":
    sys.exit(main())
