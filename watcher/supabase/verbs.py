"""The verbs: one method for each SQL function through which the daemon reads and writes, named as in the schema."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from watcher import __version__
from watcher.errors import Misconfigured, Rejected, Wait
from watcher.identity import Publication
from watcher.process.text import private_reason, storable
from watcher.supabase.answers import Claims, Held, claims, lost
from watcher.supabase.rpc import NoFunction, Rpc, malformed, read

# The newest migration that this version knows, and the oldest that it works with.
SCHEMA = "20261122100300"
# Seconds, at most, that PostgREST takes to load a schema that was migrated a moment ago.
_SCHEMA_LOADED = 60.0


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
        machine: str,
        extra: Sequence[str] = (),
        outages: Mapping[str, str] | None = None,
    ) -> Claims:
        """Claim due work for `lease` seconds, at most as many pieces of each kind as `slots` has.

        `extra`: the kinds of which one more may be taken, for a user of whom nothing is running.
        `holding`: attempts whose work must not be claimed again. `predecessor_is_dead`: take over at once what an
        earlier run of this instance on this machine holds. `outages`: why nothing of some kinds is claimed, for the
        operator, by kind or "every"; without slots, the call only lets that be known, and that this run is alive.
        """
        result = await self._rpc.call(
            "watcher_claim",
            p_instance=instance,
            p_run=run,
            p_slots=dict(slots),
            p_lease_seconds=lease,
            p_holding=list(holding),
            p_predecessor_is_dead=predecessor_is_dead,
            p_machine=machine,
            p_extra=list(extra),
            p_outages={kind: private_reason(reason) for kind, reason in (outages or {}).items()},
        )
        return read("watcher_claim", lambda: claims(result))

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
            raise lost(attempt)
        if not str(name).startswith(f"{namespace}/identity-"):
            raise malformed("watcher_reserve")
        return str(name)

    async def complete(
        self, attempt: int, publication: Publication, training_config: dict[str, Any], *, answered: bool
    ) -> None:
        """End the attempt; the row is published.

        `answered`, here and below: whether the Hub answered each of the attempt's changes, so that none can still land.
        """
        await write_back(
            self._rpc,
            "watcher_complete",
            attempt,
            p_url=publication.url,
            p_commit_sha=publication.commit_sha,
            p_training_config=training_config,
            p_answered=answered,
        )

    async def notify_from_now(self) -> None:
        """Have the database keep what happens, to be told."""
        await self._rpc.call("watcher_notify_from_now")

    async def notified(self, attempt: int) -> None:
        """End the attempt; it was told."""
        await write_back(self._rpc, "watcher_notified", attempt)

    async def settle_repo(self, attempt: int, line: int) -> None:
        """Record that the repo of this line was found to be ours, before anything of it is deleted."""
        await write_back(self._rpc, "watcher_settle_repo", attempt, p_line=line)

    async def erase_left(self, attempt: int, lines: Sequence[int]) -> int:
        """Return how many of these photos and pictures that the attempt erases are still in their bucket."""
        left = await self._rpc.call("watcher_erase_left", p_attempt=attempt, p_lines=list(lines))
        return read("watcher_erase_left", lambda: int(left))

    async def erased(
        self, attempt: int, lines: Sequence[int], *, answered: bool, foreign: Sequence[int] = ()
    ) -> None:
        """End the attempt; what these lines list is gone, or, those of `foreign`, is not ours."""
        await write_back(
            self._rpc,
            "watcher_erased",
            attempt,
            p_gone=list(lines),
            p_answered=answered,
            p_foreign=list(foreign),
        )

    async def sweep(self, attempt: int) -> tuple[Held, int]:
        """Sweep, and end the attempt.

        Returns what is left alone until the operator confirms it, and of how many users something could not be erased.
        """
        answer = await self._rpc.object("watcher_sweep", p_attempt=attempt)
        if answer.get("result") == "lost":
            raise lost(attempt)
        held = ("held_users", "held_names", "held_uploads")
        return read("watcher_sweep", lambda: (Held(*(answer[name] or 0 for name in held)), answer["failed"]))

    async def fail(
        self, attempt: int, code: str, message: str, *, answered: bool, image: int | None = None
    ) -> None:
        """End the attempt and the work; the row is failed, by that image where its number is given."""
        await write_back(
            self._rpc,
            "watcher_fail",
            attempt,
            p_code=code,
            p_message=storable(message),
            p_answered=answered,
            p_details=_about(image),
        )

    async def reject(self, attempt: int, error: Rejected, *, answered: bool) -> str:
        """End the attempt on a row of which a service does not accept what was sent; returns what became of the row.

        "failed": for good, since another row was accepted meanwhile; "deferred": it counts; "outage": nobody's is accepted,
        and the row is due again, unspent.
        """
        outcome = await self._rpc.call(
            "watcher_reject",
            p_attempt=attempt,
            p_code=error.code,
            p_message=storable(str(error)),
            p_reason=private_reason(str(error)),
            p_answered=answered,
        )
        if outcome == "lost":
            raise lost(attempt)
        if outcome not in {"failed", "deferred", "outage"}:
            raise malformed("watcher_reject")
        return str(outcome)

    async def give_back(self, attempts: Sequence[int]) -> None:
        """Count deferred attempts no longer: an outage has turned out to be their cause."""
        await self._rpc.call("watcher_give_back", p_attempts=list(attempts))

    async def newest_repos(self, namespace: str, *, other_than: str) -> list[str]:
        """Return two of the repos published last in a namespace, without that row's: of two other users, if there are."""
        names = await self._rpc.call("watcher_newest_repos", p_namespace=namespace, p_other_than=other_than)
        return read("watcher_newest_repos", lambda: [str(name) for name in names])

    async def defer(
        self, attempt: int, reason: str, retry_after: float | None = None, *, answered: bool
    ) -> None:
        """End the attempt, which counts; the work is due later, in `retry_after` seconds at the earliest."""
        await write_back(
            self._rpc,
            "watcher_defer",
            attempt,
            p_reason=private_reason(reason),
            p_retry_after_seconds=retry_after,
            p_answered=answered,
        )

    async def release(
        self, attempt: int, reason: str, cause: Literal["shutdown", "outage", "unsure"], *, answered: bool
    ) -> None:
        """End the attempt, which does not count before the third in a row of one cause; the work is due now.

        An `outage` never counts: to be said only where a request showed it that concerns no row.
        """
        await write_back(
            self._rpc,
            "watcher_release",
            attempt,
            p_reason=private_reason(reason),
            p_cause=cause,
            p_answered=answered,
        )

    async def wait(self, attempt: int, wait: Wait, *, answered: bool) -> bool:
        """End the attempt, which does not count; the work is due in the seconds that the wait names.

        Returns False if the wait's deadline has passed: the row is failed.
        """
        match await self._rpc.call(
            "watcher_wait",
            p_attempt=attempt,
            p_seconds=wait.seconds,
            p_within_seconds=wait.within,
            p_reason=private_reason(str(wait)),
            p_code=wait.code,
            p_message=storable(wait.last_words),
            p_answered=answered,
            p_details=_about(wait.image),
        ):
            case "waited":
                return True
            case "failed":
                return False
            case "lost":
                raise lost(attempt)
            case _:
                raise malformed("watcher_wait")

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
                "The database lacks Watcher's tables and functions: run `watcher migrate` (or push the files "
                "that `watcher migrate --into supabase/migrations` writes).",
                passes_within=_SCHEMA_LOADED,
            ) from error
        schema, serves = read("watcher_version", lambda: (str(result["schema"]), str(result["serves"])))
        lowest = read("watcher_version", lambda: _version(serves))
        if schema < SCHEMA:
            raise Misconfigured(
                f"The database's schema is {schema}, and this version needs {SCHEMA}: run `watcher migrate`."
            )
        if schema > SCHEMA and lowest > _version(__version__):
            raise Misconfigured(
                f"The database's schema {schema} needs watcher {serves} or later, and this is {__version__}: "
                "upgrade Watcher."
            )
        return schema


async def write_back(rpc: Rpc, verb: str, attempt: int, **arguments: object) -> None:
    """Call a verb that records an outcome; raises LeaseLost if the attempt no longer holds its work."""
    match await rpc.call(verb, p_attempt=attempt, **arguments):
        case "done":
            return
        case "lost":
            raise lost(attempt)
        case _:
            raise malformed(verb)


def _about(image: int | None) -> dict[str, int] | None:
    return None if image is None else {"image": image}


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
