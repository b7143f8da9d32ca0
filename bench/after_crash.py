"""What is repeated after a lost answer or a crash of the daemon: image bytes and requests beyond those of a clean run."""

import time
from collections.abc import Sequence

from bench.photos import MEGABYTE, upload
from bench.report import Bench, Found, Line, at_most, info
from bench.requests import by_the_daemon, image_bytes
from tests.acceptance.person import Person
from tests.acceptance.places import at
from tests.acceptance.running import Watcher
from tests.acceptance.stage import unique
from tests.checks.figures.scene import Scene, scene, until
from watcher.sandbox.faults import Hold, LoseAnswer

_COUNT = 10
_SIZE = 2 * MEGABYTE


class _Spent:
    """Image bytes down and up, and requests, since the counts were last reset."""

    def __init__(self, here: Scene) -> None:
        counts = here.sandbox.faults.counts()
        self.down, self.up = image_bytes(counts)
        self.requests = sum(one.requests for one in by_the_daemon(counts))


def _measure() -> Found:
    with scene() as here:
        person = Person(here.stage)
        paths = upload(person, _SIZE, _COUNT)
        with Watcher(here.stage) as watcher:
            watcher.ready()
            clean = _clean(here, person, paths)
            same = _answer_lost(here, person, paths)
            watcher.stop()
        landed, first_run = _killed_after_commit(here, person, paths)
        half = _killed_half_way(here, person, paths)
    images = clean.down
    assert clean.up == images, "A clean run fetches and uploads every image once."
    same_bytes = same.down + same.up - 2 * images
    half_up, half_down = half.up - images, half.down - images
    half_requests = half.requests - clean.requests
    again = {
        "same_attempt_bytes": same_bytes,
        "restart_bytes_up": landed.up,
        "restart_bytes_down": landed.down,
        "half_bytes_up": half_up,
        "half_bytes_down": half_down,
        "half_requests": half_requests,
        "images_bytes": images,
    }
    lines = [
        at_most("commit's answer lost, same attempt: image bytes again", same_bytes, 0, digits=0),
        info("… requests beyond a clean run's", f"{same.requests - clean.requests} ({clean.requests} clean)"),
        at_most("killed after the commit, restarted: image bytes up", landed.up, 0, digits=0),
        Line("… image bytes down", str(landed.down), "0", landed.down == 0),
        info("… requests of the second run", f"{landed.requests} (first {first_run.requests})"),
        info("killed when half was uploaded: image bytes up again", _share(half_up, images)),
        info("… image bytes down again", _share(half_down, images)),
        info("… requests again", f"{half_requests} ({clean.requests} clean)"),
        info(f"the row: {_COUNT} images, bytes", str(images)),
    ]
    return Found({"after_crash": again}, lines)


def _clean(here: Scene, person: Person, paths: Sequence[str]) -> _Spent:
    here.sandbox.faults.reset()
    person.wait_for(person.insert("Ada", paths), "published")
    return _Spent(here)


def _answer_lost(here: Scene, person: Person, paths: Sequence[str]) -> _Spent:
    here.sandbox.faults.reset()
    lost = here.sandbox.faults.add(LoseAnswer(), **at("commit"))
    row = person.insert("Ada", paths)
    person.wait_for(row, "published")
    spent = _Spent(here)
    assert lost.reached == 1
    assert len(here.attempts(row)) == 1
    return spent


def _killed_after_commit(here: Scene, person: Person, paths: Sequence[str]) -> tuple[_Spent, _Spent]:
    """What the second run of the daemon spent, and what the first one did."""
    instance = unique("bench")
    here.sandbox.faults.reset()
    held = here.sandbox.faults.add(Hold("after"), **at("commit"))
    with Watcher(here.stage, instance) as watcher:
        row = person.insert("Ada", paths)
        held.wait_reached(timeout=30)
        watcher.kill()
    before = _Spent(here)
    here.sandbox.faults.remove(held)
    here.sandbox.faults.reset()
    _finish(here, person, row, instance)
    return _Spent(here), before


def _killed_half_way(here: Scene, person: Person, paths: Sequence[str]) -> _Spent:
    """What both runs spent. The first is killed when all images are fetched, which is the most expensive moment."""
    instance = unique("bench")
    here.sandbox.faults.reset()
    held = here.sandbox.faults.add(Hold("before"), **at("upload"), skip=_COUNT // 2, times=None)
    with Watcher(here.stage, instance) as watcher:
        row = person.insert("Ada", paths)
        until(lambda: _answered(here, "storage", "/object/authenticated/") == _COUNT)
        until(lambda: _answered(here, "hub", "/_lfs/put/") == _COUNT // 2)
        time.sleep(0.5)  # for the daemon to read the answers
        watcher.kill()
    here.sandbox.faults.remove(held)
    _finish(here, person, row, instance)
    return _Spent(here)


def _answered(here: Scene, service: str, path: str) -> int:
    return sum(
        one.service == service and path in one.path and one.status == 200 for one in here.sandbox.faults.log()
    )


def _finish(here: Scene, person: Person, row: str, instance: str) -> None:
    with Watcher(here.stage, instance) as watcher:
        person.wait_for(row, "published", within=60)
        watcher.stop()
    assert [attempt["outcome"] for attempt in here.attempts(row)] == ["crashed", "published"]


def _share(count: int, images: int) -> str:
    return f"{count} ({count / images:.0%} of the images)"


BENCH = Bench("after_crash", "what is spent again after a lost answer or a crash", _measure)
