"""How many rows per second the daemon processes when a publication takes no time.

Compared with a bare loop that makes the same calls, which shows what the daemon itself costs, and with procrastinate,
which uses a direct connection to Postgres.
"""

import json
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from bench import load
from bench.report import Bench, Found, Line, at_least, at_most, info, ratio_of_medians, spread
from bench.rivals import Procrastinate
from tests.checks.figures.scene import Scene, scene, until
from tests.support import cpu

_SLOTS = (8, 32)
_DAEMONS = 4
_ROUNDS = 4
_ROWS, _JOBS = 400, 1000

_LEFT = "select count(*) from watcher.work"
_ENDED = """
    select extract(epoch from attempt.ended_at) from watcher.attempts attempt
    join public.trained_identities row on row.id = attempt.identity_id
    where attempt.outcome = 'published' and row.created_at >= %s
"""
_TWICE = """
    select count(*) from (
        select from watcher.attempts attempt join public.trained_identities row on row.id = attempt.identity_id
        where row.created_at >= %(since)s group by row.id having count(*) > 1
    ) several
"""
_JOBS_LEFT = "select count(*) from procrastinate_jobs where status in ('todo', 'doing')"
_JOBS_ENDED = "select extract(epoch from at) from procrastinate_events where type = 'succeeded' and at >= %s"


@dataclass(frozen=True)
class _Run:
    """One backlog and how it was processed."""

    worked: load.Worked
    calls_per_row: float
    limit: int = 0
    """Average rows per claim that was not empty."""
    claims: int = 0
    """Number of claims until the last row was claimed."""
    empty: int = 0
    """How many of these were empty."""
    twice: int = 0
    """Rows with more than one attempt."""

    @property
    def calls_per_second(self) -> float:
        return self.worked.rows_per_second * self.calls_per_row


def _measure() -> Found:
    runs: dict[str, list[_Run]] = defaultdict(list)
    with scene() as here, Procrastinate(here.sandbox.admin_db_url) as rival:
        for _ in range(_ROUNDS):
            for slots in _SLOTS:
                ours = _ours(here, slots)
                runs[f"ours {slots}"].append(ours)
                if slots == _SLOTS[0]:
                    runs["four"].append(_ours(here, slots, _DAEMONS))
                runs[f"bare {slots}"].append(_bare(here, slots, ours.limit))
                runs[f"procrastinate {slots}"].append(_procrastinate(rival, slots))
    numbers = {
        "rate": {str(slots): _numbers(runs, slots) for slots in _SLOTS},
        "four_daemons": {
            "rows_per_second": _rate(runs["four"]),
            "one_daemon_rows_per_second": _rate(runs[f"ours {_SLOTS[0]}"]),
            "twice": sum(run.twice for run in runs["four"]),
            "empty_claims_percent": round(
                100 * sum(run.empty for run in runs["four"]) / sum(run.claims for run in runs["four"]), 1
            ),
        },
    }
    return Found(numbers, _lines(numbers, runs), _notes(runs))


def _ours(here: Scene, slots: int, daemons: int = 1) -> _Run:
    """Daemons that publish nothing, with `slots` each."""
    since = here.now()
    with ExitStack() as stack:
        start = here.keep("claim")
        load.insert(here, _ROWS)
        programs = [
            stack.enter_context(
                load.program(
                    here,
                    ["bench.noop"],
                    WATCHER_SLOTS=str(slots),
                    WATCHER_INSTANCE=f"noop-{number}",
                    WATCHER_SPOOL=str(here.stage.folder / "spool"),
                    WATCHER_LOG_FORMAT="json",
                )
            )
            for number in range(daemons)
        ]
        until(lambda: all(program.logged("feed_alive") for program in programs))
        start.wait_reached(count=daemons)
        worked, calls_per_row = _watch(here, since, programs, start)
        claims = [json.loads(program.stop()) for program in programs]
    last = max(moment for one in claims for moment, _, got in one if got)
    brought = [got for one in claims for moment, _, got in one if moment <= last]
    return _Run(
        worked,
        calls_per_row,
        limit=round(mean(got for got in brought if got)),
        claims=len(brought),
        empty=brought.count(0),
        twice=here.one(_TWICE, since=since),
    )


def _bare(here: Scene, slots: int, limit: int) -> _Run:
    since = here.now()
    start = here.keep("claim")
    load.insert(here, _ROWS)
    with load.program(here, ["bench.bare", str(slots), str(limit)]) as program:
        start.wait_reached()
        worked, calls_per_row = _watch(here, since, [program], start)
    return _Run(worked, calls_per_row)


def _watch(here: Scene, since: object, programs: list[load.Program], start: Any) -> tuple[load.Worked, float]:
    """Let all programs start at once; returns how the rows were processed, and the REST calls per row."""
    here.sandbox.faults.reset()
    here.sandbox.faults.remove(start)
    worked = load.work_off(
        _ROWS,
        left=lambda: here.one(_LEFT),
        ended=lambda: [float(moment) for (moment,) in here.database.execute(_ENDED, [since])],
        who={
            "program": lambda: sum(cpu.seconds(program.pid) for program in programs),
            "sandbox": time.process_time,
            "Postgres": load.cpu_of_postgres(here.database),
        },
    )
    counts = here.sandbox.faults.counts()
    calls = sum(one.requests for one in counts if one.service == "rest" and one.caller == "service_role")
    return worked, calls / _ROWS


def _procrastinate(rival: Procrastinate, slots: int) -> _Run:
    since = rival.one("select clock_timestamp()")
    rival.insert(_JOBS)
    with rival.working(slots) as process:
        worked = load.work_off(
            _JOBS,
            left=lambda: rival.one(_JOBS_LEFT),
            ended=lambda: [float(moment) for (moment,) in rival.database.execute(_JOBS_ENDED, [since])],
            who={
                "program": lambda: cpu.seconds(process.pid),
                "Postgres": load.cpu_of_postgres(rival.database),
            },
        )
    return _Run(worked, 0)


def _rate(runs: list[_Run]) -> float:
    return round(median(run.worked.rows_per_second for run in runs), 1)


def _numbers(runs: dict[str, list[_Run]], slots: int) -> dict[str, float]:
    ours, bare = runs[f"ours {slots}"], runs[f"bare {slots}"]
    return {
        "ours": _rate(ours),
        "bare": round(median(run.calls_per_second for run in bare), 1),
        "procrastinate": _rate(runs[f"procrastinate {slots}"]),
        "calls_per_row": round(median(run.calls_per_row for run in ours), 2),
        "ratio": ratio_of_medians(
            [run.calls_per_second for run in ours], [run.calls_per_second for run in bare]
        ),
    }


def _lines(numbers: dict[str, Any], runs: dict[str, list[_Run]]) -> list[Line]:
    lines = []
    for slots, one in numbers["rate"].items():
        rates = [run.worked.rows_per_second for run in runs[f"ours {slots}"]]
        lines += [
            at_least(f"{slots} slots: our calls/s ÷ a bare loop's", one["ratio"], 0.7),
            at_least(
                f"{slots} slots: rows/s; goal: procrastinate's", one["ours"], one["procrastinate"], digits=0
            ),
            info(f"{slots} slots: rows/s of each round", spread(rates, 0)),
        ]
    four = numbers["four_daemons"]
    alone = four["one_daemon_rows_per_second"]
    claims = sum(run.claims for run in runs["four"])
    name = f"{_DAEMONS} daemons of {_SLOTS[0]} slots"
    return [
        *lines,
        at_most(f"{name}: rows claimed twice", four["twice"], 0, digits=0),
        at_most(f"{name}: of {claims} claims, empty", four["empty_claims_percent"], 10, " %", digits=1),
        at_least(f"{name}: rows/s; goal: one daemon's", four["rows_per_second"], alone, digits=0),
    ]


def _notes(runs: dict[str, list[_Run]]) -> list[str]:
    notes = [
        (
            f"{_ROUNDS} rounds of {_ROWS} rows or {_JOBS} jobs each, taking turns, without the first and the last tenth; "
            "medians. CPU per row in ms:"
        )
    ]
    for name, some in runs.items():
        parts = [
            f"{who} {median(run.worked.seconds[who] for run in some) * 1000:.1f}"
            for who in some[0].worked.seconds
        ]
        calls = f", in {median(run.calls_per_row for run in some):.2f} calls" if some[0].calls_per_row else ""
        notes.append(f"  {name}: {', '.join(parts)}{calls}; {_rate(some):.0f} rows/s")
    return [
        *notes,
        (
            "procrastinate keeps a connection to Postgres. The watcher calls the sandbox's PostgREST, written in Python, "
            "over HTTP, and each call is a transaction that first sets the role and the JWT claims of its caller."
        ),
    ]


BENCH = Bench("rate", "how many rows per second, if a publication took no time?", _measure)
