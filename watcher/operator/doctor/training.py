"""Checks what trainings need: a daemon with a token for them, the right to run jobs, a base model, a machine, money."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from watcher.errors import WatcherError
from watcher.hub.access import access_to
from watcher.hub.jobs import Jobs
from watcher.hub.repos import Hub
from watcher.operator.doctor.finding import Finding, skipped
from watcher.operator.format import count, decimal, duration, usd
from watcher.operator.hub import prices_of
from watcher.operator.money import Prices
from watcher.operator.queries import Queries, connected
from watcher.operator.training_screens import doubled, money, overdue
from watcher.operator.waiting import has_outage, is_paused
from watcher.settings.settings import Settings
from watcher.training.recipe import project_digest, project_label

_UNHEARD = 60.0
"""Seconds that a training may be due before nobody seems to take it."""
_TOKENS = "https://huggingface.co/settings/tokens"
_SET_TOKEN = (
    f"Create a token on {_TOKENS} that may read the base model and write to the namespace's repos, set "
    "WATCHER_TRAINING_TOKEN to it for each daemon that is to train, and restart that."
)
_JOB_RIGHT = f"Edit the token on {_TOKENS}, and allow it to run jobs (job.write) in the namespace."


async def findings(settings: Settings, *, hub_works: bool) -> AsyncIterator[Finding]:
    """Check trainings, where they are on or one has been started; what depends on a Hub that does not work is skipped."""
    try:
        async with connected(settings) as rpc:
            queries = Queries(rpc)
            training, status = await queries.training(), await queries.status()
    except WatcherError:
        yield skipped("trainings")  # the checks of Supabase say why
        return
    for finding in _progress(settings, training, status):
        yield finding
    if not training["enabled"]:
        return
    if not hub_works:
        yield skipped("what trainings need of the Hub")
        return
    async for finding in _jobs(settings, training):
        yield finding
    if settings.training_token is not None:
        async for finding in _token(settings, settings.training_token.get_secret_value(), training["base"]):
            yield finding


def _progress(
    settings: Settings, training: Mapping[str, Any], status: Mapping[str, Any]
) -> Iterator[Finding]:
    """Check what the database knows: that trainings are taken, end, and have one job each."""
    if sentence := overdue(training):
        remedy = "watcher training; journalctl -u watcher -p warning -n 50"
        yield Finding("training", "error", sentence, remedy)
    if sentence := doubled(training):
        remedy = "watcher training shows the jobs. If it happens again, report it: it costs seconds of a job each time."
        yield Finding("training", "warning", sentence, remedy)
    if not training["enabled"]:
        waiting = f"; {count(training['waiting'], 'row')} wait" if training["waiting"] else ""
        yield Finding("training", "ok", f"Trainings are off{waiting}.")
        return
    yield _taken(settings, training, status)
    if training["waits_for_budget"]:
        sentence = f"Trainings wait for tomorrow, in UTC: {money(training)}."
        yield Finding("training budget", "warning", sentence, "watcher training on --usd-a-day …")
    else:
        yield Finding("training budget", "ok", f"Trainings are on: {money(training)}.")


def _taken(settings: Settings, training: Mapping[str, Any], status: Mapping[str, Any]) -> Finding:
    """Check that a daemon takes what is due, as far as one can tell from here."""
    waits, here = training["due_seconds"], settings.training_token is not None
    excused = is_paused(status["paused"], "train") or any(
        has_outage(instance, "train") for instance in status["instances"].values()
    )
    if waits > _UNHEARD and not excused:
        sentence = f"A training has been due for {duration(waits)}, and no daemon takes it"
        sentence += (
            "."
            if here
            else ": WATCHER_TRAINING_TOKEN is not set here, and without it a daemon does not train."
        )
        remedy = "systemctl status watcher; journalctl -u watcher -n 50" if here else _SET_TOKEN
        return Finding("training daemon", "error", sentence, remedy)
    if not here:
        sentence = "Trainings are on, and WATCHER_TRAINING_TOKEN is not set here: a daemon without it does not train."
        return Finding("training daemon", "warning", sentence, _SET_TOKEN)
    return Finding("training daemon", "ok", "No training has been due for long.")


async def _jobs(settings: Settings, training: Mapping[str, Any]) -> AsyncIterator[Finding]:
    """Check what the daemon's own token has to be allowed, the machine, and what it costs."""
    hub = _hub(settings, settings.hf_token.get_secret_value())
    jobs = Jobs(hub)
    try:
        await hub.check_token(right="job.write")
        await jobs.list_running(project_label(project_digest(settings.supabase_url)))
        prices = await prices_of(jobs)
    except WatcherError as error:
        yield Finding("training jobs", "error", str(error), _JOB_RIGHT)
        return
    finally:
        hub.close()
    sentence = (
        f"HF_TOKEN may run jobs in {hub.namespace}. Whether the account has credit shows when a job is requested: an outage "
        "says so."
    )
    yield Finding("training jobs", "ok", sentence)
    yield _machine(training, prices)


def _machine(training: Mapping[str, Any], prices: Prices) -> Finding:
    flavor, budget = training["flavor"], decimal(training["usd_a_day"])
    price = prices.get(flavor)
    if price is None:
        sentence = f"The Hub has no machine {flavor!r} for trainings: it lists {', '.join(prices)}."
        return Finding("training machine", "error", sentence, "watcher training on --flavor …")
    cost = price.at_most(training["minutes"])
    costs = f"A training on {flavor} costs at most {usd(cost, at_most=True)}"
    if cost > budget:
        sentence = f"{costs}, and the {usd(budget)} of a day are too little for one."
        return Finding("training machine", "error", sentence, "watcher training on --usd-a-day …")
    return Finding("training machine", "ok", f"{costs}, of {usd(budget)} a day.")


async def _token(settings: Settings, token: str, base: str) -> AsyncIterator[Finding]:
    """Check the token that a job gets, and with it the base model."""
    if token == settings.hf_token.get_secret_value():
        sentence = "WATCHER_TRAINING_TOKEN is HF_TOKEN: what runs in a job can do all that the daemon can."
        yield Finding("training token", "warning", sentence, _SET_TOKEN)
    hub = _hub(settings, token)
    try:
        await hub.check_token()
        access = await access_to(hub, base)
    except WatcherError as error:
        sentence = f"WATCHER_TRAINING_TOKEN: {str(error).replace('HF_TOKEN', 'the token')}"
        yield Finding("training token", "error", sentence, _SET_TOKEN)
        return
    finally:
        hub.close()
    yield Finding("training token", "ok", f"The token of trainings may write to {hub.namespace}.")
    page = f"{settings.hf_endpoint}/{base}"
    if access == "gated":
        sentence = (
            f"The licence of the base model {base} is not accepted by the user of WATCHER_TRAINING_TOKEN."
        )
        remedy = f"As that user, accept it on {page}, and allow the token to read gated repos."
        yield Finding("training base", "error", sentence, remedy)
    elif access == "missing":
        sentence = f"WATCHER_TRAINING_TOKEN cannot read a base model {base}: there is none, or it is private."
        yield Finding("training base", "error", sentence, "watcher training on --base …")
    else:
        yield Finding("training base", "ok", f"The token of trainings may read the base model {base}.")


def _hub(settings: Settings, token: str) -> Hub:
    return Hub(endpoint=settings.hf_endpoint, token=token, namespace=settings.hf_namespace)
