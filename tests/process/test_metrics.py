"""The metrics: what can be counted is there from the start."""

import re
from pathlib import Path

from watcher.process import metrics


def test_every_word_for_done_starts_at_zero_and_is_explained() -> None:
    # Prometheus does not count the first increase of a series that appears at 1.
    sources = (Path(__file__).parents[2] / "watcher").glob("*/*.py")
    found = [re.findall(r"\bDone\(\s*\"(\w+)\"", source.read_text()) for source in sources]
    outcomes = {outcome for of_one in found for outcome in of_one}
    assert {"published", "notified"} <= outcomes
    exposed = metrics.exposition().decode()
    [explained] = re.findall(r"^# HELP watcher_attempts_total (.*)$", exposed, re.MULTILINE)
    for outcome in outcomes:
        assert f'watcher_attempts_total{{code="",outcome="{outcome}"}} ' in exposed
        assert f"`{outcome}`" in explained
