"""The kind of work `notify`: one request for each thing that the database keeps to be told.

Outages are told by the daemon that meets them, without the database, which may be what is out.
"""

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import ClassVar

import structlog

from watcher.engine.lease import Lease
from watcher.engine.retry import Retry
from watcher.engine.work import Done
from watcher.errors import Transient
from watcher.identity import Claim
from watcher.notifying.webhook import Notification, Receiver
from watcher.process.text import private_reason
from watcher.supabase.verbs import Verbs

log = structlog.get_logger(__name__)

_OUTAGES_WITHIN = Retry(tries=8, first=2, longest=60, max_retry_after=60)
"""For some five minutes: what cannot be told by then is in the log."""


@dataclass(frozen=True, slots=True)
class Notifier:
    """What telling needs."""

    announced: ClassVar[bool] = False
    routine: ClassVar[bool] = True

    verbs: Verbs
    receiver: Receiver
    instance: str
    _outages: set[asyncio.Task[None]] = field(default_factory=set)

    def describe(self, claim: Claim) -> Mapping[str, object]:
        """Return what is told."""
        return {"told": claim.details["event"]}

    async def carry(self, claim: Claim, lease: Lease) -> Done:
        """Send the notification once; a receiver that does not accept it gets it again at a later attempt."""
        details = claim.details
        notification = Notification(
            id=claim.identity_id,
            event=details["event"],
            happened_at=details["happened_at"],
            data={"id": details["identity_id"], **details["details"]},
        )
        lease.check()
        await self.receiver.send(notification, now=_now())
        return Done("notified", {"told": details["event"]}, partial(self.verbs.notified, claim.attempt))

    def outage_began(self, reason: str) -> None:
        """Tell of an outage, in a task of its own."""
        self._tell_outage("outage.began", {"reason": private_reason(reason)})

    def outage_ended(self, seconds: float) -> None:
        """Tell of the end of an outage that took so many seconds."""
        self._tell_outage("outage.ended", {"seconds": round(seconds)})

    async def close(self) -> None:
        """End what is still to be told of outages."""
        for task in self._outages:
            task.cancel()
        await asyncio.gather(*self._outages, return_exceptions=True)

    def _tell_outage(self, event: str, data: Mapping[str, object]) -> None:
        notification = Notification(
            id=str(uuid.uuid4()),
            event=event,
            happened_at=datetime.fromtimestamp(_now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            data={"instance": self.instance, **data},
        )
        task = asyncio.create_task(self._send_outage(notification))
        self._outages.add(task)
        task.add_done_callback(self._outages.discard)

    async def _send_outage(self, notification: Notification) -> None:
        async def send() -> None:
            await self.receiver.send(notification, now=_now())

        try:
            await _OUTAGES_WITHIN(send)
        except Transient as error:
            log.warning("not_notified", told=notification.event, reason=str(error))


def _now() -> int:
    """Return Unix seconds: a receiver compares them with its own clock."""
    return int(time.time())  # noqa: TID251  (of this request, and stored nowhere)
