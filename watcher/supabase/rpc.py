"""Calls the functions of the schema, and translates what comes back."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import httpx
from postgrest.exceptions import APIError
from supabase import AsyncClient

from watcher.errors import Outage, Transient, WatcherError

T = TypeVar("T")

# Calls in flight at once. httpcore 1.0.9 looks at each of its connections for each request, and a limit of its own would
# count those that it has lost. What keeps a daemon alive does not queue.
_CALLS_AT_ONCE = 8
_URGENT = {"watcher_claim", "watcher_renew"}

_REFUSED = "42501"
_NO_FUNCTION = "PGRST202"


class NoFunction(Outage):
    """PostgREST knows no such function."""


class NotGranted(Outage):
    """The key's role may not call the function."""


class Rpc:
    """Calls functions by name; a call raises Transient or Outage."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._places = asyncio.Semaphore(_CALLS_AT_ONCE)

    async def call(self, function: str, **arguments: object) -> Any:
        """Return the function's answer, whatever it is."""
        try:
            async with nullcontext() if function in _URGENT else self._places:
                return (await self._client.rpc(function, arguments).execute()).data
        except APIError as error:
            raise _translate(function, error) from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise Transient(f"Supabase could not be reached for {function}: {reason}") from error

    async def object(self, function: str, **arguments: object) -> dict[str, Any]:
        """Return the function's answer, which is an object."""
        answer = await self.call(function, **arguments)
        return read(function, lambda: dict(answer.items()))


def read(function: str, reading: Callable[[], T]) -> T:
    """Read an answer. postgrest 2.34.1 returns as text what is not JSON, such as an answer that was cut off."""
    try:
        return reading()
    except (AttributeError, KeyError, TypeError) as error:
        raise malformed(function) from error


def malformed(function: str) -> Transient:
    """Return the error for an answer that cannot be read."""
    return Transient(f"Supabase's response to {function} is malformed.")


def _translate(function: str, error: APIError) -> WatcherError:
    code, message = str(error.code or ""), str(error.message or "")
    if code == _NO_FUNCTION:
        return NoFunction(f"The database has no function {function}: {message}. Run `watcher doctor`.")
    if code == _REFUSED:
        return NotGranted(
            f"The Supabase key may not call {function}: {message}. Use the project's secret key; if it is that, run "
            "`watcher doctor`."
        )
    # Without a code it is the gateway that speaks; it answers 401 to a key it does not know.
    if code in {"", "None", "401", "403"} or code.startswith("PGRST3"):
        return Outage(
            f"Supabase refused the key: {message or code}. Set SUPABASE_SECRET_KEY to the project's secret key."
        )
    return Transient(f"Supabase could not do {function} just now: {message or 'no reason given'} ({code})")
