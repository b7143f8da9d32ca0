"""Acts as a frontend with the real client, and shows how a row becomes a repo. Uses Supabase and the Hub."""

import asyncio
import hashlib
import json
import secrets
import sys
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, cast

import click
import httpx
from huggingface_hub import HfApi, hf_hub_download
from realtime import RealtimePostgresChangesListenEvent
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.text import Text
from rich.tree import Tree
from supabase import AsyncClient, AsyncClientOptions

from watcher import migrate
from watcher.demo import ending, erasing, keeping, photos, processes, training
from watcher.demo.photos import Photo
from watcher.errors import Transient
from watcher.process.untrusted import one_line
from watcher.settings import settings
from watcher.settings.settings import FrontendSettings
from watcher.supabase.storage import BUCKET

_PUBLISHED_WITHIN = 300.0
"""Seconds for the row to be published."""
_DONE = {"published", "training", "ready"}


async def play(
    *, folder: Path | None, as_json: bool, keep: bool, erase: bool = False, train: bool = False
) -> None:
    """Publish one row from upload to repo; raises Misconfigured or Transient if that fails.

    The sandbox also keeps running where somebody sits at a terminal, who may want to open the repo's page.
    """
    console = Console(stderr=as_json)
    pictures, skipped = photos.read(folder) if folder else (await asyncio.to_thread(photos.generate), [])
    if skipped:
        console.print(photos.left_out(skipped), markup=False, soft_wrap=True)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(ending.by_signals())
        named = settings.is_set("SUPABASE_URL")
        environment: dict[str, str] = {}
        if not named:
            console.print("[bold]Starting a sandbox[/]: Postgres, a Supabase and a Hub on this machine …")
            environment = await stack.enter_async_context(processes.sandbox())
        elif settings.is_set("SUPABASE_DB_URL"):
            db_url = settings.load_database().db_url.get_secret_value()
            for _version in migrate.apply(db_url, on_wait=lambda reason: click.echo(reason, err=True)):
                pass
        frontend = settings.load_frontend(**environment)
        await _ask_both(frontend)
        console.print(
            f"[green]✓[/] Supabase answers at {frontend.supabase_url}, the Hub at {frontend.hf_endpoint}"
        )
        spool = stack.enter_context(tempfile.TemporaryDirectory(prefix="watcher-demo-"))
        own = {
            **({"WATCHER_TRAINING_TOKEN": environment["HF_TOKEN"]} if environment else {}),
            "WATCHER_SPOOL": spool,
            "WATCHER_INSTANCE": f"demo-{secrets.token_hex(3)}",
            "WATCHER_LOG_FORMAT": "json",
        }
        await stack.enter_async_context(processes.watcher({**environment, **own}))
        console.print("[green]✓[/] [bold]watcher run[/] is ready, in its own process")
        result = await _as_a_user(
            console, frontend, pictures, keep=keep or not named, erase=erase, train=train, sandbox=not named
        )
        if as_json:
            click.echo(json.dumps(result | {"skipped": skipped}, ensure_ascii=False))
        if erase:
            return
        watched = console.is_terminal and sys.stdin.isatty() and not as_json
        if keep or (watched and not named):
            await keeping.keep(console, environment, result)
        else:
            console.print(
                "It is removed now, with everything else; with --keep (make demo KEEP=1) it can be opened."
            )


async def _ask_both(frontend: FrontendSettings) -> None:
    """Ask Supabase and the Hub something that only they can answer; raises httpx's HTTPError if one does not."""
    key, token = frontend.supabase_key.get_secret_value(), frontend.hf_token.get_secret_value()
    headers = {"apikey": key, "Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(timeout=30) as http:
        asked = f"{frontend.supabase_url}/rest/v1/rpc/watcher_version"
        (await http.post(asked, json={}, headers=headers)).raise_for_status()
    await asyncio.to_thread(HfApi(endpoint=frontend.hf_endpoint, token=token).whoami)


async def _as_a_user(
    console: Console,
    frontend: FrontendSettings,
    pictures: list[Photo],
    *,
    keep: bool,
    erase: bool,
    train: bool,
    sandbox: bool,
) -> dict[str, Any]:
    """Sign up, upload, insert, follow the row and show the repo; then delete everything unless `keep`.

    With `train`, a LoRA is trained on the repo before it is shown. With `erase`, the user deletes the row, and what is left
    of it is shown: nothing.
    """
    async with httpx.AsyncClient(timeout=30) as http:
        admin = _client(frontend.supabase_url, frontend.supabase_key.get_secret_value(), http)
        email, password = f"demo-{secrets.token_hex(4)}@example.com", secrets.token_urlsafe(16)
        user_id = (
            await admin.auth.admin.create_user({"email": email, "password": password, "email_confirm": True})
        ).user.id
        paths: list[str] = []
        model_id: str | None = None
        try:
            if train:
                await training.switch_on(admin, sandbox=sandbox)
            async with httpx.AsyncClient(timeout=30) as user_http:
                user = _client(frontend.supabase_url, frontend.publishable_key, user_http)
                await user.auth.sign_in_with_password({"email": email, "password": password})
                console.print(f"[green]✓[/] Signed in as {email}")
                paths = await _upload(console, user, user_id, pictures)
                row, seconds = await _insert_and_follow(console, user, paths, pictures, train=train)
                await user.realtime.close()
                model_id = row["model_id"]
                if train:
                    row = await training.follow(console, user, row, sandbox=sandbox)
                result, card = await asyncio.to_thread(_show, console, frontend, row, seconds, pictures)
                if train:
                    result |= await training.show(console, user, row, result["files"], card)
                if erase:
                    result["erased"] = await erasing.show(console, frontend, admin, user, row)
            return result
        finally:
            if not keep:
                await _remove(admin, frontend, user_id, paths, model_id)


def _client(url: str, key: str, http: httpx.AsyncClient) -> AsyncClient:
    return AsyncClient(url, key, AsyncClientOptions(auto_refresh_token=False, httpx_client=http))


async def _upload(console: Console, user: AsyncClient, user_id: str, pictures: list[Photo]) -> list[str]:
    folder, paths = secrets.token_hex(8), []
    with _bar(console) as progress:
        bar = progress.add_task("Uploading photos to the bucket", total=len(pictures))
        for number, picture in enumerate(pictures, 1):
            path = f"{user_id}/{folder}/{number:02}{Path(picture.name).suffix.lower()}"
            await user.storage.from_(BUCKET).upload(
                path, picture.content, {"content-type": picture.media_type}
            )
            paths.append(path)
            progress.advance(bar)
    return paths


async def _insert_and_follow(
    console: Console, user: AsyncClient, paths: list[str], pictures: list[Photo], *, train: bool
) -> tuple[dict[str, Any], float]:
    """Insert the row and follow it through Realtime, polling as well, as a frontend should."""
    loop = asyncio.get_running_loop()
    changes: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    subscribed = asyncio.Event()
    channel = user.channel("my-identities")
    channel.on_postgres_changes(
        RealtimePostgresChangesListenEvent.All,
        lambda payload: changes.put_nowait(cast("dict[str, Any]", payload)["data"].get("record") or {}),
        table="trained_identities",
    )
    channel.on_system(lambda _payload: subscribed.set())
    await channel.subscribe()
    with suppress(TimeoutError):
        await asyncio.wait_for(subscribed.wait(), 10)

    began = loop.time()
    row = await _one(
        user.table("trained_identities").insert(
            {"identity_name": "Zoë Demo", "image_paths": paths, "train": train}
        )
    )
    console.print(f"[green]✓[/] Inserted the row {row['id']}")
    status, shown = "", row
    with _bar(console) as progress:
        bar = progress.add_task("pending", total=len(paths))
        while loop.time() - began < _PUBLISHED_WITHIN:
            if shown.get("status", status) != status:
                status = shown["status"]
                progress.console.print(f"  {loop.time() - began:5.2f} s  [bold]{status}[/]")
            progress.update(bar, description=status, completed=shown.get("images_published", 0))
            if status in _DONE | {"failed"}:
                break
            try:
                shown = await asyncio.wait_for(changes.get(), 2)
            except TimeoutError:
                shown = await _one(user.table("trained_identities").select("*").eq("id", row["id"]))
    row = await _one(user.table("trained_identities").select("*").eq("id", row["id"]))
    if row["status"] not in _DONE:
        why = row["error_message"] or f"not published within {_PUBLISHED_WITHIN:.0f} s"
        which = (
            f" That is the file {one_line(pictures[row['error_image'] - 1].name)}."
            if row["error_image"]
            else ""
        )
        raise Transient(f"The row is {row['status']}: {why}{which}")
    return row, loop.time() - began


async def _one(query: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", (await query.execute()).data[0])


def _show(
    console: Console, frontend: FrontendSettings, row: dict[str, Any], seconds: float, pictures: list[Photo]
) -> tuple[dict[str, Any], str]:
    """Download the repo with the real client, and show it; returns its facts and its model card."""
    token, model_id = frontend.hf_token.get_secret_value(), row["model_id"]
    api = HfApi(endpoint=frontend.hf_endpoint, token=token)
    private = api.model_info(model_id).private
    tree = Tree(f"[bold]{model_id}[/] ({'private' if private else 'PUBLIC'})")
    names = {f"image_{number:03}": picture.name for number, picture in enumerate(pictures, 1)}
    own_names: dict[str, str] = {}
    files: dict[str, str] = {}
    card = ""
    with tempfile.TemporaryDirectory(prefix="watcher-demo-") as folder:
        for path in sorted(api.list_repo_files(model_id)):
            file = Path(
                hf_hub_download(model_id, path, endpoint=frontend.hf_endpoint, token=token, local_dir=folder)
            )
            content = file.read_bytes()
            files[path] = hashlib.sha256(content).hexdigest()
            line = Text.assemble(f"{path}  ", (f"{len(content):,} bytes", "dim"))
            if path.startswith("images/") and (name := names.get(Path(path).stem)):
                own_names[path] = name
                line.append(f"  {one_line(name)}")
            tree.add(line)
            if path == "README.md":
                card = content.decode()
    console.print(Panel(tree, title="The repo", title_align="left"))
    head = "\n".join(card.splitlines()[:18])
    console.print(Panel(Syntax(head, "markdown", word_wrap=True), title="Its model card", title_align="left"))
    console.print(
        f"[green]✓[/] From insert to published in [bold]{seconds:.2f} s[/]: {row['huggingface_repo_url']}",
        soft_wrap=True,
    )
    facts = {
        "identity_id": row["id"],
        "status": row["status"],
        "model_id": model_id,
        "url": row["huggingface_repo_url"],
        "commit_sha": row["commit_sha"],
        "private": private,
        "files": files,
        "photos": own_names,
        "seconds": round(seconds, 3),
        "hf_endpoint": frontend.hf_endpoint,
    }
    return facts, card


async def _remove(
    admin: AsyncClient, frontend: FrontendSettings, user_id: str, paths: list[str], model_id: str | None
) -> None:
    """Delete user, photos and repo, since Supabase and Hub may be the operator's real ones."""
    await admin.auth.admin.delete_user(user_id)
    if paths:
        await admin.storage.from_(BUCKET).remove(paths)
    if model_id is not None:
        api = HfApi(endpoint=frontend.hf_endpoint, token=frontend.hf_token.get_secret_value())
        await asyncio.to_thread(api.delete_repo, model_id, missing_ok=True)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description:<32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
