"""One row from the request of the claim to the answer of the write-back, compared with a floor; see floor.py."""

from functools import partial

from bench.photos import MEGABYTE, upload
from bench.race import race
from bench.report import Bench, Found, Line, at_most, info, ratio_of_medians, spread
from watcher.sandbox.faults import RoundTrip

_PAIRS = 9
_SIZES = {"small": (2 * MEGABYTE, 10), "large": (20 * MEGABYTE, 40)}
_ROUND_TRIP = 0.04
_GOALS = {0.0: 1.15, _ROUND_TRIP: 1.05}


def _measure() -> Found:
    ratios: dict[str, float] = {}
    seconds: dict[str, dict[str, list[float]]] = {}
    lines: list[Line] = []
    for size, (each, count) in _SIZES.items():
        with race("bench.floor", partial(upload, size=each, count=count)) as rows:
            for delay, goal in _GOALS.items():
                name = f"{size}_rtt" if delay else size
                if delay:
                    rows.here.sandbox.faults.add(RoundTrip(delay), times=None)
                ours, floors = rows.pairs(_PAIRS)
                ratios[name] = ratio_of_medians(ours, floors)
                seconds[name] = {"ours": ours, "floor": floors}
                what = f"{count} × {each // MEGABYTE} MB, {f'{delay * 1000:.0f} ms RTT' if delay else 'loopback'}"
                lines += [
                    at_most(f"{what}: ours ÷ floor", ratios[name], goal),
                    info("  ours, s", spread(ours)),
                    info("  floor, s", spread(floors)),
                ]
    return Found({"end_to_end_ratio": ratios}, lines)


BENCH = Bench("end_to_end", "how long does a row take, compared with the floor?", _measure)
