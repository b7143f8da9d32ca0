"""Builds the daemon's parts from the settings and runs it."""

import sys
from collections.abc import Callable
from contextlib import AsyncExitStack

import httpx
import structlog

from watcher.engine.attempt import Attempts
from watcher.engine.daemon import Daemon
from watcher.engine.fair import FairLimit
from watcher.engine.health import Health
from watcher.engine.lease import Leases
from watcher.engine.outages import Outages
from watcher.engine.probes import Probes
from watcher.engine.reach import Checks, Reach
from watcher.engine.retry import Retry
from watcher.engine.work import Work
from watcher.erasing.eraser import Eraser
from watcher.erasing.sweeper import Sweeper
from watcher.hub.jobs import Jobs
from watcher.hub.repos import Hub
from watcher.hub.weights import Weights
from watcher.notifying.notifier import Notifier
from watcher.notifying.webhook import Receiver
from watcher.operator.queries import Queries
from watcher.photos.fetch import Photos
from watcher.photos.spool import Spool
from watcher.process.allocator import share_one_heap
from watcher.process.http import serving
from watcher.process.instance import InstanceLock, machine
from watcher.process.sd_notify import ServiceManager
from watcher.process.signals import handling_signals
from watcher.publishing.publisher import Publisher
from watcher.publishing.write_check import WriteCheck
from watcher.settings.settings import Settings, environment, notices
from watcher.supabase import storage
from watcher.supabase.client import TIMEOUT, supabase_client
from watcher.supabase.connections import Client
from watcher.supabase.rpc import Rpc
from watcher.supabase.training_verbs import TrainingVerbs
from watcher.supabase.verbs import Verbs
from watcher.training.follower import Follower
from watcher.training.prices import Prices
from watcher.training.recipe import project_digest
from watcher.training.trainer import Trainer

log = structlog.get_logger(__name__)

# Seconds. About ten threads per row upload images, and by default each may keep the interpreter for 5 ms while the loop
# waits.
_SWITCH_INTERVAL = 0.0005
# Claims at the same time, by kind of work, beside the rows that are being published.
_SIZES = {"erase": 2, "sweep": 1, "train": 2, "follow": 1, "notify": 2}
# Batches uploaded at the same time at least: while one requests its upload URLs, another uses the link.
_UPLOADS = 2
# Seconds, beyond the poll interval, without a response from Supabase after which the daemon is not ready.
_ANSWER_WITHIN = 60.0


async def run(settings: Settings, *, stopped: Callable[[], object] = lambda: None) -> None:
    """Run the daemon until SIGTERM or SIGINT; raises Misconfigured.

    Calls `stopped` once every row is finished or released, before connections are closed.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)
    share_one_heap()
    for notice in notices():
        log.warning("setting_unused", reason=notice)
    key = settings.supabase_key.get_secret_value()
    retry = Retry()
    spool = Spool(settings.spool)
    async with AsyncExitStack() as stack:
        stack.enter_context(InstanceLock(settings.instance, settings.supabase_url).held())
        stack.enter_context(spool.locked())
        tls = httpx.create_ssl_context()  # shared, since each holds the certificate authorities: 0.9 MB
        http = await stack.enter_async_context(Client(verify=tls, timeout=TIMEOUT))
        image_http = await stack.enter_async_context(Client(verify=tls, timeout=storage.TIMEOUT))
        rpc = Rpc(supabase_client(settings.supabase_url, key, http))
        verbs = Verbs(rpc)
        hub = Hub(
            endpoint=settings.hf_endpoint,
            token=settings.hf_token.get_secret_value(),
            namespace=settings.hf_namespace,
        )
        stack.callback(hub.close)
        jobs = Jobs(hub)
        bucket = storage.Storage(image_http, url=settings.supabase_url, key=key)
        photos = Photos(bucket, fetches=settings.fetches, retry=retry, clean=settings.metadata == "clean")
        leases = Leases(verbs, length=settings.lease, renewal=settings.renewal)
        notifier = None
        if settings.notify_url is not None:
            notifier = _notifier(settings, verbs, image_http)
            stack.push_async_callback(notifier.close)
        works: dict[str, Work] = {
            "publish": Publisher(
                verbs=verbs,
                hub=hub,
                photos=photos,
                spool=spool,
                retry=retry,
                uploads=FairLimit(max(settings.slots, _UPLOADS)),
            ),
            "erase": Eraser(verbs=verbs, hub=hub, jobs=jobs, storage=bucket, retry=retry),
            "sweep": Sweeper(verbs),
            **_training(settings, TrainingVerbs(rpc), hub, jobs, bucket, retry),
            **({} if notifier is None else {"notify": notifier}),
        }
        reach = Reach(
            {
                "hub": Checks(hub.check_token, others=WriteCheck(verbs, hub)),
                "storage": Checks(bucket.check),
            }
        )
        sizes = _SIZES | {"publish": settings.slots}
        slots = {kind: sizes[kind] for kind in works}
        outages = Outages()
        if notifier is not None:
            outages = Outages(on_begin=notifier.outage_began, on_end=notifier.outage_ended)
        answer_within = settings.poll_alive + _ANSWER_WITHIN
        health = Health(ServiceManager(environment()), outages, answer_within=answer_within)
        if (address := settings.metrics) is not None:
            probes = Probes(
                health=health,
                outages=outages,
                status=Queries(rpc).status,
                hub_requests=lambda: hub.rate_limit.requests,
                slots=slots,
            )
            await stack.enter_async_context(serving(*address, probes.pages))

        async def check_services() -> None:
            await verbs.check_version()
            await hub.check_token()
            if notifier is not None:
                await verbs.notify_from_now()

        async def probe() -> None:
            spool.check_space()
            await check_services()
            await bucket.check()

        daemon = Daemon(
            settings=settings,
            verbs=verbs,
            leases=leases,
            attempts=Attempts(verbs=verbs, leases=leases, works=works, retry=retry, reach=reach),
            outages=outages,
            health=health,
            slots=slots,
            machine=machine(),
            startup_check=check_services,
            probe=probe,
        )
        with handling_signals(daemon.stop):
            await daemon.run()
            stopped()


def _training(
    settings: Settings,
    verbs: TrainingVerbs,
    hub: Hub,
    jobs: Jobs,
    bucket: storage.Storage,
    retry: Retry,
) -> dict[str, Work]:
    """Return the kinds of work that training takes; none without the token that its jobs need."""
    if settings.training_token is None:
        return {}
    project = project_digest(settings.supabase_url)
    trainer = Trainer(
        verbs=verbs,
        jobs=jobs,
        prices=Prices(jobs, retry),
        weights=Weights(hub),
        storage=bucket,
        retry=retry,
        project=project,
        token=settings.training_token.get_secret_value(),
    )
    return {"train": trainer, "follow": Follower(verbs=verbs, jobs=jobs, retry=retry, project=project)}


def _notifier(settings: Settings, verbs: Verbs, http: httpx.AsyncClient) -> Notifier:
    assert settings.notify_url is not None
    secret = settings.notify_secret
    receiver = Receiver(
        http,
        url=settings.notify_url.get_secret_value(),
        secret=None if secret is None else secret.get_secret_value(),
    )
    return Notifier(verbs=verbs, receiver=receiver, instance=settings.instance)
