"""The kernelspec "Workbench": how JupyterLab, VS Code, nbconvert and nbval start a kernel of this project."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager

NAME = "workbench"
PROJECT = Path(__file__).parents[2]

# Two checkouts may share an environment, and so this spec. The notebook's folder, where Jupyter starts the
# kernel, decides which of them it belongs to; a notebook outside of both gets the last one registered.
START = (
    "import pathlib, sys; here = pathlib.Path.cwd(); "
    "mine = (p for p in (here, *here.parents) if (p / 'workbench/notebook/kernel.py').is_file()); "
    "sys.path.insert(0, str(next(mine, {project!r}))); "
    "from workbench.notebook.kernel import main; main()"
)


def kernelspec(arguments: list[str] | None = None) -> dict[str, Any]:
    """Return the contents of kernel.json; ``arguments`` are more arguments for the kernel (IPython's)."""
    start = START.format(project=str(PROJECT))
    return {
        "argv": [sys.executable, "-c", start, "-f", "{connection_file}", *(arguments or [])],
        "display_name": "Workbench",
        "language": "python",
        "interrupt_mode": "signal",
        "metadata": {"debugger": True},
        "env": {
            "DJANGO_SETTINGS_MODULE": "workbench.settings",
            # A cell runs inside the kernel's event loop, where Django would refuse every query.
            # https://docs.djangoproject.com/en/5.2/topics/async/#envvar-DJANGO_ALLOW_ASYNC_UNSAFE
            "DJANGO_ALLOW_ASYNC_UNSAFE": "true",
        },
    }


def register(prefix: str = sys.prefix) -> Path:
    """Write the kernelspec into the environment at ``prefix`` and return its folder."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kernel.json").write_text(json.dumps(kernelspec(), indent=1), encoding="utf-8")
        return Path(KernelSpecManager().install_kernel_spec(folder, NAME, prefix=prefix))
