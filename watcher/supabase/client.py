"""Supabase's client, without its habits: it retries nothing by itself and never signs in."""

import httpx
from supabase import AsyncClient, AsyncClientOptions

TIMEOUT = httpx.Timeout(10, connect=5)
"""Of one call."""
# httpcore 1.0.9 keeps a connection for ever where a request was cancelled in an unlucky moment. Counted against a limit,
# a few of those would leave none to wait for; how much goes on at once is decided by `slots` and `fetches`.
UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=None)


def supabase_client(url: str, key: str, http: httpx.AsyncClient) -> AsyncClient:
    """Make a client that uses `http` for everything."""
    http.event_hooks = {"response": [_raise_for_trouble]}
    return AsyncClient(
        url,
        key,
        AsyncClientOptions(
            auto_refresh_token=False, persist_session=False, postgrest_client_retry=False, httpx_client=http
        ),
    )


async def _raise_for_trouble(response: httpx.Response) -> None:
    """Raise httpx's own error where a gateway is in trouble.

    It may say so in JSON without a code, which is also how it refuses a key, and postgrest tells no status.
    """
    from_postgrest = response.headers.get("Proxy-Status", "").startswith("PostgREST")
    if not from_postgrest and (response.status_code in {408, 429} or response.is_server_error):
        raise httpx.HTTPStatusError(
            f"HTTP {response.status_code}", request=response.request, response=response
        )
