"""Simulated users: they upload, insert, retry, delete rows and accounts, and repeat a request whose answer is lost."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import httpx
from postgrest.exceptions import APIError
from storage3.exceptions import StorageApiError
from supabase import AuthApiError, AuthError

from tests.acceptance.person import BUCKET, Person
from tests.acceptance.stage import Stage
from tests.checks.chaos.notes import Notes
from tests.checks.chaos.schedule import Event, Row, Schedule
from tests.support.pictures import jpeg, png
from tests.support.waiting import PATIENCE

T = TypeVar("T")
_UNFIT = {"cut", "text"}


def picture(kind: str, seed: int) -> bytes:
    """The bytes of a picture; the kinds `cut` and `text` are not valid images."""
    match kind:
        case "jpeg":
            return jpeg(seed)
        case "png":
            return png(seed)
        case "cut":
            return jpeg(seed)[:-200]
    return b"This is no picture. " * (seed + 1)


@dataclass
class Inserted:
    """A row as its user inserted it."""

    plan: Row
    user: str
    paths: tuple[str, ...] = ()
    deleted: bool = False
    """Its user deleted it or the account."""

    @property
    def fit(self) -> bool:
        """Whether all its images are valid."""
        return not any(kind in _UNFIT for kind, _ in self.plan.pictures)


@dataclass
class Register:
    """All rows ever inserted, by id."""

    rows: dict[str, Inserted] = field(default_factory=dict)


class User:
    """One user: does the schedule's actions one after the other, in a thread."""

    def __init__(
        self, stage: Stage, number: int, schedule: Schedule, register: Register, notes: Notes
    ) -> None:
        self.name = f"user {number}"
        self._thread = threading.Thread(target=self._run, name=self.name)
        self._stage = stage
        rows = self._plans = schedule.rows
        self._register = register
        self._notes = notes
        self._person = Person(stage)
        mine = [Event(row.at, "insert", {"row": at}) for at, row in enumerate(rows) if row.person == number]
        mine += [
            act
            for act in schedule.acts
            if act.how.get("person") == number or ("row" in act.how and rows[act.how["row"]].person == number)
        ]
        self._acts = sorted(mine, key=lambda act: act.at)
        self._left = False

    def start(self) -> None:
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether actions are left to do."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait for the thread, if it was started."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        for act in self._acts:
            time.sleep(max(0.0, self._notes.began + act.at - time.monotonic()))
            if self._left:
                return
            try:
                getattr(self, f"_{act.do}")(**{k: v for k, v in act.how.items() if k != "person"})
            except Exception as error:  # noqa: BLE001  (any error is a finding)
                self._notes.complain(f"{self.name} could not {act.do} {act.how}: {error!r}")

    # The actions.

    def _insert(self, row: int) -> None:
        self._put(self._plans[row])

    def _put(self, plan: Row) -> None:
        folder = f"{self._person.id}/{plan.id}-{plan.at:.3f}"
        paths = []
        for number, one in enumerate(plan.pictures, 1):
            path = f"{folder}/photo {number}.{'png' if one[0] == 'png' else 'jpg'}"
            self._until_done(partial(self._upload, path, picture(*one)))
            paths.append(path)
        new = {"id": plan.id, "identity_name": plan.name, "image_paths": paths, "train": plan.train}
        self._register.rows[plan.id] = Inserted(plan, self._person.id, tuple(paths))
        self._until_done(lambda: self._insert_once(new))
        fit = "valid" if self._register.rows[plan.id].fit else "invalid"
        self._notes.add(self.name, f"has inserted {plan.id}, {len(paths)} images, {fit}")

    def _upload(self, path: str, content: bytes) -> None:
        kind = "image/png" if path.endswith("png") else "image/jpeg"
        try:
            self._person.client.storage.from_(BUCKET).upload(path, content, {"content-type": kind})
        except StorageApiError as error:
            if str(error.status) != "409":  # it exists already: the answer to the first request was lost
                raise

    def _insert_once(self, new: dict[str, Any]) -> None:
        try:
            self._person.table.insert(new).execute()
        except APIError as error:
            # It exists already: the answer to the first request was lost.
            if error.code != "23505" or "trained_identities_pkey" not in str(error.message):
                raise

    def _delete(self, row: int) -> None:
        """Delete a row, also while it is being published."""
        self._delete_row(self._plans[row].id)

    def _delete_row(self, identity: str) -> bool:
        self._until_done(lambda: self._person.delete(identity))
        gone = not self._until_done(lambda: self._person.table.select("id").eq("id", identity).execute().data)
        self._register.rows[identity].deleted = gone
        self._notes.add(self.name, f"deletes {identity}: {'gone' if gone else 'still there'}")
        return gone

    def _insert_again(self, row: int) -> None:
        """Delete a row, and try to insert another one under its id, which must be refused."""
        identity = self._plans[row].id
        if not self._delete_row(identity):
            return
        new = {"id": identity, "identity_name": "Again", "image_paths": self._register.rows[identity].paths}
        try:
            self._until_done(lambda: self._person.table.insert(new).execute())
        except APIError as error:
            if "was deleted; send it under a new id" not in str(error.message):
                raise
        else:
            self._notes.complain(f"{self.name} could insert {identity}, which was deleted")

    def _retry_failed(self) -> None:
        for row in self._until_done(self._person.rows):
            if row["status"] == "failed":
                changed = self._until_done(partial(self._person.retry, row["id"]))
                self._notes.add(self.name, f"retries {row['id']}: {[one['status'] for one in changed]}")

    def _ask(self, row: int) -> None:
        """Ask for a training, which changes nothing where the row is not published yet, or being trained."""
        self._set_train(row, wanted=True)

    def _withdraw(self, row: int) -> None:
        """Withdraw the wish for a training, which changes nothing once that has started."""
        self._set_train(row, wanted=False)

    def _set_train(self, row: int, *, wanted: bool) -> None:
        identity = self._plans[row].id
        change = self._person.table.update({"train": wanted}).eq("id", identity)
        word = "asks for" if wanted else "withdraws"
        try:
            changed = self._until_done(lambda: change.execute().data)
        except APIError as error:
            if error.code != "42501":  # the row has failed: it has to be tried again first
                raise
            self._notes.add(self.name, f"{word} a training of {identity}, which is refused")
            return
        self._notes.add(self.name, f"{word} a training of {identity}: {[one['status'] for one in changed]}")

    def _delete_training(self, row: int, *, with_job: bool = False) -> None:
        """Delete a row while it is trained, if that comes soon; or once its job is known."""
        identity = self._plans[row].id
        give_up = time.monotonic() + 3
        look = self._person.table.select("status", "training_url").eq("id", identity).eq("status", "training")
        if with_job:
            look = look.not_.is_("training_url", "null")
        while time.monotonic() < give_up:
            if self._until_done(lambda: look.execute().data):
                self._delete_row(identity)
                return
            time.sleep(0.2)

    def _leave(self, *, softly: bool) -> None:
        """Delete the account, as the app's server does on the user's behalf."""
        self._until_done(partial(self._delete_account, softly=softly))
        self._left = True
        for inserted in self._register.rows.values():
            if inserted.user == self._person.id:
                inserted.deleted = True
        self._notes.add(self.name, f"is {'softly ' if softly else ''}deleted: {self._person.id}")

    def _delete_account(self, *, softly: bool) -> None:
        try:
            self._stage.admin.auth.admin.delete_user(self._person.id, should_soft_delete=softly)
        except AuthApiError as error:
            if error.status != 404:
                raise

    def _until_done(self, act: Callable[[], T]) -> T:
        """Repeat while a service fails; raises the error at once if the request itself is refused."""
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                return act()
            except (httpx.HTTPError, APIError, StorageApiError, AuthError) as error:
                refused = isinstance(error, APIError) and str(error.code) in {"23514", "42501"}
                if refused or time.monotonic() > give_up:
                    raise
                self._notes.add(self.name, f"tries again: {error!r}"[:200])
                time.sleep(0.3)
