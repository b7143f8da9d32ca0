"""Deletes the row as its user, and shows with the real clients that nothing of it is left."""

import asyncio
from typing import Any, cast

from huggingface_hub import HfApi
from rich.console import Console
from supabase import AsyncClient

from watcher.errors import Transient
from watcher.settings.settings import FrontendSettings
from watcher.supabase.storage import BUCKET

_ERASED_WITHIN = 300.0
"""Seconds."""


async def show(
    console: Console, frontend: FrontendSettings, admin: AsyncClient, user: AsyncClient, row: dict[str, Any]
) -> dict[str, Any]:
    """Delete the row, wait for its receipt, and look for what is left; raises Transient if something is."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await user.table("trained_identities").delete().eq("id", row["id"]).execute()
    console.print(f"[green]✓[/] The user has deleted the row {row['id']}")
    while (receipt := await _receipt(admin, row["id"])) is None:
        if loop.time() - began > _ERASED_WITHIN:
            raise Transient(f"The row {row['id']} was not erased within {_ERASED_WITHIN:.0f} s.")
        await asyncio.sleep(0.2)
    seconds = loop.time() - began
    api = HfApi(endpoint=frontend.hf_endpoint, token=frontend.hf_token.get_secret_value())
    folder = row["image_paths"][0].rpartition("/")[0]
    left = {
        "its repo": await asyncio.to_thread(api.repo_exists, row["model_id"]),
        "its photos": bool(await admin.storage.from_(BUCKET).list(folder)),
        "its row": bool(
            (await user.table("trained_identities").select("id").eq("id", row["id"]).execute()).data
        ),
    }
    if any(left.values()):
        raise Transient(
            f"The receipt says erased, but this is left: {', '.join(what for what in left if left[what])}."
        )
    console.print(
        f"[green]✓[/] Gone in [bold]{seconds:.2f} s[/]: {receipt['repos']} repo with its files, {receipt['photos']} photos, "
        f"the row. What stays is a receipt: {receipt['id']}, finished {receipt['finished_at']}",
        soft_wrap=True,
    )
    return {"seconds": round(seconds, 3), "repos": receipt["repos"], "photos": receipt["photos"]}


async def _receipt(admin: AsyncClient, identity: str) -> dict[str, Any] | None:
    answer = (await admin.rpc("watcher_erasures", {"p_limit": 100}).execute()).data
    receipts = cast("dict[str, Any]", answer)["receipts"]
    return next((receipt for receipt in receipts if receipt["id"] == identity), None)
