from __future__ import annotations

from workbench.errors import OneSentence


class BranchError(OneSentence):
    """What cannot be done with a branch: one sentence on one line, with what to do."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class InUse(BranchError):
    """Sessions of others are in the way. ``on_a_line`` says it where a command is typed, with its option."""

    def __init__(self, said: str) -> None:
        super().__init__(f"{said} with end_sessions=True.")
        self.on_a_line = f"{said} with --end."
