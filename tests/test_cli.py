"""The commands as a shell sees them: what they print, where, and with which exit code they end."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.waiting import PATIENCE
from watcher import __version__
from watcher.cli import cli
from watcher.settings.settings import environment

BARE = {"PATH": environment()["PATH"], "HOME": "/nonexistent"}


def watcher(*arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
    """Run the command with nothing else in its environment."""
    return subprocess.run(
        [sys.executable, "-m", "watcher", *arguments],
        env=BARE | given,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_without_settings_it_says_all_that_is_missing_and_is_not_started_again() -> None:
    ended = watcher("run")
    assert ended.returncode == 78
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert line.startswith("watcher: ")
    for name in ("SUPABASE_URL", "SUPABASE_SECRET_KEY", "HF_TOKEN"):
        assert f"{name} is not set" in line


def test_a_database_that_cannot_be_reached_ends_with_1() -> None:
    ended = watcher("migrate", SUPABASE_DB_URL="postgresql://postgres:hush@127.0.0.1:9/postgres")
    assert ended.returncode == 1
    assert "The database could not be reached" in ended.stderr
    assert "hush" not in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [["fly"], ["run", "--fast"], ["replay", "not-a-uuid"]])
def test_a_command_that_is_used_wrongly_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli, arguments).exit_code == 2


def test_the_process_ends_with_2_as_well() -> None:
    ended = watcher("fly")
    assert (ended.returncode, "No such command" in ended.stderr) == (2, True)


def test_it_says_its_version_and_what_it_can_do() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"watcher, version {__version__}\n"
    help_ = CliRunner().invoke(cli, ["-h"]).output
    for command in ("run", "migrate", "sandbox", "demo", "doctor", "status", "show", "replay"):
        assert re.search(rf"^  {command} +\S", help_, re.MULTILINE)
