"""The shell's models follow the database: looked for before what a cell asks, at most one round trip each."""

from __future__ import annotations

import ast
import re
import symtable
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from django.db import DatabaseError, ProgrammingError, connections, models, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate
from django.db.models.sql import Query
from IPython.core.interactiveshell import ExecutionInfo, InteractiveShell
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INERROR

from workbench.branches import moved
from workbench.connection.sessions import accompany
from workbench.notebook.display import short
from workbench.notebook.interrupt import before_cell
from workbench.notebook.request import is_cell
from workbench.schema import sources
from workbench.schema.follow import Follower

# What the recorded history can be asked before, without being in the way of what sets up a session.
ASKS = re.compile(r"\s*\(*\s*(select|insert|update|delete|with|declare)\b", re.IGNORECASE)
RECORDS = re.compile(r"\s*(insert|update|delete)\b.*\bdjango_migrations\b", re.IGNORECASE | re.DOTALL)
# Another role may have no right to read the recorded history, and a refusal would spoil an open transaction.
ROLE = re.compile(r"\s*set\s+(local\s+|session\s+)?(role|authorization)\b", re.IGNORECASE)
# A magic gets its cell as a text.
MAGIC = re.compile(r"run_(cell|line)_magic\(")
WORD = re.compile(r"\w+")


def register(shell: InteractiveShell) -> None:
    following = Following(shell)
    shell.events.register("pre_execute", following.rest)
    before_cell(shell, following.begin)
    shell.events.register("post_run_cell", following.end)
    connection_created.connect(following.attach, weak=False)
    following.guard()
    post_migrate.connect(following.migrated, weak=False)
    moved.connect(following.moved, weak=False)


class Following:
    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._follower = Follower(shell.user_ns)
        sources.changed()
        # Of the cell that runs: databases looked at, databases that recorded a migration, models asked.
        self._looked: set[str] = set()
        self._recorded: set[str] = set()
        self._asked: set[type[models.Model]] = set()
        # Of the kernel: databases that were asked in another role, and aliases that lead to another one since
        # they were looked at.
        self._roles: set[str] = set()
        self._moved: set[str] = set()

    def rest(self) -> None:
        """Before all that runs: nothing is looked for, if it is no cell. Who reads what would be said?"""
        self._looked.update(connections)

    def begin(self, info: ExecutionInfo) -> None:
        """Before a cell: let go of what it assigns, and look if it names a model that follows."""
        if not is_cell(self._shell):
            return
        for path in sources.changed():
            print(
                f"{short(path)} has changed since this kernel started, which still works with what it was: "
                f"restart the kernel.",
                file=sys.stderr,
            )
        self._looked.clear()
        self._asked.clear()
        assigned, used = names_of(info.transformed_cell or self._shell.transform_cell(info.raw_cell))
        self._follower.let_go(assigned)
        for alias in {self._alias(name) for name in used & self._follower.names}:
            if not _is_about_to_begin(connections[alias]):
                with suppress(DatabaseError):  # The cell itself will meet it, and show it.
                    self._look(connections[alias])

    def end(self, *_: object) -> None:
        """After a cell that migrated by other ways than the command."""
        for alias in list(self._recorded):
            with suppress(DatabaseError):  # The next cell will try again.
                self._look(connections[alias])

    def migrated(self, *, using: str, **_: object) -> None:
        """After a migrate: Django sends this for every app, the first time when all is done."""
        if using in self._recorded:
            self._look(connections[using])

    def moved(self, *, using: str, **_: object) -> None:
        """After a change of branch, in whichever part of a cell."""
        self._follower.leave(using)
        self._moved.add(using)
        self._recorded.discard(using)
        self._looked.discard(using)
        with suppress(DatabaseError):
            self._look(connections[using])

    def attach(self, connection: BaseDatabaseWrapper, **_: object) -> None:
        accompany(connection, self._around)

    def guard(self) -> None:
        """Let no query be made of a class that the database has moved away from."""
        get_compiler = Query.get_compiler

        @wraps(get_compiler)
        def make(query: Any, *arguments: Any, **options: Any) -> Any:
            if query.model is not None:
                self._follower.check(query.model)
                self._asked.add(query.model)
            return get_compiler(query, *arguments, **options)

        Query.get_compiler = make  # type: ignore[assignment, method-assign]

    def _around(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        connection = context["connection"]
        text = sql if isinstance(sql, str) else ""
        if ASKS.match(text) and connection.alias not in self._looked:
            with suppress(DatabaseError):
                self._look(connection)
            for model in tuple(self._asked):
                self._follower.check(model)
        if ROLE.match(text):
            self._roles.add(connection.alias)
        if RECORDS.match(text):
            self._recorded.add(connection.alias)
        try:
            return execute(sql, params, many, context)
        except ProgrammingError as error:
            explained = self._follower.explained(error, text, connection.alias, tuple(self._asked))
            if explained is None:
                raise
            raise explained from error.__cause__

    def _look(self, connection: BaseDatabaseWrapper) -> None:
        alias = connection.alias
        self._looked.add(alias)
        if connection.needs_rollback or _status(connection) == TRANSACTION_STATUS_INERROR:
            return
        is_ours = alias in self._recorded
        may_fail = alias in self._roles | self._moved
        self._recorded.discard(alias)
        for sentence in self._follower.look(connection, by_others=not is_ours, may_fail=may_fail):
            print(sentence)
        self._moved.discard(alias)

    def _alias(self, name: str) -> str:
        alias: str = router.db_for_write(self._shell.user_ns[name])
        return alias


def _status(connection: BaseDatabaseWrapper) -> int | None:
    raw = connection.connection
    return None if raw is None or raw.closed else raw.get_transaction_status()


def _is_about_to_begin(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether a transaction spans cells, and nothing was asked in it: SET TRANSACTION must be first."""
    status = _status(connection)
    return status == TRANSACTION_STATUS_IDLE and not connection.connection.autocommit


def names_of(code: str) -> tuple[set[str], set[str]]:
    """Return the global names that a cell assigns, and those that it uses."""
    try:
        top = _TopLevel(ast.parse(code))
        tables = symtable.symtable(code, "<cell>", "exec").get_children()
    except (SyntaxError, ValueError):
        return set(), set()
    assigned, used = top.assigned, top.used
    if MAGIC.search(code):
        used.update(WORD.findall(code))
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_global() and symbol.is_assigned():
                assigned.add(symbol.get_name())
            if symbol.is_global() and symbol.is_referenced():
                used.add(symbol.get_name())
    return assigned, used


class _TopLevel(ast.NodeVisitor):
    """The names of a cell outside of its functions and classes.

    symtable would do, if it did not mix those of comprehensions with them since Python 3.12 (PEP 709).
    """

    def __init__(self, tree: ast.Module) -> None:
        self.assigned: set[str] = set()
        self.used: set[str] = set()
        self._bound: list[set[str]] = []
        self.visit(tree)

    def visit_Name(self, node: ast.Name) -> None:
        if not any(node.id in names for names in self._bound):
            (self.used if isinstance(node.ctx, ast.Load) else self.assigned).add(node.id)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.assigned.add(node.name)
        self._visit(*node.decorator_list, node.args, node.returns)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit(node.args)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.assigned.add(node.name)
        self._visit(*node.decorator_list, *node.bases, *node.keywords)

    def visit_alias(self, node: ast.alias) -> None:
        self.assigned.add((node.asname or node.name).partition(".")[0])

    def generic_visit(self, node: ast.AST) -> None:
        # What an except or a case binds is no Name.
        for bound in (getattr(node, "name", None), getattr(node, "rest", None)):
            if isinstance(bound, str):
                self.assigned.add(bound)
        if not isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            super().generic_visit(node)
            return
        self.visit(node.generators[0].iter)
        targets = [part for each in node.generators for part in ast.walk(each.target)]
        self._bound.append({part.id for part in targets if isinstance(part, ast.Name)})
        super().generic_visit(node)
        self._bound.pop()

    def _visit(self, *nodes: ast.AST | None) -> None:
        for node in filter(None, nodes):
            self.visit(node)
