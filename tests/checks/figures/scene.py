"""A sandbox for one figure, a user who inserts rows, and times by the database's clock."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from tests.acceptance.person import Person
from tests.acceptance.places import at
from tests.acceptance.stage import Stage, opened
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Hold, Rule
from watcher.sandbox.realtime.timing import Timing

Attempt = dict[str, Any]


class Scene:
    """One sandbox with a user. It is used for one figure only, so nothing is cleaned up."""

    def __init__(self, stage: Stage, database: psycopg.Connection[Any]) -> None:
        assert stage.sandbox is not None
        self.stage = stage
        self.sandbox: Sandbox = stage.sandbox
        self.database = database
        self.person = Person(stage)
        self.paths = self.person.photos()

    def now(self) -> datetime:
        """The time by the database's clock."""
        now = self.one("select clock_timestamp()")
        assert isinstance(now, datetime)
        return now

    def one(self, query: str, **parameters: Any) -> Any:
        """The single value that a query returns, run as the superuser."""
        [(value,)] = self.database.execute(query.encode(), parameters).fetchall()
        return value

    def insert(self, count: int = 1, person: Person | None = None) -> list[str]:
        """Insert rows with three photos each, and return their ids."""
        if person is None:
            return [self.person.insert("Ada", self.paths) for _ in range(count)]
        paths = person.photos()
        return [person.insert("Ada", paths) for _ in range(count)]

    def keep(self, place: str, times: int | None = None) -> Rule:
        """Hold every request at a place, or the first `times`, until the rule is removed or released."""
        return self.sandbox.faults.add(Hold("before"), **at(place), times=times)

    def attempts(self, identity: str) -> list[Attempt]:
        """The attempts on a row, with datetimes; none if the row is deleted."""
        story = self.stage.rpc("watcher_story", id=identity) or {"attempts": []}
        for attempt in story["attempts"]:
            for name in ("started_at", "ended_at"):
                attempt[name] = attempt[name] and datetime.fromisoformat(attempt[name])
        attempts: list[Attempt] = story["attempts"]
        return attempts

    def claimed(self, identity: str, number: int = 1, within: float = 30) -> Attempt:
        """Wait for the row's `number`th attempt and return it."""
        until(lambda: len(self.attempts(identity)) >= number, within)
        return self.attempts(identity)[number - 1]

    def waited(self, identity: str) -> float:
        """Seconds from a row's insert to its first claim."""
        created = datetime.fromisoformat(self.stage.story(identity)["created_at"])
        return float((self.attempts(identity)[0]["started_at"] - created).total_seconds())

    def all_become(self, identities: Sequence[str], status: str, within: float = 30) -> None:
        """Return when every row has a status."""
        until(lambda: all(self.stage.story(one)["status"] == status for one in identities), within)

    def fall_due(self) -> None:
        """Make every deferred row due now, so that a figure does not take half an hour."""
        self.database.execute(
            "update public.trained_identities set next_attempt_at = now() where next_attempt_at > now()"
        )


@contextmanager
def scene() -> Iterator[Scene]:
    """A migrated sandbox with one user, and a Realtime with the delays of the real one."""
    with tempfile.TemporaryDirectory(prefix="figures-") as folder, opened(Path(folder), Timing()) as stage:
        assert stage.sandbox is not None, "Figures are measured in the sandbox: unset SUPABASE_URL."
        with psycopg.connect(stage.sandbox.admin_db_url, autocommit=True) as database:
            yield Scene(stage, database)


@contextmanager
def repeating(act: Callable[[], object], pause: Callable[[], float]) -> Iterator[None]:
    """Act in another thread while the block runs, after `pause` seconds each time; then raise what failed there."""
    enough = threading.Event()

    def repeat() -> None:
        while not enough.wait(pause()):
            act()

    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(repeat)
        try:
            yield
        finally:
            enough.set()
    acting.result()


def until(true: Callable[[], object], within: float = 30, pause: float = 0.02) -> float:
    """Look every `pause` seconds until `true` is true; returns the seconds that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within, f"It did not become true within {within} s."
        time.sleep(pause)
    return time.monotonic() - began
