"""A daemon that is killed before, after or during any request of a row that changes something, and started again.

Which requests those are is learned from a clean run, so a new side effect is covered without anybody remembering.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product

from tests.acceptance.person import Person, Row
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage, unique
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Delay, Hang, Hold, Late, Rule
from watcher.sandbox.faults.traffic import Seen, route

# One row at a time: then what is claimed comes before the row or after it.
SETTINGS = {"WATCHER_SLOTS": "1", "WATCHER_RENEWAL": "0.1", "WATCHER_POLL_ALIVE": "1"}
# Said by the Hub in answer: where files should come to, and what it thinks of a model card. Nothing is left.
HARMLESS = {
    "/{repo}.git/info/lfs/objects/batch",
    "/api/validate-yaml",
}
# By the first of the two a request is never done, by the second its answer never comes.
FAULTS: dict[str, Hang | Hold] = {"before": Hang(), "after": Hold("after")}
# It is done when the row has come to its end, as if it had been on its way all that time.
LATE = {"late": Late(None, "hang")}


@dataclass(frozen=True)
class Request:
    """Of the requests of one row that look alike, the `nth`, from 0."""

    service: str
    method: str
    route: str
    nth: int = 0

    def meet(self, sandbox: Sandbox, fault: Hang | Hold | Late) -> Rule:
        parts = [
            part if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", self.route)
        ]
        path = re.sub(r"\{\w+\}", ".+", "".join(parts).replace("{repo}", "[^/]+/[^/]+"))
        return sandbox.faults.add(
            fault, service=self.service, method=self.method, path=f"^{path}$", skip=self.nth
        )


CLAIM = Request("rest", "POST", "/rest/v1/rpc/watcher_claim")
# Beside the row and not on its way: how often they come is a matter of time.
RENEWAL = Request("rest", "POST", "/rest/v1/rpc/watcher_renew")
SWEEP = Request("rest", "POST", "/rest/v1/rpc/watcher_sweep")
COMMIT = Request("hub", "POST", "/api/models/{repo}/commit/{revision}")


def learned(log: list[Seen]) -> list[Request]:
    """The requests of one row that changed something, in their order."""
    alike: Counter[Request] = Counter()
    requests = []
    for seen in log:
        kind = Request(seen.service, seen.method, route(seen.path))
        if kind in {CLAIM, RENEWAL, SWEEP} or kind.route in HARMLESS:
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
    then: Callable[[Row], Row] = lambda row: row,
    look: Callable[[Row, Request, str], None],
    faults: Mapping[str, Hang | Hold | Late] = FAULTS,
    also: Sequence[Request] = (),
) -> list[Request]:
    """Kill a daemon at every boundary of a row that is inserted anew each time, and audit; the requests.

    Whoever goes on with a row after a kill is the one that is killed at the next boundary. `then` is what happens to the
    row after its end, and before what is late is done; `also` are requests that a clean run does not show.
    """
    sandbox = stage.sandbox
    assert sandbox is not None
    instance = unique("boundary")
    with ExitStack() as daemons:

        def start() -> Watcher:
            return daemons.enter_context(Watcher(stage, instance, **SETTINGS))

        watcher = start().ready()
        sandbox.faults.reset()
        row = person.wait_for(insert(), end)
        stage.erase_due()
        requests = [*learned(sandbox.faults.log()), *also]
        then(row)
        for request, (when, fault) in product(requests, faults.items()):
            with told(request, when):
                watcher.ready()
                if request == RENEWAL:
                    slow = sandbox.faults.add(Delay(0.3), method="GET", times=None)
                boundary = request.meet(sandbox, fault)
                identity = insert()
                boundary.wait_reached()
                watcher.kill()
                if when != "late":
                    sandbox.faults.remove(boundary)
                if request == RENEWAL:
                    sandbox.faults.remove(slow)
                watcher = start()
                row = then(person.wait_for(identity, end))
                if when == "late":
                    sandbox.faults.remove(boundary)
                    boundary.wait_finished()
                stage.erase_due()
                look(row, request, when)
        watcher.stop()
    return requests
