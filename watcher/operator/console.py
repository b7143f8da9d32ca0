"""The operator's commands: doctor, status, show, replay.

Only click is imported here. What else a command needs is imported when it runs, so that `watcher --help` is quick.
"""

import sys
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from watcher.operator.format import seconds_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rich.console import RenderableType

    from watcher.operator.queries import Queries

_WATCH = 2.0
"""Seconds between two refreshes of `status --watch`."""

_FEW, _ALL = 10, 10_000
"""Failed rows that `status` lists, and `status --failed`: what one answer may hold."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, with times in seconds.")


def require_terminal(otherwise: str) -> None:
    """Raise UsageError unless there is a terminal to ask on; `otherwise` names the options with which nothing is asked."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"There is no terminal to confirm on: {otherwise}.")


class _Since(click.ParamType[float | str]):
    """A duration in seconds that ends now, or a point in time with its zone."""

    name = "30min|2h|3d|TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        seconds = seconds_in(value)
        if seconds is not None:
            return seconds
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is neither a duration like 30min, 2h or 3d nor a time like 2026-11-22T14:05Z.",
                param,
                ctx,
            )
        if time.tzinfo is None:
            self.fail(
                f"{value!r} has no time zone: write {time:%Y-%m-%dT%H:%M}Z for UTC, or add an offset such as +01:00.",
                param,
                ctx,
            )
        return time.isoformat()


@click.command(
    epilog="Exit codes: 0 done; 1 Supabase could not be queried; 2 usage error; 78 configuration error."
)
@click.option("--failed", is_flag=True, help=f"Only the failed rows, and all of them, up to {_ALL:,}.")
@click.option(
    "--since",
    type=_Since(),
    help="Count what failed and was published in the last 30min, 2h or 3d, or since a TIME with its zone.",
)
@click.option("--user", type=click.UUID, help="Only rows of this user.")
@click.option("--watch", is_flag=True, help="Refresh every two seconds, until Ctrl-C.")
@as_json
def status(*, failed: bool, since: float | str | None, user: UUID | None, watch: bool, as_json: bool) -> None:
    """Show which rows are pending, being published and failed.

    Needs SUPABASE_URL and SUPABASE_SECRET_KEY.
    """
    from watcher.operator import queries, screens, terminal

    async def ask(database: "Queries") -> dict[str, Any]:
        of = str(user) if user else None
        return await database.status(user=of, since=since, failed=_ALL if failed else _FEW)

    screen = screens.failed if failed else screens.status
    if watch:
        with suppress(KeyboardInterrupt):
            queries.ask(lambda database: _watch(lambda: ask(database), screen, as_json=as_json))
        return
    answer = queries.ask(ask)
    if as_json:
        terminal.print_json(answer)
    else:
        terminal.print_table(screen(answer), terminal.console())


async def _watch(
    ask: "Callable[[], Awaitable[dict[str, Any]]]",
    show: "Callable[[dict[str, Any]], RenderableType]",
    *,
    as_json: bool,
) -> None:
    import asyncio

    from watcher.errors import Transient
    from watcher.operator import screens, terminal

    console = terminal.console()
    if as_json or not console.is_terminal:
        while True:
            answer = await ask()
            if as_json:
                terminal.print_json(answer)
            else:
                terminal.print_table(show(answer), console)
                console.print()
            sys.stdout.flush()
            await asyncio.sleep(_WATCH)
    with terminal.full_screen(console) as screen:
        while True:
            try:
                screen.update(show(await ask()), refresh=True)
            except Transient as error:
                screen.update(screens.retrying(error, _WATCH), refresh=True)
            await asyncio.sleep(_WATCH)


@click.command(
    epilog="Exit codes: 0 done; 1 no such row, or Supabase could not be queried; 2 usage error; 78 configuration error."
)
@click.argument("id", type=click.UUID)
@as_json
def show(*, id: UUID, as_json: bool) -> None:  # noqa: A002  (it is the name that --help shows)
    """Show one row and all its attempts.

    For each attempt: its instance, start, duration, outcome and reason. For a failed training, the last lines of its job's
    log, if HF_TOKEN is set. Needs SUPABASE_URL and SUPABASE_SECRET_KEY.
    """
    from watcher.operator import queries, row_screens, terminal, training_log, training_screens

    row = queries.ask(lambda database: database.story(str(id)))
    if row is None:
        click.echo(f"watcher: There is no row {id}; its user may have deleted it.", err=True)
        raise click.exceptions.Exit(1)
    log = training_log.of(row)
    if as_json:
        terminal.print_json(row | {"training_log": log.lines})
    else:
        terminal.print_table(row_screens.story(row), terminal.console())
        if log.lines or log.why_none:
            terminal.print_table(training_screens.log(log), terminal.console())


@click.command(
    epilog="Exit codes: 0 done, also when no row matched; 1 not confirmed, or Supabase could not be queried; "
    "2 usage error, or no terminal to confirm on and no --yes; 78 configuration error; 130 Ctrl-C."
)
@click.argument("ids", nargs=-1, type=click.UUID)
@click.option("--failed", is_flag=True, help="All failed rows.")
@click.option("--code", help="Failed rows with this error code.")
@click.option(
    "--since",
    type=_Since(),
    help="Rows that failed in the last 30min, 2h or 3d, or since a TIME with its zone, such as 2026-11-22T14:05Z.",
)
@click.option("--user", type=click.UUID, help="Failed rows of this user.")
@click.option(
    "--trainings", is_flag=True, help="Failed trainings instead of failed rows; all, or those that match."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@as_json
def replay(
    *,
    ids: tuple[UUID, ...],
    failed: bool,
    code: str | None,
    since: float | str | None,
    user: UUID | None,
    trainings: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Set failed rows back to pending; the attempt counter is reset.

    Replays only rows that match all given conditions. Pending, publishing and published rows are left alone, and the
    history is kept. With --trainings, asks again for the trainings that failed, which costs again. Shows first what it
    would do, and asks for confirmation. Works in batches: what is done when Ctrl-C ends it stays done, and the same command
    goes on with the rest. Needs SUPABASE_URL and SUPABASE_SECRET_KEY.
    """
    if not (ids or failed or code or since is not None or user or trainings):
        raise click.UsageError("Choose the rows: IDS, --failed, --code, --since, --user or --trainings.")
    if trainings and since is not None:
        raise click.UsageError("Trainings are chosen by IDS, --code or --user, not by --since.")
    if not (yes or dry_run):
        require_terminal("add --yes, or --dry-run to see what would be done")
    from watcher.operator import queries, screens, terminal
    from watcher.operator.replay import replay as replay_rows

    matching = queries.ReplayFilter(
        ids=[str(id_) for id_ in dict.fromkeys(ids)] or None,
        code=code,
        failed_since=since if isinstance(since, str) else None,
        failed_within_seconds=since if isinstance(since, float) else None,
        user=str(user) if user else None,
        trainings=trainings,
    )
    lines_of = partial(
        screens.replay, ids=matching.ids, noun="failed training" if trainings else "failed row"
    )
    total = None
    if dry_run or not yes:
        planned = queries.ask(lambda database: replay_rows(database, matching, dry_run=True))
        if planned.error is not None:
            raise planned.error
        would, total = planned.counts, planned.counts["replayed"]
        if not dry_run:
            would.pop("ids", None)
        if not (dry_run and as_json):
            click.echo("\n".join(lines_of(would, verb="Would replay")), err=as_json)
        if dry_run or not would["replayed"]:
            if as_json:
                terminal.print_json(would)
            return
        if not click.confirm("Replay them?", err=True):
            raise click.exceptions.Exit(1)
    with terminal.progress_bar(total) as advance:
        done = queries.ask(lambda database: replay_rows(database, matching, on_batch=advance))
    if as_json:
        terminal.print_json(done.counts)
    elif done.counts["replayed"] or not done.error:
        lines = lines_of(done.counts, verb="Replayed")
        click.echo("\n".join(lines if yes and not (done.error or done.interrupted) else lines[:1]))
    if done.error is not None:
        raise done.error
    if done.interrupted:
        click.echo("Interrupted: the same command replays the rest.", err=True)
        raise click.exceptions.Exit(130)


@click.command(
    epilog="Exit codes: 0 no problem; 1 warnings; 2 errors, or the checks could not be finished: a bug, a full disk."
)
@as_json
def doctor(*, as_json: bool) -> None:
    """Check everything that `run` needs, and say how to fix it.

    Needs the settings of `run`. Changes nothing but the row in watcher_pulse, to test Realtime. Fix the first error first:
    it often causes the others.
    """
    from watcher.operator.doctor import report

    raise click.exceptions.Exit(report.run(as_json=as_json))
