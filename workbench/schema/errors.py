from __future__ import annotations

import difflib
from collections.abc import Iterable

from django.db import ProgrammingError

from workbench.errors import OneSentence


class SchemaError(OneSentence):
    """What cannot be told or done about a schema: one sentence, with what to do."""


class StaleModel(OneSentence, ProgrammingError):
    """A query of a model that is not as the database is: one sentence, with what to do."""


class NotInHistory(OneSentence, AttributeError):
    """What a model, or its instance, does not have at its migration."""


def or_rather(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence: a guess at what was meant, or a full stop where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {near[0]}?" if near else "."
