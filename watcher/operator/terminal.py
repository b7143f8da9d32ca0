"""Output to a terminal, a pipe or a program."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from watcher.process.untrusted import escaped
from watcher.settings.settings import environment

_PIPED = 10_000
"""Columns where there is no terminal: no line is wrapped, so `grep` finds a whole row or finding."""


def console() -> Console:
    """Return the console: as wide as the terminal, without colours if NO_COLOR is set or there is no terminal."""
    found = Console(highlight=False, emoji=False)
    if not found.is_terminal and "COLUMNS" not in environment():
        found.width = _PIPED
    return found


def full_screen(on: Console) -> Live:
    """Return a context manager that takes over the whole terminal until it exits."""
    return Live(console=on, screen=True, auto_refresh=False)


@contextmanager
def progress_bar(total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr, if that is a terminal, until the block ends; the block says how many more are done.

    `total`: None if it is not known.
    """
    on = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=on, transient=True, disable=not on.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda more: bar.advance(task, more)


def print_json(value: object) -> None:
    """Print one JSON value on a line."""
    click.echo(escaped(json.dumps(value, ensure_ascii=False)))


def print_table(table: RenderableType, on: Console) -> None:
    """Print something with columns; without a terminal, without the blanks that pad each line on the right."""
    if on.is_terminal:
        on.print(table)
        return
    with on.capture() as captured:
        on.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
