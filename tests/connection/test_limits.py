from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from workbench.connection import limits


@pytest.mark.parametrize(
    ("said", "read_only", "session"),
    [
        ("", False, {}),
        ("5min", False, {"statement_timeout": "5min"}),
        ("", True, {"default_transaction_read_only": "on", "statement_timeout": "60s"}),
        ("0", True, {"default_transaction_read_only": "on", "statement_timeout": "0"}),
    ],
)
def test_sessions_are_held_to_what_was_chosen_and_to_nothing_else(
    said: str, read_only: bool, session: dict[str, str]
) -> None:
    entry = {"NAME": "shop", "SESSION": {"lock_timeout": "5s"}}
    chosen = limits(entry, {"WORKBENCH_STATEMENT_TIMEOUT": said}, read_only=read_only)
    assert chosen == {"NAME": "shop", "READ_ONLY": read_only, "SESSION": {"lock_timeout": "5s", **session}}


@pytest.mark.parametrize("said", ["5", "a while", "-1s", "30s; DROP TABLE x", "25d"])
def test_what_is_no_duration_is_one_sentence(said: str) -> None:
    with pytest.raises(
        ImproperlyConfigured, match=r"WORKBENCH_STATEMENT_TIMEOUT is .* write a number with its unit"
    ):
        limits({}, {"WORKBENCH_STATEMENT_TIMEOUT": said}, read_only=False)
