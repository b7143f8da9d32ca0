"""The commands as a shell sees them: what they print, where, and with which exit code they end."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.scene import Scene
from tests.support.waiting import PATIENCE
from tests.support.watching import Manager
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


@pytest.mark.parametrize("options", [[], ["--repair", "--yes"], ["--remove", "--yes"]])
@pytest.mark.parametrize("password", ["hush%zzhush", "hush@hush", "hush/hush"])
def test_a_password_that_makes_no_url_is_never_printed(options: list[str], password: str) -> None:
    url = f"postgresql://postgres:{password}@127.0.0.1:9/postgres"
    ended = watcher("migrate", *options, SUPABASE_DB_URL=url)
    assert ended.returncode == 78
    [line] = ended.stderr.splitlines()
    assert line.startswith("watcher: SUPABASE_DB_URL ")
    assert "hush" not in ended.stderr + ended.stdout


@pytest.mark.parametrize(("command", "code"), [("doctor", 2), ("status", 1)])
def test_a_bug_does_not_end_the_doctor_as_warnings_do(tmp_path: Path, command: str, code: int) -> None:
    (tmp_path / "rich.py").write_text("raise RuntimeError('It is broken.')")
    given = {"SUPABASE_URL": "http://127.0.0.1:9", "SUPABASE_SECRET_KEY": "sb_secret_x"}
    ended = watcher(command, PYTHONPATH=str(tmp_path), **given)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert "this is a bug, please report it" in ended.stderr


@pytest.mark.parametrize("arguments", [["fly"], ["run", "--fast"], ["replay", "not-a-uuid"]])
def test_a_command_that_is_used_wrongly_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli, arguments).exit_code == 2


def test_the_process_ends_with_2_as_well() -> None:
    ended = watcher("fly")
    assert (ended.returncode, "No such command" in ended.stderr) == (2, True)


def test_it_says_its_version_and_what_it_can_do() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"watcher, version {__version__}\n"
    help_ = CliRunner().invoke(cli, ["-h"]).output
    for command in ("run", "migrate", "sandbox", "demo", "doctor", "status", "show", "replay", "limits"):
        assert re.search(rf"^  {command} +\S", help_, re.MULTILINE)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["replay", "--help"]])
def test_the_version_and_the_help_import_click_and_none_of_the_large_packages(arguments: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "watcher", *arguments],
        env=BARE,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert ended.stdout
    packages = {name.partition(".")[0] for name in imported(ended.stderr)}
    assert "click" in packages
    large = {"asyncio", "httpx", "huggingface_hub", "pydantic", "psycopg", "rich", "structlog", "supabase"}
    assert packages & large == set()


def imported(importtime: str) -> list[str]:
    """The modules that `python -X importtime` reports."""
    lines = [line for line in importtime.splitlines() if line.startswith("import time:")]
    return [line.rpartition("|")[2].strip() for line in lines]


def test_a_running_daemon_has_imported_neither_the_database_driver_nor_the_imaging_library(
    scene: Scene, tmp_path: Path
) -> None:
    given = scene.sandbox.settings() | {"WATCHER_SPOOL": str(tmp_path), "WATCHER_INSTANCE": "test"}
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "watcher", "run"],
        env=BARE | given | {"WATCHER_LOG_FORMAT": "json"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if '"event": "ready"' in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    modules = imported("".join(lines))
    assert "watcher.app" in modules
    assert {name for name in modules if name.startswith(("psycopg", "PIL"))} == set()


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["--version"], "click"),
        (["run"], "supabase"),
        (["migrate"], "psycopg"),
        (["sandbox"], "psycopg"),
        (["demo"], "rich"),
        (["doctor"], "huggingface_hub"),
        (["status"], "structlog"),
        (["show", "00000000-0000-0000-0000-000000000000"], "pydantic"),
        (["replay", "--failed", "--yes"], "httpx"),
    ],
)
def test_a_missing_module_is_a_configuration_error_that_names_it(
    tmp_path: Path, arguments: list[str], module: str
) -> None:
    (tmp_path / f"{module}.py").write_text("raise ModuleNotFoundError('No such module', name=__name__)")
    ended = watcher(*arguments, PYTHONPATH=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (78, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"watcher: The module {module} cannot be imported (No such module): reinstall ")


def test_the_service_manager_is_told_that_a_module_is_missing(tmp_path: Path) -> None:
    (tmp_path / "supabase.py").write_text("raise ModuleNotFoundError('No such module', name=__name__)")
    with Manager() as manager:
        assert watcher("run", PYTHONPATH=str(tmp_path), NOTIFY_SOCKET=manager.address).returncode == 78
        manager.wait_for("STATUS=The module supabase cannot be imported (No such module): reinstall ")


def test_a_module_of_another_python_is_named_though_its_error_names_none(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('no pq wrapper available.\\nAttempts made: …')")
    ended = watcher("migrate", PYTHONPATH=str(tmp_path))
    assert ended.returncode == 78
    [line] = ended.stderr.splitlines()
    assert "The module psycopg cannot be imported (no pq wrapper available): reinstall " in line


@pytest.mark.parametrize(("arguments", "module"), [(["sandbox"], "starlette"), (["demo"], "PIL")])
def test_a_sandbox_that_is_not_installed_is_a_configuration_error_that_says_how_to(
    tmp_path: Path, arguments: list[str], module: str
) -> None:
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError('No such module', name={module!r})")
    ended = watcher(*arguments, PYTHONPATH=str(tmp_path))
    assert ended.returncode == 78
    assert (
        f"The sandbox is not installed ({module}): in the checkout, run {sys.executable} -m pip install "
        in ended.stderr
    )
