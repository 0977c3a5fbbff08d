"""The magics: each a thin call."""

from __future__ import annotations

import sys
from io import StringIO
from typing import TextIO

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, DatabaseError
from IPython.core.error import StdinNotImplementedError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_cell_magic, line_magic, magics_class
from IPython.display import display

from workbench import evolved
from workbench.connection import where
from workbench.errors import OneSentence, or_rather
from workbench.notebook import nested
from workbench.notebook.commands import NEED_A_TERMINAL, commands
from workbench.notebook.display import short
from workbench.notebook.errors import CellError
from workbench.notebook.line import Parser, words
from workbench.notebook.printed import Printed
from workbench.schema import evolve, rehearse, snapshot
from workbench.schema.evolve import Answers, Evolution, keep, write

# They print SQL, and nothing else.
PRINT_SQL = {"sqlflush", "sqlmigrate", "sqlsequencereset"}


def register(shell: InteractiveShell) -> None:
    shell.register_magics(WorkbenchMagics)


@magics_class
class WorkbenchMagics(Magics):
    _last: Evolution | None = None

    @line_magic
    def manage(self, line: str) -> None:
        """Run a management command in this kernel.

        Examples::

            %manage migrate catalog 0001
            %manage sqlmigrate catalog 0002
            %manage help
        """
        name, *arguments = words(line) or ["help"]
        if name in ("help", "-h", "--help"):
            name, arguments = (arguments[0], ["--help"]) if arguments else ("", [])
        if not name:
            display(commands())
        elif name in PRINT_SQL:
            printed = StringIO()
            _run(command_named(name), name, arguments, printed)
            display(Printed(printed.getvalue()))
        else:
            _run(command_named(name), name, arguments)

    @line_cell_magic
    def evolve(self, line: str, cell: str = "") -> None:
        """Show the migration that the classes in a cell ask for, and its SQL.

        It is the one that makemigrations would write if the cell stood in the app's models.py.

        Example::

            %%evolve catalog
            class Author(models.Model):
                name = models.CharField(max_length=100)

        Nothing changes, unless you add --apply, which migrates this database, or --write, which puts the file
        into the app's migrations. --rehearse runs it on a copy of the database. Instead of classes, functions
        forwards(apps, schema_editor) and backwards make a data migration.
        """
        shell = self.shell
        assert shell is not None
        asked = _evolve_parser().parse_args(words(line))
        if asked.go_on and self._last is None:
            raise CellError("There is no evolve to go on from: run one before, or leave --continue out.")
        if asked.go_on and self._last is not None and self._last.app_label != asked.app_label:
            raise CellError(f"--continue goes on from an evolve of {self._last.app_label}: leave it out.")
        if asked.go_on and asked.start:
            raise CellError(
                "--continue goes on from the evolve before, --from from a migration: leave one out."
            )
        answers = Answers(
            renames=_pairs(asked.rename, "--rename"),
            defaults=_pairs(asked.default, "--default"),
            backfilled=asked.backfilled,
            removed=asked.remove,
            no_renames=asked.no_renames,
        )
        evolution = evolve(
            asked.app_label,
            cell,
            answers=answers,
            name=asked.name,
            start=self._last if asked.go_on else asked.start,
            namespace=shell.user_ns,
            using=asked.database,
        )
        display(evolution)
        if asked.rehearse and evolution:
            display(rehearse(evolution))
        if asked.apply:
            self._apply(evolution, asked.yes)
        if asked.write:
            self._write(evolution)
        if evolution and not asked.write and not asked.apply:
            print("Nothing has changed: --apply migrates this database with it, --write keeps it as a file.")
        self._last = None if asked.apply else evolution

    def _write(self, evolution: Evolution) -> None:
        files = write(evolution)
        for path in files:
            print(f"Wrote {short(path)}.")
        if files:
            print(f"Put the classes into the models.py of {evolution.app_label} too, and restart the kernel.")
        else:
            print("The files are there already.")

    def _apply(self, evolution: Evolution, is_settled: bool) -> None:
        if not evolution.chain:
            return
        place = where(evolution.using)
        is_confirmed = is_settled or getattr(settings, "WORKBENCH_YES", False)
        if not (place.is_embedded or place.is_read_only or is_confirmed):
            raise CellError(f"This migrates {place}: add --yes if that is what you want.")
        with evolved.offered(keep(evolution)):
            arguments = [evolution.app_label, evolution.chain[-1].name, "--database", evolution.using]
            _run(command_named("migrate"), "migrate", [*arguments, *(["--yes"] if is_settled else [])])

    @cell_magic
    def diff(self, line: str, cell: str) -> None:
        """Run the cell, and show what it did to the tables.

        To those of the apps named, else to all.

        Example::

            %%diff catalog
            %manage migrate catalog 0001
        """
        assert self.shell is not None
        nested.check(
            self.shell,
            cell,
            "%%diff cannot wait for an await: take snapshot() before and after, and subtract.",
        )
        app_labels = words(line)
        before = snapshot(*app_labels)
        result = nested.run(self.shell, cell)
        display(snapshot(*app_labels) - before)
        result.raise_error()


def _evolve_parser() -> Parser:
    parser = Parser("%%evolve")
    parser.add_argument("app_label")
    parser.add_argument("--apply", action="store_true")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--yes", action="store_true")
    parser.add_argument("--name")
    parser.add_argument("--from", dest="start")
    parser.add_argument("--continue", dest="go_on", action="store_true")
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW")
    parser.add_argument("--no-renames", action="store_true")
    parser.add_argument("--default", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--backfilled", action="append", default=[], metavar="FIELD")
    parser.add_argument("--remove", action="append", default=[], metavar="MODEL")
    parser.add_argument("--database", default=DEFAULT_DB_ALIAS)
    return parser


def _pairs(given: list[str], option: str) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for left, middle, right in pairs:
        if not (left and middle and right):
            raise CellError(f"{option} {left}{middle} says too little: write {option} old=new.")
    return {left.strip(): right.strip() for left, _, right in pairs}


def command_named(name: str) -> BaseCommand:
    """Return a management command that may run in a kernel. Raises CellError."""
    if name in NEED_A_TERMINAL:
        raise CellError(f"{name} needs a terminal: run 'python manage.py {name}' there.")
    commands = get_commands()
    if name not in commands:
        guess = or_rather(name, commands, ": %manage help lists them.")
        raise CellError(f"There is no command {name!r}{guess}")
    app = commands[name]
    return app if isinstance(app, BaseCommand) else load_command_class(app, name)


def _run(command: BaseCommand, name: str, arguments: list[str], out: TextIO | None = None) -> None:
    parser = command.create_parser("%manage", name)
    try:
        options = vars(parser.parse_args(arguments))
        positional = options.pop("args", ())
        # Not the command's own default: its streams were bound when the kernel started, to the terminal.
        options |= {"stdout": out or sys.stdout, "stderr": sys.stderr, "no_color": True}
        command.execute(*positional, **options)
    except (CommandError, ImproperlyConfigured) as error:
        raise CellError(str(error).strip() or type(error).__name__) from None
    except OneSentence:
        raise
    except DatabaseError as error:
        first_line, _, detail = str(error).strip().partition("\n")
        said = f". {detail.removeprefix('DETAIL:').strip()}" if detail.startswith("DETAIL:") else ""
        raise CellError(f"{type(error).__name__}: {first_line}{said}") from None
    except StdinNotImplementedError:
        raise CellError(
            f"{name} asks a question, which cannot be answered here: see '%manage help {name}' for the "
            "option that answers it, such as --noinput."
        ) from None
    except SystemExit as end:
        if isinstance(end.code, str):
            raise CellError(end.code) from None
        if end.code:
            raise CellError(f"{name} ended with status {end.code}.") from None
