"""What the operator asks the database and tells it: status, one row's history, the catalogue, replay."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from watcher.settings.settings import SupabaseSettings
from watcher.supabase.client import TIMEOUT, supabase_client
from watcher.supabase.rpc import Rpc, read


@dataclass(frozen=True, slots=True)
class Choice:
    """Which failed rows to replay: those that fit everything that is given."""

    ids: list[str] | None = None
    code: str | None = None
    failed_since: str | None = None
    """A time with its zone."""
    failed_within_seconds: float | None = None
    user: str | None = None


class Queries:
    """Each raises Transient or Outage."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    async def status(self) -> dict[str, Any]:
        """Return what waits, runs, failed and was published; see `watcher_status` in the migrations."""
        return await self._rpc.object("watcher_status")

    async def story(self, identity_id: str) -> dict[str, Any] | None:
        """Return one row and all its attempts; None if there is no such row."""
        answer = await self._rpc.call("watcher_story", p_id=identity_id)
        return None if answer is None else read("watcher_story", lambda: dict(answer.items()))

    async def catalogue(self) -> dict[str, Any]:
        """Return the current grants, policies and triggers; see `watcher_catalogue` in the migrations."""
        return await self._rpc.object("watcher_catalogue")

    async def replay(self, choice: Choice, *, dry_run: bool) -> dict[str, Any]:
        """Set failed rows back to pending; returns counts by what was done, see `watcher_replay` in the migrations."""
        return await self._rpc.object(
            "watcher_replay",
            p_ids=choice.ids,
            p_code=choice.code,
            p_failed_since=choice.failed_since,
            p_failed_within_seconds=choice.failed_within_seconds,
            p_user=choice.user,
            p_dry_run=dry_run,
        )


@asynccontextmanager
async def opened(settings: SupabaseSettings) -> AsyncIterator[Rpc]:
    """Open a connection for an operator's command."""
    async with httpx.AsyncClient(timeout=TIMEOUT) as http:
        yield Rpc(supabase_client(settings.supabase_url, settings.supabase_key.get_secret_value(), http))
