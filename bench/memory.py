"""The most memory that a daemon has had, by Linux's count: idle, with one row of large photos, with four at once.

A fresh daemon for each. A row is 40 photos of 20 MB that the Hub takes by LFS; beside it, without a goal, 40 of 9 MB that
it would have inside the commit. Megabytes are 10^6 bytes.
"""

import time

from bench.photos import MEGABYTE, upload
from bench.report import Bench, Found, Line, at_most, told
from tests.acceptance.person import Person
from tests.acceptance.running import Watcher
from tests.checks.figures.scene import Scene, scene

_COUNT = 40
_LARGE = 20 * MEGABYTE
_REGULAR = 9 * MEGABYTE
_SLOTS = 4
_SETTLING = 10.0


def _measure() -> Found:
    with scene() as here:
        person = Person(here.stage)
        large = upload(person, _LARGE, _COUNT)
        idle = _idle(here)
        one, one_took = _peak(here, person, large, rows=1)
        four, four_took = _peak(here, person, large, rows=_SLOTS)
        here.sandbox.hub.knobs.images_as("regular")
        regular, regular_took = _peak(here, person, upload(person, _REGULAR, _COUNT), rows=1)
    lines = [
        at_most("idle", idle, 100, " MB", digits=1),
        told(f"1 row of {_COUNT} x 20 MB", f"{one:.1f} MB, in {one_took:.0f} s"),
        at_most(f"{_SLOTS} rows of {_COUNT} x 20 MB at once", four, 150, " MB", digits=1),
        at_most("… above idle", four - idle, 40, " MB", digits=1),
        told("… in", f"{four_took:.0f} s"),
        _told_of_regular(regular, regular_took),
    ]
    peaks = {"idle": idle, "one_row": one, "four_rows": four, "regular": regular}
    return Found({"peak_rss_mb": {name: round(value, 1) for name, value in peaks.items()}}, lines)


def _told_of_regular(peak: float, seconds: float) -> Line:
    return told(
        f"1 row of {_COUNT} x 9 MB where it would have them inside the commit",
        f"{peak:.1f} MB, in {seconds:.0f} s",
    )


def _idle(here: Scene) -> float:
    with Watcher(here.stage) as watcher:
        watcher.ready()
        time.sleep(_SETTLING)
        peak = watcher.peak()
        watcher.stop()
    return peak / MEGABYTE


def _peak(here: Scene, person: Person, paths: list[str], *, rows: int) -> tuple[float, float]:
    """The peak, and the seconds from the inserts to the last publication; rows may name the same photos."""
    with Watcher(here.stage, WATCHER_SLOTS=str(_SLOTS)) as watcher:
        watcher.ready()
        began = time.monotonic()
        identities = [person.insert("Ada", paths) for _ in range(rows)]
        watcher.wait_for("claimed", count=rows)
        assert not watcher.said("published"), "They were to be in flight at once."
        for identity in identities:
            watcher.wait_for("published", within=300, identity=identity)
        seconds = time.monotonic() - began
        peak = watcher.peak()
        watcher.stop()
    _make_room(here)
    return peak / MEGABYTE, seconds


def _make_room(here: Scene) -> None:
    store = here.sandbox.hub.store
    for repo in store.repos("models"):
        store.delete(repo)


BENCH = Bench("memory", "how much memory the daemon has at most", _measure)
