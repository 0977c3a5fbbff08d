from __future__ import annotations

import os
import sys
from typing import Any

from django.conf import settings
from django_extensions.management.commands import shell_plus
from jupyter_client.kernelspec import KernelSpec

from workbench.notebook.kernelspec import NAME, kernelspec

EXTENSION_OF_SHELL_PLUS = "django_extensions.management.notebook_extension"


class Command(shell_plus.Command):
    """shell_plus whose lab opens on the lessons and writes this project's kernelspec."""

    def generate_kernel_specs(self, app: Any, ipython_arguments: list[str]) -> dict[str, KernelSpec]:
        # Ours loads the same names; theirs needs Django set up before it runs.
        position = ipython_arguments.index(EXTENSION_OF_SHELL_PLUS)
        arguments = ipython_arguments[: position - 1] + ipython_arguments[position + 1 :]
        # The folder is where shell_plus looks for the place to write to: the environment's kernelspecs.
        folder = self.load_base_kernel_spec(app).resource_dir
        return {NAME: KernelSpec(resource_dir=folder, **kernelspec(arguments))}

    def get_ipython_arguments(self, options: dict[str, Any]) -> list[str]:
        return list(super().get_ipython_arguments(options))

    def get_notebook_arguments(self, options: dict[str, Any]) -> list[str]:
        given = super().get_notebook_arguments(options)
        return [
            f"--ServerApp.root_dir={settings.BASE_DIR}",
            "--notebook-dir=" + str(settings.BASE_DIR),
            "--LabApp.default_url=/lab/tree/notebooks/01_migrate.ipynb",
            "--LabApp.news_url=None",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            *(["--no-browser"] if _has_no_display() else []),
            *given,
        ]


def _has_no_display() -> bool:
    """Tell whether a browser could only open in the terminal, or nowhere."""
    if not sys.platform.startswith("linux"):
        return False
    return not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
