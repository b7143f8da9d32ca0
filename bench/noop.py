"""The whole daemon with a publisher that publishes nothing: no images, and no requests to the Hub for a row.

At its end it prints its claims as JSON: the monotonic time in seconds, the number of rows requested and received of each.
"""

import asyncio
import json
import os
import time
from typing import Any

from watcher import app
from watcher.engine.lease import Lease
from watcher.identity import Claim, Publication
from watcher.process.log import configure
from watcher.publishing.documents import slug
from watcher.publishing.publisher import Publisher, identity_of
from watcher.settings import settings
from watcher.supabase.answers import Claims
from watcher.supabase.verbs import Verbs

_claims: list[tuple[float, int, int]] = []


class _Nothing(Publisher):
    """Only reserves the name, without which a row cannot be completed."""

    async def publish(self, claim: Claim, lease: Lease) -> Publication:
        lease.check()
        repo = await self.retry(
            self.verbs.reserve,
            claim.attempt,
            self.hub.namespace,
            slug(identity_of(claim).name),
            claim.details["model_id"],
        )
        return Publication(url=self.hub.url(repo), commit_sha="0" * 40)


class _Recorded(Verbs):
    async def claim(self, **asked: Any) -> Claims:
        answer = await super().claim(**asked)
        _claims.append((time.monotonic(), asked["slots"].get("publish", 0), len(answer.claims)))
        return answer


def main() -> None:
    vars(app).update(Publisher=_Nothing, Verbs=_Recorded)
    loaded = settings.load()
    configure(
        loaded.log_level,
        loaded.log_format,
        loaded.secrets,
        settings.environment(),
        instance=loaded.instance,
    )
    asyncio.run(app.run(loaded))
    print(json.dumps(_claims), flush=True)
    os._exit(0)  # like the command, since a library's thread may still be waiting


if __name__ == "__main__":
    main()
