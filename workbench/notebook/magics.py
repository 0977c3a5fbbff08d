"""The magics: each a thin call."""

from __future__ import annotations

import difflib
import os
import shlex
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from IPython.core.error import StdinNotImplementedError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class

from workbench.connection import ConnectionFailed
from workbench.notebook.errors import CellError

# They ask, serve until they are stopped, or, like testserver, leave the connection at another database.
NEED_A_TERMINAL = {
    "dbshell",
    "mail_debug",
    "runprofileserver",
    "runserver",
    "runserver_plus",
    "shell",
    "shell_plus",
    "testserver",
}


def register(shell: InteractiveShell) -> None:
    shell.register_magics(WorkbenchMagics)


@magics_class
class WorkbenchMagics(Magics):
    @line_magic
    def manage(self, line: str) -> None:
        """Run a management command in this kernel.

        Example::

            %manage migrate catalog 0001
            %manage sqlmigrate catalog 0002
            %manage help
        """
        try:
            words = shlex.split(line, posix=os.name != "nt")
        except ValueError as error:
            raise CellError(f"This line cannot be read: {error}. Close its quotes.") from None
        name, *arguments = words or ["help"]
        if name in ("help", "-h", "--help"):
            name, arguments = (arguments[0], ["--help"]) if arguments else ("", [])
        if not name:
            print("\n".join(sorted(get_commands().keys() - NEED_A_TERMINAL)))
            return
        _run(_command(name), name, arguments)


def _command(name: str) -> BaseCommand:
    if name in NEED_A_TERMINAL:
        raise CellError(f"{name} needs a terminal: run 'python manage.py {name}' there.")
    commands = get_commands()
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        advice = f"did you mean {near[0]}?" if near else "%manage help lists them."
        raise CellError(f"There is no command {name!r}: {advice}")
    app = commands[name]
    return app if isinstance(app, BaseCommand) else load_command_class(app, name)


def _run(command: BaseCommand, name: str, arguments: list[str]) -> None:
    parser = command.create_parser("%manage", name)
    try:
        options = vars(parser.parse_args(arguments))
        positional = options.pop("args", ())
        # Not the command's own default: its streams were bound when the kernel started, to the terminal.
        options |= {"stdout": sys.stdout, "stderr": sys.stderr, "no_color": True}
        command.execute(*positional, **options)
    except (CommandError, ConnectionFailed, ImproperlyConfigured) as error:
        raise CellError(str(error).strip() or type(error).__name__) from None
    except DatabaseError as error:
        first_line = str(error).strip().partition("\n")[0]
        raise CellError(f"{type(error).__name__}: {first_line}") from None
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
