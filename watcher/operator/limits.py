"""The command `limits`: shows and sets the settings that live in the database."""

from typing import Any, Literal
from uuid import UUID

import click

from watcher.operator.console import as_json


class _Value(click.ParamType[int | Literal["default"]]):
    """A number, or the word default."""

    name = "N|default"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Literal["default"]:
        if value == "default":
            return "default"
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor default.", param, ctx)


@click.command(
    epilog="Exit codes: 0 done; 1 Supabase could not be queried; 2 usage error; 78 configuration error."
)
@click.argument("name", required=False)
@click.argument("value", required=False, type=_Value())
@click.option(
    "--user", type=click.UUID, help="For this user, instead of everybody without a value of their own."
)
@as_json
def limits(
    *, name: str | None, value: int | Literal["default"] | None, user: UUID | None, as_json: bool
) -> None:
    """Show what is limited, and what goes with a deleted row, or set one of these.

    `watcher limits rows_per_day 200` sets one, and all daemons obey it at once; the value `default` undoes that. With
    --user, also shows how much of each limit the user has used. Needs SUPABASE_URL and SUPABASE_SECRET_KEY.
    """
    from watcher.operator import queries, screens, terminal

    if name is not None and value is None:
        raise click.UsageError("Say the value, too: a number, or default.")
    who = str(user) if user else None
    answer = queries.ask(lambda database: database.limits(who))
    if name is not None:
        _check(answer, name, value, for_user=user is not None)
        number = None if value == "default" else value
        answer = queries.ask(lambda database: database.set_limit(name, number, who))
    if as_json:
        terminal.print_json(answer)
    else:
        terminal.print_table(screens.limits(answer, for_user=user is not None), terminal.console())


def _check(known: list[dict[str, Any]], name: str, value: object, *, for_user: bool) -> None:
    limit = next((one for one in known if one["name"] == name), None)
    if limit is None:
        raise click.UsageError(f"There is no limit {name}: choose {', '.join(one['name'] for one in known)}.")
    if isinstance(value, int) and not limit["lowest"] <= value <= limit["highest"]:
        raise click.UsageError(f"{name} must be from {limit['lowest']} to {limit['highest']}.")
    if for_user and not limit["per_user"]:
        raise click.UsageError(f"{name} is for everybody: leave out --user.")
