from __future__ import annotations

import pytest

from workbench.words import ago, size, span, whole


@pytest.mark.parametrize(
    ("seconds", "measured", "to_go"),
    [
        (0.00044, "0.4 ms", "0 s"),
        (0.32, "320 ms", "0 s"),
        (0.9997, "1.0 s", "1 s"),
        (4.21, "4.2 s", "4 s"),
        (59.97, "1 min", "1 min"),
        (80, "1 min 20 s", "1 min 20 s"),
        (119.7, "2 min", "2 min"),
        (12.4 * 60, "12 min", "12 min"),
        (3600, "1 h", "1 h"),
        (3600 * 2 - 10, "2 h", "2 h"),
        (3600 * 5.5, "5 h 30 min", "5 h 30 min"),
        (3600 * 13.4, "13 h", "13 h"),
        (86400 * 1.5, "1 d 12 h", "1 d 12 h"),
        (86400 * 40, "40 d", "40 d"),
    ],
)
def test_a_time_has_a_second_unit_only_where_that_tells_something(
    seconds: float, measured: str, to_go: str
) -> None:
    assert (span(seconds), whole(seconds)) == (measured, to_go)


def test_what_is_not_known_is_not_said() -> None:
    assert (span(None), size(None)) == ("", "")


@pytest.mark.parametrize(
    ("seconds", "said"), [(3, "< 1 min"), (59, "< 1 min"), (61, "1 min"), (5400, "2 h"), (86400 * 3, "3 d")]
)
def test_an_age_is_one_number(seconds: float, said: str) -> None:
    assert ago(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (7_500_000, "7.5 MB"), (2_300_000_000, "2.3 GB"), (3e12, "3.0 TB")],
)
def test_a_size_has_two_digits_or_more(count: int, said: str) -> None:
    assert size(count) == said
