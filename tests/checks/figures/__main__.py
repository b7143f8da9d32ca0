"""Measures the figures, prints each as soon as it is known, then all as one line of JSON.

Exits with 0 if every figure that can be measured on this machine keeps its promise, else with 1.
"""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

import click

from . import (
    brakes,
    bulk,
    clock,
    commits,
    crashes,
    endless,
    erasing,
    fairness,
    fencing,
    late,
    locks,
    missing,
    names,
    outages,
    scope,
    stopping,
    trainings,
    waiting,
)
from .figure import Figure, Measured

FIGURES = {
    figure.name: figure
    for room in (
        fencing,
        commits,
        crashes,
        stopping,
        waiting,
        locks,
        clock,
        outages,
        endless,
        scope,
        brakes,
        fairness,
        missing,
        late,
        bulk,
        names,
        erasing,
        trainings,
    )
    for figure in room.FIGURES
}
_MARKS = {True: "✓", False: "✗", None: "–"}
# Figures that mostly wait, beside the one that uses the CPU.
_WAITING_AT_ONCE = 3
_TIMEOUT = 1200.0


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(FIGURES)))
@click.option("--here", is_flag=True, help="Measure one in this process, and print only JSON.")
def main(names: tuple[str, ...], *, here: bool) -> None:
    """Measure the named figures, or all."""
    chosen = [FIGURES[name] for name in names or FIGURES]
    if here:
        [figure] = chosen
        measured = figure.measure()
        click.echo(json.dumps([measured.kept, measured.words, measured.numbers]))
        return
    began = time.monotonic()
    width = max(len(figure.name) for figure in chosen)
    found: dict[str, Measured] = {}
    with ThreadPoolExecutor(1) as working, ThreadPoolExecutor(_WAITING_AT_ONCE) as waiting_ones:
        under_way: dict[Future[Measured], Figure] = {
            (waiting_ones if figure.waits else working).submit(_measure_in_subprocess, figure): figure
            for figure in chosen
        }
        for done in as_completed(under_way):
            figure, measured = under_way[done], done.result()
            found[figure.name] = measured
            mark = _MARKS[measured.kept]
            click.echo(f"{mark} {figure.name:{width}}  {figure.promise}\n  {'':{width}}  {measured.words}")
    kept = all(measured.kept is not False for measured in found.values())
    figures = {name: {"kept": found[name].kept, **found[name].numbers} for name in FIGURES if name in found}
    click.echo(json.dumps({"kept": kept, "seconds": round(time.monotonic() - began), "figures": figures}))
    sys.exit(0 if kept else 1)


def _measure_in_subprocess(figure: Figure) -> Measured:
    """Measure in a separate process, since huggingface_hub has one HTTP client per process."""
    command = [sys.executable, "-m", "tests.checks.figures", "--here", figure.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            stdout, stderr = process.communicate(timeout=_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # so that it stops its own processes
            stdout, stderr = process.communicate()
    if process.returncode != 0:
        click.echo(f"{stdout}\n{stderr}", err=True)
        last = stderr.strip().rpartition("\n")[2]
        return Measured(kept=False, words=f"could not be measured: {last}")
    return Measured(*json.loads(stdout.splitlines()[-1]))


main()
