"""The README and the pages that it leads to say what the code does, and lead nowhere else."""

import re
from pathlib import Path

import pytest

from tests import tables
from watcher.cli import cli
from watcher.errors import CODES, TRAINING_CODES
from watcher.training.recipe import TRIGGER

ROOT = tables.ROOT
OPERATING = tables.PAGE.read_text()
PAGES = sorted(
    path for pattern in ("*.md", "docs/*.md", "systemd/*.md", "bench/*.md") for path in ROOT.glob(pattern)
)


def test_the_tables_are_made_from_the_code() -> None:
    assert set(re.findall("made from the code: (\\w+)", OPERATING)) == set(tables.MADE)
    assert tables.rewritten(OPERATING) == OPERATING, "Run: python -m tests.tables"


def test_every_event_of_the_log_is_explained_and_no_other() -> None:
    rows = [line.split(" | ") for line in tables.events(OPERATING).splitlines()[2:]]
    unexplained = [row[0] for row in rows if not row[-1].rstrip(" |")]
    assert not unexplained, f"Say in docs/operating.md when they are logged: {unexplained}"


@pytest.mark.parametrize(
    ("column", "codes"), [("error_code", CODES), ("training_error_code", TRAINING_CODES)]
)
def test_every_error_code_is_explained_and_no_other(column: str, codes: tuple[str, ...]) -> None:
    [_, after] = (ROOT / "docs/frontend.md").read_text().split(f"| `{column}` | what happened |")
    explained = re.findall(r"^\| `(\w+)` \|", after.partition("\n\n")[0], re.MULTILINE)
    assert tuple(explained) == codes


@pytest.mark.parametrize("file", ["docs/frontend.md", "examples/web/src/NewIdentity.tsx"])
def test_users_are_told_the_default_trigger_word(file: str) -> None:
    assert TRIGGER in (ROOT / file).read_text()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]+`", "", _prose(page.read_text()))):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file.read_text()), target


def _anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", _prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(
        r"`((?:watcher|migrations|tests|docs|systemd|bench|examples)/[\w./-]*)`", page.read_text()
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_shows_is_there(page: Path) -> None:
    shown = "\n".join(re.findall(r"^ *```bash\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL))
    for name, option in re.findall(r"\.venv/bin/watcher ([a-z]+)(?: (on|off)\b)?", shown):
        command = cli.commands.get(name)
        assert command is not None, name
        assert not option or option in getattr(command, "commands", ()), f"{name} {option}"
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {*re.findall(r"^make ([a-z-]+)", shown, re.MULTILINE)} <= {*targets}
