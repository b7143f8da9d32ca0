"""Other people's text as it is stored: one line, no secret, nothing that Postgres or UTF-8 refuses."""

import math

import pytest

from watcher.errors import Transient
from watcher.process.log import configure
from watcher.process.text import storable


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("It is full.", "It is full."),
        ("two\nlines\r\nand\ttabs", "two lines and tabs"),
        ("nul\x00, escape \x1b[31m, \u0085 and \u2028", "nul , escape [31m, and"),
        ("a lone \ud800 surrogate", "a lone surrogate"),
        ("Zoë 李雷 👩‍👧", "Zoë 李雷 👩‍👧"),
        ("half \ud83d and other half \ude00", "half and other half"),
        ("\ud800\x00\n", ""),
        ("x" * 3000, "x" * 2000),
    ],
)
def test_text_becomes_one_line_that_can_be_stored(text: str, stored: str) -> None:
    assert storable(text) == stored
    storable(text).encode()


def test_a_secret_is_struck_out_before_the_text_is_cut() -> None:
    configure(secrets=["sb_secret_x"])
    try:
        assert "secret_x" not in storable("y" * 1995 + "sb_secret_x")
    finally:
        configure()


@pytest.mark.parametrize("named", [math.inf, -math.inf, math.nan, -1.0, 0.0, None])
def test_a_time_that_is_not_to_come_counts_as_not_named(named: float | None) -> None:
    assert Transient("later", retry_after=named).retry_after is None
