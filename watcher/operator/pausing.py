"""The commands `pause` and `resume`: what they set lies in the database, and all daemons obey it.

Only click is imported here; see console.py.
"""

from typing import Any

import click

from watcher.operator.console import as_json
from watcher.operator.format import seconds_in

_CODES = "Exit codes: 0 done; 1 Supabase could not be queried; 2 usage error; 78 configuration error."
_kind = click.option("--kind", help="This kind of work, such as publish. Default: every kind.")


class _Duration(click.ParamType[float]):
    """A duration in seconds."""

    name = "30min|2h|3d"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = seconds_in(value)
        if seconds is None or not 1 <= seconds <= 366 * 86400:
            self.fail(f"{value!r} is no duration like 30min, 2h or 3d, up to a year.", param, ctx)
        return seconds


@click.command(epilog=_CODES)
@click.option("--for", "seconds", type=_Duration(), help="How long. Default: until `watcher resume`.")
@_kind
@click.option("--why", help="Why, for whoever looks; name nobody.")
@as_json
def pause(*, seconds: float | None, kind: str | None, why: str | None, as_json: bool) -> None:
    """Let no daemon claim anything, for a while or until `watcher resume`.

    What runs is finished. Rows are accepted and wait; no attempt counts. All daemons obey within their poll interval.
    Needs SUPABASE_URL and SUPABASE_SECRET_KEY.
    """
    from watcher.operator import queries

    _print(queries.ask(lambda database: database.pause(kind, seconds, why)), as_json=as_json)


@click.command(epilog=_CODES)
@_kind
@as_json
def resume(*, kind: str | None, as_json: bool) -> None:
    """Let the daemons claim again what was paused.

    Needs SUPABASE_URL and SUPABASE_SECRET_KEY.
    """
    from watcher.operator import queries

    _print(queries.ask(lambda database: database.resume(kind)), as_json=as_json)


def _print(paused: list[dict[str, Any]], *, as_json: bool) -> None:
    from watcher.operator import terminal, waiting

    if as_json:
        terminal.print_json(paused)
    else:
        click.echo(waiting.paused(paused) or "Nothing is paused.")
