"""JupyterLab as ``make lab`` opens it: on a welcome page, asking nothing."""

from workbench.lab.server import lab, running

__all__ = ["lab", "running"]
