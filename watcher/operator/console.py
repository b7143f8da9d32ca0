"""The operator's commands: doctor, status, show, replay."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from watcher.errors import Misconfigured, Transient
from watcher.operator import screens
from watcher.operator.format import plain, seconds_in
from watcher.process.log import configure, redact
from watcher.settings import settings

if TYPE_CHECKING:
    from watcher.operator.queries import Queries

T = TypeVar("T")

_WATCH = 2.0
"""Seconds between two looks of `status --watch`."""
_PIPED = 10_000
"""Columns where there is no terminal: nothing is broken, so that `grep` finds a row, or a finding, on one line."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, times in seconds.")


@click.command(epilog="Exit codes: 0 done; 1 Supabase could not be asked; 2 used wrongly; 78 set up wrongly.")
@click.option("--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
@as_json
def status(*, watch: bool, as_json: bool) -> None:
    """Say what waits, what is being published and by whom, and what failed."""
    if watch:
        with suppress(KeyboardInterrupt):
            with_queries(lambda queries: _watch(queries, as_json=as_json))
        return
    told = with_queries(lambda queries: queries.status())
    if as_json:
        say_json(told)
    else:
        say(screens.status(told), screen())


@click.command(
    epilog="Exit codes: 0 done; 1 no such row, or Supabase could not be asked; 2 used wrongly; 78 set up wrongly."
)
@click.argument("id", type=click.UUID)
@as_json
def show(*, id: UUID, as_json: bool) -> None:  # noqa: A002  (it is the name that --help shows)
    """Tell one row's whole story: every attempt, who made it, when, how long it took, and why it ended."""
    told = with_queries(lambda queries: queries.story(str(id)))
    if told is None:
        click.echo(f"watcher: There is no row {id}; its user may have deleted it.", err=True)
        raise click.exceptions.Exit(1)
    if as_json:
        say_json(told)
    else:
        say(screens.story(told), screen())


class _Since(click.ParamType[float | str]):
    """A duration that ends now, or a point in time."""

    name = "30min|2h|3d|TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        seconds = seconds_in(value)
        if seconds is not None:
            return seconds
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither like 30min, 2h or 3d nor like 2026-11-22T14:05Z.", param, ctx)
        if time.tzinfo is None:
            self.fail(
                f"{value!r} lacks a zone: write {time:%Y-%m-%dT%H:%M}Z for UTC, or end with an offset such as +01:00.",
                param,
                ctx,
            )
        return time.isoformat()


@click.command(
    epilog="Exit codes: 0 done, also when there was nothing to do; 1 not done: answered no, or Supabase could not be asked; "
    "2 used wrongly, or nobody is there to answer and --yes is missing; 78 set up wrongly."
)
@click.argument("ids", nargs=-1, type=click.UUID)
@click.option("--failed", is_flag=True, help="All failed rows.")
@click.option("--code", help="Failed rows with this error code.")
@click.option("--since", type=_Since(), help="Failed rows that failed since then.")
@click.option("--user", type=click.UUID, help="Failed rows of this user.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@as_json
def replay(
    *,
    ids: tuple[UUID, ...],
    failed: bool,
    code: str | None,
    since: float | str | None,
    user: UUID | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Set failed rows back to pending, with a fresh budget of attempts.

    Only rows that fit everything that is given. Rows that wait, run or are published are left alone; the history is
    kept. Says first what it would do, and asks.
    """
    if not (ids or failed or code or since is not None or user):
        raise click.UsageError("Say which rows: IDS, --failed, --code, --since or --user.")
    if not (yes or dry_run) and not sys.stdin.isatty():
        raise click.UsageError(
            "Nobody is there to be asked: add --yes, or --dry-run to see what would be done."
        )
    from watcher.operator.queries import Choice

    choice = Choice(
        ids=[str(id_) for id_ in dict.fromkeys(ids)] or None,
        code=code,
        failed_since=since if isinstance(since, str) else None,
        failed_within_seconds=since if isinstance(since, float) else None,
        user=str(user) if user else None,
    )
    if dry_run or not yes:
        would = with_queries(lambda queries: queries.replay(choice, dry_run=True))
        if dry_run and as_json:
            say_json(would)
            return
        click.echo(screens.counts(would, verb="Would replay"), err=as_json)
        _say_what_is_left_alone(would, choice.ids, err=as_json)
        if dry_run or not would["replayed"]:
            if as_json:
                say_json(would)
            return
        if not click.confirm("Replay them?", err=True):
            raise click.exceptions.Exit(1)
    done = with_queries(lambda queries: queries.replay(choice, dry_run=False))
    if as_json:
        say_json(done)
        return
    click.echo(screens.counts(done, verb="Replayed"))
    if yes:
        _say_what_is_left_alone(done, choice.ids, err=False)


def _say_what_is_left_alone(counts: dict[str, Any], ids: list[str] | None, *, err: bool) -> None:
    for state, word in (
        ("pending", "waiting"),
        ("publishing", "being published"),
        ("published", "published"),
    ):
        if counts[state]:
            click.echo(f"Left alone: {counts[state]:,} {word}.", err=err)
    found = sum(counts[name] for name in ("replayed", "pending", "publishing", "published"))
    if ids and len(ids) > found:
        click.echo(f"Not there, or not fitting: {len(ids) - found:,} of the {len(ids):,} named.", err=err)


_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red"), "skipped": ("–", "dim")}


@click.command(epilog="Exit codes: 0 all is well; 1 there are warnings; 2 something is broken.")
@as_json
def doctor(*, as_json: bool) -> None:
    """Look at everything that `run` depends on, and say how to mend what is broken.

    Needs the settings of `run`, and changes nothing but the pulse. What is told first is the cause.
    """
    from watcher.operator import doctor as examination

    findings: list[examination.Finding] = []
    console = screen()

    def report(finding: examination.Finding) -> None:
        # It may quote what a service said.
        finding = replace(finding, sentence=redact(finding.sentence))
        findings.append(finding)
        if as_json:
            return
        mark, style = _MARKS[finding.state]
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            Text(mark, style), Text(plain(finding.sentence), "dim" if finding.state == "skipped" else "")
        )
        say(grid, console)
        if finding.remedy:
            # As it is to be pasted: not wrapped, not indented.
            console.print(Text(finding.remedy, "bold"), soft_wrap=True)

    async def look() -> None:
        async for finding in examination.examine(loaded):
            report(finding)

    try:
        loaded = settings.load()
    except Misconfigured as error:
        report(
            examination.Finding(
                "settings", "error", str(error), "See the table of settings in docs/operating.md."
            )
        )
    else:
        configure("ERROR", "console", loaded.secrets, settings.environment())
        asyncio.run(look())
    if as_json:
        say_json(examination.as_json(findings))
    elif any(finding.remedy.endswith(";") for finding in findings):
        console.print(
            Text("Paste the SQL into the project's SQL editor or psql, then: watcher doctor", "dim")
        )
    raise click.exceptions.Exit(examination.exit_code(findings))


def say_json(told: object) -> None:
    """Print one JSON value on a line."""
    click.echo(json.dumps(told, ensure_ascii=False))


def say(what: RenderableType, console: Console) -> None:
    """Print what has columns; where there is no terminal, without the blanks that fill them up on the right."""
    if console.is_terminal:
        console.print(what)
        return
    with console.capture() as said:
        console.print(what)
    click.echo("\n".join(line.rstrip() for line in said.get().splitlines()))


def screen() -> Console:
    """Return the screen: as wide as the terminal, without colours where NO_COLOR says so or nobody sees them."""
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in settings.environment():
        console.width = _PIPED
    return console


def with_queries(question: "Callable[[Queries], Awaitable[T]]") -> T:
    """Ask the database something, with the operator's settings."""
    # It takes half a second to import, which --help need not wait for.
    from watcher.operator.queries import Queries, opened

    loaded = settings.load_supabase()
    configure("ERROR", "console", [loaded.supabase_key.get_secret_value()], settings.environment())

    async def ask() -> T:
        async with opened(loaded) as rpc:
            return await question(Queries(rpc))

    return asyncio.run(ask())


async def _watch(queries: "Queries", *, as_json: bool) -> None:
    console = screen()
    if as_json or not console.is_terminal:
        while True:
            told = await queries.status()
            if as_json:
                say_json(told)
            else:
                say(screens.status(told), console)
                console.print()
            sys.stdout.flush()
            await asyncio.sleep(_WATCH)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                live.update(screens.status(await queries.status()), refresh=True)
            except Transient as error:
                live.update(Text(f"{redact(str(error))}\nTrying again every {_WATCH:g} s."), refresh=True)
            await asyncio.sleep(_WATCH)
