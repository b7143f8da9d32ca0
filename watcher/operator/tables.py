"""The look of the operator's tables. Prints nothing."""

from rich.table import Table
from rich.text import Text

from watcher.process.untrusted import one_line

_WRAPPED = {"name", "instance", "reason"}
"""The columns that give way where the terminal is narrow."""


def new_table(title: str, *heads: str) -> Table:
    """Return a table with these columns, and no rows yet."""
    made = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for head in heads:
        made.add_column(head, header_style="dim", no_wrap=head not in _WRAPPED, overflow="fold")
    return made


def new_facts() -> Table:
    """Return a grid of names and what is said of each, and no rows yet."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def cell(text: str) -> Text:
    """Return untrusted text as a cell."""
    return Text(one_line(text))
