"""The life of the daemon: wake, claim while there is a free slot, stop with grace."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar
from uuid import uuid4

import structlog

from watcher import __version__
from watcher.engine.attempt import Attempts
from watcher.engine.health import Health
from watcher.engine.lease import Leases
from watcher.engine.outages import PAUSE_FIRST, PAUSE_LONGEST, Outages
from watcher.engine.slots import Slots
from watcher.errors import LeaseLost, Misconfigured, Outage, Transient
from watcher.identity import Claim
from watcher.process.metrics import STAGES
from watcher.settings.settings import Settings
from watcher.supabase.realtime import Feed
from watcher.supabase.verbs import Claims, Verbs

log = structlog.get_logger(__name__)
T = TypeVar("T")

# Of the grace, what is kept for releasing rows.
_FOR_RELEASES = 5.0


class Daemon:
    """Claims work and carries it, as many claims at a time as there are slots, until it is told to stop."""

    def __init__(
        self,
        *,
        settings: Settings,
        verbs: Verbs,
        leases: Leases,
        attempts: Attempts,
        outages: Outages,
        health: Health,
        first_look: Callable[[], Awaitable[object]],
        probe: Callable[[], Awaitable[object]],
    ) -> None:
        """`first_look` and `probe` raise Outage or Transient while no work can be done."""
        self._settings = settings
        self._verbs = verbs
        self._leases = leases
        self._attempts = attempts
        self._outages = outages
        self._health = health
        self._first_look = first_look
        self._probe = probe
        self._run = str(uuid4())
        self._began = math.inf
        self._slots = Slots(dict.fromkeys(attempts.kinds, settings.slots), on_end=self._on_slot_free)
        self._more_due = False
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
        """Stop claiming and let what runs finish within the grace; called twice: release it now."""
        if self._stop.is_set():
            self._stop_now.set()
        else:
            self._health.stopping(self._settings.grace + _FOR_RELEASES)
        self._stop.set()
        self._wakeup.set()

    async def run(self) -> None:
        """Run until told to stop; when it returns, every row is finished or released, within the grace.

        Raises Misconfigured if the first look shows a key, a token or a schema that cannot be worked with.
        """
        await self._wait_or_stop(asyncio.create_task(self._reach_services()), then_cancel=True)
        life = asyncio.create_task(self._live())
        background = [
            asyncio.create_task(self._leases.renew_forever()),
            asyncio.create_task(self._feed.run_forever()),
        ]
        try:
            # Those two never end. If one does, by a bug, a restart is better than going on without it.
            ended, _ = await asyncio.wait([life, *background], return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            # What runs has had its grace by now, unless a bug ended the life before.
            left = [life, *background, *(() if self._stop.is_set() else self._slots.running)]
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=_FOR_RELEASES)

    async def _live(self) -> None:
        claiming = asyncio.create_task(self._claim_loop())
        try:
            await self._wait_or_stop(claiming)
            await self._drain(claiming)
        finally:
            claiming.cancel()

    async def _wait_or_stop(self, task: asyncio.Task[None], *, then_cancel: bool = False) -> None:
        """Wait for the task to end, or to be told to stop: a call that hangs must not keep us from hearing that."""
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
            pause = await self._claim_due()
            await self._sleep(pause)

    async def _sleep(self, pause: float) -> None:
        """Sleep so many seconds or until woken, with a heartbeat now and then."""
        loop = asyncio.get_running_loop()
        until = loop.time() + pause
        while not self._wakeup.is_set() and (left := until - loop.time()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wakeup.wait(), min(left, self._health.heartbeat_every))
            self._heartbeat()

    def _heartbeat(self) -> None:
        self._health.answered(self._leases.answered_at)
        self._health.feed_alive = self._feed.alive
        self._health.heartbeat()

    async def _reach_services(self) -> None:
        """Wait until Supabase and the Hub have answered: a reboot in an outage must not end the service."""
        pause = PAUSE_FIRST
        while not self._stop.is_set():
            self._heartbeat()
            try:
                await self._bounded("Supabase or the Hub", self._first_look())
            except Outage as error:
                raise Misconfigured(str(error)) from error
            except Transient as error:
                self._outages.mark_unreachable(str(error))
                self._heartbeat()
                await self._sleep(pause)
                pause = min(pause * 2, PAUSE_LONGEST)
            else:
                self._outages.mark_reachable()
                log.info("ready", version=__version__, slots=self._settings.slots)
                self._health.started()
                return

    async def _claim_due(self) -> float:
        """Claim what is due and fits; return the seconds until the next look, unless woken before."""
        if self._outages.refused:
            if self._slots.running:
                return self._settings.poll
            if (wait := self._outages.wait) > 0:
                return wait
            if not await self._outage_may_be_over():
                return self._settings.poll
        # While an outage may be over, one row shows whether it is.
        free = self._slots.free(at_most=1 if self._outages.refused else None)
        self._more_due = True
        if not free or self._stop.is_set():
            return self._settings.poll
        answer = await self._claim(free)
        if answer is None:
            return self._settings.poll
        self._more_due = answer.more_due
        if not answer.claims and not self._slots.running:
            self._end_outage()  # as far as can be seen with no row to show it
        # A little after something falls due, so that it is due when we ask.
        return min(self._poll(), self._poll() if answer.next_due is None else answer.next_due + 0.05)

    async def _outage_may_be_over(self) -> bool:
        try:
            await self._bounded("Supabase or the Hub", self._probe())
        except (Misconfigured, Outage, Transient) as error:
            # Misconfigured too: what was right at the start may become right again.
            self._outages.begin_refusal(str(error))
            return False
        self._heartbeat()
        return True

    def _poll(self) -> float:
        return self._settings.poll_alive if self._feed.alive else self._settings.poll

    async def _bounded(self, who: str, request: Awaitable[T]) -> T:
        """Bound a request of the claim loop; raises Transient if it takes too long."""
        try:
            async with asyncio.timeout(self._health.request):
                return await request
        except TimeoutError as error:
            raise Transient(f"{who} did not answer within {self._health.request:g} s.") from error

    async def _claim(self, free: dict[str, int]) -> Claims | None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        # A predecessor's row that is locked just then, or goes alone, comes with a later claim; after a lease, none does.
        self._began = min(self._began, asked)
        claim = self._verbs.claim(
            instance=self._settings.instance,
            run=self._run,
            slots=free,
            lease=self._settings.lease,
            holding=self._slots.held,
            predecessor_is_dead=asked < self._began + self._settings.lease,
        )
        try:
            answer = await self._bounded("Supabase", claim)
        except Outage as error:
            self._outages.mark_reachable()
            self._outages.begin_refusal(str(error))
            return None
        except Transient as error:
            self._outages.mark_unreachable(str(error))
            return None
        self._outages.mark_reachable()
        self._health.answered(loop.time())
        if self._stop.is_set():
            # We were told to stop while this answer was on its way.
            await asyncio.gather(*(self._attempts.release(claim) for claim in answer.claims))
            return None
        for claimed in answer.claims:
            if claimed.never_tried:
                STAGES.labels("wait").observe(claimed.age)
                self._feed.notice(claimed.identity_id, age=claimed.age)
            self._slots.run(claimed, self._carry(claimed, asked, may_end_outage=self._outages.refused))
        self._show_running()
        return answer

    def _on_slot_free(self) -> None:
        self._show_running()
        if self._more_due:
            self._wakeup.set()

    def _show_running(self) -> None:
        self._health.running = len(self._slots.running)
        self._health.show()

    async def _carry(self, claim: Claim, asked: float, *, may_end_outage: bool) -> None:
        """Carry one claim; `may_end_outage`: unless it meets the outage again, that is over."""
        try:
            await self._attempts.carry(claim, asked=asked)
        except Outage as error:
            self._outages.begin_refusal(str(error))
            return
        except LeaseLost:
            self._slots.keep_lost(claim.attempt, self._settings.lease)
        if may_end_outage:
            self._end_outage()

    def _end_outage(self) -> None:
        if self._outages.refused:
            self._outages.end_refusal()
            self._wakeup.set()

    async def _drain(self, claiming: asyncio.Task[None]) -> None:
        """Let what runs and a last claim in flight finish; release what has not finished in time."""
        grace = self._settings.grace
        log.info("stopping", running=len(self._slots.running), grace=grace)
        told_again = asyncio.create_task(self._stop_now.wait())
        finished = asyncio.create_task(self._finish(claiming))
        await asyncio.wait(
            [told_again, finished],
            timeout=grace - min(_FOR_RELEASES, grace / 2),
            return_when=asyncio.FIRST_COMPLETED,
        )
        told_again.cancel()
        finished.cancel()
        left = [claiming, *self._slots.running]
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.7 * min(_FOR_RELEASES, grace / 2))
        log.info("stopped", left=len(self._slots.running))

    async def _finish(self, claiming: asyncio.Task[None]) -> None:
        await asyncio.wait([claiming])
        if self._slots.running:
            await asyncio.wait(self._slots.running)
