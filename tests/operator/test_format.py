"""Numbers and times as a person reads them."""

import pytest

from watcher.operator.format import ago, count, duration, moment, seconds_in


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0.0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.9, "1 min"),
        (3599, "1 h"),
        (5400, "2 h"),
        (86399, "1 day"),
        (5 * 86400, "5 days"),
    ],
)
def test_a_duration_is_told_in_its_largest_unit(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_how_long_ago_is_whole_seconds_or_more() -> None:
    assert [ago(seconds) for seconds in (0.3, 8.2, 180)] == ["just now", "8 s ago", "3 min ago"]


def test_one_is_no_plural() -> None:
    assert [count(number, "row") for number in (0, 1, 1000)] == ["0 rows", "1 row", "1,000 rows"]


def test_a_moment_is_in_utc_wherever_it_was_stored() -> None:
    assert moment("2026-11-22T01:30:05.123456+02:00") == "2026-11-21 23:30:05 UTC"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30min", 1800),
        ("2 h", 7200),
        ("1.5d", 129600),
        ("1w", 604800),
        ("yesterday", None),
        ("-2h", None),
    ],
)
def test_a_span_of_time_is_read_as_it_is_written(text: str, seconds: float | None) -> None:
    assert seconds_in(text) == seconds
