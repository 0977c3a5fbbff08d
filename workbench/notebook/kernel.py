"""The process behind a notebook: ipykernel with our extension."""

from __future__ import annotations

import os
import sys
from pathlib import Path

EXTENSION = "workbench.notebook.extension"


def main() -> None:
    # What a cell starts (python, manage.py, worker processes) finds the project too.
    project = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [project, os.environ.get("PYTHONPATH")]))
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance([*sys.argv[1:], "--ext", EXTENSION])
