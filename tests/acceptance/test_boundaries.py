"""Killed before or after any request that changes something, and started again: nothing is lost, nothing is doubled.

Which requests those are is learned from a clean run, so a new side effect is covered without anybody remembering.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from uuid import uuid4

import psycopg
import pytest

from tests.acceptance.person import Person, Row
from tests.acceptance.places import PHOTOS, at, outcomes
from tests.acceptance.repo import audit
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage, unique
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Answer, Delay, Hang, Hold, Rule
from watcher.sandbox.faults.traffic import Seen, route

pytestmark = pytest.mark.timeout(300)

# One row at a time: then what is claimed comes before the row or after it.
SETTINGS = {"WATCHER_SLOTS": "1", "WATCHER_RENEWAL": "0.1"}
# Said by the Hub in answer: where files should come to, and what it thinks of a model card. Nothing is left.
HARMLESS = {
    "/{repo}.git/info/lfs/objects/batch",
    "/api/validate-yaml",
}
# By the first of the two a request is never done, by the second its answer never comes.
FAULTS: dict[str, Hang | Hold] = {"before": Hang(), "after": Hold("after")}


@dataclass(frozen=True)
class Request:
    """Of the requests of one row that look alike, the `nth`, from 0."""

    service: str
    method: str
    route: str
    nth: int = 0

    def meet(self, sandbox: Sandbox, fault: Hang | Hold) -> Rule:
        parts = [
            part if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", self.route)
        ]
        path = re.sub(r"\{\w+\}", ".+", "".join(parts).replace("{repo}", "[^/]+/[^/]+"))
        return sandbox.faults.add(
            fault, service=self.service, method=self.method, path=f"^{path}$", skip=self.nth
        )


CLAIM = Request("rest", "POST", "/rest/v1/rpc/watcher_claim")
# Beside the row and not on its way: how often it comes is a matter of time.
RENEWAL = Request("rest", "POST", "/rest/v1/rpc/watcher_renew")


def learned(log: list[Seen]) -> list[Request]:
    """The requests of one row that changed something, in their order."""
    alike: Counter[Request] = Counter()
    requests = []
    for seen in log:
        kind = Request(seen.service, seen.method, route(seen.path))
        if kind in {CLAIM, RENEWAL} or kind.route in HARMLESS:
            continue
        by_the_daemon = seen.service == "hub" or "/rpc/watcher_" in seen.path
        done = seen.status is not None and seen.status < 400
        if by_the_daemon and done and seen.method != "GET":
            requests.append(Request(kind.service, kind.method, kind.route, alike[kind]))
            alike[kind] += 1
    return [CLAIM, *requests, RENEWAL]


@contextmanager
def told(request: Request, when: str) -> Iterator[None]:
    """Say of a failure where the daemon was killed."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"Killed {when} {request}")
        raise


def kill_everywhere(
    stage: Stage,
    person: Person,
    *,
    insert: Callable[[], str],
    end: str,
    look: Callable[[Row, Request, str], None],
) -> list[Request]:
    """Kill a daemon at every boundary of a row that is inserted anew each time, and audit; the requests.

    Whoever goes on with a row after a kill is the one that is killed at the next boundary.
    """
    sandbox = stage.sandbox
    assert sandbox is not None
    instance = unique("boundary")
    with ExitStack() as daemons:

        def start() -> Watcher:
            return daemons.enter_context(Watcher(stage, instance, **SETTINGS))

        watcher = start().ready()
        sandbox.faults.reset()
        person.wait_for(insert(), end)
        requests = learned(sandbox.faults.log())
        for request, (when, fault) in product(requests, FAULTS.items()):
            with told(request, when):
                watcher.ready()
                if request == RENEWAL:
                    slow = sandbox.faults.add(Delay(0.3), method="GET", times=None)
                boundary = request.meet(sandbox, fault)
                identity = insert()
                boundary.wait_reached()
                watcher.kill()
                sandbox.faults.remove(boundary)
                if request == RENEWAL:
                    sandbox.faults.remove(slow)
                watcher = start()
                look(person.wait_for(identity, end), request, when)
        watcher.stop()
    return requests


def test_a_row_that_is_published(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    photos = [person.upload(photo) for photo in PHOTOS]

    def look(row: Row, request: Request, when: str) -> None:
        audit(stage, row, PHOTOS)
        assert list(stage.names().values()).count(row["id"]) == 1
        ended = outcomes(stage, row["id"])
        if request in {CLAIM, RENEWAL} or (when == "after" and "complete" in request.route):
            assert ended in (["published"], ["crashed", "published"])  # as the case may be
        else:
            assert ended == ["crashed", "published"]

    requests = kill_everywhere(
        stage, person, insert=lambda: person.insert("Ada", photos), end="published", look=look
    )
    assert len(requests) >= 9, requests


def test_a_row_that_fails_for_good(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    photos = [person.upload(photo) for photo in PHOTOS]
    sandbox.faults.add(Answer(400, {"error": "No."}), **at("commit"), times=None)

    def look(row: Row, request: Request, when: str) -> None:
        assert row["error_code"] == "hub_refused"
        [name] = [name for name, identity in stage.names().items() if identity == row["id"]]
        assert row["model_id"] == name
        assert not stage.api.repo_exists(name)
        assert outcomes(stage, row["id"])[-1] == "failed"
        assert len(outcomes(stage, row["id"])) <= 2

    requests = kill_everywhere(
        stage, person, insert=lambda: person.insert("Ada", photos), end="failed", look=look
    )
    assert "/api/repos/delete" in {request.route for request in requests}


def test_a_row_whose_budget_is_spent(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    photos = [person.upload(photo) for photo in PHOTOS]

    def insert() -> str:
        """A row with a repo that is empty, and nothing left but to look at it."""
        identity, seconds = str(uuid4()), len(stage.rows)
        repo = f"{stage.namespace}/identity-spent-{seconds}"
        sandbox.hub.store.create("models", repo, stage.namespace, {".gitattributes": b""}, private=True)
        stage.rows.append(identity)
        with psycopg.connect(stage.settings["SUPABASE_DB_URL"]) as connection:
            connection.execute(
                "insert into public.trained_identities (id, user_id, identity_name, image_paths, model_id) "
                "values (%s, %s, 'Ada', %s, %s)",
                [identity, person.id, photos, repo],
            )
            connection.execute(
                "insert into watcher.names values (%s, %s, 'spent', %s, %s)",
                [repo, stage.namespace, seconds, identity],
            )
            connection.execute("update watcher.work set spent = 8 where identity_id = %s", [identity])
        return identity

    def look(row: Row, request: Request, when: str) -> None:
        assert row["error_code"] == "attempts_exhausted"
        if stage.api.repo_exists(row["model_id"]):
            # Its last look was killed too, before the repo was deleted. What is left is empty, and named.
            assert (request, when) != (CLAIM, "before")
            assert "fail" not in request.route
            assert ("delete" in request.route) <= (when == "before")
            assert outcomes(stage, row["id"]) == ["crashed"]
            assert len(stage.api.list_repo_commits(row["model_id"])) == 1

    requests = kill_everywhere(stage, person, insert=insert, end="failed", look=look)
    assert [request.route.rsplit("/", 1)[1] for request in requests] == [
        "watcher_claim", "delete", "watcher_fail", "watcher_renew",
    ]  # fmt: skip
