"""Prints what the header of watcher/training/script.py requires, a line each, as pip reads it."""

import re
import sys
import tomllib
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "watcher/training/script.py"


def requirements() -> list[str]:
    """Return what the script's inline metadata (PEP 723) requires."""
    found = re.search(r"^# /// script\n((?:#.*\n)+?)# ///$", SCRIPT.read_text(), re.MULTILINE)
    assert found is not None, f"{SCRIPT} has no inline metadata"
    metadata = tomllib.loads(re.sub(r"^# ?", "", found[1], flags=re.MULTILINE))
    required: list[str] = metadata["dependencies"]
    return required


if __name__ == "__main__":
    sys.stdout.write("\n".join([*requirements(), ""]))
