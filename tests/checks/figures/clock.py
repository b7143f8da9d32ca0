"""A daemon whose clock is an hour off: it neither stores this clock nor waits by it, so nothing changes."""

import time
from contextlib import ExitStack
from datetime import datetime

from tests.acceptance import clocks
from tests.acceptance.places import at, outcomes
from tests.acceptance.repo import audit
from tests.acceptance.running import Watcher
from watcher.sandbox.faults import Answer

from .figure import Figure, Measured, Numbers
from .scene import Scene, scene

_LEASE = {"WATCHER_LEASE": "2", "WATCHER_RENEWAL": "0.5"}


def _clock() -> Measured:
    if not clocks.INSTALLED:
        return Measured(None, "not measured: libfaketime is not installed")
    found: Numbers = {}
    for hours in (1, -1):
        with scene() as here:
            found[f"{hours:+d}"] = _with_a_clock_off(here, hours)
    words = "; ".join(
        f"{hours} h: {one['published']} of 7 published with the expected attempts, claimed within "
        f"{one['claimed']:.2f} s, {one['back_off']:.2f} s after the end of a back-off, takeover {one['takeover']:.2f} s "
        "after a kill at a lease of 2 s"
        for hours, one in found.items()
    )
    kept = all(
        one["published"] == 7
        and one["claimed"] <= 2.5
        and 0 <= one["back_off"] <= 3
        and 1 <= one["takeover"] <= 3
        for one in found.values()
    )
    return Measured(kept, words, found)


def _with_a_clock_off(here: Scene, hours: int) -> Numbers:
    """Four rows; one held for three leases; one with a back-off; and one taken over from a killed daemon."""
    with ExitStack() as stack:
        victim = stack.enter_context(Watcher(here.stage, **_LEASE)).ready()
        kept = here.keep("create", times=1)
        [taken] = here.insert()
        kept.wait_reached()
        off = stack.enter_context(Watcher(here.stage, **_LEASE, **clocks.hours_off(hours))).ready()
        logged = datetime.fromisoformat(off.said("ready")[0]["timestamp"])
        assert round((logged - here.now()).total_seconds() / 3600) == hours, "Its clock is not off."
        time.sleep(3)
        assert not off.said("claimed"), "It has claimed a row whose lease is renewed."
        killed = here.now()
        victim.kill()
        takeover = (here.claimed(taken, 2)["started_at"] - killed).total_seconds()
        here.sandbox.faults.remove(kept)

        rows = here.insert(4)
        here.all_become([taken, *rows], "published")
        claimed = max(here.waited(row) for row in rows)

        held = here.keep("commit", times=1)
        [long] = here.insert()
        held.wait_reached()
        idle = stack.enter_context(Watcher(here.stage, **_LEASE)).ready()
        time.sleep(6)
        idle.stop()
        here.sandbox.faults.remove(held)
        here.all_become([long], "published")

        here.sandbox.faults.add(Answer(503, "away", {"Retry-After": "16"}), **at("create"))
        [deferred] = here.insert()
        waiting = here.person.wait_until(deferred, lambda row: row["next_attempt_at"] is not None)
        due = datetime.fromisoformat(waiting["next_attempt_at"])
        back_off = (here.claimed(deferred, 2)["started_at"] - due).total_seconds()
        here.all_become([deferred], "published")
        off.stop()
    expected = {taken: ["crashed", "published"], deferred: ["deferred", "published"]}
    published = 0
    for row in (taken, *rows, long, deferred):
        audit(here.stage, here.person.row(row))
        published += int(outcomes(here.stage, row) == expected.get(row, ["published"]))
    return {"published": published, "claimed": claimed, "back_off": back_off, "takeover": takeover}


FIGURES = [Figure("clock", "the daemon's clock an hour off: nothing changes", _clock, waits=True)]
