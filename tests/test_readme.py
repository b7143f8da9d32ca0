"""The README says what the code does."""

import re

from tests import tables
from watcher.errors import CODES

README = tables.README.read_text()


def test_the_tables_are_made_from_the_code() -> None:
    assert set(re.findall("made from the code: (\\w+)", README)) == set(tables.MADE)
    assert tables.rewritten(README) == README, "Run: python tests/tables.py"


def test_every_event_of_the_log_is_explained_and_no_other() -> None:
    rows = [line.split(" | ") for line in tables.events(README).splitlines()[2:]]
    unexplained = [row[0] for row in rows if not row[-1].rstrip(" |")]
    assert not unexplained, f"Say in the README when they are logged: {unexplained}"


def test_every_error_code_is_explained_and_no_other() -> None:
    [_, after] = README.split("| `error_code` | what happened |")
    assert tuple(re.findall(r"^\| `(\w+)` \|", after.partition("\n\n")[0], re.MULTILINE)) == CODES
