"""Plays users of examples/web in Chromium, against a sandbox and a daemon: `make check-web`.

Prints a line for each scenario, leaves screenshots in .cache/check-web/screens, and exits with 1 at the first failure.
Needs Chromium, and a network the first time, for the packages. ONLY='upload faults' plays some of the scenarios.
"""

import functools
import gzip
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from tests.acceptance.person import Person
from tests.acceptance.repo import audit, orphans
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from tests.checks import node
from tests.checks.photos.judging import judged
from tests.checks.snippet import EXPORTS, snippet
from tests.checks.verdict import Wrong
from tests.checks.web import files
from watcher import migrate
from watcher.photos import file_types
from watcher.sandbox import Sandbox

_ROOT = Path(__file__).parents[3]
_HERE = Path(__file__).parent
_FOLDER = node.CACHE / "check-web"
_APP, _SCREENS = _FOLDER / "app", _FOLDER / "screens"
_MOST = 150_000
"""Bytes of the bundle, compressed."""
_WITHIN = 1800.0
"""Seconds for all scenarios; only a failure takes as long."""
_LINT_WITHIN = 600.0
"""Seconds for eslint, which types everything that it reads: slow machines take minutes."""
_GLOBALS = """
declare const SUPABASE_URL: string, SUPABASE_PUBLISHABLE_KEY: string, email: string, password: string, files: File[]
declare function show(number: number | null, message: string): void
declare function bar(number: number, bytes: number): void
declare function render(rows: import('./identities').Identity[], refused: Error | null): void
"""
_STARTS = [
    *(
        b"\0\0\0\x18ftypheic\0\0\0\0mif1",
        b"\0\0\0\x18ftypavif",
        b"GIF89a..",
        b"RIFF1234WEBPVP8 ",
        b"BM1234\0\0\0\0",
    ),
    *(
        b"%PDF-1.7",
        b"PK\3\4",
        b"\0\0\1\0",
        b"  <!DOCTYPE html>",
        b"<?xml?><svg>",
        b"Dear diary,\n",
        bytes(20),
    ),
    *(b"II*\0", b"\x1a\x45\xdf\xa3", b"\xff\x0a", b"/9j/4AAQ", b"\x01\x02\x03", b"\x89PNX\r\n"),
]


def main() -> int:
    """Run everything and return the exit code."""
    try:
        chromium = _chromium()
        for line in _prepare():
            click.echo(line)
        with tempfile.TemporaryDirectory(prefix="check-web-") as folder, Sandbox() as sandbox:
            _play(sandbox, Path(folder), chromium, sys.argv[1:])
    except Wrong as error:
        click.echo(f"✗ {error}", err=True)
        return 1
    click.echo(f"Screenshots: {_SCREENS}")
    return 0


def _chromium() -> str:
    """Return the browser's path; raises Wrong."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise Wrong("Chromium is not installed; `make check-web` says how to install it.")


def _prepare() -> Iterator[str]:
    """Copy the page and docs/frontend.md's program into a folder, install what they need, and judge the sources."""
    shutil.rmtree(_SCREENS, ignore_errors=True)
    _SCREENS.mkdir(parents=True)
    _APP.mkdir(exist_ok=True)
    for old in _APP.iterdir():
        if old.name != "node_modules":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    ignored = shutil.ignore_patterns("node_modules", "dist", ".env*")
    shutil.copytree(_ROOT / "examples/web", _APP, ignore=ignored, dirs_exist_ok=True)
    for file in (*_HERE.glob("*.mjs"), _HERE / "package.json"):
        shutil.copy(file, _FOLDER)
    node.install(_APP)
    node.install(_FOLDER)
    _run("eslint/bin/eslint.js", ".", within=_LINT_WITHIN)
    source = f"{snippet()}\nexport {{ {', '.join(EXPORTS)} }}\n"
    (_APP / "src/snippet.ts").write_text(source)
    (_APP / "src/globals.d.ts").write_text(_GLOBALS)
    _run("typescript/bin/tsc", "--noEmit")
    yield f"✓ Node {node.version()}: eslint and tsc --strict find nothing, in docs/frontend.md's program neither"


def _run(program: str, *arguments: str, own: dict[str, str] | None = None, within: float = 120) -> None:
    done = node.node([_APP / "node_modules" / program, *arguments], cwd=_APP, own=own, within=within)
    if done.returncode != 0:
        raise Wrong(f"{program} {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def _play(sandbox: Sandbox, folder: Path, chromium: str, only: list[str]) -> None:
    list(migrate.apply(sandbox.db_url))
    own = {
        "VITE_SUPABASE_URL": sandbox.supabase_url,
        "VITE_SUPABASE_PUBLISHABLE_KEY": sandbox.keys.publishable,
    }
    _run("vite/bin/vite.js", "build", own=own)
    built = [file for file in (_APP / "dist").rglob("*") if file.is_file()]
    size = sum(len(gzip.compress(file.read_bytes())) for file in built)
    if size >= _MOST:
        raise Wrong(f"The bundle has {size:,} bytes gzipped; {_MOST:,} are allowed.")
    click.echo(f"✓ the bundle: {size:,} bytes gzipped")
    chosen = folder / "files"
    files.write(chosen)
    token = {"WATCHER_TRAINING_TOKEN": sandbox.hub_token}
    with (
        Stage(sandbox.settings(), folder, sandbox) as stage,
        Watcher(stage, **token) as daemon,
        _served() as page,
    ):
        daemon.ready()
        person = Person(stage)
        given = {
            "chromium": chromium,
            "page": page,
            "app": str(_APP),
            "control": sandbox.control_url,
            "secret": sandbox.keys.jwt_secret,
            "key": sandbox.keys.secret,
            "screens": str(_SCREENS),
            "files": str(chosen),
            "only": only,
            "settings": {
                "SUPABASE_URL": sandbox.supabase_url,
                "SUPABASE_PUBLISHABLE_KEY": sandbox.keys.publishable,
                "email": person.email,
                "password": person.password,
            },
            "formats": [[list(start), file_types.describe(start)] for start in _STARTS],
        }
        published = _scenarios(given, own)
        for row, names in published:
            stage.rows.append(row["id"])
            audit(stage, row, [_cleaned(chosen / name) for name in names])
        click.echo(f"✓ on the Hub: {len(published)} private repos, each with its photos in one commit")
        _see_that_the_deleted_are_gone(stage, sandbox)
        click.echo("✓ of the deleted rows no repo, no photo and no picture is left, and no job runs")
        daemon.stop()


def _cleaned(photo: Path) -> bytes:
    """Return a photo as it is published; tests/photos/test_cleaning.py says what that must be."""
    published, words = judged(photo.read_bytes())
    assert published is not None, words
    return published


def _see_that_the_deleted_are_gone(stage: Stage, sandbox: Sandbox) -> None:
    """Let the time pass in which a request may land late; raises Wrong if something is left."""
    stage.erase_due()
    rows: Any = stage.admin.table("trained_identities").select("image_paths").execute()
    named = {path for row in rows.data for path in row["image_paths"]}
    [pictures] = stage.sql("select array_agg(name) from storage.objects where bucket_id = 'identity-samples'")
    running = (job.id for job in sandbox.hub.jobs.all() if not job.ended)
    if left := {*orphans(stage), *(stage.photos() - named), *(pictures or []), *running}:
        raise Wrong(f"Of deleted rows this is left: {', '.join(sorted(left))}")


@contextmanager
def _served() -> Iterator[str]:
    """Serve the built page, and yield its URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(_APP / "dist"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def _scenarios(given: dict[str, Any], own: dict[str, str]) -> list[tuple[dict[str, Any], list[str]]]:
    """Play all scenarios, and return the published rows with the files that were chosen for them."""
    command = [node.PROGRAM, _FOLDER / "scenarios.mjs"]
    with subprocess.Popen(
        command,
        cwd=_FOLDER,
        env=node.variables(own),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        timer = threading.Timer(_WITHIN, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(given))
            process.stdin.close()
            last = ""
            for line in process.stdout:
                if last:
                    click.echo(last)
                last = line.rstrip("\n")
            if process.wait() != 0:
                raise Wrong(last or f"The scenarios did not end within {_WITHIN:.0f} s.")
        finally:
            timer.cancel()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    published: list[tuple[dict[str, Any], list[str]]] = json.loads(last)
    return published


sys.exit(main())
