"""The requests at which a publication can be stopped, and the row that the tests stop there."""

from typing import Any, Literal

from tests.acceptance.person import Person
from tests.acceptance.stage import Stage
from tests.support.pictures import jpeg
from tests.support.waiting import wait_until
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Hold, Rule

PHOTOS = [jpeg(seed=n) for n in range(3)]
SHORT_LEASE = {"WATCHER_LEASE": "3", "WATCHER_RENEWAL": "0.5"}
_PLACES = {
    "claim": ("rest", "POST", "/rpc/watcher_claim$"),
    "reserve": ("rest", "POST", "/rpc/watcher_reserve$"),
    "fetch": ("storage", "GET", "/object/authenticated/"),
    "create": ("hub", "POST", "^/api/repos/create$"),
    "upload": ("hub", "PUT", "^/_lfs/put/"),
    "commit": ("hub", "POST", "/commit/main$"),
    "complete": ("rest", "POST", "/rpc/watcher_complete$"),
}


def at(place: str) -> dict[str, Any]:
    """Where a fault has to stand."""
    service, method, path = _PLACES[place]
    return {"service": service, "method": method, "path": path}


def hold(sandbox: Sandbox, place: str, when: Literal["before", "after"]) -> Rule:
    return sandbox.faults.add(Hold(when), **at(place))


def inserted(person: Person, name: str = "Ada") -> str:
    """Insert a row with PHOTOS and return its id."""
    return person.insert(name, [person.upload(photo) for photo in PHOTOS])


def outcomes(stage: Stage, identity: str) -> list[str]:
    """How the attempts to publish a row ended, in their order."""
    attempts = stage.story(identity)["attempts"]
    return [attempt["outcome"] for attempt in attempts if attempt["kind"] == "publish"]


def until_a_lease_has_been_outlasted(stage: Stage, identity: str) -> None:
    """Return when renewals have kept the row's newest attempt alive for longer than SHORT_LEASE."""

    def outlasted() -> bool:
        attempt = stage.story(identity)["attempts"][-1]
        return bool(attempt["seconds"] > float(SHORT_LEASE["WATCHER_LEASE"]) and attempt["lease_seconds"] > 0)

    wait_until(outlasted)
