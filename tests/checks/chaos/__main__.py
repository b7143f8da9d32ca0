"""`make chaos RUNS=n SEED=s JOBS=j LASTS=t`: one line per run, the events of each run with findings, and the figures.

The seed of run i is SEED + i. Exits with 1 if there was a finding. `report.py` explains the figures.
"""

import logging
import os
import signal
import sys

import click

# huggingface_hub reads these when it is imported below.
os.environ.update(HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1")  # noqa: TID251

from tests.checks.chaos import report
from tests.checks.chaos.schedule import LASTS
from tests.checks.chaos.seeds import played


@click.command()
@click.option("--runs", default=20)
@click.option("--seed", default=1)
@click.option("--jobs", default=1, help="Runs at the same time.")
@click.option("--lasts", default=LASTS, help="Seconds of faults in each run; more of them on a slow machine.")
def chaos(runs: int, seed: int, jobs: int, lasts: float) -> None:
    """Run chaos tests and audit the results."""
    # So that SIGTERM also stops all subprocesses.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # It logs an error for each socket that is refused on purpose.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    done = []
    click.echo(report.HEAD)
    for run in played(range(seed, seed + runs), jobs, lasts):
        done.append(run)
        click.echo(report.line(run))
        if run.findings:
            click.echo(
                "\n".join(
                    [
                        *run.story,
                        *run.findings,
                        f"To repeat: make chaos RUNS=1 SEED={run.seed} LASTS={lasts:g}",
                    ]
                )
            )
    click.echo(report.details(done))
    click.echo(report.figures(done))
    sys.exit(any(run.findings for run in done))


if __name__ == "__main__":
    chaos()
