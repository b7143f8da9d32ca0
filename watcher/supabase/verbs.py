"""The verbs: one method for each SQL function through which the daemon reads and writes, named as in the schema."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from watcher import __version__
from watcher.errors import LeaseLost, Misconfigured
from watcher.identity import Claim, Publication
from watcher.process.text import storable
from watcher.supabase.rpc import NoFunction, Rpc, malformed, read

# The newest migration that this version knows, and the oldest that it works with.
SCHEMA = "20261122100300"


@dataclass(frozen=True, slots=True)
class Claims:
    """The result of a claim request."""

    claims: tuple[Claim, ...]
    more_due: bool
    """Whether to claim again as soon as a running claim ends."""
    next_due: float | None
    """Seconds until other work falls due, as known now; None if there is none."""


class Verbs:
    """Calls the verbs. All raise Transient and Outage; a write-back raises LeaseLost if the attempt holds no work."""

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
        """Claim due work for `lease` seconds, at most as many pieces of each kind as `slots` has.

        `holding`: attempts whose work must not be claimed again. `predecessor_is_dead`: take over at once what an
        earlier run of this instance holds.
        """
        result = await self._rpc.call(
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
                claims=tuple(_claim(line) for line in result["claims"]),
                more_due=bool(result["more_due"]),
                next_due=result["next_due_seconds"],
            ),
        )

    async def renew(
        self, progress: Mapping[int, Mapping[str, object]], lease: float
    ) -> tuple[set[int], set[int]]:
        """Renew the leases of the attempts in `progress`, and store the progress of each.

        Returns the attempts that hold their work for another `lease` seconds, and those whose row was locked: they hold
        it, but were not renewed. An attempt in neither set has lost its work.
        """
        result = await self._rpc.call(
            "watcher_renew",
            p_progress={str(attempt): dict(of_attempt) for attempt, of_attempt in progress.items()},
            p_lease_seconds=lease,
        )
        return read("watcher_renew", lambda: (set(result["held"]), set(result["busy"])))

    async def reserve(self, attempt: int, namespace: str, slug: str, refused: str | None = None) -> str:
        """Return the name reserved for the row's repo; a new one if that is `refused`."""
        name = await self._rpc.call(
            "watcher_reserve", p_attempt=attempt, p_namespace=namespace, p_slug=slug, p_refused=refused
        )
        if name is None:
            raise _lost(attempt)
        if not str(name).startswith(f"{namespace}/identity-"):
            raise malformed("watcher_reserve")
        return str(name)

    async def complete(self, attempt: int, publication: Publication, training_config: dict[str, Any]) -> None:
        """End the attempt; the row is published."""
        await self._write_back(
            "watcher_complete",
            attempt,
            p_url=publication.url,
            p_commit_sha=publication.commit_sha,
            p_training_config=training_config,
        )

    async def fail(self, attempt: int, code: str, message: str, image: int | None = None) -> None:
        """End the attempt and the work; the row is failed, by that image where its number is given."""
        await self._write_back(
            "watcher_fail",
            attempt,
            p_code=code,
            p_message=storable(message),
            p_details=None if image is None else {"image": image},
        )

    async def defer(self, attempt: int, reason: str, retry_after: float | None = None) -> None:
        """End the attempt, which counts; the work is due later, in `retry_after` seconds at the earliest."""
        await self._write_back(
            "watcher_defer", attempt, p_reason=storable(reason), p_retry_after_seconds=retry_after
        )

    async def release(self, attempt: int, reason: str) -> None:
        """End the attempt, which does not count; the work is due now."""
        await self._write_back("watcher_release", attempt, p_reason=storable(reason))

    async def beat(self) -> int | None:
        """Update the pulse row, which Realtime then reports; returns its new number, None if the row is missing."""
        number: int | None = await self._rpc.call("watcher_beat")
        return number

    async def check_version(self) -> str:
        """Return the database's schema version; raises Misconfigured unless this program works with it."""
        try:
            result = await self._rpc.call("watcher_version")
        except NoFunction as error:
            raise Misconfigured(
                "The database lacks the watcher's tables and functions: run `watcher migrate` (or push the files "
                "that `watcher migrate --into supabase/migrations` writes)."
            ) from error
        schema, serves = read("watcher_version", lambda: (str(result["schema"]), str(result["serves"])))
        if schema < SCHEMA:
            raise Misconfigured(
                f"The database's schema is {schema}, and this version needs {SCHEMA}: run `watcher migrate`."
            )
        if schema > SCHEMA and _version(serves) > _version(__version__):
            raise Misconfigured(
                f"The database's schema {schema} needs watcher {serves} or later, and this is {__version__}: "
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
    return LeaseLost(f"Attempt {attempt} no longer holds its row.")


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
