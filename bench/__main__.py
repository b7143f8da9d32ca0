"""Runs benchmarks one after the other and prints a table for each, then all figures as one line of JSON.

A figure that misses its goal is only marked. The exit code is 1 if a benchmark could not be measured, else 0.
"""

import json
import subprocess
import sys
import time
from importlib import import_module

import click
from rich.console import Console
from rich.table import Table

from bench.report import Bench, Found

NAMES = (
    "end_to_end",
    "wire",
    "overlap",
    "memory",
    "requests",
    "budget",
    "latency",
    "rate",
    "claim",
    "size",
    "idle",
    "after_crash",
    "soak",
)
_MARKS = {True: "✓", False: "✗", None: ""}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option(
    "--here", is_flag=True, help="Measure one in this process, and print its numbers on the last line."
)
def main(names: tuple[str, ...], *, here: bool) -> None:
    """Run the named benchmarks, or all."""
    if here:
        _measure(import_module(f"bench.{names[0]}").BENCH)
        return
    began = time.monotonic()
    found: dict[str, object] = {}
    failed = []
    for name in names or NAMES:
        numbers = _measure_in_subprocess(name)
        if numbers is None:
            failed.append(name)
        else:
            found |= numbers
    found |= {"seconds": round(time.monotonic() - began), "failed": failed}
    click.echo(json.dumps(found))
    sys.exit(1 if failed else 0)


def _measure_in_subprocess(name: str) -> dict[str, object] | None:
    """Measure in a separate process, so that no benchmark inherits another's memory and connections."""
    command = [sys.executable, "-m", "bench", "--here", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = None
        for line in process.stdout:
            if last is not None:
                click.echo(last, nl=False)
            last = line
    if process.returncode != 0 or last is None:
        click.echo(last or "", nl=False)
        click.echo(f"{name} could not be measured.", err=True)
        return None
    numbers: dict[str, object] = json.loads(last)
    return numbers


def _measure(bench: Bench) -> None:
    found = bench.measure()
    _show(bench, found)
    click.echo(json.dumps(found.numbers))


def _show(bench: Bench, found: Found) -> None:
    console = Console(width=120, highlight=False)
    table = Table(title=f"{bench.name}: {bench.question}", title_justify="left", expand=True)
    for heading in ("what", "found", "goal"):
        table.add_column(heading)
    table.add_column("", width=1)
    for line in found.lines:
        table.add_row(line.what, line.found, line.goal, _MARKS[line.reached])
    console.print(table)
    for note in found.notes:
        console.print(note, markup=False)
    console.print()


if __name__ == "__main__":
    main()
