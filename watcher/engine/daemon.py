"""The daemon: claims due work while slots are free, sleeps until woken, and shuts down gracefully."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from uuid import uuid4

import structlog

from watcher import __version__
from watcher.engine.attempt import Attempts
from watcher.engine.health import Health
from watcher.engine.lease import Leases
from watcher.engine.outages import Outages, Probe, Refusal
from watcher.engine.retry import within
from watcher.engine.room import Room, find_room
from watcher.engine.shared_name import SharedName
from watcher.engine.slots import Slots
from watcher.engine.startup import reach_services
from watcher.errors import LeaseLost, Misconfigured, Outage, Transient
from watcher.identity import Claim
from watcher.process.metrics import STAGES
from watcher.settings.settings import Settings
from watcher.supabase.answers import Claims
from watcher.supabase.realtime import Feed
from watcher.supabase.verbs import Verbs

log = structlog.get_logger(__name__)

# Seconds of the grace period that are reserved for releasing rows.
_RELEASE_TIME = 5.0
_REPORT_EVERY = 10.0  # seconds between two reports of an outage; after 30 s this daemon would count as gone


class Daemon:
    """Claims work and carries it out, as many claims at a time as there are slots, until it is stopped."""

    def __init__(
        self,
        *,
        settings: Settings,
        verbs: Verbs,
        leases: Leases,
        attempts: Attempts,
        outages: Outages,
        health: Health,
        slots: Mapping[str, int],
        machine: str,
        startup_check: Callable[[], Awaitable[object]],
        probe: Probe,
    ) -> None:
        """`slots`: claims of each kind at the same time; `machine`: the name of this one.

        `startup_check` and `probe` raise Misconfigured, Outage or Transient while no work can be done.
        """
        self._settings = settings
        self._verbs = verbs
        self._leases = leases
        self._attempts = attempts
        self._outages = outages
        self._health = health
        self._startup_check = startup_check
        self._probe = probe
        self._run = str(uuid4())
        self._first_claim_at = math.inf
        self._reported_at = -math.inf
        fair = [kind for kind in slots if attempts.works[kind].announced]
        self._slots = Slots(slots, on_end=self._on_slot_free, with_extra=fair)
        self._machine = machine
        self._name = SharedName(settings.instance)
        self._wakeup = asyncio.Event()
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._feed = Feed(
            url=settings.supabase_url,
            key=settings.supabase_key.get_secret_value(),
            verbs=verbs,
            pulse=settings.pulse,
            pulse_answer=settings.pulse_answer,
            wake=self._wakeup.set,
        )

    def stop(self) -> None:
        """Stop claiming and let running work finish within the grace period; on the second call, release it now."""
        if self._stop.is_set():
            self._stop_now.set()
        else:
            self._health.stopping(self._settings.grace + _RELEASE_TIME)
        self._stop.set()
        self._wakeup.set()

    async def run(self) -> None:
        """Run until stopped. By then every row is finished or released, within the grace period.

        Raises Misconfigured if the startup check finds an unusable key, token or schema.
        """
        reaching = reach_services(
            self._startup_check, outages=self._outages, health=self._health, sleep=self._sleep
        )
        await self._wait_or_stop(asyncio.create_task(reaching), then_cancel=True)
        if not self._stop.is_set():
            log.info("ready", version=__version__, slots=self._settings.slots)
            self._health.started()
        main = asyncio.create_task(self._claim_and_drain())
        background = [
            asyncio.create_task(self._leases.renew_forever()),
            asyncio.create_task(self._feed.run_forever()),
        ]
        try:
            # The background tasks never end; if a bug ends one, a restart is better than running without it.
            ended, _ = await asyncio.wait([main, *background], return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            # Running work has had its grace period, unless a bug ended a task before.
            remaining = [main, *background, *(() if self._stop.is_set() else self._slots.running)]
            for task in remaining:
                task.cancel()
            await asyncio.wait(remaining, timeout=_RELEASE_TIME)

    async def _claim_and_drain(self) -> None:
        claiming = asyncio.create_task(self._claim_loop())
        try:
            await self._wait_or_stop(claiming)
            await self._drain(claiming)
        finally:
            claiming.cancel()

    async def _wait_or_stop(self, task: asyncio.Task[None], *, then_cancel: bool = False) -> None:
        """Wait until the task ends or the daemon is stopped: a request that hangs must not delay a stop."""
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if then_cancel:
                task.cancel()
        if task.done():
            task.result()

    async def _claim_loop(self) -> None:
        while not self._stop.is_set():
            self._wakeup.clear()
            self._heartbeat()
            await self._sleep(await self._claim_due())

    async def _sleep(self, seconds: float) -> None:
        """Sleep so many seconds or until woken, sending heartbeats."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self._wakeup.is_set() and (remaining := until - loop.time()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wakeup.wait(), min(remaining, self._health.heartbeat_every))
            self._heartbeat()

    def _heartbeat(self) -> None:
        self._health.answered(self._leases.answered_at)
        self._health.feed_alive = self._feed.alive
        self._health.heartbeat()

    async def _claim_due(self) -> float:
        """Claim due work for the free slots; return the seconds until the next claim."""
        room = await find_room(self._slots, self._outages, self._may_be_over)
        if not room.slots or self._stop.is_set():
            await self._report_outage()
            return min(self._settings.poll, room.wait)
        claimed = await self._claim(room)
        if claimed is None:
            return self._settings.poll
        if claimed.name_taken is not None:
            return self._name.seconds_until_free(claimed.name_taken)
        self._name.free()
        self._health.paused = claimed.paused
        if not claimed.claims and not self._slots.running:
            for refusal in room.tested:
                if not refusal.wait:
                    self._end_outage(refusal)  # the probes succeeded, and there is no row to test it with
        # Slightly after the next work falls due, so that the claim finds it due.
        due = math.inf if claimed.next_due is None else max(claimed.next_due, 0.0) + 0.05
        return min(self._poll(), room.wait, due)

    async def _report_outage(self) -> None:
        """Let the others know why this daemon claims nothing; else they would take it for gone."""
        now = asyncio.get_running_loop().time()
        if self._outages.reason and not self._stop.is_set() and now >= self._reported_at + _REPORT_EVERY:
            self._reported_at = now
            with suppress(Outage, Transient):
                await within(self._health.request, self._request(Room({}, [], [], 0), now), of="Supabase")

    async def _may_be_over(self, refusal: Refusal) -> bool:
        if not await self._succeeds(self._probe, refusal):
            return False
        return refusal.probe is None or await self._succeeds(refusal.probe, refusal) or refusal.veto()

    async def _succeeds(self, probe: Probe, refusal: Refusal) -> bool:
        try:
            await within(self._health.request, probe(), of="Supabase or the Hub")
        except (Misconfigured, Outage, Transient) as error:
            # Also Misconfigured: it was configured correctly at startup, and may be again.
            self._outages.begin_refusal(str(error), kind=refusal.kind)
            return False
        self._heartbeat()
        return True

    def _poll(self) -> float:
        return self._settings.poll_alive if self._feed.alive else self._settings.poll

    async def _claim(self, room: Room) -> Claims | None:
        """Claim work and start it; return None if nothing can be started, because of an outage or a stop."""
        requested_at = asyncio.get_running_loop().time()
        claimed = await self._request_claims(room, requested_at)
        if claimed is None:
            return None
        if self._stop.is_set():
            # The daemon was stopped during the request.
            await asyncio.gather(*(self._attempts.release(claim) for claim in claimed.claims))
            return None
        for claim in claimed.claims:
            self._start(claim, requested_at)
        self._show_running()
        return claimed

    async def _request_claims(self, room: Room, requested_at: float) -> Claims | None:
        # A predecessor's row that is locked now, or is only handed out alone, comes with a later claim. Once a lease
        # duration has passed, all of the predecessor's leases have expired.
        self._first_claim_at = min(self._first_claim_at, requested_at)
        try:
            claimed = await within(self._health.request, self._request(room, requested_at), of="Supabase")
        except Outage as error:
            self._outages.mark_reachable()
            self._outages.begin_refusal(str(error))
            return None
        except Transient as error:
            self._outages.mark_unreachable(str(error))
            return None
        self._outages.mark_reachable()
        self._health.answered(asyncio.get_running_loop().time())
        return claimed

    def _request(self, room: Room, now: float) -> Awaitable[Claims]:
        return self._verbs.claim(
            instance=self._settings.instance,
            run=self._run,
            slots=room.slots,
            extra=room.extra,
            lease=self._settings.lease,
            holding=self._slots.held,
            predecessor_is_dead=now < self._first_claim_at + self._settings.lease,
            machine=self._machine,
            outages=self._outages.reasons,
        )

    def _start(self, claim: Claim, requested_at: float) -> None:
        if claim.never_tried and self._attempts.works[claim.kind].announced:
            STAGES.labels("wait").observe(claim.age)
            self._feed.check_announced(claim.identity_id, age=claim.age)
        tested = [refusal for refusal in self._outages.of(claim.kind) if refusal.is_tried_by(claim.kind)]
        self._slots.run(claim, self._carry(claim, requested_at, tested))

    def _on_slot_free(self) -> None:
        self._show_running()
        # More may be due than there was a slot for, or the ended work may have left some: of a failed row, its repo.
        self._wakeup.set()

    def _show_running(self) -> None:
        self._health.running, self._health.busy = len(self._slots.running), self._slots.busy
        self._health.show()

    async def _carry(self, claim: Claim, requested_at: float, tested: Iterable[Refusal]) -> None:
        """Carry out one claim; its success ends the outages that it tests: another end may precede what is refused."""
        try:
            if await self._attempts.carry(claim, requested_at=requested_at):
                for refusal in tested:
                    self._end_outage(refusal)
        except Outage as error:
            kind = claim.kind if error.of_kind else None
            self._outages.begin_refusal(str(error), kind=kind, met_by=claim.kind, probe=error.probe)
        except LeaseLost:
            self._slots.keep_lost(claim.attempt, self._settings.lease)

    def _end_outage(self, refusal: Refusal) -> None:
        if self._outages.end_refusal(refusal):
            self._wakeup.set()

    async def _drain(self, claiming: asyncio.Task[None]) -> None:
        """Let running work and a claim in flight finish; release what has not finished in time."""
        grace = self._settings.grace
        release_time = min(_RELEASE_TIME, grace / 2)
        log.info("stopping", running=len(self._slots.running), grace=grace)
        until = [
            asyncio.create_task(self._stop_now.wait()),
            asyncio.create_task(self._slots.finish(after=claiming)),
        ]
        await asyncio.wait(until, timeout=grace - release_time, return_when=asyncio.FIRST_COMPLETED)
        remaining = [claiming, *self._slots.running]
        for task in [*until, *remaining]:
            task.cancel()
        await asyncio.wait(remaining, timeout=0.7 * release_time)
        log.info("stopped", left=len(self._slots.running))
