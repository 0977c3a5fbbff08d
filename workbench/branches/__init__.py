"""Copies of a database to work on: the same verbs for every kind of server."""

from workbench.branches.errors import BranchError, InUse
from workbench.branches.kind import Branch
from workbench.branches.listing import Branches
from workbench.branches.verbs import (
    branch,
    branches,
    connected,
    copied,
    create,
    drop,
    here,
    moved,
    rename,
    reset,
    swept,
    use,
)

__all__ = [
    "Branch",
    "BranchError",
    "Branches",
    "InUse",
    "branch",
    "branches",
    "connected",
    "copied",
    "create",
    "drop",
    "here",
    "moved",
    "rename",
    "reset",
    "swept",
    "use",
]
