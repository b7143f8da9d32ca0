"""Supabase's client, configured for a daemon: it does not retry and never signs in."""

import httpx
from supabase import AsyncClient, AsyncClientOptions

TIMEOUT = httpx.Timeout(10, connect=5)
"""Of one call, in seconds."""


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
    """Raise HTTPStatusError for a temporary error of the gateway: status 408, 429 or 5xx.

    Its body may be JSON without a code, as when it refuses a key, and postgrest's error does not have the status.
    """
    from_postgrest = response.headers.get("Proxy-Status", "").startswith("PostgREST")
    if not from_postgrest and (response.status_code in {408, 429} or response.is_server_error):
        raise httpx.HTTPStatusError(
            f"HTTP {response.status_code}", request=response.request, response=response
        )
