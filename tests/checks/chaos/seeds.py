"""Runs the schedules of seeds; each process has one Postgres cluster with a migrated template database."""

import atexit
import functools
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.checks.chaos.run import Run, play
from tests.checks.chaos.schedule import draw
from tests.support.database import migrate
from watcher.sandbox import Postgres

_TEMPLATE = "template_of_chaos"


def played(seeds: range, jobs: int, lasts: float) -> Iterator[Run]:
    """Run the seeds, `jobs` at the same time, and yield the runs in order; each has faults for so many seconds."""
    run = functools.partial(_play, lasts=lasts)
    if jobs == 1:
        yield from map(run, seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run, seeds)


def _play(seed: int, *, lasts: float) -> Run:
    try:
        return play(draw(seed, lasts), _postgres(), _TEMPLATE)
    except Exception:  # noqa: BLE001  (a failure of the test program itself must not look like a successful run)
        return Run(seed, 0, wrong=[f"The test program failed: {traceback.format_exc()}"])


@functools.cache
def _postgres() -> Postgres:
    """This process's cluster, stopped at its exit."""
    postgres = Postgres()
    postgres.start()
    atexit.register(postgres.stop)
    postgres.create(_TEMPLATE)
    migrate(postgres.dsn(_TEMPLATE, "postgres"))
    return postgres
