"""The commands `training`, `training on` and `training off`: what they set lies in the database, and all daemons obey it.

Only click is imported here; see console.py.
"""

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal

import click

from watcher.operator.console import as_json
from watcher.operator.format import decimal, usd

if TYPE_CHECKING:
    from watcher.operator.money import Prices
    from watcher.operator.queries import Queries

_CODES = "Exit codes: 0 done; 1 Supabase{hub} could not be queried; 2 usage error; 78 configuration error."
_MOST_PROMPTS, _LONGEST_PROMPT = 8, 500
_LIMIT = "trainings_per_day"


class _Number(click.ParamType[Decimal | Literal["default"]]):
    """A number within a range, or perhaps the word default."""

    def __init__(self, lowest: str, highest: str, *, default: bool = False, whole: bool = False) -> None:
        self.lowest, self.highest = Decimal(lowest), Decimal(highest)
        self.default = default
        self.whole = whole
        self.name = "N|default" if default else "N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Decimal | Literal["default"]:
        if self.default and value == "default":
            return "default"
        try:
            number = Decimal(value)
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite() or not self.lowest <= number <= self.highest:
            self.fail(f"{value!r} is no number from {self.lowest} to {self.highest}.", param, ctx)
        if self.whole and number != number.to_integral_value():
            self.fail(f"{value!r} is no whole number.", param, ctx)
        return number


@click.group(invoke_without_command=True, epilog=_CODES.format(hub=""))
@as_json
@click.pass_context
def training(context: click.Context, *, as_json: bool) -> None:
    """Show trainings: today's money, what waits and runs, the settings; `on` and `off` switch them.

    With HF_TOKEN set, also the machines and prices that the Hub lists. Needs SUPABASE_URL and SUPABASE_SECRET_KEY.
    """
    if context.invoked_subcommand is not None:
        return
    from watcher.operator import queries, terminal, training_screens

    answer = queries.ask(lambda database: database.training())
    prices, why_none = _prices_if_any()
    if as_json:
        terminal.print_json(answer | {"prices": _json(prices, answer["minutes"])})
    else:
        terminal.print_table(training_screens.training(answer, prices, why_none), terminal.console())


def _prices_if_any() -> tuple["Prices | None", str]:
    """Return the prices, or why there are none."""
    from watcher.errors import WatcherError
    from watcher.operator import hub
    from watcher.process.log import redact

    try:
        return hub.prices(), ""
    except hub.NoToken:
        return None, "With HF_TOKEN set, the Hub's prices are shown, too."
    except WatcherError as error:
        return None, f"The Hub's prices could not be fetched: {redact(str(error))}"


def _json(prices: "Prices | None", minutes: int) -> dict[str, dict[str, str]] | None:
    if prices is None:
        return None
    return {
        flavor: {
            "title": price.title,
            "usd_a_minute": f"{price.usd_a_minute:f}",
            "usd_at_most": f"{price.at_most(minutes):f}",
        }
        for flavor, price in prices.items()
    }


@training.command("on", epilog=_CODES.format(hub=" or the Hub"))
@click.option(
    "--usd-a-day",
    type=_Number("0.01", "100000"),
    help="US dollars that all trainings of a day, in UTC, may cost.",
)
@click.option(
    "--trainings-per-user-a-day",
    type=click.IntRange(0, 1000),
    help="Trainings of a user that start within a day.",
)
@click.option("--flavor", help="The machine, by the Hub's name: `watcher training` lists them.")
@click.option("--minutes", type=click.IntRange(5, 1440), help="The time-out of a training's job.")
@click.option("--base", help="The model on the Hub that is trained on.")
@click.option(
    "--learning-rate", type=_Number("1e-9", "1", default=True), help="Instead of training_config.json's."
)
@click.option(
    "--steps",
    type=_Number("1", "100000", default=True, whole=True),
    help="Instead of training_config.json's.",
)
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    help="Of one of the first pictures, with {trigger} for the trigger word; repeat it for more, or say default.",
)
@as_json
def on(
    *,
    usd_a_day: Decimal | None,
    trainings_per_user_a_day: int | None,
    flavor: str | None,
    minutes: int | None,
    base: str | None,
    learning_rate: Decimal | str | None,
    steps: Decimal | str | None,
    prompts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Offer trainings, within a budget; what is not given stays as it is.

    First checks that the Hub has the machine, and that the day's dollars suffice for one training. Each daemon that is to
    train needs WATCHER_TRAINING_TOKEN. Needs SUPABASE_URL, SUPABASE_SECRET_KEY and HF_TOKEN.
    """
    changed = _changes(
        usd_a_day=usd_a_day,
        flavor=flavor,
        minutes=minutes,
        base=None if base is None else _base(base),
        learning_rate=learning_rate,
        steps=steps,
        prompts=_prompts(prompts),
    )
    from watcher.operator import hub, queries, terminal, training_screens

    prices = hub.prices()
    before = queries.ask(lambda database: database.training())
    _check(before | changed, prices)

    async def switch(database: "Queries") -> dict[str, Any]:
        if trainings_per_user_a_day is not None:
            await database.set_limit(_LIMIT, trainings_per_user_a_day)
        return await database.set_training(changed | {"enabled": True})

    answer = queries.ask(switch)
    if as_json:
        terminal.print_json(answer | {"prices": _json(prices, answer["minutes"])})
        return
    terminal.print_table(training_screens.switched(answer, prices), terminal.console())
    click.echo(
        "\nEach daemon that is to train needs WATCHER_TRAINING_TOKEN; `watcher doctor` checks the rest."
    )


def _changes(**given: object) -> dict[str, object]:
    """Return the settings that change, as `watcher_set_training` takes them: those given, null for a default."""
    numbers = {name: str(value) if isinstance(value, Decimal) else value for name, value in given.items()}
    return {
        name: None if value == "default" else value for name, value in numbers.items() if value is not None
    }


def _base(text: str) -> str:
    from watcher.training.bases import parse_base

    try:
        return parse_base(text).model_id
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--base") from error


def _prompts(given: tuple[str, ...]) -> list[str] | Literal["default"] | None:
    """Return what the prompts are to be; None: what they are."""
    if given in {(), ("default",)}:
        return "default" if given else None
    prompts = [prompt.strip() for prompt in given]
    if len(prompts) > _MOST_PROMPTS:
        raise click.BadParameter(f"There are at most {_MOST_PROMPTS}.", param_hint="--prompt")
    if not all(prompt.isprintable() and 0 < len(prompt) <= _LONGEST_PROMPT for prompt in prompts):
        raise click.BadParameter(
            f"Each is one line of 1 to {_LONGEST_PROMPT} characters.", param_hint="--prompt"
        )
    return prompts


def _check(wanted: dict[str, Any], prices: "Prices") -> None:
    """Raise UsageError unless there is such a machine, and the day's dollars suffice for one training."""
    flavor, minutes, budget = wanted["flavor"], wanted["minutes"], decimal(wanted["usd_a_day"])
    price = prices.get(flavor)
    if price is None:
        raise click.UsageError(f"The Hub has no machine {flavor!r}: choose one of {', '.join(prices)}.")
    if not budget:
        raise click.UsageError("Say how many dollars all trainings of a day may cost, such as --usd-a-day 5.")
    cost = price.at_most(minutes)
    if cost > budget:
        raise click.UsageError(
            f"A training on {flavor} with a time-out of {minutes} minutes can cost {usd(cost, at_most=True)}, and "
            f"{usd(budget)} a day are too little for one: raise --usd-a-day, lower --minutes or choose another --flavor."
        )


@training.command("off", epilog=_CODES.format(hub=""))
@as_json
def off(*, as_json: bool) -> None:
    """Start no more trainings.

    Those that have started go on, and are paid for; what waits or is asked for from now on waits until trainings are on
    again. Needs SUPABASE_URL and SUPABASE_SECRET_KEY.
    """
    from watcher.operator import queries, terminal

    answer = queries.ask(lambda database: database.set_training({"enabled": False}))
    if as_json:
        terminal.print_json(answer)
    else:
        click.echo(f"Trainings are off; {answer['running']:,} still run, and {answer['waiting']:,} wait.")
