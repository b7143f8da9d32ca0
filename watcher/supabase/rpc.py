"""Calls the schema's SQL functions through PostgREST, and translates errors."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import httpx
from postgrest.exceptions import APIError
from supabase import AsyncClient

from watcher.errors import Outage, Transient, WatcherError
from watcher.process.text import quoted
from watcher.supabase.client import json_text

T = TypeVar("T")

# Limits concurrent calls, since httpcore 1.0.9 scans all of its connections at each request; its own limit would also
# count connections that httpcore has leaked (see client.py). Claims and renewals are not queued: the daemon's leases
# depend on them.
_MAX_CONCURRENT = 8
_URGENT = {"watcher_claim", "watcher_renew"}

_INSUFFICIENT_PRIVILEGE = "42501"
_NO_FUNCTION = "PGRST202"
_READ_ONLY = "25006"
_KEY_REFUSED = {"PGRST301", "PGRST302", "PGRST303"}
_INVALID_ARGUMENT = "22023"


class NoFunction(Outage):
    """PostgREST finds no such function."""


class ReadOnly(Transient):
    """The database accepts no writes."""


class NotGranted(Outage):
    """The key's role may not call the function."""


class InvalidArgument(Transient):
    """The function does not accept an argument; its own sentence says why."""


class Rpc:
    """Calls functions by name; a call raises Transient or Outage."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._concurrent = asyncio.Semaphore(_MAX_CONCURRENT)

    async def call(self, function: str, **arguments: object) -> Any:
        """Return the function's result."""
        try:
            async with nullcontext() if function in _URGENT else self._concurrent:
                return (await self._client.rpc(function, arguments).execute()).data
        except APIError as error:
            raise _translate(function, error) from error
        except httpx.HTTPStatusError as error:
            raise _translate_gateway(function, error.response) from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise Transient(f"Supabase could not be reached for {function}: {reason}") from error
        except (ValueError, RecursionError) as error:
            # Not UTF-8, or nested too deeply.
            raise malformed(function) from error

    async def object(self, function: str, **arguments: object) -> dict[str, Any]:
        """Return the function's result, which must be an object."""
        result = await self.call(function, **arguments)
        return read(function, lambda: dict(result.items()))


def read(function: str, reading: Callable[[], T]) -> T:
    """Return what `reading` extracts from a result; raises Transient if it is malformed.

    postgrest 2.34.1 returns a response that is not JSON, such as a truncated one, as text.
    """
    try:
        return reading()
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise malformed(function) from error


def malformed(function: str) -> Transient:
    """Return the error for a malformed response to `function`."""
    return Transient(f"Supabase's response to {function} is malformed.")


def _translate(function: str, error: APIError) -> WatcherError:
    code, message = str(error.code or ""), str(error.message or "")
    if code == _NO_FUNCTION:
        return NoFunction(f"The database has no function {function}: {message}. Run `watcher doctor`.")
    if code == _INSUFFICIENT_PRIVILEGE:
        return NotGranted(
            f"The Supabase key may not call {function}: {message}. Set SUPABASE_SECRET_KEY to the project's secret key; "
            "if it is already the secret key, run `watcher doctor`.",
            lasting=True,
        )
    # Postgres's own messages of this code, as of a role that does not exist, end without a full stop.
    if code == _INVALID_ARGUMENT and message.endswith("."):
        return InvalidArgument(message)
    if code == _READ_ONLY:
        return ReadOnly(
            f"Supabase's database is read-only, as it becomes when its disk is nearly full: {message}."
        )
    if code in _KEY_REFUSED:
        return _key_refused(message or code)
    return Transient(f"Supabase failed to run {function}: {message or 'no reason given'} ({code})")


def _translate_gateway(function: str, response: httpx.Response) -> WatcherError:
    """Return our error for one that is not PostgREST's: the gateway's, or that of a proxy before it."""
    status = response.status_code
    own_words = json_text(response.content, "message") or json_text(response.content, "msg")
    said = (
        f"{quoted(own_words or response.text, otherwise=response.reason_phrase).rstrip('.')} (HTTP {status})"
    )
    if status == httpx.codes.PAYMENT_REQUIRED:
        return Outage(
            f"Supabase restricts the project: {said}. See usage and billing in the project's dashboard."
        )
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        if own_words:
            return _key_refused(said)
        return Outage(
            f"Something in front of Supabase, such as a proxy, refused the request: {said}. Check this host's network "
            "and SUPABASE_URL."
        )
    hint = " Check SUPABASE_URL." if status == httpx.codes.NOT_FOUND else ""
    return Transient(f"Supabase could not be reached for {function}: {said}.{hint}")


def _key_refused(reason: str) -> Outage:
    return Outage(
        f"Supabase refused the key: {reason}. Set SUPABASE_SECRET_KEY to the project's secret key.",
        lasting=True,
    )
