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
    from traitlets import default

    from workbench import redaction
    from workbench.notebook.session import RedactingSession

    # Before the settings are read, which may fail.
    redaction.remember_all(os.environ)
    redaction.redact_logs()

    class Kernel(IPKernelApp):
        outstream_class = "workbench.notebook.session.Stream"

        @default("session")
        def _default_session(self) -> RedactingSession:
            return RedactingSession(parent=self)

    # Its warnings go to the terminal of the lab, where nobody can act on them.
    Kernel.launch_instance([*sys.argv[1:], "--ext", EXTENSION], log_level=logging.ERROR)


def prepend(variable: str, folder: str) -> None:
    """Put a folder before those that a variable of this process's environment lists."""
    os.environ[variable] = os.pathsep.join(filter(None, [folder, os.environ.get(variable)]))
