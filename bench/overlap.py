"""How much of the upload happens while images are still being fetched."""

from functools import partial
from statistics import median

from bench.photos import MEGABYTE, upload
from bench.race import race
from bench.report import Bench, Found, at_most, info, spread
from watcher.sandbox.faults import Rate, RoundTrip

_SIZE, _COUNT = 20 * MEGABYTE, 40
_RATE, _ROUND_TRIP = 80 * MEGABYTE, 0.04
_GOAL = 0.65
_TIMES = 3


def _measure() -> Found:
    with race("bench.alone", partial(upload, size=_SIZE, count=_COUNT)) as rows:
        loopback = rows.in_turn(_TIMES)
        faults = rows.here.sandbox.faults
        # The rate limit is inside the round trip: a request that waits for it has already been delayed.
        faults.add(RoundTrip(_ROUND_TRIP), times=None)
        faults.add(Rate(_RATE), times=None)
        far = rows.in_turn(_TIMES)
    wall, fetch, upload_ = _parts(far)
    ratio, near = _ratio(far), _ratio(loopback)
    return Found(
        {"overlap_ratio": ratio, "overlap_ratio_loopback": near},
        [
            at_most(f"{_COUNT} × 20 MB, 40 ms RTT, 80 MB/s each way: wall ÷ (fetch + upload)", ratio, _GOAL),
            info("  wall, s", spread(wall)),
            info("  fetch alone, s", spread(fetch)),
            info("  upload alone, s", spread(upload_)),
            info("loopback: wall ÷ (fetch + upload)", f"{near:.2f}"),
        ],
    )


Turns = list[tuple[float, str]]


def _parts(turns: Turns) -> tuple[list[float], list[float], list[float]]:
    halves = [tuple(map(float, line.split())) for _, line in turns]
    return [wall for wall, _ in turns], [fetch for fetch, _ in halves], [upload for _, upload in halves]


def _ratio(turns: Turns) -> float:
    wall, fetch, upload_ = map(median, _parts(turns))
    return round(wall / (fetch + upload_), 3)


BENCH = Bench("overlap", "do fetch and upload of the images overlap?", _measure)
