"""At most one commit per row: after a freeze right at the commit, and when photos are gone after a commit has landed."""

import random
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack

from tests.acceptance.person import BUCKET
from tests.acceptance.places import PHOTOS, SHORT_LEASE, at
from tests.acceptance.repo import audit
from tests.acceptance.running import Watcher
from tests.acceptance.stage import unique
from tests.support.pictures import png
from watcher.sandbox.faults import Delay, Hold, LoseAnswer

from .figure import Figure, Measured
from .scene import Scene, scene, until

_ROWS = 4
_COMMIT = "/commit/main"


def _woken_commit() -> Measured:
    """Daemons frozen with four commits before, in or just after the Hub, whose rows others take over."""
    rows: list[str] = []
    with scene() as here:
        for first in ("woken", "other", "both"):
            rows += _frozen_before_the_hub_does_it(here, first)
        rows += _frozen_when_it_has_landed(here)
        for _ in range(5):
            rows += _frozen_at_a_random_moment(here)
        doubled = len(rows) - _published_once(here, rows)
        landed = _landed(here)
    return Measured(
        doubled == 0 and landed == len(rows),
        f"{landed} commits landed for {len(rows)} rows, {doubled} rows do not match their repo",
        {"rows": len(rows), "commits": landed, "doubled": doubled},
    )


def _frozen_before_the_hub_does_it(here: Scene, first: str) -> list[str]:
    """The commits of both daemons are in flight while the first is frozen; `first` is the one that is released first."""
    with ExitStack() as stack:
        frozen = stack.enter_context(Watcher(here.stage, **SHORT_LEASE)).ready()
        stale = here.keep("commit", times=_ROWS)
        rows = here.insert(_ROWS)
        stale.wait_reached(count=_ROWS)
        frozen.send(signal.SIGSTOP)
        kept = here.keep("commit")
        other = stack.enter_context(Watcher(here.stage, **SHORT_LEASE))
        kept.wait_reached(timeout=20, count=_ROWS)
        order = {"woken": [stale, kept], "other": [kept, stale], "both": [stale, kept]}[first]
        for rule in order:
            here.sandbox.faults.remove(rule)
            if first != "both":
                time.sleep(0.5)
        _wake(here, rows, frozen, other)
    return rows


def _frozen_when_it_has_landed(here: Scene) -> list[str]:
    with ExitStack() as stack:
        frozen = stack.enter_context(Watcher(here.stage, **SHORT_LEASE)).ready()
        held = here.sandbox.faults.add(Hold("after"), **at("commit"), times=_ROWS)
        rows = here.insert(_ROWS)
        held.wait_reached(count=_ROWS)
        frozen.send(signal.SIGSTOP)
        other = stack.enter_context(Watcher(here.stage, **SHORT_LEASE))
        here.all_become(rows, "published")
        here.sandbox.faults.remove(held)
        _wake(here, rows, frozen, other)
    return rows


def _frozen_at_a_random_moment(here: Scene) -> list[str]:
    """Between the last upload and the answers to the commits, each of which takes 50 ms."""
    slow = here.sandbox.faults.add(Delay(0.05), **at("commit"), times=None)
    with ExitStack() as stack:
        frozen = stack.enter_context(Watcher(here.stage, **SHORT_LEASE)).ready()
        uploads = here.keep("upload", times=3 * _ROWS)
        rows = here.insert(_ROWS)
        until(lambda: len(frozen.said("claimed")) == _ROWS)
        uploads.wait_reached()
        time.sleep(0.5)
        here.sandbox.faults.remove(uploads)
        time.sleep(random.uniform(0, 0.15))
        frozen.send(signal.SIGSTOP)
        other = stack.enter_context(Watcher(here.stage, **SHORT_LEASE))
        _wake(here, rows, frozen, other)
    here.sandbox.faults.remove(slow)
    return rows


def _wake(here: Scene, rows: Sequence[str], frozen: Watcher, other: Watcher) -> None:
    """Continue it once the other has published the rows."""
    here.all_become(rows, "published")
    frozen.send(signal.SIGCONT)
    time.sleep(1)  # for its requests in flight
    for watcher in (frozen, other):
        watcher.stop()


def _published_once(here: Scene, rows: Sequence[str]) -> int:
    """How many rows match their one repo with its one commit."""
    good = 0
    for row in rows:
        try:
            audit(here.stage, here.person.row(row))
        except (AssertionError, ValueError):
            continue
        good += 1
    return good


def _landed(here: Scene) -> int:
    """All commits on the Hub, except the initial ones."""
    return sum(
        len(here.stage.api.list_repo_commits(name)) - 1
        for name in here.stage.names()
        if here.stage.api.repo_exists(name)
    )


def _photo_gone() -> Measured:
    """The answer to the commit is lost, by a kill or on the network, and then a photo is deleted or replaced."""
    with scene() as here:
        rows = [
            _landed_without_answer(here, what, whose)
            for what in ("deleted", "replaced")
            for whose in ("killed", "not answered") * 3
        ]
        published = _published_once(here, rows)
        landed, repos = _landed(here), len(here.stage.names())
    return Measured(
        published == landed == repos == len(rows),
        f"{published} of {len(rows)} published, {landed} commits, {repos} repos",
        {"rows": len(rows), "published": published, "commits": landed, "repos": repos},
    )


def _landed_without_answer(here: Scene, what: str, whose: str) -> str:
    paths = [here.person.upload(photo) for photo in PHOTOS]
    instance = unique("figure")
    with ExitStack() as stack:
        action = Hold("after") if whose == "killed" else LoseAnswer(504, "gateway time-out")
        landed = here.sandbox.faults.add(action, **at("commit"))
        # The look at the repo that follows waits until the photo is gone.
        looks = here.sandbox.faults.add(Hold("before"), service="hub", path="/commits/main$", skip=1)
        watcher = stack.enter_context(Watcher(here.stage, instance))
        row = here.person.insert("Ada", paths)
        (landed if whose == "killed" else looks).wait_reached(timeout=20)
        if whose == "killed":
            watcher.kill()
        objects = here.stage.admin.storage.from_(BUCKET)
        if what == "deleted":
            assert len(objects.remove(paths[:1])) == 1
        else:
            objects.update(paths[0], png(seed=99), {"content-type": "image/png"})
        here.sandbox.faults.remove(landed)
        here.sandbox.faults.remove(looks)
        if whose == "killed":
            watcher = stack.enter_context(Watcher(here.stage, instance))
        here.all_become([row], "published")
        watcher.stop()
    return row


FIGURES = [
    Figure(
        "woken_commit",
        "frozen with a commit ready: one commit, and the row matches the Hub",
        _woken_commit,
    ),
    Figure("photo_gone", "commit landed, answer lost, photo gone: published, no second commit", _photo_gone),
]
