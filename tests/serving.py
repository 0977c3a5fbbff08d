"""Servers in processes of their own, at ports that they chose themselves: so nobody else has them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from tests.migrating import until

ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/")


def port_of(process: subprocess.Popen[Any], log: Path) -> int:
    """Return the port of a server that starts, once it has written its address into its log."""
    found = until(lambda: ADDRESS.search(log.read_text()) or process.poll() is not None)
    assert isinstance(found, re.Match), log.read_text()
    return int(found[1])
