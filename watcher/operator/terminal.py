"""Output to a terminal, a pipe or a program."""

import json

import click
from rich.console import Console, RenderableType
from rich.live import Live

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


def print_json(value: object) -> None:
    """Print one JSON value on a line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def print_table(table: RenderableType, on: Console) -> None:
    """Print something with columns; without a terminal, without the blanks that pad each line on the right."""
    if on.is_terminal:
        on.print(table)
        return
    with on.capture() as captured:
        on.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
