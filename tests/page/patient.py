"""The page, with more patience than people have: it may meet a machine that is busy.

As a module it is what manage.py is.
"""

from __future__ import annotations

import sys

import django


def wait() -> None:
    """Let a query of the page take as long as it takes."""
    from workbench.page import look

    look.BEGIN = look.BEGIN.replace("'2s'", "'60s'")


if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    django.setup()
    wait()
    execute_from_command_line(sys.argv)
