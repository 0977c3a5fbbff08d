"""Runs the command, in this process or as a program that migrates whenever it is told to.

As a program it reads lines, each a JSON list of an entry of DATABASES and the command's arguments, and
answers each with what the command put out, what it said besides, and its error.
"""

from __future__ import annotations

import io
import json
import sys
from typing import Any, NamedTuple

import django
from django.core.management import CommandError, call_command
from django.db import connections

HERE = "elsewhere"


class Done(NamedTuple):
    stdout: str
    stderr: str
    error: str


def migrate(*arguments: str, using: str = HERE, **options: Any) -> Done:
    """Run the command in this process."""
    out, err, said = io.StringIO(), io.StringIO(), ""
    try:
        call_command("migrate", *arguments, database=using, stdout=out, stderr=err, no_color=True, **options)
    except CommandError as error:
        said = str(error)
    except KeyboardInterrupt:
        said = "interrupted"
    return Done(out.getvalue(), err.getvalue(), said)


def main() -> None:
    django.setup()
    for line in sys.stdin:
        connections.databases[HERE], *arguments = json.loads(line)
        done = migrate(*arguments)
        connections[HERE].close()
        del connections[HERE]
        print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main()
