"""The one place where the parts meet: settings become a running daemon."""

import sys
from collections.abc import Callable
from contextlib import AsyncExitStack

import httpx

from watcher.engine.attempt import Attempts
from watcher.engine.daemon import Daemon
from watcher.engine.health import Health
from watcher.engine.lease import Leases
from watcher.engine.outages import Outages
from watcher.engine.probes import Probes
from watcher.engine.retry import Retry
from watcher.hub.repos import Hub
from watcher.operator.queries import Queries
from watcher.photos.fetch import Photos
from watcher.photos.spool import Spool
from watcher.process.http import serving
from watcher.process.sd_notify import ServiceManager
from watcher.process.signals import handled
from watcher.publishing.publisher import Publisher
from watcher.settings.settings import Settings, environment
from watcher.supabase import storage
from watcher.supabase.client import TIMEOUT, UNLIMITED, supabase_client
from watcher.supabase.rpc import Rpc
from watcher.supabase.verbs import Verbs

# Seconds. Some ten threads for each row send images, and Python would let each keep the interpreter for 5 ms while the
# loop waits with a hundred things.
_SWITCH = 0.0005
# Beside the poll interval, what an answer may take before we no longer count on Supabase.
_ANSWER = 60.0


async def run(settings: Settings, *, stopped: Callable[[], object] = lambda: None) -> None:
    """Run the daemon until SIGTERM or SIGINT, and call `stopped` when all that is left is closing; raises Misconfigured."""
    sys.setswitchinterval(_SWITCH)
    key = settings.supabase_key.get_secret_value()
    retry = Retry()
    spool = Spool(settings.spool)
    async with AsyncExitStack() as stack:
        stack.enter_context(spool.locked())
        tls = httpx.create_ssl_context()  # shared, since each holds the certificate authorities: 0.9 MB
        http = await stack.enter_async_context(
            httpx.AsyncClient(verify=tls, timeout=TIMEOUT, limits=UNLIMITED)
        )
        image_http = await stack.enter_async_context(
            httpx.AsyncClient(verify=tls, timeout=storage.TIMEOUT, limits=UNLIMITED)
        )
        rpc = Rpc(supabase_client(settings.supabase_url, key, http))
        verbs = Verbs(rpc)
        hub = Hub(
            endpoint=settings.hf_endpoint,
            token=settings.hf_token.get_secret_value(),
            namespace=settings.hf_namespace,
        )
        stack.callback(hub.close)
        photos = Photos(
            storage.Storage(image_http, url=settings.supabase_url, key=key),
            fetches=settings.fetches,
            retry=retry,
        )
        leases = Leases(verbs, length=settings.lease, renewal=settings.renewal)
        works = {"publish": Publisher(verbs=verbs, hub=hub, photos=photos, spool=spool, retry=retry)}
        outages = Outages()
        health = Health(ServiceManager(environment()), outages, answer_within=settings.poll_alive + _ANSWER)
        if (address := settings.metrics) is not None:
            probes = Probes(
                health=health,
                outages=outages,
                status=Queries(rpc).status,
                hub_requests=lambda: hub.rate_limit.requests,
                slots=settings.slots,
            )
            await stack.enter_async_context(serving(*address, probes.pages))

        async def look() -> None:
            await verbs.check_version()
            await hub.first_look()

        async def probe() -> None:
            spool.check_room()
            await look()

        daemon = Daemon(
            settings=settings,
            verbs=verbs,
            leases=leases,
            attempts=Attempts(verbs=verbs, leases=leases, works=works, retry=retry),
            outages=outages,
            health=health,
            first_look=look,
            probe=probe,
        )
        with handled(daemon.stop):
            await daemon.run()
            stopped()
