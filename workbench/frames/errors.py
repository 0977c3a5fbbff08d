from __future__ import annotations


class FrameError(Exception):
    """What cannot be read into a DataFrame, or written from one: one sentence, with what to do."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]
