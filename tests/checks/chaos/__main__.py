"""`make chaos RUNS=n SEED=s JOBS=j`: a line for each run, the story of each that went wrong, and the figures.

The seed of run i is SEED + i. Exit code 1 if anything was wrong; what the figures mean is said in `report.py`.
"""

import logging
import os
import signal
import sys

import click

# Read by huggingface_hub at its import, which is below.
os.environ.update(HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1")  # noqa: TID251

from tests.checks.chaos import report
from tests.checks.chaos.seeds import played


@click.command()
@click.option("--runs", default=20)
@click.option("--seed", default=1)
@click.option("--jobs", default=1, help="Runs at the same time.")
def chaos(runs: int, seed: int, jobs: int) -> None:
    """Play, and audit."""
    # Told to stop, it leaves nothing running either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # It complains of sockets that are refused on purpose.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    done = []
    click.echo(report.HEAD)
    for run in played(range(seed, seed + runs), jobs):
        done.append(run)
        click.echo(report.line(run))
        if run.findings:
            click.echo("\n".join([*run.story, *run.findings, f"Again: make chaos RUNS=1 SEED={run.seed}"]))
    click.echo(report.details(done))
    click.echo(report.figures(done))
    sys.exit(any(run.findings for run in done))


if __name__ == "__main__":
    chaos()
