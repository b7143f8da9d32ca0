"""The daemons of a run: real processes that are killed, frozen, stopped and started again."""

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
    """A place where a daemon runs, under a supervisor as systemd is one."""

    def __init__(self, name: str, slots: int) -> None:
        self.instance = name
        self.name = name
        self.slots = slots
        self.process: Watcher | None = None
        self.frozen_at: float | None = None
        self.told_at: float | None = None

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.process.poll() is None

    @property
    def able(self) -> bool:
        """Whether it can claim as far as its log and our harm to it say."""
        if self.process is None or not self.runs or self.frozen_at is not None or self.told_at is not None:
            return False
        said = self.process.said
        return bool(
            said("ready")
            and len(said("outage")) == len(said("outage_over"))
            and len(said("unreachable")) == len(said("reachable"))
        )


class Daemons:
    """All of them, and what was done to them."""

    def __init__(self, stage: Stage, slots: Sequence[int], notes: Notes, agenda: Agenda) -> None:
        self.kills: list[tuple[float, str]] = []
        """When a daemon that worked was killed, monotonic, and its instance."""
        self.freezes = 0
        self.trouble = 0
        """How many harms are under way for which a daemon that starts may say: set up wrongly."""
        self.troubled_until = 0.0
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
        """SIGKILL, and a start some seconds later, under a new name if it `moved` to another host."""
        daemon = self._all[number % len(self._all)]
        if daemon.process is None or not daemon.runs:
            return
        daemon.process.send(signal.SIGKILL)
        killed = time.monotonic()
        daemon.process.wait()
        self.kills.append((killed, daemon.instance))
        self._notes.add(daemon.name, f"SIGKILL; again after {again_after:.1f} s", killed)
        self._gone(daemon)
        if moved:
            self._moves += 1
            daemon.instance = f"{daemon.name}-moved-{self._moves}"
        self._agenda.later(again_after, lambda: self._start(daemon))

    def kill_all(self) -> None:
        """As when the power fails."""
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
        """SIGTERM; it must end by itself, and is started some seconds later."""
        daemon = self._all[number % len(self._all)]
        process = daemon.process
        if process is None or not daemon.runs or daemon.told_at is not None or daemon.frozen_at is not None:
            return
        if not process.said("ready") and not process.said("unreachable"):
            return  # it may not have come so far as to hear it
        process.send(signal.SIGTERM)
        daemon.told_at = time.monotonic()
        self._notes.add(daemon.name, "SIGTERM" + (", twice" if twice else ""))
        if twice:
            self._agenda.later(0.2, lambda: process.send(signal.SIGTERM))
        self._agenda.later(0, lambda: self._await_end(daemon, process, again_after))

    def heal(self) -> None:
        """Let everybody work again."""
        for daemon in self._all:
            self._thaw(daemon)

    def all_ready(self) -> bool:
        """Whether every daemon runs and has said that it works."""
        return all(daemon.process is not None and daemon.process.said("ready") for daemon in self._all)

    def end(self) -> None:
        """Stop them all in good order."""
        for daemon in self._all:
            if daemon.process is None or not daemon.process.said("ready"):
                self._notes.complain(f"{daemon.name} is not ready a minute after everything was healed")
            else:
                daemon.process.send(signal.SIGTERM)
        for daemon in self._all:
            if daemon.process is None or not daemon.process.said("ready"):
                continue
            with suppress(TimeoutExpired):
                daemon.process.wait(_GRACE + _SLACK)
            if (code := daemon.process.process.poll()) != 0:
                self._notes.complain(f"{daemon.name}, told to stop at the end, answered {code}")

    def close(self) -> None:
        """Leave nothing running, whatever happened."""
        for watcher in self.logs:
            with suppress(ProcessLookupError):
                watcher.send(signal.SIGCONT)
            watcher.__exit__(None, None, None)

    # What a supervisor does.

    def _start(self, daemon: Daemon) -> None:
        if daemon.runs:
            return
        if daemon.process is not None:
            self._gone(daemon)
        daemon.process = Watcher(self._stage, daemon.instance, **SETTINGS, WATCHER_SLOTS=str(daemon.slots))
        self.logs.append(daemon.process)
        self._notes.add(daemon.name, f"started as {daemon.instance}")

    def _look(self) -> None:
        """Note whether anybody can claim, and start again what ended by itself."""
        now = time.monotonic()
        if self.trouble:
            self.troubled_until = now
        if not any(daemon.able for daemon in self._all):
            self._notes.hidden.append((now, now + _TICK))
        for daemon in self._all:
            if daemon.process is None or daemon.runs or daemon.told_at is not None:
                continue
            code = daemon.process.process.poll()
            said = daemon.process.text.strip().splitlines()[-1:] or ["nothing"]
            self._notes.add(daemon.name, f"ended by itself with {code}, saying {said[0]}")
            if code != 78 or now - self.troubled_until > _SLACK:
                self._notes.complain(f"{daemon.name} ended by itself with {code}, saying {said[0]}")
            self._gone(daemon)
            # An operator who is told that something is set up wrongly mends it, and starts it by hand.
            self._agenda.later(0.5, partial(self._start, daemon))

    def _await_end(self, daemon: Daemon, process: Watcher, again_after: float) -> None:
        if daemon.process is not process or daemon.told_at is None:
            return  # it was killed meanwhile
        code = process.process.poll()
        took = time.monotonic() - daemon.told_at
        if code is None:
            if took > _GRACE + _SLACK and daemon.frozen_at is None:
                self._notes.complain(
                    f"{daemon.name} did not end within its grace, but still runs after {took:.1f} s"
                )
                self.kill(self._all.index(daemon), again_after=again_after, moved=False)
                return
            self._agenda.later(0.05, lambda: self._await_end(daemon, process, again_after))
            return
        self._notes.add(daemon.name, f"ended with {code} after {took:.1f} s")
        if code != 0:
            self._notes.complain(f"{daemon.name}, told to stop, ended with {code}")
        self._gone(daemon)
        self._agenda.later(again_after, lambda: self._start(daemon))

    def _thaw(self, daemon: Daemon) -> None:
        if daemon.process is None or daemon.frozen_at is None:
            return
        daemon.process.send(signal.SIGCONT)
        self._notes.add(daemon.name, "SIGCONT")
        if daemon.told_at is not None:
            # Its grace does not run while it is frozen.
            daemon.told_at += time.monotonic() - max(daemon.frozen_at, daemon.told_at)
        daemon.frozen_at = None

    def _gone(self, daemon: Daemon) -> None:
        if daemon.process is not None:
            daemon.process.__exit__(None, None, None)
        daemon.process = None
        daemon.frozen_at = None
        daemon.told_at = None
