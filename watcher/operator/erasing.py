"""The operator's commands about people who want to be forgotten: forget, erasures, export.

Only click is imported here; see console.py.
"""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from watcher.operator.console import as_json, require_terminal


@click.command(
    epilog="Exit codes: 0 done, also when there was nothing to erase; 1 not confirmed, or Supabase could not be queried; "
    "2 usage error, or no terminal to confirm on and no --yes; 78 configuration error; 130 Ctrl-C."
)
@click.argument("user", type=click.UUID)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--dry-run", is_flag=True, help="Only show what would be erased.")
@as_json
def forget(*, user: UUID, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Erase what is known of a user: rows, repos, photos, names, limits and their use.

    Works while the account is still there and after it was deleted, and erases also what the settings would keep or erase
    later; but not repos that were kept when their rows were deleted, since nothing says whose they are. Shows first what it
    would erase, and asks. The daemons do the rest: `watcher erasures` shows how far they are, and the receipts. Needs
    SUPABASE_URL and SUPABASE_SECRET_KEY.
    """
    from watcher.operator import erasing_screens, queries, terminal

    if not (yes or dry_run):
        require_terminal("add --yes, or --dry-run to see what would be erased")
    planned = queries.ask(lambda database: database.forget(str(user), dry_run=True))
    if not (as_json and (yes or dry_run)):
        click.echo("\n".join(erasing_screens.plan(planned)), err=as_json)
    if dry_run or not erasing_screens.erases(planned):
        if as_json:
            terminal.print_json(planned)
        return
    if not yes and not click.confirm("Erase them? This cannot be undone.", err=True):
        raise click.exceptions.Exit(1)
    done = queries.ask(lambda database: database.forget(str(user), dry_run=False))
    if as_json:
        terminal.print_json(done)
        return
    for erasure in done["erasures"]:
        click.echo(f"Erasing {erasure}")
    click.echo("Follow it, and find the receipts, with: watcher erasures")


@click.command(
    epilog="Exit codes: 0 done; 1 no such erasure, or Supabase could not be queried; 2 usage error; "
    "78 configuration error."
)
@click.option("--close", type=click.UUID, help="Close an erasure of which something cannot be reached.")
@click.option("--because", help="With --close: why; it stays with the receipt, so name nobody.")
@click.option("--confirm", is_flag=True, help="Let the next sweep erase what it holds back.")
@click.option(
    "--add-receipts",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="After a restore: the output of `watcher erasures --json` from before it. What came back is erased again.",
)
@as_json
def erasures(
    *,
    close: UUID | None,
    because: str | None,
    confirm: bool,
    add_receipts: Path | None,
    as_json: bool,
) -> None:
    """Show open erasures and why they wait, the last receipts, and what the sweep holds back.

    Receipts name no person: only a row's id, counts and times. What goes with a deleted row, and when, is set with
    `watcher limits`. Needs SUPABASE_URL and SUPABASE_SECRET_KEY.
    """
    from watcher.operator import erasing_screens, queries, terminal

    if (close is None) != (because is None):
        raise click.UsageError("An erasure is closed with a reason: --close ID --because 'The repo was …'.")
    if close is not None and because is not None:
        if not queries.ask(lambda database: database.close_erasure(str(close), because)):
            click.echo(f"watcher: There is no open erasure {close}.", err=True)
            raise click.exceptions.Exit(1)
        click.echo(f"Closed {close}.", err=as_json)
    if confirm:
        confirmed = queries.ask(lambda database: database.confirm_sweep())
        click.echo(erasing_screens.confirmed(confirmed), err=as_json)
    if add_receipts is not None:
        ids = _ids_in(add_receipts)
        added = queries.ask(lambda database: database.restore_receipts(ids))
        click.echo(f"Added {added} of {len(ids)} receipts.", err=as_json)
    answer = queries.ask(lambda database: database.erasures(limit=100_000 if as_json else 10))
    if as_json:
        terminal.print_json(answer)
    else:
        terminal.print_table(erasing_screens.erasures(answer), terminal.console())


def _ids_in(file: Path) -> list[str]:
    """Return the ids of rows in the output of `watcher erasures --json`, open ones and receipts."""
    try:
        if not file.is_file():
            raise click.UsageError(f"{file} is not a file.")
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
        entries = [*content["receipts"], *content["open"]]
        return [str(UUID(entry["id"])) for entry in entries if entry["cause"] == "row"]
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise click.UsageError(f"{file} is not the output of `watcher erasures --json`: {error!r}") from error


@click.command(
    epilog="Exit codes: 0 done, also when nothing is known of the user; 1 Supabase could not be queried; 2 usage error; "
    "78 configuration error."
)
@click.argument("user", type=click.UUID)
def export(*, user: UUID) -> None:
    """Print what is known of a user as JSON.

    Rows and their attempts, repos, objects in the bucket, open erasures, limits and their use, retries. Needs SUPABASE_URL
    and SUPABASE_SECRET_KEY.
    """
    from watcher.operator import queries, terminal

    terminal.print_json(queries.ask(lambda database: database.export(str(user))))
