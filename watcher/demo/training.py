"""Follows a training as its user, and shows the weights, the first pictures, and the lines with which they are used."""

import asyncio
from typing import Any, cast

from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from supabase import AsyncClient

from watcher.errors import Misconfigured, Transient
from watcher.hub.weights import WEIGHTS
from watcher.supabase.storage import SAMPLES

_TRAINED_WITHIN = {True: 300.0, False: 8 * 3600.0}
"""Seconds for the row to be ready: on a sandbox, and on the real Hub, where the job may wait for a machine."""
_USES = "## How to use"
"""The first words of the card's section that says how."""


async def switch_on(admin: AsyncClient, *, sandbox: bool) -> None:
    """Switch trainings on in a sandbox; raises Misconfigured if they are off elsewhere, where they cost money."""
    if sandbox:
        await admin.rpc("watcher_set_training", {"p_settings": {"enabled": True, "usd_a_day": 5}}).execute()
        return
    if not cast("dict[str, Any]", (await admin.rpc("watcher_training").execute()).data)["enabled"]:
        raise Misconfigured(
            "Trainings are switched off: they cost money, so switch them on first with `watcher training on`."
        )


async def follow(
    console: Console, user: AsyncClient, row: dict[str, Any], *, sandbox: bool
) -> dict[str, Any]:
    """Wait until the row is ready, and return it; raises Transient if the training fails."""
    loop = asyncio.get_running_loop()
    began, status = loop.time(), row["status"]
    while loop.time() - began < _TRAINED_WITHIN[sandbox]:
        found = await user.table("trained_identities").select("*").eq("id", row["id"]).execute()
        row = cast("dict[str, Any]", found.data[0])
        if row["status"] != status:
            status = row["status"]
            console.print(f"  {loop.time() - began:5.2f} s  [bold]{status}[/]")
        if row["training_error_message"]:
            raise Transient(f"The training failed: {row['training_error_message']}")
        if status == "ready":
            return row
        await asyncio.sleep(0.5)
    raise Transient(
        f"The training has not ended within {_TRAINED_WITHIN[sandbox]:.0f} s; its row is {status}."
    )


async def show(
    console: Console, user: AsyncClient, row: dict[str, Any], files: dict[str, str], card: str
) -> dict[str, Any]:
    """Show the weights, the pictures as the user may download them, and how to use the weights."""
    if WEIGHTS not in files:
        raise Transient(f"The row is ready, and its repo has no {WEIGHTS}.")
    console.print(f"[green]✓[/] Weights: {WEIGHTS}, sha256 {files[WEIGHTS]}", soft_wrap=True)
    samples = []
    for path in row["sample_paths"] or []:
        picture = await user.storage.from_(SAMPLES).download(path)
        samples.append({"path": path, "bytes": len(picture)})
        console.print(f"[green]✓[/] A first picture of {len(picture):,} bytes: {path}", soft_wrap=True)
    uses = card[card.index(_USES) :] if _USES in card else card
    console.print(Panel(Syntax(uses, "markdown", word_wrap=True), title="How to use it", title_align="left"))
    return {"weights": {"file": WEIGHTS, "sha256": files[WEIGHTS]}, "samples": samples}
