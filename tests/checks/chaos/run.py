"""One run: a schedule on a sandbox with real daemons; then all faults are removed, and the result is audited."""

import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg
from huggingface_hub import close_session, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from tests.acceptance.stage import Stage
from tests.checks.chaos.agenda import Agenda
from tests.checks.chaos.audit import Verdict, audit
from tests.checks.chaos.daemons import Daemons
from tests.checks.chaos.fence import Fence, own_ends
from tests.checks.chaos.harm import Harm
from tests.checks.chaos.notes import Notes
from tests.checks.chaos.record import Recorder
from tests.checks.chaos.schedule import FETCHES, LATE_SECONDS, LIST_LAG_SECONDS, Schedule
from tests.checks.chaos.story import lines
from tests.checks.chaos.trainings import Purse, all_ended, switch_on
from tests.checks.chaos.users import Register, User
from tests.support.scene import QUICK
from watcher.sandbox import Postgres, Sandbox
from watcher.sandbox.faults import RoundTrip

WAIT = 90.0
"""Seconds after the faults are removed in which all work must end; normally it takes five, or 1.25 * LATE_SECONDS and a
little where something has to be erased."""

_databases = (f"chaos_{number}" for number in itertools.count(1))


@dataclass
class Run:
    """The result of one run."""

    seed: int
    daemons: int
    rows: int = 0
    kills: int = 0
    freezes: int = 0
    met: Counter[str] = field(default_factory=Counter)
    """Requests that met a fault, by fault and place, and faults of whole services."""
    verdict: Verdict = field(default_factory=Verdict)
    stale: list[str] = field(default_factory=list)
    takeovers: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Other findings: a daemon that ended by itself, a user whose request was refused."""
    healed_in: float = 0.0
    """Seconds from the removal of all faults until every row had ended and nothing was left to be erased."""
    took: float = 0.0
    story: list[str] = field(default_factory=list)
    """All events in order; only if there are findings."""

    @property
    def findings(self) -> list[str]:
        """All findings."""
        return [*self.verdict.findings, *(f"stale write accepted: {one}" for one in self.stale), *self.wrong]


def play(
    schedule: Schedule,
    postgres: Postgres,
    template: str,
    *,
    before_audit: Callable[[Stage, Register], object] = lambda stage, register: None,
) -> Run:
    """Run one schedule in a copy of the migrated database `template`."""
    began = time.monotonic()
    run = Run(schedule.seed, len(schedule.slots))
    with _staged(postgres, template) as (stage, recorder):
        assert stage.sandbox is not None
        notes, agenda, register = Notes(), Agenda(), Register()
        wall = _wall(stage)
        if schedule.latency:
            recorder.add(RoundTrip(schedule.latency), service="hub", times=None)
            recorder.add(RoundTrip(schedule.latency), service="storage", path=FETCHES, times=None)
        switch_on(stage, schedule)
        purse = Purse(stage.sandbox.admin_db_url)
        people = [User(stage, n, schedule, register, notes) for n in range(schedule.people)]
        daemons = Daemons(stage, schedule.slots, notes, agenda)
        harm = Harm(stage.sandbox, postgres, daemons, notes, agenda)
        try:
            agenda.run(WAIT, until=daemons.all_ready)
            notes.began = time.monotonic()
            for person in people:
                person.start()
            for event in schedule.harms:
                agenda.later(notes.began + event.at - time.monotonic(), partial(harm.do, event))
            agenda.every(0.4, harm.hurry)
            agenda.every(0.5, purse.look)
            agenda.run(notes.began + schedule.lasts - time.monotonic())
            harm.heal()
            healed = time.monotonic()

            def ended() -> bool:
                if any(person.busy for person in people) or harm.under_way or not daemons.all_ready():
                    return False
                return _all_ended(stage)

            agenda.run(WAIT, until=ended)
            run.healed_in = time.monotonic() - healed
            daemons.end()
            agenda = Agenda()
            # Requests of daemons that are gone are still processed, and may change something.
            agenda.run(5, until=lambda: not recorder.under_way())
        finally:
            harm.heal()
            daemons.close()
            for person in people:
                person.join()
        before_audit(stage, register)
        fence = Fence(recorder.exchanges())
        run.verdict = audit(stage, register, harm.removed, purse.most)
        stories = [stage.rpc("watcher_story", id=identity) for identity in register.rows]
        run.stale = fence.stale_writes(own_ends(story for story in stories if story))
        run.takeovers = fence.takeovers(daemons.kills, notes.hidden)
        run.rows, run.kills, run.freezes, run.met = (
            len(register.rows),
            len(daemons.kills),
            daemons.freezes,
            harm.met,
        )
        run.wrong = notes.wrong
        if run.findings:
            run.story = list(lines(notes.all(), recorder.exchanges(), daemons.logs, notes.began, wall))
    run.took = time.monotonic() - began
    return run


@contextmanager
def _staged(postgres: Postgres, template: str) -> Iterator[tuple[Stage, Recorder]]:
    """Serve a copy of the template, with a recorder."""
    name = next(_databases)
    postgres.create(name, template)
    set_client_factory(default_client_factory)
    with ExitStack() as stack:
        stack.callback(postgres.drop, name)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        stack.callback(close_session)
        sandbox = Sandbox(postgres=postgres, database=name, timing=QUICK)
        sandbox.faults = recorder = Recorder()
        stack.enter_context(sandbox)
        _set_seconds(sandbox)
        yield stack.enter_context(Stage(sandbox.settings(), folder, sandbox)), recorder


def _wall(stage: Stage) -> float:
    """The database's time, in Unix seconds, at monotonic time 0."""
    assert stage.sandbox is not None
    with psycopg.connect(stage.sandbox.admin_db_url) as connection:
        [now] = connection.execute("select extract(epoch from clock_timestamp())::float8").fetchone() or [0.0]
    return float(now) - time.monotonic()


_SECONDS = {
    # How late a request can be processed here, so that second looks do not take minutes.
    "late_seconds": LATE_SECONDS,
    "list_lag_seconds": LIST_LAG_SECONDS,
    "sweep_seconds": 1,
    "follow_seconds": 1,
    "first_look_seconds": 1,
}


def _set_seconds(sandbox: Sandbox) -> None:
    """Replace the database's longer durations, and make it safe from crashes."""
    with psycopg.connect(sandbox.admin_db_url) as connection:
        # Until the next checkpoint, the numbers of a sequence copied from the template are not written to the log: after a
        # crash they would be given out twice.
        connection.execute("checkpoint")
        for name, seconds in _SECONDS.items():
            connection.execute(
                f"create or replace function watcher.{name}() returns integer language sql immutable parallel safe "
                f"set search_path = pg_catalog, pg_temp as 'select {seconds}'".encode()
            )


def _all_ended(stage: Stage) -> bool:
    """Whether every row has ended and nothing is left to be erased."""
    status = stage.rpc("watcher_status")
    return (
        not status["pending"]
        and not status["publishing"]
        and not stage.erasing()
        and not stage.leaving()
        and all_ended(stage)
    )
