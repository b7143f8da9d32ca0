"""Measures the figures and prints a line for each as it is found, then all of them as one line of JSON.

Ends with 0 when every promise is kept that could be seen here, else with 1.
"""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

import click

from . import clock, commits, crashes, fencing, locks, outages, stopping, waiting
from .figure import Figure, Measured

FIGURES = {
    figure.name: figure
    for room in (fencing, commits, crashes, stopping, waiting, locks, clock, outages)
    for figure in room.FIGURES
}
_MARKS = {True: "✓", False: "✗", None: "–"}
# Beside the one that works; those that wait leave a machine of two cores to it.
_WAITING_AT_ONCE = 3
_AT_MOST = 300.0


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(FIGURES)))
@click.option("--here", is_flag=True, help="measure in this process, and print nothing but JSON")
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
            (waiting_ones if figure.waits else working).submit(_measured_apart, figure): figure
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


def _measured_apart(figure: Figure) -> Measured:
    """Measure in a process of its own: the Hub's library keeps one client for a whole process."""
    command = [sys.executable, "-m", "tests.checks.figures", "--here", figure.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said, complaint = process.communicate(timeout=_AT_MOST)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # it clears up behind it
            said, complaint = process.communicate()
    if process.returncode != 0:
        click.echo(f"{said}\n{complaint}", err=True)
        last = complaint.strip().rpartition("\n")[2]
        return Measured(kept=False, words=f"could not be measured: {last}")
    return Measured(*json.loads(said.splitlines()[-1]))


main()
