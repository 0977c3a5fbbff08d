"""The schema through time."""

from workbench.schema.losses import losses

__all__ = ["losses"]
