"""What docs/architecture.md says of the packages is what lies in the folders."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
[TABLE] = re.findall(
    r"^\| package \| files \|\n\|[-|]+\|\n((?:\|.*\n)+)",
    (ROOT / "docs/architecture.md").read_text(),
    re.MULTILINE,
)
NAMED = dict(re.findall(r"^\| `watcher/(\w+)/` \| (.*) \|$", TABLE, re.MULTILINE))
ELSEWHERE = {"sandbox"}
"""Packages of which another page tells."""


def test_every_package_is_in_the_table_and_no_other() -> None:
    assert NAMED.keys() == {file.parent.name for file in (ROOT / "watcher").glob("*/__init__.py")}


@pytest.mark.parametrize("package", sorted(NAMED.keys() - ELSEWHERE))
def test_every_file_of_a_package_is_named_and_no_other(package: str) -> None:
    folder = ROOT / "watcher" / package
    files = {file.stem for file in folder.glob("*.py") if file.stem != "__init__"}
    folders = {f"{file.parent.name}/" for file in folder.glob("*/__init__.py")}
    assert set(re.findall(r"`([^`]+)`", NAMED[package])) == files | folders
