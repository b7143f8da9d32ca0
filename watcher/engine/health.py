"""Liveness and readiness of the daemon, for systemd and for health probes, and its status line for people.

Heartbeats come only from the daemon's main flow (startup, claim loop), never from background tasks: systemd restarts a
daemon whose claim loop hangs, even if everything else in it still runs. Sends messages to systemd, and nothing else.
"""

import asyncio
from collections.abc import Mapping, Sequence

from watcher.engine.outages import Outages
from watcher.process.log import redact
from watcher.process.sd_notify import ServiceManager

_LONGEST_REQUEST = 30.0
_READY_WITHIN = 30.0
"""Seconds. Other units of the host may be ordered after this one, and an outage must not delay them any longer."""


class Health:
    """The daemon's state: its phase, its heartbeats and the last response of Supabase."""

    def __init__(
        self,
        manager: ServiceManager,
        outages: Outages,
        *,
        answer_within: float,
        ready_within: float = _READY_WITHIN,
    ) -> None:
        """`answer_within`: seconds since Supabase's last response after which the daemon no longer counts as ready.

        `ready_within`: seconds after which systemd is told that the start is done, even if the services do not respond.
        """
        self._manager = manager
        self._outages = outages
        self._answer_within = answer_within
        self.request = min(_LONGEST_REQUEST, (manager.watchdog or 2 * _LONGEST_REQUEST) / 2)
        """Time-out in seconds of one request of the claim loop: short enough for the watchdog."""
        self.heartbeat_every = self.request / 3
        """Seconds between two heartbeats while the claim loop sleeps."""
        self._phase = "starting"
        self._last_heartbeat = self._last_watchdog = asyncio.get_running_loop().time()
        self._ready_at = self._last_heartbeat + ready_within
        self._reported_ready = False
        self._last_answer = 0.0
        self._status = ""
        self.running = 0
        self.busy: Mapping[str, int] = {}
        """Of those that run, how many are of each kind of work."""
        self.feed_alive = False
        self.paused: Sequence[str] = ()
        """The kinds of work that the operator has paused."""

    def heartbeat(self) -> None:
        """Note that the daemon's main flow is alive, and reset systemd's watchdog. Called only from there."""
        self._last_heartbeat = asyncio.get_running_loop().time()
        if self._phase == "starting" and self._last_heartbeat >= self._ready_at:
            self._report_ready()
        # Not while stopping: systemd has disabled the watchdog, and WATCHDOG=1 would start it again.
        since = self._last_heartbeat - self._last_watchdog
        if self._phase != "stopping" and self._reported_ready and since >= self.heartbeat_every / 2:
            self._last_watchdog = self._last_heartbeat
            self._manager.notify("WATCHDOG=1")
        self.show()

    def answered(self, at: float) -> None:
        """Note that Supabase responded at this loop time."""
        self._last_answer = max(self._last_answer, at)

    def started(self) -> None:
        """Report the daemon as ready: its settings, schema, key and token are valid."""
        self._phase = "running"
        self.answered(asyncio.get_running_loop().time())
        self._report_ready()
        self.show()

    def _report_ready(self) -> None:
        """Tell systemd, once, that the start is done; from now on it expects heartbeats."""
        if not self._reported_ready:
            self._reported_ready = True
            self._last_watchdog = asyncio.get_running_loop().time()
            self._manager.notify("READY=1", "WATCHDOG=1")

    def stopping(self, within: float) -> None:
        """Report that the daemon exits within so many seconds; this extends systemd's own stop time-out."""
        self._phase = "stopping"
        self._manager.notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(within * 1e6)}")
        self.show()

    def why_dead(self) -> str | None:
        """Why /healthz fails; None while the claim loop runs."""
        silent = asyncio.get_running_loop().time() - self._last_heartbeat
        if self._phase != "stopping" and silent > 3 * self.request:
            return f"The claim loop has hung for {silent:.0f} s."
        return None

    def why_not_ready(self) -> str | None:
        """Why no row can be claimed now; None if one can."""
        if self._phase == "stopping":
            return "The daemon is stopping."
        if self._outages.reason is not None:
            return redact(self._outages.reason)
        if self._phase == "starting":
            return "The daemon is starting: no response from Supabase and the Hub yet."
        silent = asyncio.get_running_loop().time() - self._last_answer
        if silent > self._answer_within:
            return f"Supabase has not responded for {silent:.0f} s."
        return self.why_dead()

    def show(self) -> None:
        """Send the status line to systemd if it has changed."""
        status = redact(self._line())
        if status != self._status:
            self._status = status
            self._manager.status(status)

    def _line(self) -> str:
        rows = f"{self.running} row{'' if self.running == 1 else 's'}"
        if self._phase == "stopping":
            return f"Stopping: {rows} to finish or release."
        if self._phase == "starting":
            return f"Starting: {self._outages.reason or 'connecting to Supabase and the Hub.'}"
        doing = f"Working on {rows}." if self.running else "Waiting for rows."
        if self.paused:
            doing += f" Paused by the operator: {', '.join(self.paused)}."
        if self._outages.reason is not None:
            return f"Outage: {self._outages.reason} {doing if self.running else ''}"
        return doing if self.feed_alive else f"{doing} Realtime is down: polling every few seconds."
