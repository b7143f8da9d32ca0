"""The table as its SQL functions show it: one method per function, and the only place that knows their names."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from postgrest.exceptions import APIError
from supabase import AsyncClient

from watcher import __version__
from watcher.errors import LeaseLost, Misconfigured, Outage, Transient, WatcherError
from watcher.identity import Choice, Claim, Identity, Publication
from watcher.log import redact

T = TypeVar("T")

# The newest migration that this program knows, and the oldest that it can work with.
SCHEMA = "20261122100200"

# Calls under way at once. httpcore 1.0.9 looks at each of its connections for each request, and a limit of its own would
# count those that it has lost. What keeps a daemon alive does not queue.
_CALLS_AT_ONCE = 8
_URGENT = {"watcher_claim", "watcher_renew"}

_REFUSED = "42501"
_NO_FUNCTION = "PGRST202"


@dataclass(frozen=True, slots=True)
class Claims:
    """The answer to a claim."""

    claims: tuple[Claim, ...]
    more_due: bool
    """Another row may be had as soon as one that is held has ended."""
    next_due: float | None
    """Seconds until another row falls due, as far as can be known now."""


class Rows:
    """Calls the verbs. Each raises Transient or Outage; a write-back raises LeaseLost where the row is not ours."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._places = asyncio.Semaphore(_CALLS_AT_ONCE)

    async def claim(
        self,
        *,
        instance: str,
        run: str,
        limit: int,
        lease: float,
        holding: Sequence[int],
        predecessor_is_dead: bool,
    ) -> Claims:
        """Take up to `limit` due rows for `lease` seconds."""
        answer = await self._call(
            "watcher_claim",
            p_instance=instance,
            p_run=run,
            p_limit=limit,
            p_lease_seconds=lease,
            p_holding=list(holding),
            p_predecessor_is_dead=predecessor_is_dead,
        )
        return _read(
            "watcher_claim",
            lambda: Claims(
                claims=tuple(_claim(line) for line in answer["claims"]),
                more_due=bool(answer["more_due"]),
                next_due=answer["next_due_seconds"],
            ),
        )

    async def renew(self, progress: dict[int, int], lease: float) -> tuple[set[int], set[int]]:
        """Renew the leases of the attempts in `progress`, which says how many images each has published.

        Returns the attempts that hold their row for another `lease` seconds, and those that hold it but could not be
        renewed just then. Whatever is in neither has lost its row.
        """
        answer = await self._call(
            "watcher_renew",
            p_attempts=list(progress),
            p_images_published=list(progress.values()),
            p_lease_seconds=lease,
        )
        return _read("watcher_renew", lambda: (set(answer["held"]), set(answer["busy"])))

    async def reserve(self, attempt: int, namespace: str, slug: str, refused: str | None = None) -> str:
        """Return the name reserved for the row's repo; another one than `refused`."""
        name = await self._call(
            "watcher_reserve", p_attempt=attempt, p_namespace=namespace, p_slug=slug, p_refused=refused
        )
        if name is None:
            raise LeaseLost(f"Attempt {attempt} does not hold its row any more.")
        if not str(name).startswith(f"{namespace}/identity-"):
            raise _garbled("watcher_reserve")
        return str(name)

    async def complete(self, attempt: int, publication: Publication, training_config: dict[str, Any]) -> None:
        """Publishing → published."""
        await self._write_back(
            "watcher_complete",
            attempt,
            p_url=publication.url,
            p_commit_sha=publication.commit_sha,
            p_training_config=training_config,
        )

    async def fail(self, attempt: int, code: str, message: str) -> None:
        """Publishing → failed."""
        await self._write_back("watcher_fail", attempt, p_code=code, p_message=_storable(message))

    async def defer(self, attempt: int, reason: str, retry_after: float | None = None) -> None:
        """Publishing → pending, later: in `retry_after` seconds at the earliest."""
        await self._write_back(
            "watcher_defer", attempt, p_reason=_storable(reason), p_retry_after_seconds=retry_after
        )

    async def release(self, attempt: int, reason: str) -> None:
        """Publishing → pending, now, and the attempt does not count."""
        await self._write_back("watcher_release", attempt, p_reason=_storable(reason))

    async def replay(self, choice: Choice, *, dry_run: bool) -> dict[str, Any]:
        """Failed → pending; returns counts by what was done, see `watcher_replay` in the migrations."""
        return await self._object(
            "watcher_replay",
            p_ids=choice.ids,
            p_code=choice.code,
            p_failed_since=choice.failed_since,
            p_failed_within_seconds=choice.failed_within_seconds,
            p_user=choice.user,
            p_dry_run=dry_run,
        )

    async def status(self) -> dict[str, Any]:
        """What waits, runs, failed and was published; see `watcher_status` in the migrations."""
        return await self._object("watcher_status")

    async def story(self, identity_id: str) -> dict[str, Any] | None:
        """One row and all its attempts; None if there is no such row."""
        answer = await self._call("watcher_story", p_id=identity_id)
        return None if answer is None else _read("watcher_story", lambda: dict(answer.items()))

    async def catalogue(self) -> dict[str, Any]:
        """How the doors stand, and how the migrations left them; see `watcher_catalogue` in the migrations."""
        return await self._object("watcher_catalogue")

    async def beat(self) -> int | None:
        """Touch the pulse, for Realtime to tell of; the number of the beat, None if there is no pulse."""
        beat: int | None = await self._call("watcher_beat")
        return beat

    async def check_version(self) -> None:
        """Raise Misconfigured unless this program can work with the database's schema."""
        try:
            answer = await self._call("watcher_version")
        except NoFunction as error:
            raise Misconfigured(
                "The database lacks the watcher's tables and functions: run `watcher migrate` (or push the files "
                "that `watcher migrate --into supabase/migrations` writes)."
            ) from error
        schema, serves = _read("watcher_version", lambda: (str(answer["schema"]), str(answer["serves"])))
        if schema < SCHEMA:
            raise Misconfigured(
                f"The database's schema is {schema}, and this program needs {SCHEMA}: run `watcher migrate`."
            )
        if schema > SCHEMA and _version(serves) > _version(__version__):
            raise Misconfigured(
                f"The database's schema {schema} serves watcher {serves} and later, and this is {__version__}: "
                "upgrade the watcher."
            )

    async def _object(self, verb: str, **arguments: object) -> dict[str, Any]:
        answer = await self._call(verb, **arguments)
        return _read(verb, lambda: dict(answer.items()))

    async def _write_back(self, verb: str, attempt: int, **arguments: object) -> None:
        match await self._call(verb, p_attempt=attempt, **arguments):
            case "done":
                return
            case "lost":
                raise LeaseLost(f"Attempt {attempt} does not hold its row any more.")
            case _:
                raise _garbled(verb)

    async def _call(self, verb: str, **arguments: object) -> Any:
        try:
            async with nullcontext() if verb in _URGENT else self._places:
                return (await self._client.rpc(verb, arguments).execute()).data
        except APIError as error:
            raise _translate(verb, error) from error
        except httpx.HTTPError as error:
            raise Transient(f"Supabase could not be reached for {verb}: {_words(error)}") from error


def _read(verb: str, reading: Callable[[], T]) -> T:
    """Read an answer. postgrest 2.34.1 hands on as text what is not JSON, such as an answer that was cut."""
    try:
        return reading()
    except (AttributeError, KeyError, TypeError) as error:
        raise _garbled(verb) from error


def _storable(text: str) -> str:
    """A sentence may quote what a service sent, and that what we sent it; Postgres takes no NUL."""
    return redact(text).replace("\x00", "")[:2000]  # in this order: half a secret would not be found


def _garbled(verb: str) -> Transient:
    return Transient(f"Supabase's answer to {verb} came in garbled.")


class NoFunction(Outage):
    """PostgREST knows no such function."""


class NotGranted(Outage):
    """The key's role may not call the function."""


def _translate(verb: str, error: APIError) -> WatcherError:
    code, message = str(error.code or ""), str(error.message or "")
    if code == _NO_FUNCTION:
        return NoFunction(f"The database has no function {verb}: {message}. Run `watcher doctor`.")
    if code == _REFUSED:
        return NotGranted(
            f"The Supabase key may not call {verb}: {message}. Use the project's secret key; if it is that, run "
            "`watcher doctor`."
        )
    # Without a code it is the gateway that speaks; it answers 401 to a key it does not know.
    if code in {"", "None", "401", "403"} or code.startswith("PGRST3"):
        return Outage(
            f"Supabase refused the key: {message or code}. Set SUPABASE_SECRET_KEY to the project's secret key."
        )
    return Transient(f"Supabase could not do {verb} just now: {message or 'no reason given'} ({code})")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _claim(line: dict[str, Any]) -> Claim:
    return Claim(
        attempt=line["attempt"],
        identity=Identity(
            id=line["id"],
            user_id=line["user_id"],
            name=line["identity_name"],
            # Whatever it holds: a row that the table's checks did not see must not cost the others their claim.
            image_paths=tuple(map(str, line["image_paths"] or ())),
            created_at=line["created_at"],
        ),
        model_id=line["model_id"],
        look_only=line["look_only"],
        exhausted=line["exhausted"],
        never_tried=line["never_tried"],
        age=line["age_seconds"],
    )
