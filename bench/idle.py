"""What an idle daemon costs at its default settings: CPU as counted by Linux, requests as counted by the sandbox.

Realtime is subscribed. All requests to all services are counted, since the daemon is their only client. A websocket counts
as one request, and its frames as none.
"""

import time

from bench.report import Bench, Found, Line, at_most, info
from tests.acceptance.running import Watcher
from tests.checks.figures.scene import Scene, scene
from tests.support import cpu

_WARM_UP = 20.0
_WINDOW = 150.0  # two pulses, ten polls


def _measure() -> Found:
    with scene() as here, Watcher(here.stage) as watcher:
        watcher.ready()
        time.sleep(_WARM_UP)
        here.sandbox.faults.reset()
        began, spent = time.monotonic(), cpu.seconds(watcher.process.pid)
        time.sleep(_WINDOW)
        seconds, used = time.monotonic() - began, cpu.seconds(watcher.process.pid) - spent
        counts = here.sandbox.faults.counts()
        _check_alive(here, watcher)
        watcher.stop()
    per_minute = sum(one.requests for one in counts) * 60 / seconds
    percent = used / seconds * 100
    lines = [
        at_most("CPU of one core", percent, 0.5, " %", digits=3),
        at_most("requests a minute, of all services", per_minute, 15, digits=1),
        *(
            info(f"… {one.method} {one.route}", f"{one.requests * 60 / seconds:.1f} a minute")
            for one in counts
        ),
        _window(seconds, used),
    ]
    numbers = {"idle": {"cpu_percent": round(percent, 3), "requests_per_minute": round(per_minute, 1)}}
    return Found(numbers, lines)


def _window(seconds: float, used: float) -> Line:
    return info(
        "window", f"{used:.2f} s of CPU in {seconds:.0f} s, counted in steps of {1000 / cpu.TICKS:g} ms"
    )


def _check_alive(here: Scene, watcher: Watcher) -> None:
    """Check that the daemon was idle, and neither dead nor disconnected from Realtime."""
    assert not watcher.said("feed_lost"), watcher.text
    watcher.wait_for("published", within=10, identity=here.insert()[0])


BENCH = Bench("idle", "what does an idle daemon cost?", _measure)
