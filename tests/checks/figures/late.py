"""Requests that are processed after their sender has died and others have gone on: each one that changes something."""

from tests.acceptance.boundaries import COMMIT, LATE, Request, kill_everywhere
from tests.acceptance.person import Row
from tests.acceptance.places import at
from tests.acceptance.repo import audit, orphans
from watcher.sandbox.faults import Answer, Rule

from .figure import Figure, Measured, Numbers
from .scene import Scene, scene


def _late() -> Measured:
    with scene() as here:
        numbers: Numbers = {"published": _published(here), "retried": _retried(here)}
    wrong = [sentence for one in numbers.values() for sentence in one["wrong"]]
    return Measured(
        not wrong,
        f"{numbers['published']['boundaries']} boundaries of a row that is published, {numbers['retried']['boundaries']} of "
        f"one that fails and is retried; wrong: {'; '.join(wrong) or 'none'}",
        numbers,
    )


class _Look:
    """Compares a row with the Hub once what was late has been done, and notes what is wrong."""

    def __init__(self, here: Scene) -> None:
        self._here = here
        self.wrong: list[str] = []

    def __call__(self, row: Row, request: Request, when: str) -> None:
        stage = self._here.stage
        try:
            assert self._here.person.row(row["id"]) == row, "the row has changed"
            audit(stage, row)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is what was to be found)
            self.wrong.append(f"{request.route} late: {error}")
        self.wrong += [f"{request.route} late: orphan {repo}" for repo in orphans(stage)]


def _published(here: Scene) -> Numbers:
    look = _Look(here)
    requests = kill_everywhere(
        here.stage,
        here.person,
        insert=lambda: here.person.insert("Ada", here.paths),
        end="published",
        look=look,
        faults=LATE,
    )
    return {"boundaries": len(requests), "wrong": look.wrong}


def _retried(here: Scene) -> Numbers:
    """The row fails while the request is on its way, is retried under another name, and published."""
    look = _Look(here)
    refusals: list[Rule] = []

    def insert() -> str:
        refusals.append(here.sandbox.faults.add(Answer(400, {"error": "No."}), **at("commit"), times=None))
        return here.person.insert("Ada", here.paths)

    def retry(row: Row) -> Row:
        here.sandbox.faults.remove(refusals.pop())
        here.person.retry(row["id"])
        return here.person.wait_for(row["id"], "published")

    requests = kill_everywhere(
        here.stage,
        here.person,
        insert=insert,
        end="failed",
        then=retry,
        look=look,
        faults=LATE,
        also=[COMMIT],
    )
    return {"boundaries": len(requests), "wrong": look.wrong}


FIGURES = [
    Figure(
        "late",
        "each request late while the daemon dies and the row goes on: nothing lost, doubled or left, no repo destroyed",
        _late,
    )
]
