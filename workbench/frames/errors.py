from __future__ import annotations

from workbench.errors import OneSentence


class FrameError(OneSentence):
    """What cannot be read into a DataFrame, or written from one: one sentence, with what to do."""
