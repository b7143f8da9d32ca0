"""One row from the request of the claim to the answer of the write-back, compared with a floor; see floor.py."""

from functools import partial

from bench.photos import MEGABYTE, Kind, upload
from bench.race import race
from bench.report import Bench, Found, Line, at_most, info, ratio_of_medians, spread
from watcher.sandbox.faults import RoundTrip

_PAIRS = 9
_ROWS: dict[str, tuple[int, int, Kind]] = {
    "small": (2 * MEGABYTE, 10, "JPEG"),
    "large": (20 * MEGABYTE, 40, "JPEG"),
    "png": (2 * MEGABYTE, 10, "PNG"),
}
_ROUND_TRIP = 0.04
_GOALS = {0.0: 1.15, _ROUND_TRIP: 1.05}


def _measure() -> Found:
    ratios: dict[str, float] = {}
    seconds: dict[str, dict[str, list[float]]] = {}
    lines: list[Line] = []
    for size, (each, count, kind) in _ROWS.items():
        with race("bench.floor", partial(upload, size=each, count=count, kind=kind)) as rows:
            for delay, goal in _GOALS.items():
                name = f"{size}_rtt" if delay else size
                if delay:
                    rows.here.sandbox.faults.add(RoundTrip(delay), times=None)
                ours, floors = rows.pairs(_PAIRS)
                ratios[name] = ratio_of_medians(ours, floors)
                seconds[name] = {"ours": ours, "floor": floors}
                where = f"{delay * 1000:.0f} ms RTT" if delay else "loopback"
                what = f"{count} × {each // MEGABYTE} MB {kind}, {where}: ours ÷ floor"
                # Each PNG is unpacked, which the floor does not do.
                lines += [
                    at_most(what, ratios[name], goal)
                    if kind == "JPEG"
                    else info(what, f"{ratios[name]:.2f}"),
                    info("  ours, s", spread(ours)),
                    info("  floor, s", spread(floors)),
                ]
    return Found({"end_to_end_ratio": ratios}, lines)


BENCH = Bench("end_to_end", "how long does a row take, compared with the floor?", _measure)
