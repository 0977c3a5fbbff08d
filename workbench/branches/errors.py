from __future__ import annotations

from workbench.errors import OneSentence


class BranchError(OneSentence):
    """What cannot be done with a branch: one sentence, with what to do."""
