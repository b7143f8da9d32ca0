"""How long other users wait beside somebody, compared with what they wait alone."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from statistics import median

from tests.acceptance.person import Person

from .figure import Numbers
from .scene import Scene, until

USERS = 8


class Others:
    """Eight users with three photos each."""

    def __init__(self, here: Scene) -> None:
        self._here = here
        self._people = [Person(here.stage) for _ in range(USERS)]
        self._paths = [person.photos() for person in self._people]

    def publish(self, pause: float = 1.0) -> list[float]:
        """Insert a row of each, one every `pause` seconds; for each, the seconds from its insert to its publication."""
        rows = []
        for person, paths in zip(self._people, self._paths, strict=True):
            rows.append(person.insert("Ada", paths))
            time.sleep(pause)
        self._here.all_become(rows, "published", within=120)
        return [self._seconds(row) for row in rows]

    def _seconds(self, row: str) -> float:
        story = self._here.stage.story(row)
        created, published = (datetime.fromisoformat(story[at]) for at in ("created_at", "published_at"))
        return (published - created).total_seconds()


def compared(alone: list[float], beside: list[float]) -> Numbers:
    """The medians and how often one is in the other."""
    before, after = median(alone), median(beside)
    return {
        "alone": round(before, 2),
        "beside": round(after, 2),
        "longest": round(max(beside), 2),
        "times": round(after / before, 2),
    }


@contextmanager
def again_and_again(act: Callable[[], object], pause: float) -> Iterator[None]:
    """Do something every `pause` seconds, in a thread, until the block ends; what it raises there is not its fault."""
    over = threading.Event()

    def loop() -> None:
        while not over.wait(pause):
            try:
                act()
            except Exception:  # noqa: BLE001  (a refusal is what is measured)
                continue

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def failed(here: Scene, row: str, within: float) -> None:
    """Return when a row has failed, letting time pass for what is deferred."""

    def failed_by_now() -> bool:
        here.fall_due()
        return bool(here.stage.story(row)["status"] == "failed")

    until(failed_by_now, within)
