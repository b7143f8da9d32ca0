"""Runs jobs as processes of this machine: a stand-in for Watcher's training script, or a job's real command.

A process gets the job's environment and secrets, and nothing of the sandbox's own. There is no container: the folder of a
volume has another path than the job asked for, and the path is replaced in its command, arguments and environment.
"""

import asyncio
import os
import re
import shutil
import stat
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from watcher.sandbox.hub.jobs.hardware import FLAVORS
from watcher.sandbox.hub.jobs.job import Job
from watcher.sandbox.hub.jobs.jobs import Mode
from watcher.sandbox.hub.jobs.spec import Volume
from watcher.sandbox.hub.store import Store

_LEASH = Path(__file__).with_name("leash.py")
_STAND_IN = Path(__file__).with_name("stand_in.py")
_OURS = "WATCHER_TRAINING"
"""The variable by which the stand-in knows a job whose script it stands in for."""
_FOR_EVER = 1e7
_LONGEST_LINE = 64 * 1024
_PIP = """\
#!/bin/sh
echo "pip: the sandbox installs nothing; what is needed has to be there already"
"""
_UV = """\
#!/bin/sh
# `uv run` with the interpreter of the sandbox: what it would install has to be there already.
shift
while :; do
  case "$1" in
    --with|--python|-p|--index|--index-url|--extra-index-url|--cache-dir) shift 2 ;;
    --) shift; break ;;
    -*) shift ;;
    *) break ;;
  esac
done
case "$1" in python|python3) shift ;; esac
exec python "$@"
"""


class Programs:
    """Runs what jobs ask for, each in a folder of its own below `folder`, which is deleted at its end."""

    def __init__(self, folder: Path, store: Store, python: Path | None) -> None:
        """Take the interpreter for real commands; None: they are never run."""
        self._folder = folder
        self._store = store
        self._python = python
        self.modes: tuple[Mode, ...] = (
            ("stand-in", "nothing") if python is None else ("real", "stand-in", "nothing")
        )

    async def run(self, job: Job, mode: Mode, endpoint: str, log: Callable[[str], None]) -> int | None:
        """Run the job's program and return its exit code; None if it has none. Kills all of it if it is cancelled."""
        if mode == "nothing" or (mode == "stand-in" and _OURS not in job.spec.environment):
            return None
        folder = self._folder / job.id
        preparing = asyncio.ensure_future(run_in_threadpool(self._prepare, folder, job.spec.volumes))
        try:
            moved = await asyncio.shield(preparing)
            environment = self._environment(job, folder, endpoint, moved)
            if mode == "real":
                command = [_moved(text, moved) for text in (*job.spec.command, *job.spec.arguments)]
            else:
                environment = _of_the_stand_in(environment, job)
                command = [sys.executable, "-I", str(_STAND_IN)]
            return await _watched(command, environment, folder / "tmp", log)
        finally:
            await asyncio.wait([preparing])  # a thread cannot be cancelled
            _remove(folder)

    def _prepare(self, folder: Path, volumes: Sequence[Volume]) -> dict[str, str]:
        """Make the job's folder, and return where each volume is, by its path in the job."""
        (folder / "tmp").mkdir(parents=True)
        (folder / "bin").mkdir()
        if self._python is not None:
            for name in ("python", "python3"):
                _script(folder / "bin" / name, f'#!/bin/sh\nexec "{self._python}" "$@"\n')
            _script(folder / "bin/uv", _UV)
            _script(folder / "bin/pip", _PIP)
        moved = {}
        for number, volume in enumerate(volumes):
            target = folder / f"volume-{number}"
            self._copy(volume, target)
            moved[volume.mount_path] = str(target)
        return moved

    def _copy(self, volume: Volume, target: Path) -> None:
        """Copy the files of a volume, read-only."""
        target.mkdir()
        for file in self._store.files(volume.repo, volume.commit).values():
            path = target / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._store.bytes.content(volume.repo.id, file), path)
            path.chmod(0o444)
        for inside in (target, *(path for path in target.rglob("*") if path.is_dir())):
            inside.chmod(0o555)

    def _environment(self, job: Job, folder: Path, endpoint: str, moved: Mapping[str, str]) -> dict[str, str]:
        machine = FLAVORS[job.spec.flavor]
        return {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.defpath}",
            "HOME": str(folder / "tmp"),
            "TMPDIR": str(folder / "tmp"),
            "LANG": "C.UTF-8",
            "JOB_ID": job.id,
            "ACCELERATOR": job.spec.flavor if machine["accelerator"] else "none",
            "CPU_CORES": machine["cpu"].split()[0],
            "MEMORY": machine["ram"].replace(" GB", "Gi"),
            **{name: _moved(value, moved) for name, value in job.spec.environment.items()},
            **job.spec.secrets,
            # This Hub has a URL of its own, and no Xet.
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
        }


def _of_the_stand_in(environment: Mapping[str, str], job: Job) -> dict[str, str]:
    """Return only what the stand-in reads: other variables could make any program run something else."""
    wanted = {
        name: value
        for name, value in environment.items()
        if name.startswith(("WATCHER_", "HF_")) or name in {"PATH", "HOME", "TMPDIR", "LANG", "JOB_ID"}
    }
    asked = {} if job.exit_code is None else {"SANDBOX_EXIT_CODE": str(job.exit_code)}
    return wanted | asked | {"SANDBOX_SECONDS": str(_FOR_EVER if job.work is None else job.work)}


async def _watched(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Callable[[str], None]
) -> int:
    """Run a command and log its output; when it is over, nothing of its process group is left."""
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_LEASH)),
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            env=environment,
            cwd=folder,
            limit=_LONGEST_LINE,
        )
    )
    try:
        # A start that is cancelled halfway would kill the guard alone.
        process = await asyncio.shield(starting)
        assert process.stdout is not None
        await _read(process.stdout, log)
        return await process.wait()
    finally:
        process = await starting
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        await process.stdout.read()
        await process.wait()


async def _read(stream: asyncio.StreamReader, log: Callable[[str], None]) -> None:
    """Log each line; one that is too long is logged in pieces."""
    while True:
        try:
            line = await stream.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            line = error.partial
            if not line:
                return
        except asyncio.LimitOverrunError as error:
            line = await stream.read(error.consumed)
        log(line.decode("utf-8", "replace").rstrip("\r\n"))


def _moved(text: str, moved: Mapping[str, str]) -> str:
    """Return the text with the paths of volumes replaced, where they stand as whole path components."""
    for path, target in moved.items():
        text = re.sub(rf"(?<![\w./-]){re.escape(path)}(?![\w-]|\.\w)", target.replace("\\", r"\\"), text)
    return text


def _script(path: Path, content: str) -> None:
    path.write_text(content)
    path.chmod(0o755)


def _remove(folder: Path) -> None:
    """Delete a folder, also what is read-only in it."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(path.stat().st_mode | stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)
