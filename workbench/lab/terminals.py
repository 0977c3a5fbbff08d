"""The lab's terminals: they open in the project, where ``python manage.py`` works."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from jupyter_server_terminals.terminalmanager import TerminalManager


class Terminals(TerminalManager):
    def create(self, **options: Any) -> Any:
        # Not in the folder of the file browser: a Django project's commands are run at its top.
        return super().create(**(options | {"cwd": str(settings.BASE_DIR)}))
