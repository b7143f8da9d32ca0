"""Trainings that run: what following them costs. `MINUTES=55` says for how long they are watched."""

import time
from datetime import timedelta

from tests.acceptance.running import Watcher
from tests.support import cpu
from watcher.settings.settings import environment

from .figure import Figure, Measured
from .scene import Scene, scene, until

_TRAININGS = 50
_MINUTES = 5.0
"""By default. After an hour, each training looks at its job by itself."""
_IDLE_CPU = 0.5
"""Percent, as for a daemon that has nothing to do."""


def switch_on(here: Scene, **settings: object) -> None:
    """Switch trainings on, with room for any number of them."""
    here.stage.rpc("watcher_set_training", settings={"enabled": True, "usd_a_day": 10_000, **settings})
    here.stage.rpc("watcher_set_limit", name="trainings_per_day", value=1000, user=None)
    here.stage.rpc("watcher_set_limit", name="open_rows", value=1000, user=None)


def _followed() -> Measured:
    """Fifty trainings run, and nothing happens to them."""
    minutes = float(environment().get("MINUTES", _MINUTES))
    with scene() as here:
        here.sandbox.hub.jobs.hold_next("RUNNING", times=_TRAININGS)
        switch_on(here, minutes=240)
        with Watcher(here.stage, WATCHER_TRAINING_TOKEN=here.stage.token) as daemon:
            daemon.ready()
            rows = [here.person.insert("Ada", here.paths, train=True) for _ in range(_TRAININGS)]
            here.all_become(rows, "training", 300)
            jobs = here.sandbox.hub.jobs.all
            until(lambda: len(jobs()) == _TRAININGS and all(job.stage == "RUNNING" for job in jobs()), 60)
            # Each has been looked at once by itself.
            looked = "select count(*) from watcher.work where kind = 'train' and next_at > now() + interval '10 minutes'"
            until(lambda: here.one(looked) == _TRAININGS, 120)
            history = "select count(*) from watcher.attempts"
            before, requests = here.one(history), len(here.sandbox.faults.log())
            began, spent = time.monotonic(), cpu.seconds(daemon.process.pid)
            held = 0
            while time.monotonic() - began < 60 * minutes:
                held = max(
                    held,
                    here.one(
                        "select count(*) from watcher.attempts where kind = 'train' and ended_at is null"
                    ),
                )
                time.sleep(1)
            seconds = time.monotonic() - began
            percent = 100 * (cpu.seconds(daemon.process.pid) - spent) / seconds
            asked = [one.path for one in here.sandbox.faults.log()[requests:] if "/api/jobs/" in one.path]
            grown = here.one(history) - before
    lists = sum(path.rstrip("/").endswith("/api/jobs/sandbox") for path in asked)
    numbers = {
        "lists": lists,
        "other_requests_about_jobs": len(asked) - lists,
        "seconds": round(seconds),
        "leases_held": held,
        "history": grown,
        "cpu_percent": round(percent, 2),
    }
    return Measured(
        lists <= seconds / 15 + 1
        and len(asked) == lists
        and not held
        and grown <= 1
        and percent <= _IDLE_CPU,
        f"{timedelta(seconds=round(seconds))}: {lists} lists, {len(asked) - lists} other requests about jobs, {held} leases "
        f"held, the history grew by {grown}, CPU {percent:.2f} %",
        numbers,
    )


FIGURES = (
    Figure(
        "trainings",
        f"{_TRAININGS} trainings that run: a list each 15 s, no lease held, no history, CPU as when idle (0.5 %)",
        _followed,
        waits=True,
    ),
)
