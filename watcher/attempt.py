"""One claim carried to its end: the only place where an exception becomes a status."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import ParamSpec

import structlog

from watcher.errors import LeaseLost, Outage, Permanent, Transient, WatcherError
from watcher.identity import Claim
from watcher.lease import Leases
from watcher.publication import training_config
from watcher.publisher import Publisher
from watcher.retry import Retry
from watcher.rows import Rows

log = structlog.get_logger(__name__)
P = ParamSpec("P")


class Attempts:
    """Carries claims to their ends."""

    def __init__(self, *, rows: Rows, leases: Leases, publisher: Publisher, retry: Retry) -> None:
        self._rows = rows
        self._leases = leases
        self._publisher = publisher
        self._retry = retry

    async def carry(self, claim: Claim, *, asked: float) -> None:
        """Work on a claim that was asked for at loop time `asked`.

        Raises Outage once the row is given back, and LeaseLost with nothing written.
        """
        structlog.contextvars.bind_contextvars(identity=claim.identity.id, attempt=claim.attempt)
        log.info("claimed", images=len(claim.identity.image_paths), repo=claim.model_id)
        try:
            async with self._leases.held(claim.attempt, asked=asked) as lease:
                publication = await self._publisher.publish(claim, lease)
            # Without the lease's clock: what is published is worth saying as long as nobody else has taken the row.
            await self._write_back(
                self._rows.complete, claim.attempt, publication, training_config(claim.identity)
            )
            log.info("published", url=publication.url, commit=publication.commit_sha)
        except LeaseLost as error:
            # Another worker may hold the row: write nothing.
            log.warning("lease_lost", reason=str(error))
            raise
        except Permanent as error:
            log.error("failed", code=error.code, reason=str(error))
            await self._write_back(self._rows.fail, claim.attempt, error.code, str(error))
        except Transient as error:
            log.warning("deferred", reason=str(error))
            await self._write_back(self._rows.defer, claim.attempt, str(error), error.retry_after)
        except Outage as error:
            with suppress(LeaseLost):
                await self._write_back(self._rows.release, claim.attempt, str(error))
            raise  # the daemon pauses
        except asyncio.CancelledError:
            # Told to stop: give the row back now rather than when its lease runs out.
            await self.give_back(claim)
            raise
        except Exception:
            # A mistake of ours. The row is not lost with it, and the budget ends it if it comes each time.
            log.exception("unexpected")
            await self._write_back(
                self._rows.defer, claim.attempt, "The watcher met an unexpected error; see its log."
            )

    async def give_back(self, claim: Claim) -> None:
        """Release a claim because the watcher was told to stop."""
        with suppress(Outage, LeaseLost):
            await self._write_back(self._rows.release, claim.attempt, "The watcher was stopped.")
            log.info("released", identity=claim.identity.id, attempt=claim.attempt)

    async def _write_back(
        self, verb: Callable[P, Awaitable[None]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Say how the attempt ended. If that cannot be said, the lease runs out and the next holder looks.

        Raises LeaseLost then, and Outage where nothing at all may be said.
        """
        saying = asyncio.ensure_future(self._retry(verb, *args, **kwargs))
        try:
            await asyncio.shield(saying)
        except asyncio.CancelledError:
            # Told to stop in the middle of it: what was begun is said to its end.
            await asyncio.wait([saying])
            raise
        except (LeaseLost, Outage):
            raise
        except WatcherError as error:
            log.warning("not_written_back", reason=str(error))
            raise LeaseLost(f"The end of attempt {args[0]} could not be written back.") from error
