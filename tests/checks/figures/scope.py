"""How far a refusal reaches: one row's harms nobody else, and one that is everybody's is no row's fault."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tests.acceptance.person import Person
from tests.acceptance.running import Watcher
from tests.support.pictures import jpeg
from watcher.sandbox.faults import Answer
from watcher.sandbox.hub.access import User

from .beside import USERS, Others, again_and_again, compared, failed
from .figure import Figure, Measured, Numbers
from .scene import Scene, scene

_REASON = "Access to this resource is disabled."
_DISABLED = Answer(403, {"error": _REASON, "message": _REASON}, {"X-Error-Message": _REASON})
_UNACCEPTED = Answer(400, {"error": "No."}, {"X-Error-Message": "No."})
_BUDGET = 9
"""Eight attempts that count, and one that only looks."""


def _scope() -> Measured:
    numbers: Numbers = {}
    with scene() as here:
        others = Others(here)
        with Watcher(here.stage) as watcher:
            watcher.ready()
            others.publish(0.2)
            alone = others.publish()
            for what in ("repo", "photo"):
                numbers[what] = _one_refused(here, watcher, others, alone, what)
            numbers["own_400"] = _own_400(here)
            watcher.stop()
        for what in ("card", "commit"):
            numbers[f"everybodys_{what}"] = _everybodys(here, what)
    with scene() as here:
        numbers["cannot_write"] = _cannot_write(here)
    words = "; ".join(
        f"{what} refused with 403: others {found['beside']:.2f} s, {found['times']:.2f}× alone, {found['attempts']} "
        f"attempts, outages {found['outages']}"
        for what, found in numbers.items()
        if what in {"repo", "photo"}
    )
    words += (
        f"; everybody's card and commit: {[numbers[f'everybodys_{what}'] for what in ('card', 'commit')]}; one row's own "
        f"400: {numbers['own_400']}; beside a daemon that may not write: {numbers['cannot_write']}"
    )
    kept = (
        all(
            found["times"] <= 2 and found["outages"] == 0 and found["attempts"] <= _BUDGET and found["reason"]
            for found in (numbers["repo"], numbers["photo"])
        )
        and numbers["own_400"] == "hub_refused"
        and all(
            numbers[f"everybodys_{what}"] == {"outages": 1, "failed": 0, "spent": 0, "published": 4}
            for what in ("card", "commit")
        )
        and numbers["cannot_write"]["published"] == numbers["cannot_write"]["rows"]
        and numbers["cannot_write"]["spent"] <= 1
    )
    return Measured(kept, words, numbers)


def _one_refused(here: Scene, watcher: Watcher, others: Others, alone: list[float], what: str) -> Numbers:
    """One row whose repo or photo is refused for ever, tried again as soon as it may be, while others publish."""
    eve = Person(here.stage)
    paths = [*eve.photos(2), eve.upload(jpeg(9), "refused.jpg")]
    where: dict[str, Any] = {
        "repo": {"service": "hub", "path": "/identity-refused-"},
        "photo": {"service": "storage", "method": "GET", "path": "/refused.jpg"},
    }[what]
    rule = here.sandbox.faults.add(_DISABLED, **where, times=None)
    row = eve.insert("Refused", paths)
    with again_and_again(here.fall_due, 1):
        beside = others.publish()
    failed(here, row, within=60)
    here.sandbox.faults.remove(rule)
    message = here.stage.story(row)["error_message"]
    return {
        **compared(alone, beside),
        "attempts": sum(attempt["kind"] == "publish" for attempt in here.attempts(row)),
        "outages": len(watcher.said("outage")),
        "reason": _REASON in message and "token" not in message,
    }


def _own_400(here: Scene) -> str:
    """One row whose commit the Hub does not accept, beside others that it does."""
    eve = Person(here.stage)
    rule = here.sandbox.faults.add(
        _UNACCEPTED, service="hub", path="/identity-unaccepted-.*/commit/", times=None
    )
    row = eve.insert("Unaccepted")
    here.claimed(row)
    here.all_become(here.insert(), "published")
    failed(here, row, within=60)
    here.sandbox.faults.remove(rule)
    return str(here.stage.story(row)["error_code"])


def _everybodys(here: Scene, what: str) -> Numbers:
    """The Hub accepts nobody's card, or nobody's commit, for ten seconds."""
    path = {"card": "/validate-yaml", "commit": "/commit/main$"}[what]
    rule = here.sandbox.faults.add(_UNACCEPTED, service="hub", path=path, times=None)
    with Watcher(here.stage) as watcher:
        watcher.ready()
        rows = [here.insert(person=Person(here.stage))[0] for _ in range(4)]
        watcher.wait_for("outage")
        with again_and_again(here.fall_due, 1):
            watcher.wait_for("released", count=4)
        stories = [here.stage.story(row) for row in rows]
        found = {
            "outages": len(watcher.said("outage")),
            "failed": sum(story["status"] == "failed" for story in stories),
            "spent": sum(story["spent"] for story in stories if story["status"] == "pending"),
        }
        here.sandbox.faults.remove(rule)
        here.all_become(rows, "published", within=90)
        watcher.stop()
    return {**found, "published": 4}


@dataclass(frozen=True)
class _CannotWrite(User):
    """Of a token that looks as if it could write."""

    def may_write(self, namespace: str) -> bool:
        return False


def _cannot_write(here: Scene) -> Numbers:
    """Two daemons, one of them with a token that may not write, though the Hub says nothing of that."""
    here.sandbox.hub.access.add("hf_other", _CannotWrite(here.sandbox.hub_user))
    with ExitStack() as stack:
        good = stack.enter_context(Watcher(here.stage))
        other = stack.enter_context(Watcher(here.stage, HF_TOKEN="hf_other"))
        for watcher in (good, other):
            watcher.ready()
        rows = []
        for _ in range(USERS):
            rows += here.insert(3, person=Person(here.stage))
        here.all_become(rows, "published", within=120)
        spent = here.one(
            "select count(*) from watcher.attempts where instance = %(name)s and not given_back "
            "and outcome in ('deferred', 'crashed', 'failed')",
            name=other.instance,
        )
        outages = len(other.said("outage"))
        for watcher in (good, other):
            watcher.stop()
    return {"rows": len(rows), "published": len(rows), "spent": spent, "outages": outages}


FIGURES = [
    Figure(
        "scope",
        "one repo or photo refused for ever: others at most 2× alone, no outage; what is everybody's fails no row",
        _scope,
    )
]
