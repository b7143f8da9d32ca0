"""`watcher run` as a process, and what it says."""

import json
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.acceptance.stage import Stage, unique
from tests.support.waiting import PATIENCE
from watcher.settings.settings import environment as inherited

Line = dict[str, Any]

running: "weakref.WeakSet[Watcher]" = weakref.WeakSet()
"""The daemons that have been started and not left, for the report of a test that fails."""


def environment(settings: dict[str, str], home: Path) -> dict[str, str]:
    """What a service is started with: its settings, a home, and nothing of ours."""
    return {"PATH": inherited()["PATH"], "HOME": str(home), "LANG": "C.UTF-8", **settings}


class Watcher:
    """One daemon. Where the block is left, it is gone, whatever state it was in."""

    def __init__(
        self,
        stage: Stage,
        instance: str | None = None,
        *,
        program: Sequence[str] = ("-m", "watcher"),
        **settings: str,
    ) -> None:
        """`program`: what Python is told to run, for a daemon that a check has changed."""
        self.instance = instance or unique("acceptance")
        self.spool = stage.folder / "spool" / self.instance
        own = {
            "WATCHER_INSTANCE": self.instance,
            "WATCHER_SPOOL": str(self.spool.parent),
            "WATCHER_LOG_FORMAT": "json",
        }
        self.lines: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, *program, "run"],
            env=environment({**stage.settings, **own, **settings}, stage.folder),
            cwd=stage.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name="watcher's stderr")
        self._reader.start()
        running.add(self)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def text(self) -> str:
        """All that it has said."""
        return "".join(self.lines)

    def said(self, event: str, **fields: Any) -> list[Line]:
        """The log lines of an event, in their order."""
        parsed = [json.loads(line) for line in self.lines if line.startswith("{")]
        wanted = {"event": event, **fields}.items()
        return [line for line in parsed if wanted <= line.items()]

    def wait_for(self, event: str, *, count: int = 1, within: float = PATIENCE, **fields: Any) -> Line:
        """Return the `count`th line of an event, once it is said."""
        deadline = time.monotonic() + within
        with self._news:
            while len(found := self.said(event, **fields)) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"It did not say {event} {fields} within {within} s, but:\n{self.text}"
                assert self._reader.is_alive() or self.process.poll() is None, f"It ended:\n{self.text}"
                self._news.wait(min(left, 0.2))
        return found[count - 1]

    def ready(self) -> Self:
        """Return it when it works and Realtime tells it everything."""
        self.wait_for("ready")
        self.wait_for("feed_alive")
        return self

    def peak(self) -> int:
        """The most memory that it has had, in bytes, with what it started; asks Linux."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        total = 0
        for process in (str(pid), *children):
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            [kilobytes] = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
            total += kilobytes * 1024
        return total

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """As when the machine loses its power."""
        self.process.kill()
        self.process.wait()

    def wait(self, within: float = PATIENCE) -> int:
        """Return the exit code."""
        return self.process.wait(within)

    def stop(self) -> None:
        """Ask it to stop, and see that it does so in good order."""
        self.send(signal.SIGTERM)
        assert self.wait() == 0, self.text

    def stop_now(self) -> None:
        """Ask it twice, so that it releases what it works on."""
        self.send(signal.SIGTERM)
        self.wait_for("stopping")
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            running.discard(self)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        if kind is not None:
            print(self.text)  # noqa: T201  (pytest shows it beside the failure)
