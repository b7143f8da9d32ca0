"""The operator's calls to the database: status, one row's history, the catalogue, limits, trainings, replay."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import httpx

from watcher.process.log import configure
from watcher.settings import settings
from watcher.settings.settings import SupabaseSettings
from watcher.supabase.client import TIMEOUT, supabase_client
from watcher.supabase.rpc import InvalidArgument, Rpc, read

T = TypeVar("T")

_BATCH = 1000
"""Rows that one call replays: a second's work for the database."""


@dataclass(frozen=True, slots=True)
class ReplayFilter:
    """Which failed rows to replay, or of which the failed training: those that match every condition given."""

    ids: list[str] | None = None
    code: str | None = None
    failed_since: str | None = None
    """An ISO 8601 time with its zone."""
    failed_within_seconds: float | None = None
    user: str | None = None
    trainings: bool = False
    """Their trainings, which cannot be chosen by time."""


class Queries:
    """The operator's calls. Every method raises Transient or Outage; InvalidArgument is a Transient."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    async def status(
        self, *, user: str | None = None, since: float | str | None = None, failed: int = 10
    ) -> dict[str, Any]:
        """Return the pending, running, failed and published rows; see `watcher_status` in the migrations.

        `since`: what failed and was published in so many seconds, or since an ISO 8601 time with its zone; `failed`: how
        many failed rows to list, 10,000 at most.
        """
        return await self._rpc.object(
            "watcher_status",
            p_user=user,
            p_since=since if isinstance(since, str) else None,
            p_within_seconds=since if isinstance(since, float) else None,
            p_failed=failed,
        )

    async def story(self, identity_id: str) -> dict[str, Any] | None:
        """Return one row's history: the row and all its attempts; None if there is no such row."""
        answer = await self._rpc.call("watcher_story", p_id=identity_id)
        return None if answer is None else read("watcher_story", lambda: dict(answer.items()))

    async def catalogue(self) -> dict[str, Any]:
        """Return the catalogue: the current grants, policies and triggers; see `watcher_catalogue` in the migrations."""
        return await self._rpc.object("watcher_catalogue")

    async def limits(self, user: str | None = None) -> list[dict[str, Any]]:
        """Return all limits, for everybody or one user; see `watcher_limits` in the migrations."""
        return _limits(await self._rpc.call("watcher_limits", p_user=user))

    async def set_limit(self, name: str, value: int | None, user: str | None = None) -> list[dict[str, Any]]:
        """Set a limit, or with None remove what was set, and return all limits; raises InvalidArgument if it is invalid."""
        answer = await self._rpc.call("watcher_set_limit", p_name=name, p_value=value, p_user=user)
        return _limits(answer)

    async def pause(self, kind: str | None, seconds: float | None, why: str | None) -> list[dict[str, Any]]:
        """Pause a kind of work, or every kind; returns what is paused, see `watcher_pause` in the migrations."""
        answer = await self._rpc.call("watcher_pause", p_kind=kind, p_seconds=seconds, p_why=why)
        return read("watcher_pause", lambda: [dict(pause.items()) for pause in answer])

    async def resume(self, kind: str | None) -> list[dict[str, Any]]:
        """End the pause of a kind, or of every kind; returns what is still paused."""
        answer = await self._rpc.call("watcher_resume", p_kind=kind)
        return read("watcher_resume", lambda: [dict(pause.items()) for pause in answer])

    async def replay(
        self, matching: ReplayFilter, *, dry_run: bool, after: str | None = None
    ) -> dict[str, Any]:
        """Set one batch of failed rows back to pending, or have them trained again, those after that id.

        Returns the counts, and as `last` what to call it with for the next batch, None if there is none; see
        `watcher_replay` and `watcher_replay_trainings` in the migrations. A dry run counts all rows in one call.
        """
        times = {
            "p_failed_since": matching.failed_since,
            "p_failed_within_seconds": matching.failed_within_seconds,
        }
        verb = "watcher_replay_trainings" if matching.trainings else "watcher_replay"
        answer = await self._rpc.object(
            verb,
            p_limit=_BATCH,
            p_after=after,
            p_ids=matching.ids,
            p_code=matching.code,
            p_user=matching.user,
            p_dry_run=dry_run,
            **({} if matching.trainings else times),
        )
        return read(verb, lambda: answer | {"codes": dict(answer["codes"]), "last": answer["last"]})

    async def training(self) -> dict[str, Any]:
        """Return the settings of trainings, those that run and the last ones; see `watcher_training` in the migrations."""
        return await self._rpc.object("watcher_training")

    async def set_training(self, changed: Mapping[str, object]) -> dict[str, Any]:
        """Change these settings of trainings, and return what `training` does; see `watcher_set_training`."""
        return await self._rpc.object("watcher_set_training", p_settings=dict(changed))

    async def erasures(self, *, limit: int = 100) -> dict[str, Any]:
        """Return open erasures, receipts, what is held back, and the settings; see `watcher_erasures` in the migrations."""
        return await self._rpc.object("watcher_erasures", p_limit=limit)

    async def forget(self, user: str, *, dry_run: bool) -> dict[str, Any]:
        """Erase all of a user, or count it; see `watcher_forget` in the migrations."""
        return await self._rpc.object("watcher_forget", p_user=user, p_dry_run=dry_run)

    async def export(self, user: str) -> dict[str, Any]:
        """Return all that is known of a user; see `watcher_export` in the migrations."""
        return await self._rpc.object("watcher_export", p_user=user)

    async def close_erasure(self, erasure: str, because: str) -> bool:
        """Close an open erasure; returns whether there was one."""
        return bool(await self._rpc.call("watcher_close_erasure", p_id=erasure, p_because=because))

    async def confirm_sweep(self) -> dict[str, Any]:
        """Let the next sweep erase what it holds back, and return how much that is."""
        return await self._rpc.object("watcher_confirm_sweep")

    async def restore_receipts(self, ids: list[str]) -> int:
        """Add receipts that a restored backup has lost; returns how many were missing."""
        added = await self._rpc.call("watcher_restore_receipts", p_ids=ids)
        return read("watcher_restore_receipts", lambda: int(added))


def _limits(answer: Any) -> list[dict[str, Any]]:
    return read("watcher_limits", lambda: [dict(limit.items()) for limit in answer])


@asynccontextmanager
async def connected(given: SupabaseSettings) -> AsyncIterator[Rpc]:
    """Connect to Supabase for the length of an operator's command."""
    async with httpx.AsyncClient(timeout=TIMEOUT) as http:
        yield Rpc(supabase_client(given.supabase_url, given.supabase_key.get_secret_value(), http))


def ask(question: Callable[[Queries], Awaitable[T]]) -> T:
    """Read the settings, set up logging, and query the database.

    Raises Misconfigured, Transient or Outage, and click's UsageError where the database does not accept an argument.
    """
    loaded = settings.load_supabase()
    configure("ERROR", "console", [loaded.supabase_key.get_secret_value()], settings.environment())

    async def answer() -> T:
        async with connected(loaded) as rpc:
            return await question(Queries(rpc))

    try:
        return asyncio.run(answer())
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from error
