"""The daemons of a run: real processes that are killed, frozen, stopped and restarted."""

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from subprocess import TimeoutExpired

from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from tests.checks.chaos.agenda import Agenda
from tests.checks.chaos.notes import Notes

SETTINGS = {
    "WATCHER_LEASE": "2",
    "WATCHER_RENEWAL": "0.5",
    "WATCHER_POLL": "0.3",
    "WATCHER_POLL_ALIVE": "1.5",
    "WATCHER_PULSE": "3",
    "WATCHER_PULSE_ANSWER": "1",
    "WATCHER_GRACE": "4",
}
_GRACE = 4.0
_SLACK = 30.0
"""Seconds beyond its grace that a process may take on a busy machine, or after a trouble to end because of it."""
_TICK = 0.1


class Daemon:
    """One daemon and its restarts, as under a supervisor such as systemd."""

    def __init__(self, name: str, slots: int) -> None:
        self.instance = name
        self.name = name
        self.slots = slots
        self.process: Watcher | None = None
        self.frozen_at: float | None = None
        self.sigterm_at: float | None = None

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.process.poll() is None

    @property
    def able(self) -> bool:
        """Whether it can claim, according to its log and to what was done to it."""
        if self.process is None or not self.runs or self.frozen_at is not None or self.sigterm_at is not None:
            return False
        said = self.process.said
        return bool(
            said("ready")
            and len(said("outage")) == len(said("outage_over"))
            and len(said("unreachable")) == len(said("reachable"))
        )


class Daemons:
    """All daemons, and what was done to them."""

    def __init__(self, stage: Stage, slots: Sequence[int], notes: Notes, agenda: Agenda) -> None:
        self.kills: list[tuple[float, str]] = []
        """The monotonic time of each kill of a running daemon, and its instance."""
        self.freezes = 0
        self.trouble = 0
        """Number of present faults that a starting daemon may take for a configuration error."""
        self.trouble_until = 0.0
        self.logs: list[Watcher] = []
        self._stage = stage
        self._notes = notes
        self._agenda = agenda
        self._moves = 0
        self._all = [Daemon(f"d{number}", many) for number, many in enumerate(slots, 1)]
        for daemon in self._all:
            self._start(daemon)
        agenda.every(_TICK, self._look)

    def kill(self, number: int, *, again_after: float, moved: bool) -> None:
        """SIGKILL, and a restart some seconds later; under a new name if it `moved` to another host."""
        daemon = self._all[number % len(self._all)]
        if daemon.process is None or not daemon.runs:
            return
        daemon.process.send(signal.SIGKILL)
        killed = time.monotonic()
        daemon.process.wait()
        self.kills.append((killed, daemon.instance))
        self._notes.add(daemon.name, f"SIGKILL; restart after {again_after:.1f} s", killed)
        self._gone(daemon)
        if moved:
            self._moves += 1
            daemon.instance = f"{daemon.name}-moved-{self._moves}"
        self._agenda.later(again_after, lambda: self._start(daemon))

    def kill_all(self) -> None:
        """As in a power failure."""
        for number in range(len(self._all)):
            self.kill(number, again_after=0.2, moved=False)

    def freeze(self, number: int, *, seconds: float) -> None:
        """SIGSTOP, and SIGCONT some seconds later."""
        daemon = self._all[number % len(self._all)]
        process = daemon.process
        if process is None or not daemon.runs or daemon.frozen_at is not None:
            return
        process.send(signal.SIGSTOP)
        daemon.frozen_at = time.monotonic()
        self.freezes += 1
        self._notes.add(daemon.name, f"SIGSTOP for {seconds:.1f} s")

        def thaw() -> None:
            if daemon.process is process:
                self._thaw(daemon)

        self._agenda.later(seconds, thaw)

    def freeze_all(self, seconds: float) -> None:
        for number in range(len(self._all)):
            self.freeze(number, seconds=seconds)

    def stop(self, number: int, *, twice: bool, again_after: float) -> None:
        """SIGTERM; it must exit by itself, and is restarted some seconds later."""
        daemon = self._all[number % len(self._all)]
        process = daemon.process
        if (
            process is None
            or not daemon.runs
            or daemon.sigterm_at is not None
            or daemon.frozen_at is not None
        ):
            return
        if not process.said("ready") and not process.said("unreachable"):
            return  # it may not handle signals yet
        process.send(signal.SIGTERM)
        daemon.sigterm_at = time.monotonic()
        self._notes.add(daemon.name, "SIGTERM" + (", twice" if twice else ""))
        if twice:
            self._agenda.later(0.2, lambda: process.send(signal.SIGTERM))
        self._agenda.later(0, lambda: self._await_end(daemon, process, again_after))

    def heal(self) -> None:
        """Continue all frozen daemons."""
        for daemon in self._all:
            self._thaw(daemon)

    def all_ready(self) -> bool:
        """Whether every daemon runs and has logged `ready`."""
        return all(daemon.process is not None and daemon.process.said("ready") for daemon in self._all)

    def end(self) -> None:
        """Stop all with SIGTERM, and check that each exits with 0."""
        for daemon in self._all:
            if daemon.process is None or not daemon.process.said("ready"):
                self._notes.complain(f"{daemon.name} is not ready a minute after all faults were removed")
            else:
                daemon.process.send(signal.SIGTERM)
        for daemon in self._all:
            if daemon.process is None or not daemon.process.said("ready"):
                continue
            with suppress(TimeoutExpired):
                daemon.process.wait(_GRACE + _SLACK)
            if (code := daemon.process.process.poll()) != 0:
                self._notes.complain(f"{daemon.name} exited with {code} after SIGTERM at the end")

    def close(self) -> None:
        """End all processes."""
        for watcher in self.logs:
            with suppress(ProcessLookupError):
                watcher.send(signal.SIGCONT)
            watcher.__exit__(None, None, None)

    # The supervisor.

    def _start(self, daemon: Daemon) -> None:
        if daemon.runs:
            return
        if daemon.process is not None:
            self._gone(daemon)
        daemon.process = Watcher(
            self._stage,
            daemon.instance,
            **SETTINGS,
            WATCHER_SLOTS=str(daemon.slots),
            WATCHER_TRAINING_TOKEN=self._stage.token,
        )
        self.logs.append(daemon.process)
        self._notes.add(daemon.name, f"started as {daemon.instance}")

    def _look(self) -> None:
        """Record whether any daemon can claim, and restart those that ended by themselves."""
        now = time.monotonic()
        if self.trouble:
            self.trouble_until = now
        if not any(daemon.able for daemon in self._all):
            self._notes.hidden.append((now, now + _TICK))
        for daemon in self._all:
            if daemon.process is None or daemon.runs or daemon.sigterm_at is not None:
                continue
            code = daemon.process.process.poll()
            said = daemon.process.text.strip().splitlines()[-1:] or ["nothing"]
            self._notes.add(daemon.name, f"ended by itself with {code}: {said[0]}")
            if code != 78 or now - self.trouble_until > _SLACK:
                self._notes.complain(f"{daemon.name} ended by itself with {code}: {said[0]}")
            self._gone(daemon)
            # After a configuration error an operator corrects it and restarts the daemon by hand.
            self._agenda.later(0.5, partial(self._start, daemon))

    def _await_end(self, daemon: Daemon, process: Watcher, again_after: float) -> None:
        if daemon.process is not process or daemon.sigterm_at is None:
            return  # it was killed meanwhile
        code = process.process.poll()
        took = time.monotonic() - daemon.sigterm_at
        if code is None:
            if took > _GRACE + _SLACK and daemon.frozen_at is None:
                self._notes.complain(
                    f"{daemon.name} did not end within its grace; it still runs after {took:.1f} s"
                )
                self.kill(self._all.index(daemon), again_after=again_after, moved=False)
                return
            self._agenda.later(0.05, lambda: self._await_end(daemon, process, again_after))
            return
        self._notes.add(daemon.name, f"ended with {code} after {took:.1f} s")
        if code != 0:
            self._notes.complain(f"{daemon.name} exited with {code} after SIGTERM")
        self._gone(daemon)
        self._agenda.later(again_after, lambda: self._start(daemon))

    def _thaw(self, daemon: Daemon) -> None:
        if daemon.process is None or daemon.frozen_at is None:
            return
        daemon.process.send(signal.SIGCONT)
        self._notes.add(daemon.name, "SIGCONT")
        if daemon.sigterm_at is not None:
            # The grace does not count time spent frozen.
            daemon.sigterm_at += time.monotonic() - max(daemon.frozen_at, daemon.sigterm_at)
        daemon.frozen_at = None

    def _gone(self, daemon: Daemon) -> None:
        if daemon.process is not None:
            daemon.process.__exit__(None, None, None)
        daemon.process = None
        daemon.frozen_at = None
        daemon.sigterm_at = None
