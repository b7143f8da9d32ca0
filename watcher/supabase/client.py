"""Supabase's client, configured for a daemon: it does not retry and never signs in."""

import json
import re

import httpx
from supabase import AsyncClient, AsyncClientOptions

TIMEOUT = httpx.Timeout(10, connect=5)
"""Of one call, in seconds."""
# A SQLSTATE, or PostgREST's own.
_CODE = re.compile(r"PGRST\w{3}|[0-9A-Z]{5}")


def supabase_client(url: str, key: str, http: httpx.AsyncClient) -> AsyncClient:
    """Return a client that sends all requests through `http`."""
    http.event_hooks = {"response": [_raise_for_gateway_error]}
    return AsyncClient(
        url,
        key,
        AsyncClientOptions(
            auto_refresh_token=False, persist_session=False, postgrest_client_retry=False, httpx_client=http
        ),
    )


async def _raise_for_gateway_error(response: httpx.Response) -> None:
    """Raise HTTPStatusError, with the body read, for an error that is not PostgREST's, by its status.

    PostgREST's have a code. postgrest's error would not have the status.
    """
    if response.is_error and not _CODE.fullmatch(json_text(await response.aread(), "code")):
        raise httpx.HTTPStatusError(
            f"HTTP {response.status_code}", request=response.request, response=response
        )


def json_text(body: bytes, name: str) -> str:
    """Return a member of the JSON object in a body, if there is one and it is text; else an empty text."""
    try:
        value = json.loads(body)[name]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""
