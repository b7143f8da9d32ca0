"""Crashes: how soon another or a restarted daemon takes the rows over, and how a row ends that crashes its worker."""

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime

from tests.acceptance.person import Person
from tests.acceptance.repo import audit
from tests.acceptance.running import Watcher
from tests.acceptance.stage import unique
from watcher.sandbox.faults import Hold

from .figure import Figure, Measured, in_words, spread
from .scene import Scene, scene, until


def _takeover() -> Measured:
    """Four daemons with a row each, killed at times spread over the renewal interval, and an idle one."""
    seconds: list[float] = []
    with scene() as here:
        for _ in range(3):
            seconds += _round_of_takeovers(here)
    numbers = spread(seconds)
    return Measured(numbers["median"] <= 19 and numbers["max"] <= 22, in_words(numbers), numbers)


def _round_of_takeovers(here: Scene) -> list[float]:
    count, renewal = 4, 5.0
    killed: dict[str, datetime] = {}
    kept = here.keep("create")
    rows = here.insert(count)
    with ExitStack() as stack:
        holders = [stack.enter_context(Watcher(here.stage, WATCHER_SLOTS="1")) for _ in range(count)]
        attempts = [here.claimed(row) for row in rows]
        idle = stack.enter_context(Watcher(here.stage)).ready()
        began = time.monotonic()
        for number, holder in enumerate(holders):
            moment = began + (number + random.random()) * renewal / count
            time.sleep(max(0.0, moment - time.monotonic()))
            killed[holder.instance] = here.now()
            holder.kill()
        again = [here.claimed(row, 2) for row in rows]
        assert {attempt["instance"] for attempt in again} == {idle.instance}
        here.sandbox.faults.remove(kept)
        here.all_become(rows, "published")
        idle.stop()
    return [
        (second["started_at"] - killed[first["instance"]]).total_seconds()
        for first, second in zip(attempts, again, strict=True)
    ]


def _restart() -> Measured:
    """One instance, killed with four rows in flight and restarted at once, with new rows each time."""
    seconds: list[float] = []
    starts: list[float] = []
    with scene() as here, ExitStack() as stack:
        instance = unique("figure")
        watcher = stack.enter_context(Watcher(here.stage, instance))
        for _ in range(12):
            kept = here.keep("create")
            rows = here.insert(4)
            for row in rows:
                here.claimed(row)
            killed = here.now()
            watcher.kill()
            watcher = stack.enter_context(Watcher(here.stage, instance))
            again = [here.claimed(row, 2) for row in rows]
            seconds.append(max((attempt["started_at"] - killed).total_seconds() for attempt in again))
            ready = datetime.fromisoformat(watcher.wait_for("ready")["timestamp"])
            starts.append((ready - killed).total_seconds())
            here.sandbox.faults.remove(kept)
            here.all_become(rows, "published")
        watcher.stop()
    numbers = {**spread(seconds), "starts": spread(starts)}
    words = (
        f"{in_words(numbers)}, the last of 4 rows; the program's start alone: {in_words(numbers['starts'])}"
    )
    return Measured(numbers["max"] <= 3, words, numbers)


def _killer() -> Measured:
    """Each request for an image of one row kills the daemon, which is restarted until all rows have ended."""
    published, exhausted, kills, crashes = 0, 0, 0, 0
    rounds = 3
    for place in random.sample(range(6), rounds):
        with scene() as here:
            ended = _round_with_a_killer(here, place)
        published += ended["published"]
        exhausted += ended["exhausted"]
        kills += ended["kills"]
        crashes = max(crashes, ended["crashes"])
    return Measured(
        exhausted == rounds and published == 5 * rounds,
        f"exhausted {exhausted} of {rounds}, published {published} of {5 * rounds}, "
        f"at most {crashes} crashed attempts on another row",
        {"exhausted": exhausted, "published": published, "kills": kills, "crashes_of_others": crashes},
    )


def _round_with_a_killer(here: Scene, place: int) -> dict[str, int]:
    killer_paths = here.person.photos()
    killer = here.sandbox.faults.add(
        Hold("before"), service="storage", path=f"/object/authenticated/.*{killer_paths[1]}$", times=None
    )
    rows = [here.person.insert("Ada", killer_paths if n == place else here.paths) for n in range(6)]
    instance, kills = unique("figure"), 0
    all_ended = _all_ended(here.person, rows)
    while not all_ended():
        with Watcher(here.stage, instance) as watcher:
            until(lambda: killer.reached > kills or all_ended(), within=60)  # noqa: B023  (asked at once)
            if killer.reached > kills:
                kills = killer.reached
                watcher.kill()
            else:
                watcher.stop()
    row = here.person.row(rows.pop(place))
    for other in rows:
        audit(here.stage, here.person.row(other))
    return {
        "exhausted": int(row["error_code"] == "attempts_exhausted"),
        "published": len(rows),
        "kills": kills,
        "crashes": max([a["outcome"] for a in here.attempts(other)].count("crashed") for other in rows),
    }


def _all_ended(person: Person, rows: list[str]) -> Callable[[], bool]:
    count = len(rows)

    def ended() -> bool:
        return sum(row["status"] in {"published", "failed"} for row in person.rows()) == count

    return ended


FIGURES = [
    Figure("takeover", "kill -9, another idle: median ≤ 19 s, max ≤ 22 s", _takeover, waits=True),
    Figure("restart", "kill -9 and restart: its rows are claimed within 3 s", _restart),
    Figure("killer", "1 row in 6 kills its worker: attempts_exhausted, 5 published", _killer),
]
