"""SIGTERM: no further claim, exit within the grace, and the rows continue on another daemon, unspent."""

import random
import signal
import threading
import time
from contextlib import ExitStack

from tests.acceptance.person import Person
from tests.acceptance.running import Watcher

from .figure import Figure, Measured, spread
from .scene import Scene, scene, until

_GRACE = 2.0
_ROUNDS = 10


def _sigterm() -> Measured:
    late: list[float] = []
    exits: list[float] = []
    handed_on: list[float] = []
    codes: set[int] = set()
    spent = 0
    with scene() as here:
        for _ in range(_ROUNDS):
            spent += _stopped_during_inserts(here, late, exits, codes)
        spent += _rows_handed_on(here, handed_on, exits, codes)
    return Measured(
        max(late) <= 0.05 and max(exits) <= _GRACE and max(handed_on) <= 3 and codes == {0} and not spent,
        f"last claim {1000 * max(late):+.0f} ms from the signal, exits {sorted(codes)} after at most {max(exits):.2f} of "
        f"{_GRACE:g} s (n {len(exits)}), claimed elsewhere after at most {max(handed_on):.2f} s "
        f"(n {len(handed_on)}), {spent} attempts spent",
        {
            "last_claim": round(max(late), 3),
            "exit": spread(exits),
            "handed_on": spread(handed_on),
            "spent": spent,
        },
    )


def _stopped_during_inserts(here: Scene, late: list[float], exits: list[float], codes: set[int]) -> int:
    """SIGTERM during inserts and polls, with slots free for all rows, and with a Storage that hangs."""
    kept = here.keep("fetch")
    people = [Person(here.stage), Person(here.stage)]
    photos = {one: one.photos() for one in people}
    rows: list[str] = []

    def insert() -> None:
        for somebody in people * 20:
            rows.append(somebody.insert("Ada", photos[somebody]))
            time.sleep(0.03)

    settings = {"WATCHER_SLOTS": "32", "WATCHER_POLL_ALIVE": "0.1", "WATCHER_GRACE": f"{_GRACE}"}
    with Watcher(here.stage, **settings) as watcher:
        watcher.ready()
        inserting = threading.Thread(target=insert)
        inserting.start()
        watcher.wait_for("claimed")
        time.sleep(random.uniform(0.1, 0.5))
        stopped = here.now()
        began = time.monotonic()
        watcher.send(signal.SIGTERM)
        codes.add(watcher.wait(within=_GRACE + 5))
        exits.append(time.monotonic() - began)
        inserting.join()
    here.sandbox.faults.remove(kept)
    begun = [attempt["started_at"] for row in rows for attempt in here.attempts(row)]
    assert 0 < len(begun) < len(rows), "All rows were inserted before the signal, or all after it."
    late.append(max((moment - stopped).total_seconds() for moment in begun))
    spent = sum(int(here.stage.story(row)["spent"]) for row in rows)
    for somebody in people:
        here.stage.admin.auth.admin.delete_user(somebody.id)
    return spent


def _rows_handed_on(here: Scene, handed_on: list[float], exits: list[float], codes: set[int]) -> int:
    """Four rows that go from one daemon to the next, as each gets SIGTERM while the Hub hangs."""
    kept = here.keep("create")
    rows = here.insert(4)
    with ExitStack() as stack:

        def started() -> Watcher:
            return stack.enter_context(Watcher(here.stage, WATCHER_GRACE=f"{_GRACE}"))

        holder = started()
        for row in rows:
            here.claimed(row)
        for number in range(1, _ROUNDS + 1):
            idle = started().ready()
            began = time.monotonic()
            holder.send(signal.SIGTERM)
            if number % 2:
                holder.wait_for("stopping")
                holder.send(signal.SIGTERM)
            codes.add(holder.wait(within=_GRACE + 5))
            exits.append(time.monotonic() - began)
            for row in rows:
                next_one = here.claimed(row, number + 1)
                before = here.attempts(row)[number - 1]
                assert (before["outcome"], next_one["instance"]) == ("released", idle.instance)
                handed_on.append((next_one["started_at"] - before["ended_at"]).total_seconds())
            holder = idle
        spent = sum(int(here.stage.story(row)["spent"]) - 1 for row in rows)
        here.sandbox.faults.remove(kept)
        here.all_become(rows, "published")
        until(lambda: len(holder.said("published")) == len(rows))
        holder.stop()
    return spent


FIGURES = [
    Figure(
        "sigterm",
        "no claim after 50 ms; exit 0 within the grace; claimed elsewhere within 3 s, unspent",
        _sigterm,
    ),
]
