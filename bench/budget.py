"""How much of the Hub's rate limit daemons use that share a token, and how often they are refused.

The sandbox's Hub limits the requests of a token as the real one does, in a window of 10 s instead of 300, and says what
is left in the same headers. There is always work. A window begins with the first request after the last one ended, and
counts if it has ended.
"""

from contextlib import ExitStack
from statistics import mean

from bench.report import Bench, Found, Line, at_least, at_most, info
from tests.acceptance.running import Watcher
from tests.checks.figures.scene import Scene, scene, until
from watcher.sandbox.faults.traffic import Seen

_DAEMONS = 2
_QUOTA, _WINDOW = 100, 10.0
_WINDOWS = 4
_ROWS = 160
"""More than the windows have room for: a row makes at least four requests."""


def _measure() -> Found:
    with scene() as here, ExitStack() as daemons:
        for limit in ("open_rows", "rows_per_day"):
            here.stage.rpc("watcher_set_limit", name=limit, value=1000)
        watchers = [daemons.enter_context(Watcher(here.stage)) for _ in range(_DAEMONS)]
        for watcher in watchers:
            watcher.ready()
        here.sandbox.hub.knobs.limit_requests(_QUOTA, _WINDOW)
        here.sandbox.faults.reset()
        here.insert(_ROWS)
        until(lambda: len(_windows(here)) > _WINDOWS, 10 * _WINDOW, pause=0.5)
        windows = _windows(here)[:_WINDOWS]
        published = sum(len(watcher.said("published")) for watcher in watchers)
        deferred = sum(len(watcher.said("deferred")) for watcher in watchers)
        assert published < _ROWS, "There was not enough work."
    accepted = [sum(seen.status != 429 for seen in window) for window in windows]
    used = mean(accepted) / _QUOTA
    requests = sum(map(len, windows))
    refused = 1 - sum(accepted) / requests
    lines: list[Line] = [
        at_least(
            f"{_DAEMONS} daemons, one token, {_QUOTA} requests in {_WINDOW:g} s: used",
            100 * used,
            90,
            " %",
            digits=1,
        ),
        at_most("of all requests, refused", 100 * refused, 1, " %", digits=1),
        info("  accepted in each window", ", ".join(map(str, accepted))),
        info("  rows published; deferred", f"{published}; {deferred}"),
    ]
    return Found({"budget": {"used": round(used, 3), "refused": round(refused, 4)}}, lines)


def _windows(here: Scene) -> list[list[Seen]]:
    """The requests to the Hub's API, by window."""
    windows: list[list[Seen]] = []
    ends = float("-inf")
    for seen in sorted(here.sandbox.faults.log(), key=lambda seen: seen.came_at):
        if seen.service != "hub" or not (seen.path.startswith("/api/") or "/info/lfs/" in seen.path):
            continue
        if seen.came_at >= ends:
            ends = seen.came_at + _WINDOW
            windows.append([])
        windows[-1].append(seen)
    return windows


BENCH = Bench("budget", "is the Hub's rate limit used, and not hit?", _measure)
