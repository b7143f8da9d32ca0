"""Nothing is tried without end: bugs at every step, strange answers to every call, and endings that are nobody's fault."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.acceptance.person import Person
from tests.acceptance.places import at
from tests.acceptance.running import Watcher
from watcher.sandbox.faults import Answer, Delay
from watcher.sandbox.faults.passage import Passage
from watcher.sandbox.hub.access import User

from . import planted
from .figure import Figure, Measured, Numbers
from .scene import Scene, scene, until

_PROGRAM = str(Path(planted.__file__))
_SHORT = {"WATCHER_LEASE": "2", "WATCHER_RENEWAL": "0.5", "WATCHER_POLL_ALIVE": "0.5", "WATCHER_POLL": "0.5"}
# Eight that count, and one that only looks.
_BUDGET = 9
# Where a bug is planted; what is after the comma is what makes an attempt come there.
_STEPS = [
    "watcher.publishing.publisher:Publisher.describe",
    "watcher.publishing.publisher:Publisher.carry",
    "watcher.publishing.naming:RepoName.open_repo",
    "watcher.photos.fetch:Photos.check",
    "watcher.photos.fetch:Photos.fetch",
    "watcher.photos.spool:Spool.folder",
    "watcher.supabase.verbs:Verbs.reserve",
    "watcher.hub.repos:Hub.look",
    "watcher.hub.repos:Hub.create",
    "watcher.hub.repos:Hub.upload",
    "watcher.publishing.publisher:documents",
    "watcher.engine.lease:Lease.check",
    "watcher.hub.repos:Hub.commit",
    "watcher.supabase.verbs:Verbs.complete",
    "watcher.supabase.verbs:Verbs.defer,watcher.hub.repos:Hub.commit",
    "watcher.engine.attempt:_Attempt._settle",
    "watcher.engine.lease:Leases.held",
]
_BODIES: list[bytes] = [
    b"", b"null", b"[]", b"{}", b"NaN", b"1e400", b"-1", b'"\\ud800"', b'{"error": "\\ud800\\u0000", "oid": "\\udfff"}',
    b'{"error": "\xff\xfe"}', b"<html><h1>502 Bad Gateway</h1></html>", b"x" * 2**20, b"[" * 100_000,
]  # fmt: skip
_TIMES = ["inf", "-inf", "nan", "-1", "0", "1e400", "1e308", "", "soon", "9" * 400]
# Where each answer is strange; the last is what makes an attempt come there.
_CALLS: dict[str, tuple[str, str, str]] = {
    "create": ("hub", "/api/repos/create", ""),
    "commits": ("hub", "/commits/", ""),
    "info": ("hub", "/api/models/[^/]+/[^/]+$", ""),
    "batch": ("hub", "/info/lfs/objects/batch", ""),
    "upload": ("hub", "/_lfs/", ""),
    "commit": ("hub", "/commit/", ""),
    "fetch": ("storage", "/object/authenticated/", ""),
    "reserve": ("rest", "watcher_reserve$", ""),
    "complete": ("rest", "watcher_complete$", ""),
    "renew": ("rest", "watcher_renew$", "slow commit"),
    "defer": ("rest", "watcher_defer$", "commit"),
    "fail": ("rest", "watcher_fail$", "broken photo"),
}


@dataclass
class _Strange:
    """Answers with each combination of status, body and time in turn."""

    answers: Iterator[Answer] = field(
        default_factory=lambda: itertools.cycle(
            Answer(status, body, {"retry-after": time})
            for (body, time), status in itertools.product(
                zip(_BODIES, itertools.cycle(_TIMES), strict=False), (200, 503, 429)
            )
        )
    )

    async def __call__(self, passage: Passage) -> None:
        await next(self.answers)(passage)


def _endless() -> Measured:
    numbers: Numbers = {}
    with scene() as here:
        numbers["bugs"] = _counts(_with_a_bug(here, step) for step in _STEPS)
        numbers["strange_answers"] = _counts(_with_strange_answers(here, call) for call in _CALLS)
        numbers["not_their_fault"] = {
            "shutdowns": _shutdowns(here),
            "bad_token": _bad_token(here),
            "outages": _outages(here),
        }
    kept = (
        all(one["endless"] == [] for one in (numbers["bugs"], numbers["strange_answers"]))
        and numbers["bugs"]["others_published"] == len(_STEPS)
        and set(numbers["not_their_fault"].values()) == {"published"}
    )
    words = (
        f"bugs at {numbers['bugs']['n']} steps and strange answers to {numbers['strange_answers']['n']} calls: at most "
        f"{max(numbers['bugs']['attempts'], numbers['strange_answers']['attempts'])} attempts, endless: "
        f"{numbers['bugs']['endless'] + numbers['strange_answers']['endless'] or 'none'}; other rows beside a bug "
        f"published: {numbers['bugs']['others_published']} of {len(_STEPS)}; shutdowns in a row, a bad token beside a good "
        f"one, an outage that comes and goes: {numbers['not_their_fault']}"
    )
    return Measured(kept, words, numbers)


def _counts(ends: Iterator[Numbers]) -> Numbers:
    """Sum up how the rows ended."""
    found = list(ends)
    return {
        "n": len(found),
        "attempts": max(one["attempts"] for one in found),
        "endless": [one["where"] for one in found if not one["ended"]],
        "others_published": sum(one.get("other") == "published" for one in found),
    }


def _with_a_bug(here: Scene, step: str) -> Numbers:
    """One row that meets the bug at each attempt, and one of somebody else's that does not."""
    other = Person(here.stage)
    with Watcher(here.stage, program=(_PROGRAM, step), **_SHORT) as watcher:
        watcher.wait_for("ready")
        row = here.person.insert("Ada", here.paths, id=planted.EIGHT_ZEROS + str(uuid4())[8:])
        [beside] = here.insert(person=other)
        here.all_become([beside], "published", within=60)
        found = _to_its_end(here, row)
        assert watcher.said("unexpected"), f"Nothing was planted at {step}."
        watcher.kill()
    return {"where": step, "other": here.stage.story(beside)["status"], **found}


def _with_strange_answers(here: Scene, call: str) -> Numbers:
    service, path, needs = _CALLS[call]
    strange: Any = _Strange()
    rules = [here.sandbox.faults.add(strange, service=service, path=path, times=None)]
    if needs == "commit":
        rules.append(here.sandbox.faults.add(Answer(503), **at("commit"), times=None))
    if needs == "slow commit":
        rules.append(here.sandbox.faults.add(Delay(3), **at("commit"), times=None))
    paths = here.paths
    if needs == "broken photo":
        paths = [*here.paths[:2], here.person.upload(b"no photo", "note.jpg")]
    with Watcher(here.stage, program=(_PROGRAM, ""), **_SHORT) as watcher:
        watcher.wait_for("ready")
        found = _to_its_end(here, here.person.insert("Ada", paths))
        assert rules[0].reached, f"Nothing was strange about {call}."
        for rule in rules:
            here.sandbox.faults.remove(rule)
        watcher.kill()
    return {"where": call, **found}


def _to_its_end(here: Scene, row: str) -> Numbers:
    """Let time pass until the row has ended, or has had more attempts than it may."""

    def over() -> bool:
        here.fall_due()
        ended = here.stage.story(row)["status"] in {"published", "failed"}
        return ended or len(here.attempts(row)) > 2 * _BUDGET

    until(over, within=120)
    attempts = [attempt for attempt in here.attempts(row) if attempt["kind"] == "publish"]
    spoken = all(attempt["outcome"] for attempt in attempts)
    return {"attempts": len(attempts), "ended": spoken and len(attempts) <= _BUDGET}


def _shutdowns(here: Scene) -> str:
    """Nine daemons in a row are stopped while they work on a row."""
    kept = here.keep("commit")
    [row] = here.insert()
    for number in range(1, 10):
        with Watcher(here.stage) as watcher:
            watcher.wait_for("ready")
            here.claimed(row, number)
            watcher.stop_now()
    here.sandbox.faults.remove(kept)
    return _published(here, row)


def _bad_token(here: Scene) -> str:
    """A daemon whose token stops to be valid, beside one whose token is."""
    access = here.sandbox.hub.access
    access.add("hf_other", User(here.sandbox.hub_user))
    with Watcher(here.stage) as healthy, Watcher(here.stage, HF_TOKEN="hf_other") as other:
        for watcher in (healthy, other):
            watcher.ready()
        access.revoke("hf_other")
        rows = [row for _ in range(4) for row in here.insert(5, person=Person(here.stage))]
        here.all_become(rows, "published", within=120)
        other.kill()
        healthy.stop()
    return "published"


def _outages(here: Scene) -> str:
    """The token is refused and accepted again, five times, while a row is worked on."""
    access, token = here.sandbox.hub.access, here.sandbox.hub_token
    slow = here.keep("commit")
    with Watcher(here.stage, **_SHORT) as watcher:
        watcher.ready()
        [row] = here.insert()
        for number in range(1, 6):
            slow.wait_reached()
            access.revoke(token)
            here.sandbox.faults.remove(slow)
            watcher.wait_for("released", count=number)
            slow = here.keep("commit")
            access.restore(token)
        here.sandbox.faults.remove(slow)
        here.all_become([row], "published", within=60)
        watcher.stop()
    return "published"


def _published(here: Scene, row: str) -> str:
    with Watcher(here.stage, **_SHORT) as watcher:
        watcher.ready()
        here.all_become([row], "published", within=60)
        watcher.stop()
    return "published"


FIGURES = [
    Figure(
        "endless",
        "bugs and strange answers everywhere: each attempt ends, each row within its budget; nobody else waits",
        _endless,
    )
]
