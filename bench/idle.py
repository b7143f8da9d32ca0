"""What the daemon costs while nothing is to be done and the feed is alive: CPU by Linux's count, requests by the sandbox's.

At its default settings. Every request of every service is counted, whoever asks, as nobody else is there; a websocket
is one request for its whole life, and its frames are none.
"""

import os
import time
from pathlib import Path

from bench.report import Bench, Found, Line, at_most, told
from tests.acceptance.running import Watcher
from tests.checks.figures.scene import Scene, scene

_SETTLING = 20.0
_WINDOW = 150.0  # two pulses, ten polls
_TICKS = os.sysconf("SC_CLK_TCK")


def _measure() -> Found:
    with scene() as here, Watcher(here.stage) as watcher:
        watcher.ready()
        time.sleep(_SETTLING)
        here.sandbox.faults.reset()
        began, spent = time.monotonic(), _cpu_seconds(watcher)
        time.sleep(_WINDOW)
        seconds, cpu = time.monotonic() - began, _cpu_seconds(watcher) - spent
        counts = here.sandbox.faults.counts()
        _still_alive(here, watcher)
        watcher.stop()
    per_minute = sum(one.requests for one in counts) * 60 / seconds
    percent = cpu / seconds * 100
    lines = [
        at_most("CPU of one core", percent, 0.5, " %", digits=3),
        at_most("requests a minute, of all services", per_minute, 15, digits=1),
        *(
            told(f"… {one.method} {one.route}", f"{one.requests * 60 / seconds:.1f} a minute")
            for one in counts
        ),
        _window(seconds, cpu),
    ]
    numbers = {"idle": {"cpu_percent": round(percent, 3), "requests_per_minute": round(per_minute, 1)}}
    return Found(numbers, lines)


def _window(seconds: float, cpu: float) -> Line:
    return told("window", f"{cpu:.2f} s of CPU in {seconds:.0f} s, counted in steps of {1000 / _TICKS:g} ms")


def _still_alive(here: Scene, watcher: Watcher) -> None:
    """It was the daemon's idleness that was measured, and not its death or deafness."""
    assert not watcher.said("feed_lost"), watcher.text
    watcher.wait_for("published", within=10, identity=here.insert()[0])


def _cpu_seconds(watcher: Watcher) -> float:
    """CPU time of all its threads, its own and the kernel's for it."""
    fields = Path(f"/proc/{watcher.process.pid}/stat").read_text().rpartition(")")[2].split()
    user, system = fields[11:13]
    return (int(user) + int(system)) / _TICKS


BENCH = Bench("idle", "what the daemon costs while nothing is to be done", _measure)
