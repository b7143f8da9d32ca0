"""The daemon and another program take turns in publishing the same row, and the sandbox times both in the same way.

From when the request of the claim came in to when the answer of the write-back was sent, including network delays.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from tests.acceptance.person import Person
from tests.acceptance.running import Watcher, environment
from tests.acceptance.stage import Stage
from tests.checks.figures.scene import Scene, scene, until
from watcher.sandbox.faults.traffic import Seen

_TIMEOUT = 300.0
_PUBLISHED = '"event": "published"'
_CATCH_UP = 0.5
"""Seconds for the daemon to process the events of the row that it did not get."""


class Other:
    """A program that publishes the next row for each line on its stdin, and then prints a line."""

    def __init__(self, stage: Stage, module: str) -> None:
        folder = stage.folder / "other"
        folder.mkdir()
        own = {"PYTHONPATH": ":".join(sys.path), "WATCHER_INSTANCE": "other", "WATCHER_SPOOL": str(folder)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(folder)],
            env=environment({**stage.settings, **own}, stage.folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._read_line()

    def publish(self) -> str:
        """Publish the next row; returns the line that the program prints."""
        self._stdin.write("\n")
        self._stdin.flush()
        return self._read_line()

    def _read_line(self) -> str:
        line = self._stdout.readline()
        if not line:
            raise RuntimeError("The other program ended; its errors are above.")
        return line.strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stdin.close()
        self._process.wait()
        self._stdout.close()


class Race:
    """Rows with the same photos, published by the daemon or the other program."""

    def __init__(self, here: Scene, paths: list[str], watcher: Watcher, other: Other) -> None:
        self.here = here
        self._paths = paths
        self._watcher = watcher
        self._other = other

    def pairs(self, count: int) -> tuple[list[float], list[float]]:
        """Seconds of `count` rows each, taking turns, after a warm-up row each."""
        pairs = [(self._ours(), self._theirs()[0]) for _ in range(count + 1)][1:]
        return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]

    def in_turn(self, count: int) -> list[tuple[float, str]]:
        """The daemon's seconds and the other's line, `count` times, after a warm-up row each."""
        return [(self._ours(), self._theirs()[1]) for _ in range(count + 1)][1:]

    def _ours(self) -> float:
        return published(self.here, self._watcher, self._paths)

    def _theirs(self) -> tuple[float, str]:
        """The other's seconds and line, while the daemon is stopped."""
        self._watcher.send(signal.SIGSTOP)
        try:
            self.here.person.insert("Ada", self._paths)
            self.here.sandbox.faults.reset()
            line = self._other.publish()
            return seconds_of_row(self.here), line
        finally:
            self._watcher.send(signal.SIGCONT)
            time.sleep(_CATCH_UP)


def seconds_of_row(here: Scene) -> float:
    """Seconds of the row that was published since the log was reset, from its claim on. Deletes all repos."""
    log = here.sandbox.faults.log()
    store = here.sandbox.hub.store
    for repo in store.repos("models"):
        store.delete(repo)  # so that the disk does not fill up
    reserve = _first(log, "/watcher_reserve")
    claims = [one for one in log if one.path.endswith("/watcher_claim")]
    claim = [one for one in claims if one.came_at < reserve.came_at][-1]
    complete = _first(log, "/watcher_complete")
    assert complete.done_at is not None
    return complete.done_at - claim.came_at


def published(here: Scene, watcher: Watcher, paths: list[str]) -> float:
    """Have the daemon publish a row, and return its seconds."""
    here.sandbox.faults.reset()
    before = len(watcher.lines)
    row = here.person.insert("Ada", paths)
    # Without parsing its log as JSON, which would slow down the sandbox in this process.
    until(lambda: any(_PUBLISHED in line for line in watcher.lines[before:]), _TIMEOUT)
    here.all_become([row], "published")
    return seconds_of_row(here)


def _first(log: list[Seen], path: str) -> Seen:
    return next(seen for seen in log if seen.path.endswith(path))


@contextmanager
def race(module: str, photos: Callable[[Person], list[str]]) -> Iterator[Race]:
    """Start everything; `module` is the other program, `photos` uploads the photos of all rows."""
    with scene() as here, Watcher(here.stage) as watcher, Other(here.stage, module) as other:
        paths = photos(here.person)
        watcher.ready()
        yield Race(here, paths, watcher, other)
