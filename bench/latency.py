"""How long a row waits for its claim: with Realtime, by polling, and in queues with a direct connection to Postgres."""

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from bench.report import Bench, Found, Line, at_most, percentiles
from bench.rivals import PGQUEUER_DRIVER, Listen, PgQueuer, Procrastinate, Rival
from tests.acceptance.running import Watcher
from tests.checks.figures.scene import Scene, scene, until

_ROUNDS = 110
_PAUSE = 0.16
"""Average seconds between two insertions; the five series take turns."""

_WAITS = """
    select extract(epoch from min(attempt.started_at) - row.created_at)
    from public.trained_identities row join watcher.attempts attempt on attempt.identity_id = row.id
    where row.created_at >= %(since)s group by row.id
"""
_OPEN = "select count(*) from watcher.work"
_NOW = "select clock_timestamp()"


@dataclass(frozen=True)
class _Series:
    insert: Callable[[], object]
    now: Callable[[], object]
    waited: Callable[[object], list[float]]


def _measure() -> Found:
    with ExitStack() as stack:
        notified, polled = stack.enter_context(scene()), stack.enter_context(scene())
        polled.sandbox.realtime.refuse(503, times=10**9)
        series = {"realtime": _daemons(notified), "poll": _daemons(polled)}
        watchers = [stack.enter_context(Watcher(here.stage)) for here in (notified, polled)]
        watchers[0].ready()
        watchers[1].wait_for("ready")
        for kind in (Procrastinate, PgQueuer, Listen):
            rival = stack.enter_context(kind(notified.sandbox.admin_db_url))
            stack.enter_context(rival.working())
            series[rival.name] = _rivals(rival)
        seconds = _interleaved(series)
        until(lambda: not notified.one(_OPEN) and not polled.one(_OPEN), within=60)
        assert not watchers[0].said("feed_lost")
        assert not watchers[1].said("feed_alive")
        for watcher in watchers:
            watcher.stop()
    numbers = {name: percentiles(waits) for name, waits in seconds.items()}
    return Found({"latency_ms": numbers}, _lines(numbers), _notes(seconds))


def _daemons(here: Scene) -> _Series:
    def waited(since: object) -> list[float]:
        return [float(seconds) for (seconds,) in here.database.execute(_WAITS, {"since": since})]

    return _Series(here.insert, lambda: here.one(_NOW), waited)


def _rivals(rival: Rival) -> _Series:
    return _Series(rival.insert, lambda: rival.one(_NOW), rival.waited)


def _interleaved(series: dict[str, _Series]) -> dict[str, list[float]]:
    """Insert one row of each series per round, at random times, so that no poller is in step with them."""
    began = {name: one.now() for name, one in series.items()}
    for one in series.values():  # a first row, not counted, to see that each works
        one.insert()
    until(lambda: all(one.waited(began[name]) for name, one in series.items()))
    began = {name: one.now() for name, one in series.items()}
    names = list(series)
    for _ in range(_ROUNDS):
        random.shuffle(names)
        for name in names:
            time.sleep(random.uniform(0, 2 * _PAUSE))
            series[name].insert()
    until(lambda: all(len(one.waited(began[name])) == _ROUNDS for name, one in series.items()))
    return {name: one.waited(began[name]) for name, one in series.items()}


def _lines(numbers: dict[str, dict[str, float]]) -> list[Line]:
    realtime = numbers["realtime"]
    lines = [
        at_most("realtime, p50", realtime["p50"], 350, " ms", digits=0),
        at_most("realtime, p99", realtime["p99"], 800, " ms", digits=0),
    ]
    for name, found in numbers.items():
        digits = 0 if name in {"realtime", "poll"} else 1
        words = " / ".join(f"{value:.{digits}f}" for value in found.values())
        lines.append(Line(f"{name}, p50 / p95 / p99", f"{words} ms"))
    return lines


def _notes(seconds: dict[str, list[float]]) -> list[str]:
    difference = (median(seconds["realtime"]) - median(seconds["listen"])) * 1000
    notes = [
        (
            f"{_ROUNDS} rows of each, in turn. By the database's clock, from the start of the transaction that inserts a "
            "row to the start of the one that claims it, which is also what procrastinate and PgQueuer record; for listen, "
            "from one statement to the other."
        ),
        (
            "An idle Realtime polls Postgres every 500 ms, so a row waits 250 ms for it on average. That is the price of "
            f"needing no database password: in the median {difference:.0f} ms more than LISTEN."
        ),
    ]
    if PGQUEUER_DRIVER == "psycopg":
        notes.append(
            "With psycopg, PgQueuer's listener holds its only connection for up to a second, so its claim waits; with "
            "asyncpg, if that is installed, it does not."
        )
    return notes


BENCH = Bench("latency", "how long does a row wait for its claim?", _measure)
