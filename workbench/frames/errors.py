from __future__ import annotations

from django.db import DatabaseError, DataError, NotSupportedError, ProgrammingError

from workbench.errors import OneSentence


class FrameError(OneSentence):
    """What cannot be read into a DataFrame, or written from one: one sentence, with what to do."""


class FrameWarning(UserWarning):
    """What will probably not end well: one sentence, with what to do instead."""


class RefusedSQL(FrameError, DatabaseError):
    """SQL text that Postgres refuses; Django's error of that kind too, for those who expect that."""


class _NotSupported(RefusedSQL, NotSupportedError): ...


class _Programming(RefusedSQL, ProgrammingError): ...


class _Data(RefusedSQL, DataError): ...


REFUSED = {ProgrammingError: _Programming, DataError: _Data, NotSupportedError: _NotSupported}
