"""`make chaos RUNS=n SEED=s JOBS=j`: a line for each run, the story of each that went wrong, and the figures.

The seed of run i is SEED + i. Exit code 1 if anything was wrong; what the figures mean is said in `report.py`.
"""

import atexit
import functools
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import click

# Read by huggingface_hub at its import, which is below.
os.environ.update(HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1")  # noqa: TID251

from database import migrate

from chaos import report
from chaos.run import Run, play
from chaos.schedule import draw
from watcher.sandbox import Postgres

_TEMPLATE = "template_of_chaos"


@click.command()
@click.option("--runs", default=20)
@click.option("--seed", default=1)
@click.option("--jobs", default=1, help="Runs at the same time.")
def chaos(runs: int, seed: int, jobs: int) -> None:
    """Play, and audit."""
    # Told to stop, it leaves nothing running either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    done = []
    click.echo(report.HEAD)
    for run in _played(range(seed, seed + runs), jobs):
        done.append(run)
        click.echo(report.line(run))
        if run.findings:
            click.echo("\n".join([*run.story, *run.findings, f"Again: make chaos RUNS=1 SEED={run.seed}"]))
    click.echo(report.harms(done))
    click.echo(report.figures(done))
    sys.exit(any(run.findings for run in done))


def _played(seeds: range, jobs: int) -> Iterator[Run]:
    if jobs == 1:
        yield from map(_play, seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_play, seeds)


@functools.cache
def _postgres() -> Postgres:
    """One cluster for each process, with a template to copy; it ends with the process."""
    postgres = Postgres()
    postgres.start()
    atexit.register(postgres.stop)
    postgres.create(_TEMPLATE)
    migrate(postgres.dsn(_TEMPLATE, "postgres"))
    return postgres


def _play(seed: int) -> Run:
    try:
        return play(draw(seed), _postgres(), _TEMPLATE)
    except Exception:  # noqa: BLE001  (a harness that fails has shown nothing, and must not pass for one that has)
        return Run(seed, 0, wrong=[f"The run itself failed: {traceback.format_exc()}"])


if __name__ == "__main__":
    chaos()
