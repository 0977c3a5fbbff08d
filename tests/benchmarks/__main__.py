"""``python -m tests.benchmarks [--rounds 5] [--only books] [--save]``: frame and load beside their peers,
looks at a schema beside Django's and Postgres' own, the lab and its kernel beside bare ones, the JSON views
beside the guide's, and a class of kernels.

Every method runs in a process of its own, the methods of a work in turn, round after round. Figures are
medians, and a ratio is that of two methods in the same round. With ``--save`` the picture and the figures in
.github are renewed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.benchmarks import cells, kernels, lab, web
from tests.benchmarks.server import Server, server
from tests.throwaway import PROJECT, environment

Figures = dict[str, list[dict[str, float]]]

BOOKS = "SELECT id, title, author_id, created_at FROM catalog_book"
JOINED = (
    "SELECT b.id, title, b.created_at, a.name, a.country "
    "FROM catalog_book b JOIN catalog_author a ON a.id = author_id"
)
FLOORS = {"books": BOOKS, "joined": JOINED, "every": "SELECT * FROM benchmark_every"}
MEGABYTES = (10, 200, 2_000)
CHANGES = {
    "column": "a column of 100,000 authors",
    "index": "an index of 1,000,000 books",
    "type": "another type, 1,000,000 books",
    "rows": "an UPDATE of 100,000 authors",
}
MODELS = ["models_at", "loader with classes", "loader"]
PEERS = ["frame", "adbc", "connectorx", "values", "read_frame", "read_sql", "floor"]


@dataclass(frozen=True)
class Work:
    name: str
    title: str
    methods: Sequence[str]
    transport: str = "tcp"
    # What takes long enough for a figure by itself.
    most_rounds: int = 1000

    @property
    def key(self) -> str:
        return f"{self.name} ({self.transport})"


@dataclass(frozen=True)
class Target:
    """A line of the table: a figure over the rounds, and the bound that it should keep."""

    title: str
    work: str
    figure: Callable[[Figures], list[float]]
    bound: float
    is_most: bool = True
    unit: str = "x"


def ratio(method: str, other: str) -> Callable[[Figures], list[float]]:
    return lambda figures: [
        one["seconds"] / two["seconds"] for one, two in zip(figures[method], figures[other], strict=True)
    ]


def beyond(
    method: str, other: str, figure: str = "seconds", times: int = 1
) -> Callable[[Figures], list[float]]:
    return lambda figures: [
        times * (one[figure] - two[figure]) for one, two in zip(figures[method], figures[other], strict=True)
    ]


def figure(method: str, *names: str) -> Callable[[Figures], list[float]]:
    return lambda figures: [sum(one[name] for name in names) for one in figures[method]]


def within(method: str, first: str, last: str) -> Callable[[Figures], list[float]]:
    """Return by how many millions a figure grew."""
    return lambda figures: [(one[last] - one[first]) / 1e6 for one in figures[method]]


WORKS = [
    Work("books", "1,000,000 books, 4 columns, TCP", PEERS),
    Work("books", "the same, Unix socket", ["frame", "adbc", "values", "floor"], "socket"),
    Work("joined", "joined with author and country, TCP", PEERS),
    Work("joined", "the same, Unix socket", ["frame", "adbc", "values", "floor"], "socket"),
    Work(
        "every", "200,000 rows of every type", ["frame", "adbc", "values", "read_frame", "read_sql", "floor"]
    ),
    Work("books-atomic", "1,000,000 books in a transaction", ["frame", "values"]),
    Work("seven", "7 rows", ["frame", "values"]),
    Work("first", "the first small read of a kernel", ["frame", "values"]),
    Work("load-filled", "load 1,000,000 books, indexes in place", ["load", "copy", "bulk_create"]),
    Work("load-empty", "load into an empty table", ["load", "bulk_create"]),
    *(Work(f"chunks-{rows}", f"chunks of {rows:,} books", ["frame"]) for rows in (1_000_000, 5_000_000)),
    *(
        Work(f"grow-{rows}", f"{rows:,} books", ["frame"])
        for rows in (10_000, 100_000, 1_000_000, 10_000_000)
    ),
    Work("schema-first", "a class as of the last of 500 migrations", MODELS),
    Work("schema-anew", "the same, the files being imported", MODELS),
    Work("schema-snapshot", "snapshot of 1,000 tables", ["snapshot", "its queries"]),
    Work("schema-cell", "a cell with one query", ["following", "not following"]),
    Work("schema-idle", "a cell without", ["following", "not following"]),
    *(
        Work(f"branch-copy-{megabytes}", f"a branch of {megabytes:,} MB", ["create", "bare"])
        for megabytes in MEGABYTES
    ),
    *(
        Work(f"branch-rehearse-{change}", f"rehearse: {title}", ["rehearse", "bare"])
        for change, title in CHANGES.items()
    ),
    *(
        Work(f"branch-observe-{change}", f"migrate, observed: {title}", ["observed", "bare"])
        for change, title in CHANGES.items()
        if change != "column"
    ),
    Work("lab-ready", "from the command to the lab's page", ["make lab", "jupyter lab"]),
    Work("lab-kernel", "a kernel, to its first cell, Django set up", ["workbench", "python3"]),
    Work("lab-query", "the same, to its first query", ["workbench", "python3"]),
    Work(
        "web-authors",
        "pages of 100 of 100,000 authors, 200 connections",
        ["workbench", "guide, a page", "guide"],
        most_rounds=1,
    ),
    Work("web-books", "the books of an author, 200 connections", ["workbench", "guide"], most_rounds=1),
    Work("kernels-30", "30 kernels, four lessons each", ["create", "told"], most_rounds=1),
]

TARGETS = [
    *(
        target
        for key, title in (("books (tcp)", "books, TCP"), ("books (socket)", "books, Unix socket"))
        for target in (
            Target(f"{title}: against bare ADBC", key, ratio("frame", "adbc"), 1.1),
            Target(f"{title}: faster than values()", key, ratio("values", "frame"), 9, is_most=False),
        )
    ),
    Target("joined, TCP: against bare ADBC", "joined (tcp)", ratio("frame", "adbc"), 1.1),
    Target("joined, Unix socket: against bare ADBC", "joined (socket)", ratio("frame", "adbc"), 1.1),
    Target("every type: faster than values()", "every (tcp)", ratio("values", "frame"), 8, is_most=False),
    Target(
        "in a transaction: faster than values()",
        "books-atomic (tcp)",
        ratio("values", "frame"),
        3,
        is_most=False,
    ),
    Target("7 rows: against values()", "seven (tcp)", ratio("frame", "values"), 1.2),
    Target(
        "first small read: beyond Django's",
        "first (tcp)",
        beyond("frame", "values", times=1000),
        50,
        unit="ms",
    ),
    Target(
        "books: peak memory beyond the frame, in frames",
        "books (tcp)",
        lambda figures: [one["beyond"] / one["size"] for one in figures["frame"]],
        1,
    ),
    Target("load: against psql's \\copy", "load-filled (tcp)", ratio("load", "copy"), 1.25),
    Target(
        "load: faster than bulk_create", "load-filled (tcp)", ratio("bulk_create", "load"), 3.5, is_most=False
    ),
    Target(
        "load, empty table: faster than bulk_create",
        "load-empty (tcp)",
        ratio("bulk_create", "load"),
        6,
        is_most=False,
    ),
    Target(
        "a class as of a migration: against Django's loader",
        "schema-first (tcp)",
        ratio("models_at", "loader with classes"),
        1.2,
    ),
    Target(
        "the same, the files being imported",
        "schema-anew (tcp)",
        ratio("models_at", "loader with classes"),
        1.2,
    ),
    Target(
        "the second look: faster than the first",
        "schema-anew (tcp)",
        lambda figures: [one["seconds"] / one["again"] for one in figures["models_at"]],
        20,
        is_most=False,
    ),
    Target("snapshot: against its queries", "schema-snapshot (tcp)", ratio("snapshot", "its queries"), 1.5),
    Target(
        "following, a cell with one query: more statements",
        "schema-cell (tcp)",
        beyond("following", "not following", "statements"),
        1,
        unit="",
    ),
    Target(
        "following, a cell with one query: longer by",
        "schema-cell (tcp)",
        beyond("following", "not following", times=1000),
        1,
        unit="ms",
    ),
    Target(
        "following, a cell without: more statements",
        "schema-idle (tcp)",
        beyond("following", "not following", "statements"),
        0,
        unit="",
    ),
    Target(
        "following, a cell without: longer by",
        "schema-idle (tcp)",
        beyond("following", "not following", times=1000),
        0.1,
        unit="ms",
    ),
    *(
        Target(
            f"a branch of {megabytes:,} MB: against bare SQL",
            f"branch-copy-{megabytes} (tcp)",
            ratio("create", "bare"),
            1.2,
        )
        for megabytes in MEGABYTES
    ),
    *(
        Target(
            f"rehearse, {title}: against migrating a copy there, back and there",
            f"branch-rehearse-{change} (tcp)",
            ratio("rehearse", "bare"),
            1.5,
        )
        for change, title in CHANGES.items()
    ),
    *(
        Target(
            f"observed, {title}: against alone",
            f"branch-observe-{change} (tcp)",
            ratio("observed", "bare"),
            1.05,
        )
        for change, title in CHANGES.items()
        if change != "column"
    ),
    Target(
        "make lab, until it is ready: against jupyter lab",
        "lab-ready (tcp)",
        ratio("make lab", "jupyter lab"),
        1.15,
    ),
    Target(
        "a kernel, until its first cell: longer by",
        "lab-kernel (tcp)",
        beyond("workbench", "python3"),
        0.5,
        unit="s",
    ),
    Target(
        "until its first query: longer by", "lab-query (tcp)", beyond("workbench", "python3"), 0.5, unit="s"
    ),
    *(
        target
        for key, title, peer in (
            ("web-authors (tcp)", "pages of authors", "guide, a page"),
            ("web-books (tcp)", "books of an author", "guide"),
        )
        for target in (
            Target(f"{title}: requests that failed", key, figure("workbench", *web.FAILURES), 0, unit=""),
            Target(f"{title}: sessions of the database", key, figure("workbench", "sessions"), 16, unit=""),
            Target(f"{title}: memory grows by", key, within("workbench", "half", "after"), 2, unit="MB"),
            Target(f"{title}: against the guide's, time", key, ratio("workbench", peer), 1),
        )
    ),
    *(
        Target(
            f"30 kernels, {method}: cells that failed",
            "kernels-30 (tcp)",
            figure(method, "failed"),
            0,
            unit="",
        )
        for method in ("create", "told")
    ),
]


def measure(found: Server, work: Work, method: str) -> dict[str, float]:
    if method == "floor":
        began = time.perf_counter()
        host = str(found.folder) if work.transport == "socket" else "127.0.0.1"
        command = found.psql(f"\\copy ({FLOORS[work.name]}) TO {os.devnull} (FORMAT binary)")
        subprocess.run([host if word == "127.0.0.1" else word for word in command], check=True)
        return {"seconds": time.perf_counter() - began}
    if work.name in cells.CELLS:
        return cells.measure(found, work.name, method)
    if work.name.startswith("lab-"):
        return lab.measure(found, work.name, method)
    if work.name.startswith("web-"):
        return web.measure(found, work.name, method)
    if work.name.startswith("kernels-"):
        return kernels.measure(work.name, method)
    variables = environment(
        {
            "DATABASE_URL": found.url(work.transport),
            "WORKBENCH_ENV_FILE": os.devnull,
            "DJANGO_SETTINGS_MODULE": "workbench.settings",
            "PSQL": json.dumps(found.psql()),
            "GENERATED": str(found.folder / "generated"),
        }
    )
    module = {"schema": "schema", "branch": "branches"}.get(work.name.partition("-")[0], "method")
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", work.name, method]
    done = subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def run(works: Sequence[Work], rounds: int) -> dict[str, Figures]:
    figures: dict[str, Figures] = {work.key: defaultdict(list) for work in works}
    with server() as found:
        for work in works:
            for _ in range(min(rounds, work.most_rounds)):
                for method in work.methods:
                    figures[work.key][method].append(measure(found, work, method))
            print(f"  {work.title}", file=sys.stderr)
    return figures


def table(figures: dict[str, Figures]) -> str:
    lines = ["| work | method | seconds (median, range) | x ours |", "| --- | --- | --- | --- |"]
    for work in WORKS:
        for method, found in figures.get(work.key, {}).items():
            seconds = [one["seconds"] for one in found]
            own = work.methods[0]
            times = median(ratio(method, own)(figures[work.key]))
            lines.append(
                f"| {work.title} | {method} | {median(seconds):.4f} ({min(seconds):.4f}-{max(seconds):.4f}) "
                f"| {times:.2f} |"
            )
    lines += ["", "| target | must be | is (median, range) | |", "| --- | --- | --- | --- |"]
    for target in TARGETS:
        if target.work in figures:
            values = target.figure(figures[target.work])
            middle = median(values)
            is_kept = middle <= target.bound if target.is_most else middle >= target.bound
            word = "at most" if target.is_most else "at least"
            lines.append(
                f"| {target.title} | {word} {target.bound:g} {target.unit} "
                f"| {middle:.2f} ({min(values):.2f}-{max(values):.2f}) | {'kept' if is_kept else 'MISSED'} |"
            )
    return "\n".join([*lines, "", *growth(figures), *crowds(figures)])


def growth(figures: dict[str, Figures]) -> list[str]:
    """Say what a row costs at each size, and what chunks hold at each."""
    lines = []
    for key, methods in figures.items():
        found = methods.get("frame", [])
        if key.startswith("grow-"):
            nanoseconds = median(1e9 * one["seconds"] / one["rows"] for one in found)
            lines.append(f"{found[0]['rows']:>12,.0f} rows: {nanoseconds:.0f} ns a row")
        elif key.startswith("chunks-"):
            held = median(one["beyond"] for one in found) / 1e6
            lines.append(f"{found[0]['rows']:>12,.0f} rows in chunks of 100,000: {held:.0f} MB held at most")
    return lines


def crowds(figures: dict[str, Figures]) -> list[str]:
    """Say what many clients met, and what many kernels took."""
    return [
        f"{key.partition(' ')[0]}, {method}: {part.said(found[0])}"
        for start, part in (("web-", web), ("kernels-", kernels))
        for key, methods in figures.items()
        if key.startswith(start)
        for method, found in methods.items()
    ]


def picture(figures: dict[str, Figures], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    shown = [
        work
        for work in WORKS
        if work.key in ("books (tcp)", "joined (tcp)", "every (tcp)", "load-filled (tcp)")
    ]
    chart, axes = plt.subplots(1, len(shown), figsize=(14, 3.8), layout="constrained")
    for work, axis in zip(shown, axes, strict=True):
        own = work.methods[0]
        times = {method: median(ratio(method, own)(figures[work.key])) for method in figures[work.key]}
        times = dict(sorted(times.items(), key=lambda item: -item[1]))
        names = {"floor": "COPY to nowhere", "values": "DataFrame(values())", "copy": "psql \\copy"}
        colors = ["#1f6feb" if method == own else "#8b949e" for method in times]
        bars = axis.barh([names.get(method, method) for method in times], list(times.values()), color=colors)
        axis.bar_label(bars, fmt="%.1f x", padding=3)
        axis.set_title(work.title.replace(", ", ",\n", 1), fontsize=10, loc="left")
        axis.set_xlim(0, max(times.values()) * 1.2)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.xaxis.set_visible(False)
    chart.suptitle("Time, as a multiple of this project's", fontsize=11)
    chart.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    chosen = [work for work in WORKS if options.only in work.key]
    measured = run(chosen, options.rounds)
    print(table(measured))
    folder = PROJECT / ".github" if options.save else PROJECT / ".workbench" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    machine = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    (folder / "bench.json").write_text(json.dumps({"machine": machine, "figures": measured}, indent=1) + "\n")
    if not options.only:
        picture(measured, folder / "bench.png")
