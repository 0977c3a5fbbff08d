from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

from django.conf import settings
from django_extensions.management.commands import shell_plus
from jupyter_client.kernelspec import KernelSpec
from traitlets.config import Config

from workbench.notebook.kernelspec import NAME, kernelspec

EXTENSION_OF_SHELL_PLUS = "django_extensions.management.notebook_extension"
ANNOUNCEMENTS = "@jupyterlab/apputils-extension:announcements"


class Command(shell_plus.Command):
    """shell_plus whose lab opens on the lessons and writes this project's kernelspec."""

    def generate_kernel_specs(self, app: Any, ipython_arguments: list[str]) -> dict[str, KernelSpec]:
        # Ours loads the same names; theirs needs Django set up before it runs.
        position = ipython_arguments.index(EXTENSION_OF_SHELL_PLUS)
        arguments = ipython_arguments[: position - 1] + ipython_arguments[position + 1 :]
        # The folder is where shell_plus looks for the place to write to: the environment's kernelspecs.
        folder = self.load_base_kernel_spec(app).resource_dir
        return {NAME: KernelSpec(resource_dir=folder, **kernelspec(arguments))}

    def run_notebookapp(self, app_init: Any, options: dict[str, Any], *_: Any, **__: Any) -> None:
        os.chdir(settings.BASE_DIR)  # shell_plus serves the folder it runs in.
        self.stdout.write("JupyterLab is starting. Control-C, pressed twice, stops it.")
        # Without shell_plus' own HistoryManager option: nbclient passes it too, and twice stops the kernel.
        super().run_notebookapp(partial(app_init, config=_lab()), options)


def _lab() -> Config:
    """Return our defaults for JupyterLab: its own config files and what follows ``--`` win over them."""
    config = Config()
    config.LabApp.default_url = "/lab/tree/notebooks/01_migrate.ipynb"
    # What is left in the terminal is the address, and what goes wrong.
    config.LabApp.log_level = config.ServerApp.log_level = "ERROR"
    config.ServerApp.allow_root = hasattr(os, "geteuid") and os.geteuid() == 0
    config.ServerApp.open_browser = not _has_no_display()
    config.ServerApp.tornado_settings = {"page_config_hook": _without_announcements}
    return config


def _without_announcements(handler: Any, page: dict[str, Any]) -> dict[str, Any]:
    """Take away the plugin that asks whether it may fetch news, and asks the network for new versions."""
    page["disabledExtensions"].append(ANNOUNCEMENTS)
    return page


def _has_no_display() -> bool:
    """Tell whether a browser could only open in the terminal, or nowhere."""
    if not sys.platform.startswith("linux"):
        return False
    return not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
