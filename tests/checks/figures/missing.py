"""Rows whose photos are missing hold no slot: nobody else waits for them."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from postgrest import APIError

from tests.acceptance.person import BUCKET, Person
from tests.acceptance.running import Watcher

from .figure import Figure, Measured, Numbers, in_words, spread
from .scene import Scene, repeating, scene

_ACCOUNTS = 25
_LASTS = 60.0
_ALONE = 20


def _missing() -> Measured:
    with scene() as here, Watcher(here.stage) as watcher:
        watcher.ready()
        alone = [_insert_to_published(here) for _ in range(_ALONE)]
        beside: list[float] = []
        with _retrying(here) as retries:
            until = time.monotonic() + _LASTS
            while time.monotonic() < until:
                beside.append(_insert_to_published(here))
        watcher.stop()
    numbers: Numbers = {
        "alone": spread(alone),
        "beside": spread(beside),
        "retries": retries[0],
        "refused": retries[1],
    }
    ratio = round(numbers["beside"]["median"] / numbers["alone"]["median"], 2)
    return Measured(
        ratio <= 2,
        f"insert → published alone {in_words(numbers['alone'])}; beside {_ACCOUNTS} accounts, {retries[0]} replays and "
        f"{retries[1]} refused retries {in_words(numbers['beside'])}: {ratio} ×",
        {**numbers, "ratio": ratio},
    )


def _insert_to_published(here: Scene) -> float:
    began = time.monotonic()
    [row] = here.insert()
    here.person.wait_for(row, "published")
    return time.monotonic() - began


@contextmanager
def _retrying(here: Scene) -> Iterator[list[int]]:
    """Rows whose photos were removed are retried by their users and replayed by the operator all the time."""
    enough = threading.Event()
    done = [0, 0]
    people = [Person(here.stage) for _ in range(_ACCOUNTS)]
    rows = [_insert_and_remove(here, somebody) for somebody in people]

    def retry(one: tuple[Person, str]) -> None:
        somebody, row = one
        while not enough.is_set():
            try:
                somebody.retry(row)
            except APIError:
                done[1] += 1
            time.sleep(0.5)

    def replay() -> None:
        with suppress(APIError):
            done[0] += here.stage.rpc("watcher_replay", ids=rows)["replayed"]

    with repeating(replay, lambda: 1.0), ThreadPoolExecutor(_ACCOUNTS) as pool:
        retrying = [pool.submit(retry, one) for one in zip(people, rows, strict=True)]
        try:
            yield done
        finally:
            enough.set()
    for each in retrying:
        each.result()


def _insert_and_remove(here: Scene, somebody: Person) -> str:
    """Insert a row that no longer has its photos when it is claimed."""
    paths = somebody.photos()
    row = somebody.insert("Eve", paths)
    here.stage.admin.storage.from_(BUCKET).remove(paths)
    return row


FIGURES = [
    Figure(
        "missing",
        "25 accounts whose photos are missing, retried for 60 s: somebody else's row takes ≤ 2 × its time alone",
        _missing,
        waits=True,
    )
]
