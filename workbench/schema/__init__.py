"""The schema through time."""

from workbench.schema.diagram import diagram
from workbench.schema.errors import SchemaError, StaleModel
from workbench.schema.evolve import evolve
from workbench.schema.history import models_at
from workbench.schema.losses import losses
from workbench.schema.rehearsal import rehearse
from workbench.schema.snapshot import snapshot
from workbench.schema.states import states
from workbench.schema.timeline import timeline

__all__ = [
    "SchemaError",
    "StaleModel",
    "diagram",
    "evolve",
    "losses",
    "models_at",
    "rehearse",
    "snapshot",
    "states",
    "timeline",
]
