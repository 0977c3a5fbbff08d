"""Python in a process of its own, as in a terminal: neither a kernel nor a test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from tests.throwaway import PROJECT, environment

# A shell may have its children ignore SIGINT.
BEGIN = """
import signal, sys, time, django
signal.signal(signal.SIGINT, signal.default_int_handler)
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
