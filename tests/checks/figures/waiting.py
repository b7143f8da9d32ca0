"""How long a row waits for its claim: after a retry, without Realtime, and with a Realtime that went silent."""

import itertools
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from tests.acceptance.person import Person
from tests.acceptance.places import at
from tests.acceptance.running import Watcher
from watcher.sandbox.faults import Answer

from .figure import Figure, Measured, in_words, spread
from .scene import Scene, repeating, scene, until

_TIMES = 10
# Longer than an attempt waits, so that the attempt ends at the first answer.
_RETRY_AFTER = 16
# The poll interval without and with Realtime, and the time of a call.
_POLL, _POLL_ALIVE, _CALL = 2.0, 15.0, 0.5


def _retry() -> Measured:
    with scene() as here, Watcher(here.stage) as watcher:
        watcher.ready()
        seconds = {
            "retry": _failed_rows_again(here, by="user"),
            "replay": _failed_rows_again(here, by="operator"),
            "back-off": _back_offs(here),
        }
        watcher.stop()
    numbers = {name: spread(waits) for name, waits in seconds.items()}
    words = "; ".join(f"{name}: {in_words(one)}" for name, one in numbers.items())
    return Measured(all(one["max"] <= 3 for one in numbers.values()), words, numbers)


def _failed_rows_again(here: Scene, *, by: str) -> list[float]:
    """One row that fails each time, since one of its photos is not an image."""
    text = here.person.upload(b"no photo", "note.jpg")
    row = here.person.insert("Ada", [*here.paths[:2], text])
    seconds = []
    for number in range(2, _TIMES + 2):
        here.all_become([row], "failed")
        time.sleep(random.uniform(0, 1))
        asked = here.now()
        if by == "user":
            here.person.retry(row)
        else:
            here.stage.rpc("watcher_replay", ids=[row])
        seconds.append((here.claimed(row, number)["started_at"] - asked).total_seconds())
    return seconds


def _back_offs(here: Scene) -> list[float]:
    """Rows that are deferred during a failure of the Hub, each due at its own time."""
    trouble = here.sandbox.faults.add(
        Answer(503, "away", {"Retry-After": str(_RETRY_AFTER)}), **at("create"), times=None
    )
    due: dict[str, datetime] = {}
    for _ in range(_TIMES):
        [row] = here.insert()
        deferred = here.person.wait_until(row, lambda row: row["next_attempt_at"] is not None)
        due[row] = datetime.fromisoformat(deferred["next_attempt_at"])
        time.sleep(random.uniform(0, 1))
    here.sandbox.faults.remove(trouble)
    here.all_become(list(due), "published", within=60)
    waits = [(here.attempts(row)[1]["started_at"] - moment).total_seconds() for row, moment in due.items()]
    assert min(waits) >= 0, "A row was claimed before its back-off had ended."
    return waits


def _no_realtime() -> Measured:
    """Every handshake is refused, and rows are inserted at random times."""
    with scene() as here:
        here.sandbox.realtime.refuse(503, times=10**9)
        with Watcher(here.stage) as watcher:
            watcher.wait_for("ready")
            rows = []
            for _ in range(40):
                # Two rows, half a poll interval apart: a long wait of one is a short wait of the other, so that fewer rows
                # suffice for a stable median.
                time.sleep(random.uniform(0, 1))
                rows += here.insert()
                time.sleep(_POLL / 2)
                rows += here.insert()
            here.all_become(rows, "published")
            numbers = spread([here.waited(row) for row in rows])
            assert not watcher.said("feed_alive")
            watcher.stop()
    return Measured(numbers["median"] <= 1.1 and numbers["max"] <= 2.5, in_words(numbers), numbers)


def _zombie_idle() -> Measured:
    """Realtime only answers heartbeats, starting right after an event, which is the worst case."""
    with scene() as here, Watcher(here.stage) as one, Watcher(here.stage) as other:
        watchers = [one.ready(), other.ready()]
        here.stage.rpc("watcher_beat")
        time.sleep(2)
        here.sandbox.realtime.mute()
        muted = time.monotonic()
        rebuilt: list[float] = []
        for watcher in watchers:
            watcher.wait_for("feed_alive", count=2, within=100)
            rebuilt.append(time.monotonic() - muted)
        [row] = here.insert()
        here.claimed(row)
        wait = here.waited(row)
        here.all_become([row], "published")
        for watcher in watchers:
            watcher.stop()
    return _zombie(rebuilt, [wait])


def _zombie_busy() -> Measured:
    """The same while rows are inserted: seldom, often, and constantly."""
    rebuilt: list[float] = []
    rows: list[str] = []
    with scene() as here, Watcher(here.stage) as watcher:
        watcher.ready()
        for lives, pauses in enumerate(((8.0, 20.0), (2.0, 6.0), (0.2, 0.6)), start=1):
            here.sandbox.realtime.mute()
            muted = time.monotonic()
            with _inserting(here, pauses, rows):
                watcher.wait_for("feed_alive", count=lives + 1, within=100)
                rebuilt.append(time.monotonic() - muted)
        here.all_become(rows, "published")
        waits = [here.waited(row) for row in rows]
        watcher.stop()
    return _zombie(rebuilt, waits)


@contextmanager
def _inserting(here: Scene, pauses: tuple[float, float], rows: list[str]) -> Iterator[None]:
    """Insert rows with random pauses between two limits in seconds; for several users, since one may have 20 open rows."""
    people = itertools.cycle([Person(here.stage) for _ in range(4)])

    def insert() -> None:
        rows.extend(here.insert(person=next(people)))

    with repeating(insert, lambda: random.uniform(*pauses)):
        yield


def _zombie(rebuilt: list[float], waits: list[float]) -> Measured:
    numbers = {"rebuilt": spread(rebuilt), "waits": spread(waits)}
    return Measured(
        max(rebuilt) <= 70 and max(waits) <= _POLL_ALIVE + _CALL,
        f"reconnected after at most {max(rebuilt):.1f} s (n {len(rebuilt)}); rows waited at most {max(waits):.1f} s "
        f"(n {len(waits)}), the poll interval is {_POLL_ALIVE:g} s",
        numbers,
    )


def _feed() -> Measured:
    """The connection breaks, is closed by the server, and cannot be made again; the looks are seen by the sandbox."""
    looks: list[float] = []
    with scene() as here, Watcher(here.stage) as watcher:
        for number in range(1, _TIMES + 1):
            watcher.wait_for("feed_alive", count=number, within=300)
            time.sleep(random.uniform(1, 4))
            lost = time.monotonic()
            here.sandbox.realtime.refuse(503)
            here.sandbox.realtime.close_all(1006 if number % 2 else 1012)
            looks.append(_next_look(here, lost) - lost)
        watcher.stop()
    numbers = spread(looks)
    return Measured(numbers["max"] <= 2.5, in_words(numbers), numbers)


def _next_look(here: Scene, after: float) -> float:
    """When the first claim after a moment came, on the monotonic clock."""
    came: list[float] = []

    def looked() -> bool:
        claims = (seen.came_at for seen in here.sandbox.faults.log() if seen.path.endswith("/watcher_claim"))
        came.extend(at for at in claims if at > after)
        return bool(came)

    until(looked)
    return came[0]


FIGURES = [
    Figure("feed", "Realtime lost → the next look within 2.5 s", _feed, waits=True),
    Figure("retry", "a retry, a replay, the end of a back-off: claimed within 3 s", _retry, waits=True),
    Figure("no_realtime", "no Realtime: insert → claim p50 ≤ 1.1 s, max ≤ 2.5 s", _no_realtime, waits=True),
    Figure("zombie_idle", "a silent Realtime, no rows: reconnected within 70 s", _zombie_idle, waits=True),
    Figure(
        "zombie_busy",
        "the same with rows: within 70 s, no row waits longer than a poll interval",
        _zombie_busy,
        waits=True,
    ),
]
