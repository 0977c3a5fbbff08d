from __future__ import annotations

from django.db import ProgrammingError

from workbench.errors import OneSentence


class SchemaError(OneSentence):
    """What cannot be told or done about a schema: one sentence, with what to do."""


class StaleModel(OneSentence, ProgrammingError):
    """A query of a model that is not as the database is: one sentence, with what to do."""


class NotInHistory(OneSentence, AttributeError):
    """What a model, or its instance, does not have at its migration."""
