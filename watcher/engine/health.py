"""Whether the daemon lives, and whether it could claim a row now: for systemd, for probes, and in one line for a person.

It is the claim loop that says that it lives, each time it turns, and nothing else does: systemd restarts a daemon
whose loop hangs, however lively the rest of it is.
"""

import asyncio

from watcher.engine.outages import Outages
from watcher.process.log import redact
from watcher.process.sd_notify import ServiceManager

_LONGEST_REQUEST = 30.0
_STATUS_LENGTH = 200


class Health:
    """What is known of the daemon's state."""

    def __init__(self, manager: ServiceManager, outages: Outages, *, answer_within: float) -> None:
        """`answer_within`: seconds since Supabase's last answer after which no row could be claimed, as far as we know."""
        self._manager = manager
        self._outages = outages
        self._answer_within = answer_within
        self.request = min(_LONGEST_REQUEST, (manager.watchdog or 2 * _LONGEST_REQUEST) / 2)
        """Seconds that one request of the claim loop may take, so that a slow one does not stop the watchdog."""
        self.heartbeat_every = self.request / 3
        """Seconds between two heartbeats of a claim loop that has nothing to do."""
        self._phase = "starting"
        self._heard = self._beaten = asyncio.get_running_loop().time()
        self._answered = 0.0
        self._status = ""
        self.running = 0
        self.feed_alive = False

    def heartbeat(self) -> None:
        """Note that the claim loop is alive. Called by the claim loop alone."""
        self._heard = asyncio.get_running_loop().time()
        # Not while stopping: systemd has put the watchdog away, and a beat would set it going again.
        if self._phase == "running" and self._heard - self._beaten >= self.heartbeat_every / 2:
            self._beaten = self._heard
            self._manager.notify("WATCHDOG=1")
        self.show()

    def answered(self, at: float) -> None:
        """Note that Supabase has answered at this loop time."""
        self._answered = max(self._answered, at)

    def started(self) -> None:
        """Settings, schema, key and token are good."""
        self._phase = "running"
        self._beaten = asyncio.get_running_loop().time()
        self.answered(self._beaten)
        self._manager.notify("READY=1", "WATCHDOG=1")
        self.show()

    def stopping(self, within: float) -> None:
        """Say that it ends `within` seconds, whatever time systemd would have given it."""
        self._phase = "stopping"
        self._manager.notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(within * 1e6)}")
        self.show()

    def why_dead(self) -> str | None:
        """Why /healthz should say no; None while the daemon lives."""
        silent = asyncio.get_running_loop().time() - self._heard
        if self._phase != "stopping" and silent > 3 * self.request:
            return f"The claim loop has hung for {silent:.0f} s."
        return None

    def why_not_ready(self) -> str | None:
        """Why no row could be claimed now; None while one could."""
        if self._phase == "stopping":
            return "It is stopping."
        if self._outages.reason is not None:
            return redact(self._outages.reason)
        if self._phase == "starting":
            return "It has not heard from Supabase and the Hub yet."
        silent = asyncio.get_running_loop().time() - self._answered
        if silent > self._answer_within:
            return f"Supabase has not answered for {silent:.0f} s."
        return self.why_dead()

    def show(self) -> None:
        """Tell systemd the one line, if it has changed."""
        status = " ".join(redact(self._line()).split())[:_STATUS_LENGTH]
        if status != self._status:
            self._status = status
            self._manager.notify(f"STATUS={status}")

    def _line(self) -> str:
        rows = f"{self.running} row{'' if self.running == 1 else 's'}"
        if self._phase == "stopping":
            return f"Stopping: {rows} to finish or to release."
        if self._phase == "starting":
            return f"Waiting to start: {self._outages.reason or 'asking Supabase and the Hub.'}"
        doing = f"Working on {rows}." if self.running else "Waiting for rows."
        if self._outages.reason is not None:
            return f"Outage: {self._outages.reason} {doing if self.running else ''}"
        return doing if self.feed_alive else f"{doing} Realtime is down: polling every few seconds."
