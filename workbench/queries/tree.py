"""A plan as a tree that can be read: beside Postgres' word for each step what it does, in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workbench.queries.text import without_secrets

# What each step does. {index} and {cte} are filled in.
# https://www.postgresql.org/docs/current/using-explain.html
WORDS = {
    "Seq Scan": "reads the whole table",
    "Sample Scan": "reads a sample of the table",
    "Index Scan": "looks rows up in the index {index}",
    "Index Only Scan": "answers from the index {index} alone",
    "Bitmap Index Scan": "collects what matches in the index {index}",
    "Bitmap Heap Scan": "reads the rows that were collected, page by page",
    "BitmapAnd": "keeps what was collected by all of them",
    "BitmapOr": "keeps what was collected by one of them",
    "Tid Scan": "reads rows by their place in the table",
    "Tid Range Scan": "reads a part of the table by its place",
    "Subquery Scan": "takes the rows of a subquery",
    "Function Scan": "takes the rows of a function",
    "Table Function Scan": "takes the rows of a function",
    "Values Scan": "takes the rows that the query names",
    "CTE Scan": "takes the rows of WITH {cte}",
    "WorkTable Scan": "takes the rows of the round before",
    "Foreign Scan": "asks another server",
    "Nested Loop": "for each row of the first, looks into the second",
    "Hash Join": "finds for each row of the first its partners in the hash table of the second",
    "Merge Join": "walks through both in the order of what they share",
    "Hash": "puts the rows into a hash table",
    "Sort": "sorts the rows",
    "Incremental Sort": "sorts the rows, group by group",
    "Materialize": "keeps the rows, to give them again",
    "Memoize": "remembers answers for values that come again",
    "Aggregate": "makes one row of all",
    "Group": "makes one row of each group",
    "WindowAgg": "calculates over windows of rows",
    "Unique": "leaves out repeated rows",
    "SetOp": "compares two sets of rows",
    "Limit": "stops after the rows that are wanted",
    "LockRows": "locks the rows",
    "Append": "puts the rows one after the other",
    "Merge Append": "puts sorted rows together, in order",
    "Recursive Union": "goes on until a round gives no rows",
    "ProjectSet": "makes rows of a function's sets",
    "Result": "calculates without reading a table",
    "Gather": "takes what several processes found",
    "Gather Merge": "takes what several processes found, in order",
    "ModifyTable": "writes the rows",
}
OUTER_JOINS = ("Left", "Right", "Full", "Semi", "Anti")
FAR = "reads the table as far as is needed"
# Conditions, each with what it does.
CONDITIONS = (
    ("Index Cond", "looked up by"),
    ("Recheck Cond", ""),
    ("TID Cond", "looked up by"),
    ("Hash Cond", "partners are those with"),
    ("Merge Cond", "partners are those with"),
    ("Join Filter", "keeps pairs with"),
    ("Filter", "keeps rows with"),
    ("One-Time Filter", "only if"),
)
CASTS = re.compile(r"(?:\(((?:\w+\.)?\w+)\)|('(?:[^']|'')*'))::(?:text|character varying|bpchar)\b")
# They take all rows before they give the first.
COLLECTING = ("Sort", "Hash", "Aggregate", "Materialize")
NO_TEXTS = {
    "Node Type", "Relation Name", "Schema", "Alias", "Index Name", "Parent Relationship", "Join Type",
    "Strategy", "Operation", "Subplan Name", "CTE Name", "Sort Method", "Sort Space Type",
}  # fmt: skip


@dataclass(frozen=True)
class Node:
    """A step of a plan, as EXPLAIN (FORMAT JSON) says it."""

    told: dict[str, Any]
    children: tuple[Node, ...]
    # How many processes do it, and whether they may be stopped before its end.
    processes: int = 1
    is_cut: bool = False

    @property
    def kind(self) -> str:
        return str(self.told["Node Type"])

    @property
    def loops(self) -> float:
        return float(self.told.get("Actual Loops", 1))

    @property
    def is_actual(self) -> bool:
        return "Actual Rows" in self.told

    @property
    def planned(self) -> float:
        """Rows that were expected each time."""
        return float(self.told.get("Plan Rows", 0))

    @property
    def rows(self) -> float:
        """Rows that came, all times together."""
        return float(self.told.get("Actual Rows", 0)) * self.loops

    @property
    def left_out(self) -> float:
        keys = ("Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck")
        return sum(float(self.told.get(key, 0)) for key in keys) * self.loops

    @property
    def seconds(self) -> float:
        """From begin to end with the steps below, all times together, in one of the processes."""
        return float(self.told.get("Actual Total Time", 0)) / 1000 * self.loops / self.processes

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child.walk()

    def texts(self) -> Iterator[str]:
        """Yield what is written in SQL: conditions, outputs, keys."""
        for key, value in self.told.items():
            if key not in NO_TEXTS:
                yield from (
                    each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)
                )


def node_of(plan: dict[str, Any]) -> Node:
    """Return the topmost step of what EXPLAIN gives."""
    return _node(plan["Plan"], 1, is_cut=False)


def _node(told: dict[str, Any], processes: int, *, is_cut: bool) -> Node:
    below = processes
    if told["Node Type"] in ("Gather", "Gather Merge"):
        below = int(told.get("Workers Launched", told.get("Workers Planned", 0))) + 1
    stops = told["Node Type"] == "Limit"
    goes_on = is_cut and told["Node Type"] not in COLLECTING
    children = tuple(
        _node(each, below, is_cut=goes_on or (stops and each["Plan Rows"] > told["Plan Rows"]))
        for each in told.get("Plans", ())
    )
    kept = {key: value for key, value in told.items() if key not in ("Plans", "Workers")}
    return Node(kept, children, processes, is_cut)


def as_text(top: Node) -> str:
    """Return the plan as lines: a tree, and columns of figures."""
    aliases = {str(node.told["Alias"]) for node in top.walk() if "Alias" in node.told}
    # Where there is but one table, each column is known to be its.
    alone = aliases.pop() if len(aliases) == 1 else ""
    lines = list(_lines(top, "", "", max(top.seconds, 1e-9), alone))
    head = ["", "expected rows", *(["rows", "time"] if top.is_actual else [])]
    widths = [
        max(len(cells[number]) for cells in [head, *(cells for _, cells in lines if cells)])
        for number in range(len(head))
    ]
    widths[0] = max(len(text) for text, cells in lines if cells)
    made = [_joined(head, widths)]
    for text, cells in lines:
        made.append(_joined([text, *cells[1:]], widths) if cells else text)
    return "\n".join(made)


def _joined(cells: list[str], widths: list[int]) -> str:
    first, *others = cells
    figures = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
    return "  ".join([first.ljust(widths[0]), *figures]).rstrip()


def _lines(node: Node, lead: str, below: str, whole: float, alone: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines of a step and those under it, each with its figures, if it has some."""
    cells = ["", f"{node.planned * (node.loops if node.is_actual else node.processes):,.0f}"]
    if node.is_actual:
        own = max(node.seconds - sum(child.seconds for child in node.children), 0)
        cells += [f"{node.rows:,.0f}" if node.loops else "never run", f"{own / whole:.0%}"]
    yield f"{lead}{title(node)}: {does(node)}", cells
    hangs = "│  " if node.children else "   "
    for detail in details(node, alone):
        yield f"{below}{hangs}  {detail}", []
    for number, child in enumerate(node.children):
        is_last = number == len(node.children) - 1
        yield from _lines(
            child,
            f"{below}{'└─ ' if is_last else '├─ '}",
            f"{below}{'   ' if is_last else '│  '}",
            whole,
            alone,
        )


def title(node: Node) -> str:
    """Return Postgres' word for a step, and the table."""
    told, kind = node.told, node.kind
    if kind == "ModifyTable":
        kind = str(told.get("Operation", kind))
    elif kind == "Aggregate" and told.get("Strategy") in ("Hashed", "Mixed"):
        kind = f"{told['Strategy'].replace('Hashed', 'Hash')}Aggregate"
    elif kind == "Aggregate" and told.get("Strategy") == "Sorted":
        kind = "GroupAggregate"
    elif told.get("Join Type") in OUTER_JOINS:
        kind = f"{kind.removesuffix(' Join')} {told['Join Type']} Join"
    if told.get("Parallel Aware"):
        kind = f"Parallel {kind}"
    table = told.get("Relation Name") or told.get("Function Name")
    alias = told.get("Alias")
    of = f" on {table}{f' {alias}' if alias and alias != table else ''}" if table else ""
    name = f"{told['Subplan Name']}: " if "Subplan Name" in told else ""
    return f"{name}{kind}{of}"


def does(node: Node) -> str:
    told = node.told
    words = WORDS.get(node.kind, "see the manual of EXPLAIN")
    if node.kind == "Aggregate" and told.get("Group Key"):
        words = "makes one row of each group"
    if node.kind == "ModifyTable":
        words = f"{told.get('Operation', 'write').lower()}s the rows"
    if node.kind == "Seq Scan" and node.is_cut:
        words = FAR
    return words.format(index=told.get("Index Name", ""), cte=told.get("CTE Name", ""))


def details(node: Node, alone: str = "") -> Iterator[str]:
    """Yield what is to be said of a step: its conditions, and what went otherwise than well."""
    told = node.told
    for key, words in CONDITIONS:
        if words and key in told:
            yield f"{words} {_plain(str(told[key]), alone)}"
    for key, words in (("Sort Key", "by"), ("Group Key", "of the same")):
        if key in told:
            yield f"{words} {', '.join(_plain(each, alone) for each in told[key])}"
    if node.left_out:
        yield f"left out {node.left_out:,.0f} rows"
    if node.is_actual and node.loops > node.processes:
        yield f"ran {node.loops:,.0f} times"
    if told.get("Sort Space Type") == "Disk":
        yield f"did not fit into memory: {told.get('Sort Space Used', 0):,} kB on disk"
    if told.get("Hash Batches", 1) > told.get("Original Hash Batches", 1):
        yield f"did not fit into memory: {told['Hash Batches']} parts on disk"
    if told.get("HashAgg Batches", 0) > 1 or told.get("Disk Usage", 0):
        yield f"did not fit into memory: {told.get('Disk Usage', 0):,} kB on disk"


def _plain(condition: str, alone: str) -> str:
    """Return a condition without its outer brackets, and the casts that texts have everywhere."""
    text = CASTS.sub(r"\1\2", condition.replace(f"{alone}.", "") if alone else condition)
    return without_secrets(text[1:-1] if text.startswith("(") and _closes_last(text) else text)


def _closes_last(text: str) -> bool:
    depth = 0
    for number, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return number == len(text) - 1
    return False
