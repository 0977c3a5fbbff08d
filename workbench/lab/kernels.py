"""The kernels that the lab offers: not the environment's bare Python, in which no model is imported."""

from __future__ import annotations

from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager

from workbench.notebook.kernelspec import NAME


class KernelSpecs(KernelSpecManager):
    def find_kernel_specs(self) -> dict[str, str]:
        found: dict[str, str] = super().find_kernel_specs()
        if NAME in found:
            # A notebook that asks for it gets ours: JupyterLab takes the one kernel of the same language.
            found.pop(NATIVE_KERNEL_NAME, None)
        return found
