"""The daemon and another program on one stage, each given the same row in turn, and timed by the sandbox.

Both are timed from outside and alike: from when the claim's request came in to when the last of the write-back's answer
went out, with the delays of the way in between.
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

_LONGEST = 300.0
_PUBLISHED = '"event": "published"'
_AWAKE = 0.5
"""Seconds for the daemon to hear of the row that was not for it."""


class Other:
    """A program that publishes a row for each line it is told, and answers with a line."""

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
        self._ear, self._mouth = self._process.stdin, self._process.stdout
        self._hear()

    def go(self) -> str:
        """Publish the row that is next."""
        self._ear.write("\n")
        self._ear.flush()
        return self._hear()

    def _hear(self) -> str:
        line = self._mouth.readline()
        if not line:
            raise RuntimeError("The other program ended; what it said is above.")
        return line.strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ear.close()
        self._process.wait()
        self._mouth.close()


class Race:
    """Rows of the same photos, published by the one or the other."""

    def __init__(self, here: Scene, paths: list[str], watcher: Watcher, other: Other) -> None:
        self.here = here
        self._paths = paths
        self._watcher = watcher
        self._other = other

    def pairs(self, count: int) -> tuple[list[float], list[float]]:
        """Seconds of so many races each, in turn, after one that does not count."""
        pairs = [(self._ours(), self._theirs()[0]) for _ in range(count + 1)][1:]
        return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]

    def in_turn(self, count: int) -> list[tuple[float, str]]:
        """Our seconds and what the other said, so many times, after one that does not count."""
        return [(self._ours(), self._theirs()[1]) for _ in range(count + 1)][1:]

    def _ours(self) -> float:
        self.here.sandbox.faults.reset()
        heard = len(self._watcher.lines)
        row = self.here.person.insert("Ada", self._paths)
        # Without reading its lines as JSON: the sandbox runs in this process, and would have to wait.
        until(lambda: any(_PUBLISHED in line for line in self._watcher.lines[heard:]), _LONGEST)
        self.here.all_become([row], "published")
        return self._seconds()

    def _theirs(self) -> tuple[float, str]:
        """The other's seconds and words, with the daemon asleep."""
        self._watcher.send(signal.SIGSTOP)
        try:
            self.here.person.insert("Ada", self._paths)
            self.here.sandbox.faults.reset()
            said = self._other.go()
            return self._seconds(), said
        finally:
            self._watcher.send(signal.SIGCONT)
            time.sleep(_AWAKE)

    def _seconds(self) -> float:
        log = self.here.sandbox.faults.log()
        store = self.here.sandbox.hub.store
        for repo in store.repos("models"):
            store.delete(repo)  # or the disk would fill
        reserve = _first(log, "/watcher_reserve")
        claims = [one for one in log if one.path.endswith("/watcher_claim")]
        claim = [one for one in claims if one.came_at < reserve.came_at][-1]
        complete = _first(log, "/watcher_complete")
        assert complete.done_at is not None
        return complete.done_at - claim.came_at


def _first(log: list[Seen], path: str) -> Seen:
    return next(seen for seen in log if seen.path.endswith(path))


@contextmanager
def race(module: str, photos: Callable[[Person], list[str]]) -> Iterator[Race]:
    """Set the stage; `module` is the other program, `photos` uploads what all rows name."""
    with scene() as here, Watcher(here.stage) as watcher, Other(here.stage, module) as other:
        paths = photos(here.person)
        watcher.ready()
        yield Race(here, paths, watcher, other)
