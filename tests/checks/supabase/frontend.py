"""Runs the snippet of docs/frontend.md with the real supabase-js, against the sandbox and a daemon."""

import json
import shutil
from base64 import b64encode
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.acceptance.person import Person
from tests.acceptance.repo import audit
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from tests.checks.supabase.node import FOLDER, PACKAGES, node
from tests.checks.supabase.snippet import EXPORTS, snippet
from tests.checks.supabase.verdict import Wrong, expect
from tests.support.pictures import jpeg
from watcher import migrate
from watcher.sandbox import Sandbox

_PHOTOS = {**{name: jpeg(seed, (1200, 900)) for seed, name in enumerate("abcd")}, "text": b"Dear diary,\n"}
_CHOSEN = {"published": "abc", "retried": "adc"}


def check(version: str, folder: Path) -> Iterator[str]:
    """Yield a line for each promise of the page that holds; raises Wrong."""
    with Sandbox() as sandbox:
        list(migrate.apply(sandbox.db_url))
        with Stage(sandbox.settings(), folder, sandbox) as stage, Watcher(stage) as daemon:
            daemon.ready()
            person = Person(stage)
            seen = _play(stage, person, f"{sandbox.control_url}/actions/realtime_accept_then_drop")
            stage.rows += [seen[scene]["row"]["id"] for scene in _CHOSEN]
            for scene, names in _CHOSEN.items():
                audit(stage, person.row(seen[scene]["row"]["id"]), [_PHOTOS[name] for name in names])
            daemon.stop()
    yield from _judge(seen, version)


def _play(stage: Stage, person: Person, hang_up: str) -> dict[str, Any]:
    """Do everything that a user can do on the page, and return what it showed."""
    page = shutil.copy(Path(__file__).with_name("page.mjs"), FOLDER)
    (FOLDER / "readme.mjs").write_text(f"{snippet()}\nexport {{ {', '.join(EXPORTS)} }}\n")
    given = {
        "settings": {
            "SUPABASE_URL": stage.url,
            "SUPABASE_PUBLISHABLE_KEY": stage.public_key,
            "email": person.email,
            "password": person.password,
        },
        "hang_up": hang_up,
        "photos": {name: b64encode(photo).decode() for name, photo in _PHOTOS.items()},
    }
    done = node([page], cwd=FOLDER, given=json.dumps(given))
    if done.returncode != 0:
        raise Wrong(f"The snippet does not run as printed: {done.stderr.strip()}")
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def _judge(seen: dict[str, Any], version: str) -> Iterator[str]:
    versions = {parse_qs(urlsplit(socket["url"]).query)["vsn"][0] for socket in seen["sockets"]}
    expect("The protocol version with Realtime", versions, {"2.0.0"})
    frames = [frame for socket in seen["sockets"] for frame in socket["frames"]]
    expect("Messages that are not frames of it", [frame for frame in frames if not _is_frame(frame)], [])
    client = f"supabase-js {PACKAGES['@supabase/supabase-js']} on Node {version}"
    first, *_, last = seen["sockets"]
    statuses = _statuses(first, seen["published"]["row"])
    expect("The last status of the first row from Realtime", statuses[-1:], ["published"])
    seconds = seen["published"]["seconds"]
    yield f"{client}, vsn 2.0.0, {len(frames)} frames: insert → {' → '.join(statuses)} in {seconds:.1f} s"

    too_few = "2 images were given; 3 to 40 are needed."
    expect("Two photos", seen["two_photos"], {"code": "23514", "message": too_few})
    for forged in ("forged_status", "forged_column"):
        expect(forged, seen[forged] and seen[forged]["code"], "42501")
    no_update = "new row violates row-level security policy"
    expect("An upload over an existing object", seen["replaced"] and seen["replaced"]["message"], no_update)
    yield f"refused: two photos ({too_few!r}), a forged status, a forged column, an upload over an existing object"

    expect("A text named .jpg", seen["failed"]["error_code"], "image_not_jpeg_or_png")
    expect("The image in its message", seen["failed"]["error_message"].partition(" (")[0], "Image 2")
    yield f"failed, and shown by a page that had lost its Realtime connection: {seen['failed']['error_message']!r}"
    statuses, seconds = _statuses(last, seen["retried"]["row"]), seen["retried"]["seconds"]
    expect("The statuses of the retry from Realtime", statuses, ["pending", "publishing", "published"])
    yield f"retry with another photo → {' → '.join(statuses)} in {seconds:.1f} s"
    yield "on the Hub: two private repos with one commit each, and the photos as they were uploaded"


def _is_frame(frame: Any) -> bool:
    """Whether it is [join_ref, ref, topic, event, payload]."""
    return isinstance(frame, list) and len(frame) == 5


def _statuses(socket: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """The statuses of a row that a socket received, in order."""
    changes = [payload for _, _, _, event, payload in socket["frames"] if event == "postgres_changes"]
    mine = [
        payload["data"]["record"]["status"]
        for payload in changes
        if payload["data"]["record"]["id"] == row["id"]
    ]
    return [status for status, _ in groupby(mine)]
