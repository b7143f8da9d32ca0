"""The life of the daemon: wake, claim while there is a free slot, stop with grace."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar
from uuid import uuid4

import structlog

from watcher import __version__
from watcher.attempt import Attempts
from watcher.errors import LeaseLost, Misconfigured, Outage, Transient
from watcher.feed import Feed
from watcher.health import Health
from watcher.identity import Claim
from watcher.lease import Leases
from watcher.metrics import STAGES
from watcher.outages import PAUSE_FIRST, PAUSE_LONGEST, Outages
from watcher.rows import Claims, Rows
from watcher.settings import Settings

log = structlog.get_logger(__name__)
T = TypeVar("T")

# Of the grace, what is kept for giving rows back.
_FOR_RELEASES = 5.0


class Daemon:
    """Claims rows and carries them, as many at a time as there are slots, until it is told to stop."""

    def __init__(
        self,
        *,
        settings: Settings,
        rows: Rows,
        leases: Leases,
        attempts: Attempts,
        outages: Outages,
        health: Health,
        first_look: Callable[[], Awaitable[None]],
        probe: Callable[[], Awaitable[None]],
    ) -> None:
        """`first_look` and `probe` raise Outage or Transient while nobody can be published."""
        self._settings = settings
        self._rows = rows
        self._leases = leases
        self._attempts = attempts
        self._outages = outages
        self._health = health
        self._first_look = first_look
        self._probe = probe
        self._run = str(uuid4())
        self._began = math.inf
        self._running: set[asyncio.Task[None]] = set()
        self._holding: set[int] = set()
        self._lost: set[int] = set()
        self._more_due = False
        self._bell = asyncio.Event()
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._feed = Feed(
            url=settings.supabase_url,
            key=settings.supabase_key.get_secret_value(),
            rows=rows,
            pulse=settings.pulse,
            pulse_answer=settings.pulse_answer,
            ring=self._bell.set,
        )

    def stop(self) -> None:
        """Stop claiming and let running rows finish within the grace; said twice: give them back now."""
        if self._stop.is_set():
            self._stop_now.set()
        else:
            self._health.stopping(self._settings.grace + _FOR_RELEASES)
        self._stop.set()
        self._bell.set()

    async def run(self) -> None:
        """Live until told to stop; when it returns, every row is finished or given back, within the grace.

        Raises Misconfigured if the first look shows a key, a token or a schema that cannot be worked with.
        """
        await self._until_told(asyncio.create_task(self._reach_everything()), then_cancel=True)
        life = asyncio.create_task(self._live())
        beats = [
            asyncio.create_task(self._leases.renew_for_ever()),
            asyncio.create_task(self._feed.run_for_ever()),
        ]
        try:
            # A beat never ends. If one does, by a mistake of ours, a restart is better than a life without it.
            ended, _ = await asyncio.wait([life, *beats], return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            # What runs has had its grace by now, unless a mistake of ours ended the life before.
            left = [life, *beats] if self._stop.is_set() else [life, *beats, *self._running]
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=_FOR_RELEASES)

    async def _live(self) -> None:
        looking = asyncio.create_task(self._look_until_told())
        try:
            await self._until_told(looking)
            await self._drain(looking)
        finally:
            looking.cancel()

    async def _until_told(self, task: asyncio.Task[None], *, then_cancel: bool = False) -> None:
        """Wait for the task to end, or to be told to stop: a call that hangs must not make us deaf."""
        told = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([task, told], return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
            if then_cancel:
                task.cancel()
        if task.done():
            task.result()

    async def _look_until_told(self) -> None:
        while not self._stop.is_set():
            self._bell.clear()
            self._turn()
            pause = await self._look()
            await self._wait(pause)

    async def _wait(self, pause: float) -> None:
        """Wait for the bell or so many seconds, and turn meanwhile: who waits is alive."""
        loop = asyncio.get_running_loop()
        until = loop.time() + pause
        while not self._bell.is_set() and (left := until - loop.time()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), min(left, self._health.turn))
            self._turn()

    def _turn(self) -> None:
        self._health.answered(self._leases.answered_at)
        self._health.feed_alive = self._feed.alive
        self._health.turned()

    async def _reach_everything(self) -> None:
        """Wait until Supabase and the Hub have answered: a reboot in an outage must not end the service."""
        pause = PAUSE_FIRST
        while not self._stop.is_set():
            self._turn()
            try:
                await self._within("Supabase or the Hub", self._first_look())
            except Outage as error:
                raise Misconfigured(str(error)) from error
            except Transient as error:
                self._outages.miss(str(error))
                self._turn()
                await self._wait(pause)
                pause = min(pause * 2, PAUSE_LONGEST)
            else:
                self._outages.reach()
                log.info("ready", version=__version__, slots=self._settings.slots)
                self._health.started()
                return

    async def _look(self) -> float:
        """Take what is due and fits; return the seconds until the next look, if the bell does not ring before."""
        if self._outages.refused:
            if self._running:
                return self._settings.poll
            if (wait := self._outages.wait) > 0:
                return wait
            try:
                await self._within("Supabase or the Hub", self._probe())
            except (Misconfigured, Outage, Transient) as error:
                # Misconfigured too: what was right at the start may become right again.
                self._outages.refuse(str(error))
                return self._settings.poll
            self._turn()
        # While an outage may be over, one row shows whether it is.
        free = 1 if self._outages.refused else self._settings.slots - len(self._running)
        self._more_due = True
        if free <= 0 or self._stop.is_set():
            return self._settings.poll
        answer = await self._claim(free)
        if answer is None:
            return self._settings.poll
        self._more_due = answer.more_due
        if not answer.claims and not self._running:
            self._end_outage()  # as far as can be seen with no row to show it
        # A little after a row falls due, so that it is due when we ask.
        return min(self._poll(), self._poll() if answer.next_due is None else answer.next_due + 0.05)

    def _poll(self) -> float:
        return self._settings.poll_alive if self._feed.alive else self._settings.poll

    async def _within(self, who: str, request: Awaitable[T]) -> T:
        """Bound a request of the claim loop; raises Transient if it takes too long."""
        try:
            async with asyncio.timeout(self._health.request):
                return await request
        except TimeoutError as error:
            raise Transient(f"{who} did not answer within {self._health.request:g} s.") from error

    async def _claim(self, free: int) -> Claims | None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        # A predecessor's row that is locked just then, or goes alone, comes with a later claim; after a lease, none does.
        self._began = min(self._began, asked)
        claim = self._rows.claim(
            instance=self._settings.instance,
            run=self._run,
            limit=free,
            lease=self._settings.lease,
            holding=sorted(self._holding | self._lost),
            predecessor_is_dead=asked < self._began + self._settings.lease,
        )
        try:
            answer = await self._within("Supabase", claim)
        except Outage as error:
            self._outages.reach()
            self._outages.refuse(str(error))
            return None
        except Transient as error:
            self._outages.miss(str(error))
            return None
        self._outages.reach()
        self._health.answered(loop.time())
        if self._stop.is_set():
            # We were told to stop while this answer was on its way.
            await asyncio.gather(*(self._attempts.give_back(claim) for claim in answer.claims))
            return None
        for claimed in answer.claims:
            if claimed.never_tried:
                STAGES.labels("wait").observe(claimed.age)
                self._feed.notice(claimed.identity.id, age=claimed.age)
            self._start(claimed, asked)
        return answer

    def _start(self, claim: Claim, asked: float) -> None:
        self._holding.add(claim.attempt)
        task = asyncio.create_task(self._carry(claim, asked, shows_the_end=self._outages.refused))
        self._running.add(task)
        task.add_done_callback(self._ended)
        self._show()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._show()
        if self._more_due:
            self._bell.set()

    def _show(self) -> None:
        self._health.running = len(self._running)
        self._health.show()

    async def _carry(self, claim: Claim, asked: float, *, shows_the_end: bool) -> None:
        """Carry one claim; `shows_the_end`: of the outage, unless it meets it again."""
        try:
            await self._attempts.carry(claim, asked=asked)
        except Outage as error:
            self._outages.refuse(str(error))
            return
        except LeaseLost:
            # Nobody's before the lease has run out: only then may we claim the row again.
            loop = asyncio.get_running_loop()
            loop.call_later(self._settings.lease, self._lost.discard, claim.attempt)
            self._lost.add(claim.attempt)
        finally:
            self._holding.discard(claim.attempt)
        if shows_the_end:
            self._end_outage()

    def _end_outage(self) -> None:
        if self._outages.refused:
            self._outages.relent()
            self._bell.set()

    async def _drain(self, looking: asyncio.Task[None]) -> None:
        """Let running rows and a last claim under way finish; give back what has not finished in time."""
        grace = self._settings.grace
        log.info("stopping", running=len(self._running), grace=grace)
        told_again = asyncio.create_task(self._stop_now.wait())
        finished = asyncio.create_task(self._finish(looking))
        await asyncio.wait(
            [told_again, finished],
            timeout=grace - min(_FOR_RELEASES, grace / 2),
            return_when=asyncio.FIRST_COMPLETED,
        )
        told_again.cancel()
        finished.cancel()
        for task in (looking, *self._running):
            task.cancel()
        await asyncio.wait([looking, *self._running], timeout=0.7 * min(_FOR_RELEASES, grace / 2))
        log.info("stopped", left=len(self._running))

    async def _finish(self, looking: asyncio.Task[None]) -> None:
        await asyncio.wait([looking])
        if self._running:
            await asyncio.wait(self._running)
