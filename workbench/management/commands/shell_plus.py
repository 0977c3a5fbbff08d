from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django_extensions.management.commands import shell_plus
from jupyter_client.kernelspec import KernelSpec

from workbench.errors import OneSentence
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

    @shell_plus.shell_runner(flags=["--lab"], name="JupyterLab")
    def get_jupyterlab(self, options: dict[str, Any]) -> Callable[[], None]:
        # jsonschema would check addresses with it, of which Jupyter has none to check, and compiling its
        # grammar takes half as long as the rest of the lab's start.
        sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
        from workbench.lab import lab, running

        def run() -> None:
            if not self.extra_args and (address := running(settings.BASE_DIR)):
                self.stdout.write(f"A lab of this folder runs already:\nJupyterLab   {address}")
                self.stdout.write("Control-C in its terminal stops it.")
                return
            os.chdir(settings.BASE_DIR)  # shell_plus serves the folder it runs in.
            try:
                self.run_notebookapp(lab, options, history=False)
            except OneSentence as error:
                raise CommandError(str(error)) from None

        return run
