"""The daemon and the floor on one stage, each given the same row in turn, and timed by the sandbox.

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

from acceptance.person import Person
from acceptance.running import Watcher, environment
from acceptance.stage import Stage
from figures.scene import Scene, scene

from watcher.sandbox.faults.traffic import Seen

_LONGEST = 300.0
_AWAKE = 0.5
"""Seconds for the daemon to hear of the row that was not for it."""


class Floor:
    """The floor as a process, waiting for its row."""

    def __init__(self, stage: Stage) -> None:
        folder = stage.folder / "floor"
        folder.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.floor", str(folder)],
            env=environment({**stage.settings, "PYTHONPATH": ":".join(sys.path)}, stage.folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._ear, self._mouth = self._process.stdin, self._process.stdout
        self._hear("ready")

    @property
    def pid(self) -> int:
        return self._process.pid

    def go(self) -> None:
        """Publish the row that is next."""
        self._ear.write("\n")
        self._ear.flush()
        self._hear("published")

    def _hear(self, word: str) -> None:
        line = self._mouth.readline().strip()
        if line != word:
            raise RuntimeError(f"The floor said {line!r} in place of {word!r}.")

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

    def __init__(self, here: Scene, paths: list[str], floor: Floor, watcher: Watcher) -> None:
        self.here = here
        self._paths = paths
        self._floor = floor
        self._watcher = watcher

    def pairs(self, count: int) -> tuple[list[float], list[float]]:
        """Seconds of so many races each, in turn, after one that does not count."""
        self._ours(), self._floors()
        pairs = [(self._ours(), self._floors()) for _ in range(count)]
        return [ours for ours, _ in pairs], [floors for _, floors in pairs]

    def _ours(self) -> float:
        """Seconds that the daemon takes."""
        self.here.sandbox.faults.reset()
        [row] = [self.here.person.insert("Ada", self._paths)]
        published = len(self._watcher.said("published"))
        self._watcher.wait_for("published", count=published + 1, within=_LONGEST)
        self.here.all_become([row], "published")
        return self._seconds()

    def _floors(self) -> float:
        """Seconds that the floor takes, with the daemon asleep."""
        self._watcher.send(signal.SIGSTOP)
        try:
            self.here.person.insert("Ada", self._paths)
            self.here.sandbox.faults.reset()
            self._floor.go()
            return self._seconds()
        finally:
            self._watcher.send(signal.SIGCONT)
            time.sleep(_AWAKE)

    def _seconds(self) -> float:
        log = self.here.sandbox.faults.log()
        self._clear()
        reserve = _first(log, "/watcher_reserve")
        claim = [
            seen for seen in log if seen.path.endswith("/watcher_claim") and seen.came_at < reserve.came_at
        ][-1]
        complete = _first(log, "/watcher_complete")
        assert complete.done_at is not None
        return complete.done_at - claim.came_at

    def _clear(self) -> None:
        """Keep the disk from filling, and every race like the one before."""
        store = self.here.sandbox.hub.store
        for repo in store.repos("models"):
            store.delete(repo)


def _first(log: list[Seen], path: str) -> Seen:
    return next(seen for seen in log if seen.path.endswith(path))


@contextmanager
def race(photos: Callable[[Person], list[str]]) -> Iterator[Race]:
    """Set the stage; `photos` uploads what all rows name."""
    with scene() as here, Watcher(here.stage) as watcher, Floor(here.stage) as floor:
        paths = photos(here.person)
        watcher.ready()
        yield Race(here, paths, floor, watcher)
