from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from workbench.notebook.kernelspec import register


class Command(BaseCommand):
    help = "Installs the kernel 'Workbench' into this Python environment, for every Jupyter that runs in it."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"The kernel 'Workbench' is installed in {register()}")
