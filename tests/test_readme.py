"""The README and the pages that it leads to say what the code does."""

import re

import tables

from watcher.errors import CODES

ROOT = tables.ROOT
OPERATING = tables.PAGE.read_text()


def test_the_tables_are_made_from_the_code() -> None:
    assert set(re.findall("made from the code: (\\w+)", OPERATING)) == set(tables.MADE)
    assert tables.rewritten(OPERATING) == OPERATING, "Run: python tests/tables.py"


def test_every_event_of_the_log_is_explained_and_no_other() -> None:
    rows = [line.split(" | ") for line in tables.events(OPERATING).splitlines()[2:]]
    unexplained = [row[0] for row in rows if not row[-1].rstrip(" |")]
    assert not unexplained, f"Say in docs/operating.md when they are logged: {unexplained}"


def test_every_error_code_is_explained_and_no_other() -> None:
    [_, after] = (ROOT / "docs/frontend.md").read_text().split("| `error_code` | what happened |")
    assert tuple(re.findall(r"^\| `(\w+)` \|", after.partition("\n\n")[0], re.MULTILINE)) == CODES


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
