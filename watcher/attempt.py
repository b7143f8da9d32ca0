"""One claim carried to its end: the only place where an exception becomes a status.

Each claim ends with one line in the log: published, failed, deferred, released or lease_lost.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ParamSpec

import structlog

from watcher.errors import LeaseLost, Outage, Permanent, Transient, WatcherError
from watcher.identity import Claim
from watcher.lease import Leases
from watcher.metrics import ATTEMPTS, stage
from watcher.publication import training_config
from watcher.publisher import Publisher
from watcher.retry import Retry
from watcher.rows import Rows

log = structlog.get_logger(__name__)
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Attempts:
    """Carries claims to their ends."""

    rows: Rows
    leases: Leases
    publisher: Publisher
    retry: Retry

    async def carry(self, claim: Claim, *, asked: float) -> None:
        """Work on a claim that was asked for at loop time `asked`.

        Raises Outage once the row is given back, and LeaseLost with nothing written.
        """
        await _Attempt(self, claim).carry(asked)

    async def give_back(self, claim: Claim) -> None:
        """Release a claim because the watcher was told to stop."""
        await _Attempt(self, claim).release("The watcher was stopped.")


class _Attempt:
    """One attempt, and whether its end has been said."""

    def __init__(self, tools: Attempts, claim: Claim) -> None:
        self._tools = tools
        self._rows = tools.rows
        self._claim = claim
        self._number = claim.attempt
        self._ended = False
        structlog.contextvars.bind_contextvars(identity=claim.identity.id, attempt=claim.attempt)

    async def carry(self, asked: float) -> None:
        log.info("claimed", images=len(self._claim.identity.image_paths), repo=self._claim.model_id)
        try:
            await self._to_its_end(asked)
        except (LeaseLost, Outage) as error:
            self._lose(error)
            raise

    async def _to_its_end(self, asked: float) -> None:
        try:
            await self._publish(asked)
        except Permanent as error:
            await self._fail(error)
        except Transient as error:
            await self._defer(str(error), error.retry_after)
        except Outage as error:
            await self.release(str(error))
            raise  # the daemon pauses
        except LeaseLost:
            raise  # another worker may hold the row: write nothing
        except asyncio.CancelledError:
            # Told to stop: give the row back now rather than when its lease runs out.
            await self.release("The watcher was stopped.")
            raise
        except Exception:
            # A mistake of ours. The row is not lost with it, and the budget ends it if it comes each time.
            log.exception("unexpected")
            await self._defer("The watcher met an unexpected error; see its log.", code="unexpected")

    async def _publish(self, asked: float) -> None:
        async with self._tools.leases.held(self._number, asked=asked) as lease:
            publication = await self._tools.publisher.publish(self._claim, lease)

        def said() -> None:
            seconds = round(asyncio.get_running_loop().time() - asked, 1)
            log.info("published", url=publication.url, commit=publication.commit_sha, seconds=seconds)
            ATTEMPTS.labels("published", "").inc()

        config = training_config(self._claim.identity)
        # Without the lease's clock: what is published is worth saying as long as nobody else has taken the row.
        with stage("complete"):
            await self._write_back(said, self._rows.complete, self._number, publication, config)

    async def _fail(self, error: Permanent) -> None:
        def said() -> None:
            log.error("failed", code=error.code, reason=str(error))
            ATTEMPTS.labels("failed", error.code).inc()

        await self._write_back(said, self._rows.fail, self._number, error.code, str(error))

    async def _defer(self, reason: str, retry_after: float | None = None, *, code: str = "") -> None:
        def said() -> None:
            log.warning("deferred", reason=reason)
            ATTEMPTS.labels("deferred", code).inc()

        await self._write_back(said, self._rows.defer, self._number, reason, retry_after)

    async def release(self, reason: str) -> None:
        """Give the row back, if it has not come to another end; it is no error if that cannot be said."""

        def said() -> None:
            log.info("released", reason=reason)
            ATTEMPTS.labels("released", "").inc()

        if not self._ended:
            try:
                await self._write_back(said, self._rows.release, self._number, reason)
            except (LeaseLost, Outage) as error:
                self._lose(error)

    def _lose(self, error: WatcherError) -> None:
        """Leave the row to the end of its lease, or to who holds it now."""
        if not self._ended:
            self._ended = True
            log.warning("lease_lost", reason=str(error))
            ATTEMPTS.labels("lease_lost", "").inc()

    async def _write_back(
        self, said: Callable[[], None], verb: Callable[P, Awaitable[None]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Say how the attempt ended. If that cannot be said, the lease runs out and the next holder looks.

        Raises LeaseLost then, and Outage where nothing at all may be said.
        """

        async def say() -> None:
            await self._tools.retry(verb, *args, **kwargs)
            self._ended = True
            said()

        saying = asyncio.ensure_future(say())
        try:
            await asyncio.shield(saying)
        except asyncio.CancelledError:
            # Told to stop in the middle of it: what was begun is said to its end.
            await asyncio.wait([saying])
            raise
        except (LeaseLost, Outage):
            raise
        except WatcherError as error:
            raise LeaseLost(
                f"The end of attempt {self._number} could not be written back: {error}"
            ) from error
