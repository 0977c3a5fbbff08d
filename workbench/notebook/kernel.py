"""The process behind a notebook: ipykernel with our extension."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

EXTENSION = "workbench.notebook.extension"


def main() -> None:
    # What a cell starts (python, manage.py, worker processes) finds the project too.
    project = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [project, os.environ.get("PYTHONPATH")]))
    from ipykernel.kernelapp import IPKernelApp

    # Its warnings go to the terminal of the lab, where nobody can act on them.
    IPKernelApp.launch_instance([*sys.argv[1:], "--ext", EXTENSION], log_level=logging.ERROR)
