"""Fetches all images of a row, then uploads them, with the daemon's own parts: the time without overlap.

python -m bench.alone FOLDER    publishes the next row for each line on stdin, and prints the seconds of fetch and upload
"""

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx

from watcher.engine.lease import Leases
from watcher.engine.retry import Retry
from watcher.hub.repos import Hub
from watcher.identity import Claim, Identity, Image
from watcher.photos.fetch import Photos
from watcher.photos.spool import Spool
from watcher.publishing.documents import training_config
from watcher.publishing.publisher import Publisher, identity_of
from watcher.settings.settings import Settings, load
from watcher.supabase.client import supabase_client
from watcher.supabase.connections import Client
from watcher.supabase.rpc import Rpc
from watcher.supabase.storage import Storage
from watcher.supabase.verbs import Verbs

_LEASE = 600.0


class _Fetched(Photos):
    """Images that have been fetched before."""

    def __init__(self, images: list[Image]) -> None:
        self._images = images
        self.clean = True

    async def fetch(self, identity: Identity, number: int, folder: Path) -> Image:  # noqa: ARG002
        """Return a hard link to the image, since the publisher deletes the file once it is uploaded."""
        image = self._images[number - 1]
        own = folder / image.file.name
        own.hardlink_to(image.file)
        return replace(image, file=own)


class Alone:
    """Publishes rows one after the other, first all fetches, then all uploads."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient, hub: Hub, spool: Spool) -> None:
        key = settings.supabase_key.get_secret_value()
        self._retry = Retry()
        self._images = Photos(
            Storage(http, url=settings.supabase_url, key=key), fetches=settings.fetches, retry=self._retry
        )
        self._verbs = Verbs(Rpc(supabase_client(settings.supabase_url, key, http)))
        self._leases = Leases(self._verbs, length=_LEASE, renewal=_LEASE / 4)
        self._hub = hub
        self._spool = spool

    async def carry(self, folder: Path) -> tuple[float, float]:
        """Publish the next row; returns the seconds of fetch and upload."""
        answer = await self._verbs.claim(
            instance="alone",
            run=str(uuid4()),
            slots={"publish": 1},
            lease=_LEASE,
            holding=[],
            predecessor_is_dead=False,
            machine="here",
        )
        [claim] = answer.claims
        began = time.perf_counter()
        identity = identity_of(claim)
        count = len(identity.image_paths)
        images = await asyncio.gather(
            *(self._images.fetch(identity, number, folder) for number in range(1, count + 1))
        )
        fetched = time.perf_counter()
        await self._upload(claim, list(images))
        uploaded = time.perf_counter()
        for image in images:
            image.file.unlink()
        return fetched - began, uploaded - fetched

    async def _upload(self, claim: Claim, images: list[Image]) -> None:
        publisher = Publisher(
            verbs=self._verbs, hub=self._hub, photos=_Fetched(images), spool=self._spool, retry=self._retry
        )
        async with self._leases.held(claim.attempt, requested_at=asyncio.get_running_loop().time()) as lease:
            publication = await publisher.publish(claim, lease)
            await self._verbs.complete(
                claim.attempt, publication, training_config(identity_of(claim)), answered=True
            )


async def _main(folder: Path) -> None:
    settings = load()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(Client(verify=httpx.create_ssl_context(), timeout=600))
        hub = Hub(
            endpoint=settings.hf_endpoint,
            token=settings.hf_token.get_secret_value(),
            namespace=settings.hf_namespace,
        )
        stack.callback(hub.close)
        await hub.check_token()
        spool = Spool(settings.spool)
        stack.enter_context(spool.locked())
        alone = Alone(settings, http, hub, spool)
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(*(await alone.carry(folder)), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
