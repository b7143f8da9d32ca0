"""The processes that the demo starts: a sandbox and a daemon."""

import asyncio
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from watcher.demo.ending import end_with_parent
from watcher.errors import Misconfigured, Transient
from watcher.settings.settings import environment as own_environment

_FEED_WITHIN = 5.0
"""Seconds for the daemon's Realtime subscription; without it the demo goes on, and the daemon polls."""


@asynccontextmanager
async def sandbox() -> AsyncIterator[dict[str, str]]:
    """Run `watcher sandbox` on free ports and yield the settings that it prints."""
    command = ["sandbox", "--port", "0", "--hub-port", "0"]
    async with _process(command, {}, stdout=asyncio.subprocess.PIPE) as process:
        assert process.stdout is not None
        printed: dict[str, str] = {}
        while line := (await process.stdout.readline()).decode():
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                printed[name] = shlex.split(value)[0]
            elif line.startswith("# Ready"):
                break
        else:
            raise Transient("The sandbox ended before it was ready: run `watcher sandbox` to see why.")
        yield printed


@asynccontextmanager
async def watcher(environment: dict[str, str]) -> AsyncIterator[None]:
    """Run `watcher run`; yields once it is ready and, unless that takes too long, subscribed to Realtime."""
    async with _process(["run"], environment, stderr=asyncio.subprocess.PIPE) as process:
        log: list[str] = []
        events = {event: asyncio.Event() for event in ("ready", "feed_alive")}

        async def read() -> None:
            assert process.stderr is not None
            async for line in process.stderr:
                log.append(line.decode())
                for event, flag in events.items():
                    if f'"event": "{event}"' in log[-1]:
                        flag.set()
            events["ready"].set()

        reading = asyncio.create_task(read())
        await events["ready"].wait()
        if reading.done():
            raise Misconfigured(f"`watcher run` ended: {''.join(log).strip()}")
        with suppress(TimeoutError):
            await asyncio.wait_for(events["feed_alive"].wait(), _FEED_WITHIN)
        try:
            yield
        finally:
            # Its stderr is read until it has ended, or it could block on a full pipe.
            with suppress(ProcessLookupError):
                process.terminate()
            await reading


@asynccontextmanager
async def _process(
    command: list[str], environment: dict[str, str], **streams: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "watcher",
        *command,
        env=own_environment(**environment),
        # Ctrl-C reaches this process alone, which then stops the others in order.
        start_new_session=True,
        preexec_fn=end_with_parent,
        **streams,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()
