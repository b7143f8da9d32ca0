"""The verbs: one method for each SQL function through which the watcher reads and writes, in the words of the schema."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from watcher import __version__
from watcher.errors import LeaseLost, Misconfigured
from watcher.identity import Claim, Publication
from watcher.process.log import redact
from watcher.supabase.rpc import NoFunction, Rpc, malformed, read

# The newest migration that this program knows, and the oldest that it can work with.
SCHEMA = "20261122100300"


@dataclass(frozen=True, slots=True)
class Claims:
    """The answer to a claim."""

    claims: tuple[Claim, ...]
    more_due: bool
    """More work may be had as soon as one that is held has ended."""
    next_due: float | None
    """Seconds until other work falls due, as far as can be known now."""


class Verbs:
    """Calls the verbs. Each raises Transient or Outage; a write-back raises LeaseLost where the attempt holds no work."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    async def claim(
        self,
        *,
        instance: str,
        run: str,
        slots: Mapping[str, int],
        lease: float,
        holding: Sequence[int],
        predecessor_is_dead: bool,
    ) -> Claims:
        """Take due work for `lease` seconds: of each kind as many pieces as `slots` says."""
        answer = await self._rpc.call(
            "watcher_claim",
            p_instance=instance,
            p_run=run,
            p_slots=dict(slots),
            p_lease_seconds=lease,
            p_holding=list(holding),
            p_predecessor_is_dead=predecessor_is_dead,
        )
        return read(
            "watcher_claim",
            lambda: Claims(
                claims=tuple(_claim(line) for line in answer["claims"]),
                more_due=bool(answer["more_due"]),
                next_due=answer["next_due_seconds"],
            ),
        )

    async def renew(
        self, progress: Mapping[int, Mapping[str, object]], lease: float
    ) -> tuple[set[int], set[int]]:
        """Renew the leases of the attempts in `progress`, which says how far each has come, in its kind's own words.

        Returns the attempts that hold their work for another `lease` seconds, and those that hold it but could not be
        renewed just then. Whatever is in neither has lost its work.
        """
        answer = await self._rpc.call(
            "watcher_renew",
            p_progress={str(attempt): dict(of_attempt) for attempt, of_attempt in progress.items()},
            p_lease_seconds=lease,
        )
        return read("watcher_renew", lambda: (set(answer["held"]), set(answer["busy"])))

    async def reserve(self, attempt: int, namespace: str, slug: str, refused: str | None = None) -> str:
        """Return the name reserved for the row's repo; another one than `refused`."""
        name = await self._rpc.call(
            "watcher_reserve", p_attempt=attempt, p_namespace=namespace, p_slug=slug, p_refused=refused
        )
        if name is None:
            raise _lost(attempt)
        if not str(name).startswith(f"{namespace}/identity-"):
            raise malformed("watcher_reserve")
        return str(name)

    async def complete(self, attempt: int, publication: Publication, training_config: dict[str, Any]) -> None:
        """End the attempt as done: the row is published."""
        await self._write_back(
            "watcher_complete",
            attempt,
            p_url=publication.url,
            p_commit_sha=publication.commit_sha,
            p_training_config=training_config,
        )

    async def fail(self, attempt: int, code: str, message: str) -> None:
        """End the attempt and the work for good."""
        await self._write_back("watcher_fail", attempt, p_code=code, p_message=_storable(message))

    async def defer(self, attempt: int, reason: str, retry_after: float | None = None) -> None:
        """End the attempt, spent; the work is due later, in `retry_after` seconds at the earliest."""
        await self._write_back(
            "watcher_defer", attempt, p_reason=_storable(reason), p_retry_after_seconds=retry_after
        )

    async def release(self, attempt: int, reason: str) -> None:
        """End the attempt, unspent; the work is due now."""
        await self._write_back("watcher_release", attempt, p_reason=_storable(reason))

    async def beat(self) -> int | None:
        """Touch the pulse, for Realtime to tell of; the number of the beat, None if there is no pulse."""
        beat: int | None = await self._rpc.call("watcher_beat")
        return beat

    async def check_version(self) -> str:
        """Return the database's schema; raises Misconfigured unless this program can work with it."""
        try:
            answer = await self._rpc.call("watcher_version")
        except NoFunction as error:
            raise Misconfigured(
                "The database lacks the watcher's tables and functions: run `watcher migrate` (or push the files "
                "that `watcher migrate --into supabase/migrations` writes)."
            ) from error
        schema, serves = read("watcher_version", lambda: (str(answer["schema"]), str(answer["serves"])))
        if schema < SCHEMA:
            raise Misconfigured(
                f"The database's schema is {schema}, and this program needs {SCHEMA}: run `watcher migrate`."
            )
        if schema > SCHEMA and _version(serves) > _version(__version__):
            raise Misconfigured(
                f"The database's schema {schema} serves watcher {serves} and later, and this is {__version__}: "
                "upgrade the watcher."
            )
        return schema

    async def _write_back(self, verb: str, attempt: int, **arguments: object) -> None:
        match await self._rpc.call(verb, p_attempt=attempt, **arguments):
            case "done":
                return
            case "lost":
                raise _lost(attempt)
            case _:
                raise malformed(verb)


def _lost(attempt: int) -> LeaseLost:
    return LeaseLost(f"Attempt {attempt} does not hold its row any more.")


def _storable(text: str) -> str:
    """Return a sentence that Postgres takes: it may quote what a service sent, with a NUL or a secret in it."""
    return redact(text).replace("\x00", "")[:2000]  # in this order: half a secret would not be found


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _claim(line: dict[str, Any]) -> Claim:
    return Claim(
        attempt=line["attempt"],
        kind=line["kind"],
        identity_id=line["identity_id"],
        details=line["details"],
        look_only=line["look_only"],
        exhausted=line["exhausted"],
        never_tried=line["never_tried"],
        age=line["age_seconds"],
    )
