"""A daemon's peak memory as counted by Linux (VmHWM): idle, with one row of large photos, with four at once.

Each is measured with a new daemon. A row is 40 photos of 20 MB that the Hub accepts by LFS; without a goal also 40 of 9 MB
that the Hub would accept inside the commit. 1 MB is 10^6 bytes.
"""

import time

from bench.photos import MEGABYTE, upload
from bench.report import Bench, Found, at_most, info
from tests.acceptance.person import Person
from tests.acceptance.running import Watcher
from tests.checks.figures.scene import Scene, scene

_COUNT = 40
_LARGE = 20 * MEGABYTE
_REGULAR = 9 * MEGABYTE
_SLOTS = 4
_WARM_UP = 10.0


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
        info(f"1 row of {_COUNT} x 20 MB", _in(one, one_took)),
        at_most(f"{_SLOTS} rows of {_COUNT} x 20 MB at once", four, 150, " MB", digits=1),
        at_most("… above idle", four - idle, 40, " MB", digits=1),
        info("… in", f"{four_took:.0f} s"),
        info(
            f"1 row of {_COUNT} x 9 MB, which the Hub would accept inside the commit",
            _in(regular, regular_took),
        ),
    ]
    peaks = {"idle": idle, "one_row": one, "four_rows": four, "regular": regular}
    return Found({"peak_rss_mb": {name: round(value, 1) for name, value in peaks.items()}}, lines)


def _in(peak: float, seconds: float) -> str:
    return f"{peak:.1f} MB, in {seconds:.0f} s"


def _idle(here: Scene) -> float:
    with Watcher(here.stage) as watcher:
        watcher.ready()
        time.sleep(_WARM_UP)
        peak = watcher.peak()
        watcher.stop()
    return peak / MEGABYTE


def _peak(here: Scene, person: Person, paths: list[str], *, rows: int) -> tuple[float, float]:
    """The peak in MB, and the seconds from the inserts to the last publication; all rows name the same photos."""
    with Watcher(here.stage, WATCHER_SLOTS=str(_SLOTS)) as watcher:
        watcher.ready()
        began = time.monotonic()
        identities = [person.insert("Ada", paths) for _ in range(rows)]
        watcher.wait_for("claimed", count=rows)
        assert not watcher.said("published"), "The rows were not all in flight at once."
        for identity in identities:
            watcher.wait_for("published", within=300, identity=identity)
        seconds = time.monotonic() - began
        peak = watcher.peak()
        watcher.stop()
    _delete_repos(here)
    return peak / MEGABYTE, seconds


def _delete_repos(here: Scene) -> None:
    store = here.sandbox.hub.store
    for repo in store.repos("models"):
        store.delete(repo)


BENCH = Bench("memory", "what is the daemon's peak memory?", _measure)
