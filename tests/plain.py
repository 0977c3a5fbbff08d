"""Python in a process of its own, as in a terminal: neither a kernel nor a test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from tests.throwaway import PROJECT, environment

BEGIN = """
import signal, sys, time, django
django.setup()
from django.db import connection
from workbench.frames import frame
"""


def start(
    code: str, changes: Mapping[str, str | None] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start Python on some code, in the project's folder and without anything to read."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=environment({"WORKBENCH_PROGRESS": None, "TERM": "xterm", **(changes or {})}),
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        **options,
    )


def told(code: str, changes: Mapping[str, str | None] | None = None, *, timeout: float = 30) -> list[str]:
    """Run code, which must have nothing to complain of, and return the lines that it prints.

    Raises TimeoutExpired after some seconds, when it is killed.
    """
    with start(code, changes, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            said, error = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    assert (process.returncode, error) == (0, ""), error
    return said.splitlines()
