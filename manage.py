#!/usr/bin/env python
"""Django's command line for the workbench."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "workbench.settings")
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line

        from workbench.connection import ConnectionFailed
    except ImportError as error:
        sys.exit(f"{error}. Run 'make lab' once, or 'pip install -r requirements.txt'.")
    try:
        execute_from_command_line(sys.argv)
    except (ConnectionFailed, ImproperlyConfigured) as error:
        if "--traceback" in sys.argv:
            raise
        sys.exit(str(error))


if __name__ == "__main__":
    main()
