"""Keeps everything running until Ctrl-C, and says how to look around: each command is one that is there."""

import asyncio
import shlex
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from watcher.demo.ending import reader_is_gone

_PAGE = Path(__file__).parents[2] / "examples" / "web"


async def keep(console: Console, environment: dict[str, str], result: dict[str, Any]) -> None:
    """Say how to look around, and return on Ctrl-C, or when nobody can read that any more."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    lines += commands(result)
    console.print(
        f"\n[bold]Everything keeps running.[/] Open the repo in a browser: {result['url']}", soft_wrap=True
    )
    console.print("In another shell:")
    for line in lines:
        console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)
    console.print("Ctrl-C stops it.")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with suppress(TimeoutError):
        waiting = {asyncio.create_task(stop.wait()), asyncio.create_task(reader_is_gone())}
        _, rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()


def commands(result: dict[str, Any]) -> list[str]:
    """Return what shows the row, the repo, the daemon and the page, of what is installed."""
    here = Path(sys.executable).parent
    watcher = shlex.quote(str(here / "watcher"))
    if not (here / "watcher").exists():
        watcher = f"{shlex.quote(sys.executable)} -m watcher"
    found = [
        f"{watcher} status",
        f"{watcher} show {result['identity_id']}",
        f"{watcher} doctor",
    ]
    if (here / "hf").exists():
        found.append(f"{shlex.quote(str(here / 'hf'))} download {result['model_id']} --local-dir repo")
    if shutil.which("psql"):
        found.append('psql "$SUPABASE_DB_URL" -c "table trained_identities"')
    if _PAGE.is_dir() and shutil.which("npm"):
        found += [
            f"cd {shlex.quote(str(_PAGE))} && npm install",
            "VITE_SUPABASE_URL=$SUPABASE_URL VITE_SUPABASE_PUBLISHABLE_KEY=$SUPABASE_PUBLISHABLE_KEY npm run dev",
        ]
    return found
