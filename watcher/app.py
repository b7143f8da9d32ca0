"""The one place where the parts meet: settings become a running daemon."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from supabase import AsyncClient, AsyncClientOptions

from watcher.attempt import Attempts
from watcher.daemon import Daemon
from watcher.endpoint import serving
from watcher.health import Health
from watcher.hub import Hub
from watcher.images import Images
from watcher.lease import Leases
from watcher.notify import ServiceManager
from watcher.outages import Outages
from watcher.probes import Probes
from watcher.publisher import Publisher
from watcher.retry import Retry
from watcher.rows import Rows
from watcher.settings import Settings, SupabaseSettings, environment
from watcher.signals import heard
from watcher.spool import Spool

_TIMEOUT = httpx.Timeout(10, connect=5)
# A bucket may take its time before the first byte of an image.
_IMAGE_TIMEOUT = httpx.Timeout(30, connect=5, pool=None)
# httpcore 1.0.9 keeps a connection for ever where a request was cancelled in an unlucky moment. Counted against a limit,
# a few of those would leave none to wait for; how much goes on at once is decided by `slots` and `fetches`.
UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=None)
# Seconds. Some ten threads for each row send images, and Python would let each keep the interpreter for 5 ms while the
# loop waits with a hundred things.
_SWITCH = 0.0005
# Beside the time between two looks, what an answer may take before we no longer count on Supabase.
_ANSWER = 60.0


async def run(settings: Settings, *, stopped: Callable[[], object] = lambda: None) -> None:
    """Run the daemon until SIGTERM or SIGINT, and call `stopped` when all that is left is closing; raises Misconfigured."""
    sys.setswitchinterval(_SWITCH)
    key = settings.supabase_key.get_secret_value()
    retry = Retry()
    spool = Spool(settings.spool)
    async with AsyncExitStack() as stack:
        stack.enter_context(spool.locked())
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=_TIMEOUT, limits=UNLIMITED))
        image_http = await stack.enter_async_context(
            httpx.AsyncClient(timeout=_IMAGE_TIMEOUT, limits=UNLIMITED)
        )
        rows = Rows(supabase_client(settings.supabase_url, key, http))
        hub = Hub(
            endpoint=settings.hf_endpoint,
            token=settings.hf_token.get_secret_value(),
            namespace=settings.hf_namespace,
        )
        stack.callback(hub.close)
        leases = Leases(rows, length=settings.lease, renewal=settings.renewal)
        images = Images(image_http, url=settings.supabase_url, key=key, fetches=settings.fetches, retry=retry)
        publisher = Publisher(rows=rows, hub=hub, images=images, spool=spool, retry=retry)
        outages = Outages()
        health = Health(ServiceManager(environment()), outages, answer_within=settings.poll_alive + _ANSWER)
        if (address := settings.metrics) is not None:
            probes = Probes(
                health=health, outages=outages, rows=rows, budget=hub.budget, slots=settings.slots
            )
            await stack.enter_async_context(serving(*address, probes.pages))

        async def look() -> None:
            await rows.check_version()
            await hub.first_look()

        async def probe() -> None:
            spool.check_room()
            await look()

        daemon = Daemon(
            settings=settings,
            rows=rows,
            leases=leases,
            attempts=Attempts(rows=rows, leases=leases, publisher=publisher, retry=retry),
            outages=outages,
            health=health,
            first_look=look,
            probe=probe,
        )
        with heard(daemon.stop):
            await daemon.run()
            stopped()


@asynccontextmanager
async def rows_of(settings: SupabaseSettings) -> AsyncIterator[Rows]:
    """Open the rows for an operator's command."""
    async with httpx.AsyncClient(timeout=_TIMEOUT) as http:
        yield Rows(supabase_client(settings.supabase_url, settings.supabase_key.get_secret_value(), http))


def supabase_client(url: str, key: str, http: httpx.AsyncClient) -> AsyncClient:
    """Make a client that uses `http` for everything, retries nothing by itself and never signs in."""
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
    speaks_for_itself = response.headers.get("Proxy-Status", "").startswith("PostgREST")
    if not speaks_for_itself and (response.status_code in {408, 429} or response.is_server_error):
        raise httpx.HTTPStatusError(
            f"HTTP {response.status_code}", request=response.request, response=response
        )
