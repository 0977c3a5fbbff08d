from __future__ import annotations

from workbench.errors import OneSentence


class CellError(OneSentence):
    """A cell's failure that one sentence explains."""
