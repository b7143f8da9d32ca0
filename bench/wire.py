"""How long a row of large photos takes, compared with the wire's own time: its bytes, one way, at the link's rate.

Both ways have the same rate, so a row that uploaded each byte as soon as it came would take just that long.
"""

import os

from bench.photos import MEGABYTE, upload
from bench.race import published
from bench.report import Bench, Found, at_most, info, ratio_of_medians, spread
from tests.acceptance.running import Watcher
from tests.checks.figures.scene import scene
from watcher.sandbox.faults import Rate, RoundTrip

_SIZE, _COUNT = 20 * MEGABYTE, 40
_RATE, _ROUND_TRIP = 80 * MEGABYTE, 0.04
_GOAL = 1.15
_TIMES = 5


def _measure() -> Found:
    with scene() as here, Watcher(here.stage) as watcher:
        paths = upload(here.person, _SIZE, _COUNT)
        watcher.ready()
        size = here.one(
            "select sum((metadata->>'size')::bigint)::float from storage.objects where name = any (%(n)s)",
            n=paths,
        )
        faults = here.sandbox.faults
        # The rate limit is inside the round trip: a request that waits for it has already been delayed.
        faults.add(RoundTrip(_ROUND_TRIP), times=None)
        faults.add(Rate(_RATE), times=None)
        seconds = [published(here, watcher, paths) for _ in range(_TIMES)]
        watcher.stop()
    wire = size / _RATE
    ratio = ratio_of_medians(seconds, [wire])
    return Found(
        {"wire": {"ratio": ratio, "seconds": [round(one, 2) for one in seconds]}},
        [
            at_most(
                f"{_COUNT} × 20 MB, 40 ms RTT, 80 MB/s each way: wall ÷ the wire's own time", ratio, _GOAL
            ),
            info("  wall, s", spread(seconds)),
            info("  the wire's own time, s", f"{wire:.2f}"),
            info("  load of the machine", f"{os.getloadavg()[0]:.1f}"),
        ],
    )


BENCH = Bench("wire", "how close to the link's own time is a row of large photos?", _measure)
