"""Starts a sandbox, a daemon and examples/web, and prints where the page is: `make web`. Ctrl-C ends all of it."""

import asyncio
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import click
from supabase import acreate_client

from tests.checks import node
from tests.checks.verdict import Wrong
from watcher.demo import processes, training
from watcher.errors import WatcherError

_PAGE = Path(__file__).parents[3] / "examples" / "web"
_VITE = _PAGE / "node_modules" / "vite" / "bin" / "vite.js"


async def main(*options: str) -> int:
    """Serve the page until a signal comes, and return the exit code; `options` are Vite's."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        click.echo("Starting Postgres, a Supabase and a Hub on this machine …")
        settings = await stack.enter_async_context(processes.sandbox())
        spool = stack.enter_context(tempfile.TemporaryDirectory(prefix="watcher-web-"))
        own = {
            "WATCHER_SPOOL": spool,
            "WATCHER_INSTANCE": Path(spool).name,
            "WATCHER_LOG_FORMAT": "json",
            "WATCHER_TRAINING_TOKEN": settings["HF_TOKEN"],
        }
        await stack.enter_async_context(processes.watcher({**settings, **own}))
        admin = await acreate_client(settings["SUPABASE_URL"], settings["SUPABASE_SECRET_KEY"])
        await training.switch_on(admin, sandbox=True)
        page = {
            "VITE_SUPABASE_URL": settings["SUPABASE_URL"],
            "VITE_SUPABASE_PUBLISHABLE_KEY": settings["SUPABASE_PUBLISHABLE_KEY"],
        }
        command: list[str | Path] = [node.PROGRAM, _VITE, "--clearScreen", "false", *options]
        server = await asyncio.create_subprocess_exec(
            *command, cwd=_PAGE, env=node.variables(page), start_new_session=True
        )
        click.echo(f"The Hub: {settings['HF_ENDPOINT']}/\nThe page is at “Local”. Ctrl-C ends everything.")
        ended, asked = asyncio.create_task(server.wait()), asyncio.create_task(stop.wait())
        await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            asked.cancel()
            return ended.result()
        server.terminate()
        await ended
    return 0


if __name__ == "__main__":
    try:
        node.install(_PAGE)
        sys.exit(asyncio.run(main(*sys.argv[1:])))
    except (Wrong, WatcherError) as error:
        sys.exit(f"make web: {error}")
