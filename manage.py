#!/usr/bin/env python
"""Django's command line for the workbench."""

import os
import signal
import subprocess
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "workbench.settings")
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line

        from workbench.errors import OneSentence
    except ImportError as error:
        _go_on_in(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".venv"))
        sys.exit(f"{error}. Run 'make lab' once, or 'pip install -r requirements.txt'.")
    try:
        execute_from_command_line(sys.argv)
    except (OneSentence, ImproperlyConfigured) as error:
        if "--traceback" in sys.argv:
            raise
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)  # As a shell says it of what Control-C ended.


def _go_on_in(environment: str) -> None:
    """Run this command with the environment's Python, if there is one that is not running it already."""
    python = os.path.join(environment, *(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")))
    if not os.path.exists(python) or os.path.samefile(sys.prefix, environment):
        return
    if os.name != "nt":
        os.execv(python, [python, *sys.argv])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Control-C is for that one.
    sys.exit(subprocess.run([python, *sys.argv]).returncode)


if __name__ == "__main__":
    main()
