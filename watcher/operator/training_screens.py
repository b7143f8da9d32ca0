"""What the operator sees of trainings: today's money, what runs, the settings and prices, a row's own. Prints nothing."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from watcher.operator.format import ago, count, decimal, duration, moment, usd
from watcher.operator.money import Prices
from watcher.operator.tables import cell, new_facts, new_table
from watcher.operator.training_log import Log
from watcher.process.log import redact

_ENDS = {"ready": "green", "failed": "red"}
_WAITS_FOR = dict.fromkeys(("published", "ready"), "until trainings are switched on")


def summary(training: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """Return the lines of `watcher status`: status, number and more; none where trainings are off and there were none."""
    if not (training["enabled"] or _anything(training)):
        return []
    more = [f"{training['waiting']:,} waiting"] if training["waiting"] else []
    more += [money(training)] if training["enabled"] or _money_of_today(training) else []
    more += [] if training["enabled"] else ["off"]
    more += [f"{training['failed_24h']:,} failed in the last 24 hours"] if training["failed_24h"] else []
    return [
        ("training", training["running"], "; ".join(more)),
        ("ready", training["ready_24h"], "in the last 24 hours"),
    ]


def _anything(training: Mapping[str, Any]) -> bool:
    counted = ("running", "waiting", "ready_24h", "failed_24h")
    return any(training[what] for what in counted) or _money_of_today(training)


def _money_of_today(training: Mapping[str, Any]) -> bool:
    return bool(training["spent_usd"] or training["reserved_usd"])


def money(training: Mapping[str, Any]) -> str:
    """Say what of today's dollars is spent and reserved."""
    spent, reserved, budget = (
        usd(decimal(training[of])) for of in ("spent_usd", "reserved_usd", "usd_a_day")
    )
    return f"{spent} spent and {reserved} reserved of today's {budget}"


def overdue(training: Mapping[str, Any]) -> str | None:
    """Say how many trainings have gone on for longer than they can, None if none has."""
    if not training["overdue"]:
        return None
    have = "has" if training["overdue"] == 1 else "have"
    return f"{count(training['overdue'], 'training')} {have} gone on for longer than a job may wait and run."


def doubled(training: Mapping[str, Any]) -> str | None:
    """Say how many trainings had a second job, None if none had."""
    if not training["doubled"]:
        return None
    return (
        f"{count(training['doubled'], 'training')} of the last 24 hours had more than one job: the oldest trains, and the "
        "others end at their first check."
    )


def notices(training: Mapping[str, Any]) -> Iterator[str]:
    """Say in `watcher status` what is wrong with trainings."""
    for sentence in (overdue(training), doubled(training)):
        if sentence:
            yield f"{sentence} Run `watcher doctor`."
    if training["waits_for_budget"]:
        yield "Trainings wait for tomorrow's budget, in UTC: watcher training"


def training(answer: Mapping[str, Any], prices: Prices | None, why_no_prices: str) -> RenderableType:
    """Show the answer of `watcher_training`, and the prices, or why there are none."""
    parts: list[RenderableType] = [Text(_state(answer)), Text(), _today(answer)]
    parts += [Text(f"\n{notice}", "yellow") for notice in notices(answer)]
    if answer["now_running"]:
        parts += [Text(), _running(answer["now_running"], answer["running"])]
    if answer["last"]:
        parts += [Text(), _last(answer["last"])]
    parts += [Text(), _settings(answer)]
    parts += [Text(), _prices(prices, answer) if prices is not None else Text(why_no_prices, "dim")]
    return Group(*parts)


def switched(answer: Mapping[str, Any], prices: Prices) -> RenderableType:
    """Show what `watcher training on` has set."""
    return Group(Text(_state(answer)), Text(), _settings(answer, prices))


def _state(answer: Mapping[str, Any]) -> str:
    if not answer["enabled"]:
        return "Trainings are off: what users ask for waits until `watcher training on`."
    budget, each = usd(decimal(answer["usd_a_day"])), answer["trainings_per_day"]
    return (
        f"Trainings are on: up to {budget} a day, in UTC, and {count(each, 'training')} a day for each user."
    )


def _today(answer: Mapping[str, Any]) -> Table:
    spent, reserved, budget = (decimal(answer[name]) for name in ("spent_usd", "reserved_usd", "usd_a_day"))
    facts = new_facts()
    facts.add_row("today", f"{usd(spent)} spent, {usd(reserved)} reserved, {usd(budget)} budget")
    facts.add_row("running", f"{answer['running']:,}")
    facts.add_row("waiting", f"{answer['waiting']:,}")
    facts.add_row("last 24 hours", f"{answer['ready_24h']:,} ready, {answer['failed_24h']:,} failed")
    return facts


def _running(rows: Sequence[Mapping[str, Any]], total: int) -> Table:
    title = "Running" if total <= len(rows) else f"Running, the oldest {len(rows)} of {total:,}"
    table = new_table(title, "id", "stage", "for", "runs for", "reserved", "job")
    for row in rows:
        table.add_row(
            row["id"],
            cell(row["stage"] or "requested"),
            duration(row["seconds"]),
            "" if row["running_seconds"] is None else duration(row["running_seconds"]),
            usd(decimal(row["reserved_usd"])),
            cell(row["job"] or ""),
        )
    return table


def _last(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = new_table("The last ones", "id", "when", "outcome", "ran for", "cost", "job")
    for row in rows:
        outcome = row["outcome"].replace("_", " ")
        table.add_row(
            row["id"],
            ago(row["ended_seconds_ago"]),
            Text(f"{outcome}: {row['code']}" if row["code"] else outcome, _ENDS.get(row["outcome"], "")),
            "" if row["seconds"] is None else duration(row["seconds"]),
            "not known yet" if row["spent_usd"] is None else usd(decimal(row["spent_usd"])),
            cell(row["job"] or ""),
        )
    return table


def _settings(answer: Mapping[str, Any], prices: Prices | None = None) -> Table:
    """Show the settings; with the prices also what a training costs, and what is known of the base model."""
    from watcher.training.bases import parse_base

    base = parse_base(answer["base"])
    guide = f"; guides for this model use {base.learning_rate:g}" if base.learning_rate else ""
    own = answer["learning_rate"]
    facts = new_facts()
    facts.add_row("base model", cell(answer["base"]))
    facts.add_row(
        "licence",
        cell(f"{base.license_name or base.license}{', to be accepted on its page' if base.gated else ''}"),
    )
    if base.caution:
        facts.add_row("caution", cell(base.caution))
    facts.add_row("machine", cell(answer["flavor"]))
    facts.add_row("time-out", f"{answer['minutes']} min")
    if prices is not None:
        facts.add_row("costs at most", usd(prices[answer["flavor"]].at_most(answer["minutes"]), at_most=True))
    facts.add_row("learning rate", ("as in training_config.json" if own is None else f"{own:g}") + guide)
    facts.add_row(
        "steps", "as in training_config.json" if answer["steps"] is None else f"{answer['steps']:,}"
    )
    for number, prompt in enumerate(answer["prompts"] or ["the default ones"], 1):
        facts.add_row("prompts" if number == 1 else "", cell(prompt))
    return facts


def _prices(prices: Prices, answer: Mapping[str, Any]) -> Table:
    title = "Prices, as the Hub lists them"
    table = new_table(title, "flavor", "machine", "an hour", "a training at most")
    for flavor, price in prices.items():
        chosen = flavor == answer["flavor"]
        table.add_row(
            Text(flavor, "bold" if chosen else ""),
            cell(price.title),
            usd(price.usd_a_minute * 60),
            usd(price.at_most(answer["minutes"]), at_most=True) + (" (chosen)" if chosen else ""),
        )
    return table


def story(row: Mapping[str, Any]) -> list[RenderableType]:
    """Return what `watcher show` says of a row's trainings; nothing where there are none."""
    last, queued = row["training"]["last"], row["training"]["queued"]
    if not (row["train"] or last or queued or row["training_commit_sha"] or row["training_error_code"]):
        return []
    facts = new_facts()
    for name, text in (*_asked(row, queued), *_job(row, last), *_left(row)):
        facts.add_row(name, cell(text))
    parts: list[RenderableType] = [Text("\nTraining", "bold"), facts]
    if row["training_error_code"]:
        parts.append(Text(f"\nOnce the cause is fixed: watcher replay --trainings {row['id']}"))
    return parts


def _asked(row: Mapping[str, Any], queued: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if row["training_requested_at"]:
        yield "requested", moment(row["training_requested_at"])
    if row["training_waits_until"]:
        yield "waits until", moment(row["training_waits_until"])
    if queued is not None and queued["last_reason"]:
        yield "last reason", queued["last_reason"]
    if row["train"] and queued is None and row["status"] != "training":
        yield "waits", _WAITS_FOR.get(row["status"], "for the row to be published")
    if row["trigger_word"]:
        yield "trigger word", row["trigger_word"]


def _job(row: Mapping[str, Any], last: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if last is None:
        return
    job = last["job"] or "none known yet"
    yield "job", f"{job} ({last['stage']})" if last["stage"] else job
    if row["training_url"]:
        yield "its page", row["training_url"]
    yield "started", ago(last["started_seconds_ago"])
    if last["running_seconds"] is not None:
        yield "ran for", duration(last["running_seconds"])
    yield "base model", last["base"]
    spent: Decimal | None = None if last["spent_usd"] is None else decimal(last["spent_usd"])
    yield (
        "cost",
        f"at most {usd(decimal(last['reserved_usd']), at_most=True)}" if spent is None else usd(spent),
    )


def _left(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if row["training_error_code"]:
        yield "reason", f"{row['training_error_message']} ({row['training_error_code']})"
    if row["training_commit_sha"]:
        yield (
            "weights",
            f"commit {row['training_commit_sha'][:12]}, after {duration(row['training_seconds'])}",
        )
    for number, path in enumerate(row["sample_paths"] or (), 1):
        yield ("pictures" if number == 1 else ""), path


def log(found: Log) -> RenderableType:
    """Show the last lines of a job's log, or why there are none."""
    if not found.lines:
        return Text(f"\n{redact(found.why_none)}", "dim")
    return Group(Text("\nThe last lines of the job's log", "bold"), *map(cell, found.lines))
