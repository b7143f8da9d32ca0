"""Outages of the Hub and a full disk cost rows no attempt; a Hub that always fails exhausts the budget."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.repo import audit
from tests.acceptance.running import Watcher
from watcher.sandbox.faults import Answer

from .figure import Figure, Measured, Numbers
from .scene import Scene, scene, until

_LASTS = 15.0


def _outages() -> Measured:
    numbers: Numbers = {}
    words: list[str] = []
    with scene() as here:
        hub, token = here.sandbox.hub, here.sandbox.hub_token
        numbers["token"] = _outage(here, lambda: hub.access.revoke(token), lambda: hub.access.restore(token))
        numbers["quota"] = _outage(
            here, lambda: hub.knobs.limit_storage(0), lambda: hub.knobs.limit_storage(None)
        )
        with _small_disk(here.stage.folder / "small") as disk:
            if disk.how:
                numbers["spool"] = _outage(here, disk.fill, disk.empty, WATCHER_SPOOL=str(disk.folder))
    for name, found in numbers.items():
        words.append(
            f"{name}: {found['spent']} spent, {found['failed']} failed, logged {found['logged']}×, "
            f"resumed after {found['resumed']:.1f} s"
        )
    kept = all(
        (found["spent"], found["failed"], found["logged"], found["over"]) == (0, 0, 1, 1)
        for found in numbers.values()
    )
    words.append(
        f"spool: {disk.how}" if disk.how else "spool: not measured, as this user may not mount a disk"
    )
    return Measured(kept, "; ".join(words), numbers)


def _outage(here: Scene, begin: Callable[[], object], end: Callable[[], object], **settings: str) -> Numbers:
    """One outage with three rows in flight, and four more inserted during it."""
    kept = here.keep("fetch")
    with Watcher(here.stage, **settings) as watcher:
        watcher.ready()
        rows = here.insert(3)
        until(lambda: len(watcher.said("claimed")) == 3)
        begin()
        here.sandbox.faults.remove(kept)
        rows += here.insert(4)
        watcher.wait_for("outage")
        time.sleep(_LASTS)
        spent = sum(here.stage.story(row)["spent"] for row in rows)
        failed = sum(row["status"] == "failed" for row in here.person.rows())
        end()
        resumed = until(lambda: watcher.said("outage_over"), within=60)
        here.all_become(rows, "published", within=60)
        watcher.stop()
        logged, over = len(watcher.said("outage")), len(watcher.said("outage_over"))
    for row in rows:
        audit(here.stage, here.person.row(row))
        found = [(attempt["outcome"], attempt["reason"]) for attempt in here.attempts(row)]
        assert {outcome for outcome, _ in found} <= {"released", "published"}, found
    return {"spent": spent, "failed": failed, "logged": logged, "over": over, "resumed": round(resumed, 1)}


@dataclass(frozen=True)
class _Disk:
    """A folder, and functions to make writes to it fail; `how` is empty if that is not possible."""

    how: str
    folder: Path
    fill: Callable[[], object]
    empty: Callable[[], object]


@contextmanager
def _small_disk(folder: Path) -> Iterator[_Disk]:
    """A tmpfs of 80 MiB if this user may mount one; else a folder made read-only, which does not work for root."""
    folder.mkdir()
    filler = folder / "filler"

    def fill() -> None:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**16))

    def chmod(mode: int) -> None:
        for one in folder.iterdir():
            one.chmod(mode)

    mount = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(folder)]
    mounted = (
        shutil.which("mount") and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    )
    try:
        if mounted:
            yield _Disk("a full tmpfs of 80 MiB", folder, fill, filler.unlink)
        elif os.geteuid() != 0:
            yield _Disk("a read-only folder", folder, lambda: chmod(0o500), lambda: chmod(0o700))
        else:
            yield _Disk("", folder, fill, filler.unlink)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _eight() -> Measured:
    """A Hub that answers 500 to everything, and one that does so only to commits."""
    with scene() as here, Watcher(here.stage, WATCHER_POLL_ALIVE="0.3") as watcher:
        watcher.ready()
        found = {
            name: _always_500(here, path) for name, path in (("all", None), ("commits", "/commit/main$"))
        }
        watcher.stop()
    kept = all(
        one["attempts"] == 8 and one["code"] == "attempts_exhausted" and one["words"] and one["replayed"]
        for one in found.values()
    )
    words = "; ".join(
        f"500 to {name}: {one['attempts']} attempts, {one['code']}, “{one['message']}”, "
        f"replay {'published it' if one['replayed'] else 'did not publish it'}"
        for name, one in found.items()
    )
    return Measured(kept, words, found)


def _always_500(here: Scene, path: str | None) -> Numbers:
    # A longer wait than an attempt allows, so that each attempt ends at the first answer.
    trouble = here.sandbox.faults.add(
        Answer(500, "trouble", {"Retry-After": "20"}), service="hub", path=path, times=None
    )
    [row] = here.insert()

    def failed_by_now() -> bool:
        here.fall_due()
        return bool(here.stage.story(row)["status"] == "failed")

    until(failed_by_now, within=60)
    failed = here.person.row(row)
    attempts = sum(not attempt["look_only"] for attempt in here.attempts(row))
    here.sandbox.faults.remove(trouble)
    here.stage.rpc("watcher_replay", ids=[row])
    here.all_become([row], "published")
    audit(here.stage, here.person.row(row))
    return {
        "attempts": attempts,
        "code": failed["error_code"],
        "message": failed["error_message"],
        "words": failed["error_message"].startswith(
            "Gave up after 8 attempts. The last one: The Hub could not"
        ),
        "replayed": True,
    }


FIGURES = [
    Figure(
        "outages", "token, quota, spool: nothing spent or failed, logged once, resumes", _outages, waits=True
    ),
    Figure("eight", "a Hub that always answers 500: exhausted after 8 attempts; replay publishes", _eight),
]
