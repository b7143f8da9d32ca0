"""What one user can make us do: retries and inserts in a loop cost a bounded number of rows and of the Hub's requests."""

import time
from collections.abc import Callable

from tests.acceptance.person import Person
from tests.acceptance.running import Watcher

from .beside import Others, again_and_again, compared
from .figure import Figure, Measured, Numbers
from .scene import Scene, scene

_FIRST, _THEN = 60.0, 30.0
"""Seconds in which others publish, and the seconds after them in which the Hub's requests are counted."""
_ROWS_A_DAY, _REQUESTS_A_MINUTE = 100, 60


def _brakes() -> Measured:
    numbers: Numbers = {}
    loops: dict[str, Callable[[Person], Callable[[], object]]] = {
        "retries_of_1_row": lambda eve: _retrying(eve, 1),
        "retries_of_20_rows": lambda eve: _retrying(eve, 20),
        "deleting_and_inserting": _deleting_and_inserting,
        "600_tiny_rows": _inserting,
    }
    with scene() as here, Watcher(here.stage) as watcher:
        watcher.ready()
        others = Others(here)
        others.publish(0.2)
        alone = others.publish()
        for name, loop in loops.items():
            numbers[name] = _beside(here, others, alone, loop)
        watcher.stop()
    words = "; ".join(
        f"{name.replace('_', ' ')}: {found['rows']} rows, {found['requests_a_minute']} requests a minute after the first, "
        f"others {found['times']:.2f}× alone (longest {found['longest']:.1f} s)"
        for name, found in numbers.items()
    )
    kept = all(
        found["rows"] <= _ROWS_A_DAY
        and found["requests_a_minute"] <= _REQUESTS_A_MINUTE
        and found["times"] <= 2
        for found in numbers.values()
    )
    return Measured(kept, words, numbers)


def _beside(
    here: Scene, others: Others, alone: list[float], loop: Callable[[Person], Callable[[], object]]
) -> Numbers:
    eve = Person(here.stage)
    began = time.monotonic()
    with again_and_again(loop(eve), 0.02):
        beside: list[float] = []
        while time.monotonic() < began + _FIRST:
            beside += others.publish()
        here.sandbox.faults.reset()
        time.sleep(_THEN)
        requests = sum(seen.service == "hub" for seen in here.sandbox.faults.log())
    rows = here.one("select coalesce(sum(rows), 0) from watcher.usage where user_id = %(id)s", id=eve.id)
    eve.table.delete().eq("user_id", eve.id).execute()
    return {
        **compared(alone, beside),
        "rows": rows,
        "requests_a_minute": round(requests * 60 / _THEN),
    }


def _retrying(eve: Person, rows: int) -> Callable[[], object]:
    """Rows with a file that is no photo, set back as soon as they have failed."""
    paths = [*eve.photos(2), eve.upload(b"no photo", "note.jpg")]
    for _ in range(rows):
        eve.insert("Eve", paths)
    return lambda: eve.table.update({"status": "pending"}).eq("status", "failed").execute()


def _deleting_and_inserting(eve: Person) -> Callable[[], object]:
    paths = eve.photos()

    def act() -> None:
        eve.table.delete().eq("user_id", eve.id).execute()
        eve.insert("Eve", paths)

    return act


def _inserting(eve: Person) -> Callable[[], object]:
    paths = eve.photos()
    return lambda: eve.insert("Eve", paths)


FIGURES = [
    Figure(
        "brakes",
        "retries, inserts and deletions in a loop: 100 rows a day, 60 Hub requests a minute; others at most 2× alone",
        _brakes,
    )
]
