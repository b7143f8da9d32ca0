"""Runs `watcher` many times quickly: one process imports it, and each run is a fork of that one.

As a program it reads runs as JSON from stdin, and writes how each ended. A run that hangs is killed, and says so.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE
from watcher.settings.settings import environment

HUNG = -1
"""The code of a run that was killed after its time."""


@dataclass
class Run:
    """One run of the command."""

    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    before: list[str] = field(default_factory=list)
    """What is done to the process first; see `_BEFORE`."""


@dataclass
class Ended:
    """How a run ended."""

    code: int
    output: str
    errors: str


def run_all(runs: Mapping[str, Run], home: Path) -> dict[str, Ended]:
    """Make the runs, with nothing in their environment but what each has and a home."""
    base = {"PATH": environment()["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.forking"],
        input=json.dumps({name: asdict(run) for name, run in runs.items()}),
        env=base,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {name: Ended(**ended) for name, ended in json.loads(done.stdout).items()}


def _full() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)


def _broken_pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def _no_folder() -> None:
    gone = Path.cwd() / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()


_BEFORE: dict[str, Callable[[], None]] = {
    "output is full": _full,
    "output is closed": lambda: os.close(1),
    "errors are closed": lambda: os.close(2),
    "input is closed": lambda: os.close(0),
    "the reader is gone": _broken_pipe,
    "only ASCII": lambda: None,
    "the folder is gone": _no_folder,
}


def _stream(number: int, mode: str, encoding: str) -> Any:
    """A standard stream as Python opens it at its start: none where the file is closed."""
    try:
        return open(number, mode, encoding=encoding, closefd=False)
    except OSError:
        return None


def _child(run: Run, pipes: tuple[int, int]) -> None:
    os.setsid()  # so that what it starts can be killed with it
    os.environ.clear()  # noqa: TID251  (a program's own, as if it had been started with it)
    os.environ.update(run.environment)  # noqa: TID251  (as above)
    os.chdir(run.folder)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in zip((null, *pipes), range(3), strict=True):
        os.dup2(source, target)
    os.closerange(3, 64)
    for name in run.before:
        _BEFORE[name]()
    encoding = "ascii" if "only ASCII" in run.before else "utf-8"
    sys.stdin, sys.stdout, sys.stderr = (
        _stream(0, "r", encoding),
        _stream(1, "w", encoding),
        _stream(2, "w", encoding),
    )
    sys.argv = ["watcher", *run.arguments]
    from watcher.__main__ import main

    main()


def _run(run: Run) -> Ended:
    out, err = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _child(run, (out[1], err[1]))
        except BaseException:  # noqa: BLE001  (as at the end of any program)
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(1)
    for _, writer in (out, err):
        os.close(writer)
    texts = {out[0]: b"", err[0]: b""}
    hung = False
    deadline = time.monotonic() + PATIENCE
    try:
        with selectors.DefaultSelector() as selector:
            for pipe in texts:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map() and not hung:
                for key, _ in selector.select(1):
                    part = os.read(key.fd, 65536)
                    texts[key.fd] += part
                    if not part:
                        selector.unregister(key.fd)
                hung = time.monotonic() > deadline and bool(selector.get_map())
        if hung:
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    for pipe in texts:
        os.close(pipe)
    output, errors = (text.decode(errors="replace") for text in texts.values())
    return Ended(HUNG if hung else os.waitstatus_to_exitcode(status), output, errors)


def _main() -> None:
    # What the commands import when they run.
    import watcher.app
    import watcher.demo.play
    import watcher.migrate
    import watcher.operator.doctor.report
    import watcher.operator.erasing_screens
    import watcher.operator.screens
    import watcher.process.event_loop
    import watcher.sandbox  # noqa: F401  (so that no fork has to)

    runs: dict[str, Any] = json.load(sys.stdin)
    base = environment()
    ended = {}
    for name, of_run in runs.items():
        run = Run(**of_run)
        run.environment = base | run.environment
        ended[name] = asdict(_run(run))
    json.dump(ended, sys.stdout)


if __name__ == "__main__":
    _main()
