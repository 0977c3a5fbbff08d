"""The process behind a notebook: ipykernel with our extension."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

EXTENSION = "workbench.notebook.extension"


def main() -> None:
    # What a cell starts with ! finds this project, and is of this environment: python, pip.
    prepend("PYTHONPATH", str(Path(__file__).parents[2]))
    prepend("PATH", str(Path(sys.executable).parent))
    from ipykernel.kernelapp import IPKernelApp

    # Its warnings go to the terminal of the lab, where nobody can act on them.
    IPKernelApp.launch_instance([*sys.argv[1:], "--ext", EXTENSION], log_level=logging.ERROR)


def prepend(variable: str, folder: str) -> None:
    """Put a folder before those that a variable of this process's environment lists."""
    os.environ[variable] = os.pathsep.join(filter(None, [folder, os.environ.get(variable)]))
