"""The command that makes the schema, restores it and removes it, over the database's own URL.

Only click is imported here; see console.py.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from watcher.operator.console import require_terminal

if TYPE_CHECKING:
    from watcher.operator.doctor.drift import Drift
    from watcher.operator.remove import Plan


@click.command(
    "migrate",
    epilog="Exit codes: 0 done, also when there was nothing to do; 1 the database could not be reached, a lock was not "
    "available for ten minutes, or --remove was refused; 2 usage error; 78 configuration error, or a migration failed and "
    "was rolled back.",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Only write the files into this folder, for `supabase db push`.",
)
@click.option(
    "--repair", is_flag=True, help="Also restore what was changed since; says first what, and asks."
)
@click.option(
    "--remove", is_flag=True, help="Remove everything that the migrations made; says first what, and asks."
)
@click.option("--yes", is_flag=True, help="With --repair or --remove: do not ask for confirmation.")
@click.option("--force", is_flag=True, help="With --remove: also while daemons run or erasures are open.")
def migrate_(*, into: Path | None, repair: bool, remove: bool, yes: bool, force: bool) -> None:
    """Migrate the database to the schema that this version needs.

    Without --into, the migrations are applied over SUPABASE_DB_URL, as the role postgres: the URL of the direct connection
    or of the session pooler. Safe to repeat.
    """
    from watcher import migrate
    from watcher.settings import settings

    if (repair and remove) or (force and not remove):
        raise click.UsageError("Either --repair, or --remove, which may have --force.")
    if repair or remove:
        if into is not None:
            raise click.UsageError("--repair and --remove need the database, not --into.")
        if not yes:
            require_terminal("add --yes")
    elif yes:
        raise click.UsageError("--yes is for --repair and --remove: nothing else asks.")
    if into is not None:
        for file in migrate.copy(into):
            click.echo(f"Wrote {file}")
        click.echo("Next: supabase db push --include-all")
        return
    done = 0
    db_url = settings.load_database().db_url.get_secret_value()
    if remove:
        _remove(db_url, yes=yes, force=force)
        return
    for version in migrate.apply(db_url, on_wait=lambda reason: click.echo(reason, err=True)):
        click.echo(f"Applied {version}")
        done += 1
    if not done:
        click.echo("Nothing to do: the database has every migration.")
    if repair:
        _repair(db_url, yes=yes)


def _repair(db_url: str, *, yes: bool) -> None:
    from watcher.operator import repair

    def confirm(planned: "list[Drift]") -> bool:
        click.echo("Changed since the migrations:")
        for drift in planned:
            click.echo(f"- {drift.sentence}")
        return yes or click.confirm("Restore all of this?", err=True)

    restored = repair.repair(db_url, confirm=confirm)
    click.echo(f"Restored {len(restored)}: see `watcher doctor`." if restored else "Nothing was restored.")


def _remove(db_url: str, *, yes: bool, force: bool) -> None:
    from watcher.operator.remove import remove

    def confirm(planned: "Plan") -> bool:
        click.echo("\n".join(["This is removed:", *(f"- {what}" for what in planned.removed)]))
        click.echo("\n".join(["This stays: the repos on the Hub", *(f"- {what}" for what in planned.kept)]))
        return yes or click.confirm("Remove it? Only a backup brings it back.", err=True)

    done = remove(db_url, force=force, confirm=confirm)
    click.echo("Removed." if done else "Nothing was removed.")
