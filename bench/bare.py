"""A bare loop with the database calls of a publication and nothing else: no daemon, lease, Realtime, log or retry.

`python -m bench.bare SLOTS LIMIT`, with the Supabase settings in the environment; ends when a claim is empty.
"""

import asyncio
import sys
from typing import Any
from uuid import uuid4

import httpx

from watcher.settings.settings import load_supabase
from watcher.supabase.connections import UNLIMITED


async def _run(slots: int, limit: int) -> None:
    settings = load_supabase()
    key = settings.supabase_key.get_secret_value()
    running: dict[asyncio.Task[None], int] = {}
    run = str(uuid4())
    async with httpx.AsyncClient(
        base_url=f"{settings.supabase_url}/rest/v1/rpc/",
        headers={"apikey": key, "authorization": f"Bearer {key}"},
        limits=UNLIMITED,
    ) as http:

        async def call(verb: str, **arguments: Any) -> Any:
            response = await http.post(verb, json={f"p_{name}": value for name, value in arguments.items()})
            return response.raise_for_status().json()

        async def row(claim: dict[str, Any]) -> None:
            attempt = claim["attempt"]
            slug = claim["details"]["identity_name"].lower().replace(" ", "-")
            name = await call("watcher_reserve", attempt=attempt, namespace="bare", slug=slug)
            done = await call(
                "watcher_complete",
                attempt=attempt,
                url=f"http://hub/{name}",
                commit_sha="0" * 40,
                training_config={"identity_name": claim["details"]["identity_name"]},
            )
            assert done == "done", done

        while True:
            while slots - len(running) < limit:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            answer = await call(
                "watcher_claim",
                instance="bare",
                run=run,
                slots={"publish": limit},
                lease_seconds=20,
                holding=list(running.values()),
            )
            for claim in answer["claims"]:
                task = asyncio.create_task(row(claim))
                running[task] = claim["attempt"]
                task.add_done_callback(running.pop)
            if not answer["claims"]:
                break
        await asyncio.gather(*running)


if __name__ == "__main__":
    asyncio.run(_run(*map(int, sys.argv[1:])))
