"""Injects the faults of the schedule into services, network and daemons, and removes them all at the end."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import psycopg
from starlette.types import Message

from tests.checks.chaos.agenda import Agenda
from tests.checks.chaos.daemons import Daemons
from tests.checks.chaos.notes import Notes
from tests.checks.chaos.record import ARRIVED
from tests.checks.chaos.schedule import DISABLED, LONGEST_DELAY, NOT_FOUND, PLACES, REFUSED_KEY, Event
from watcher.sandbox import Postgres, Sandbox, faults
from watcher.sandbox.faults import Answer, Delay, Late, Rule
from watcher.sandbox.faults.passage import Gate, Passage
from watcher.sandbox.hub.jobs.job import Job, Stage
from watcher.sandbox.hub.store import Repo

BY_HAND = "Edit .gitattributes by hand"

# Faults at these places can keep daemons from claiming, unless the fault only slows requests down.
_CLAIMING = {"claim", "verbs", "version", "whoami", "hub"}
_SLOWING = {"Rate"}
# Requests that these delay are read first, so that they go on even if their sender is killed.
_DELAYING = {"Delay", "Hold", "Late"}


@dataclass(frozen=True)
class _Met:
    """A fault that records each request that meets it."""

    action: Callable[[Passage], Any]
    place: str
    notes: Notes
    harm: "Harm"

    async def __call__(self, passage: Passage) -> None:
        if self.harm.over:
            await passage.go_on()
            return
        action = self.action
        name = type(action).__name__
        self.harm.met[f"{name} at {self.place}"] += 1
        self.notes.add("fault", f"{action} met by {passage.scope['method']} {passage.scope['path']}")
        began = time.monotonic()
        latest = passage.scope.setdefault(ARRIVED, began) + LONGEST_DELAY
        if name in _DELAYING:
            passage = replace(await _read(passage), gate=_Gate(passage.gate, latest))
        if isinstance(action, Delay):
            action = replace(action, seconds=min(action.seconds, max(0.0, latest - began)))
        self.harm.under_way += 1
        try:
            await action(passage)
        finally:
            self.harm.under_way -= 1
            # A sender that is cut off can send again at once.
            cut = isinstance(action, Late) and action.connection == "cut"
            if self.place in _CLAIMING and name not in _SLOWING and not cut:
                self.notes.hidden.append((began, time.monotonic()))


@dataclass(frozen=True)
class _Gate:
    """A gate that opens by itself at a monotonic time."""

    gate: Gate
    at: float

    def reach(self) -> None:
        self.gate.reach()

    def finish(self) -> None:
        self.gate.finish()

    async def opened(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.gate.opened(), max(0.0, self.at - time.monotonic()))


async def _read(passage: Passage) -> Passage:
    """Read the whole request, so that it no longer depends on its sender."""
    messages = [await passage.receive()]
    while messages[-1].get("more_body", False):
        messages.append(await passage.receive())

    async def receive() -> Message:
        return messages.pop(0) if messages else await passage.receive()

    return replace(passage, receive=receive)


class Harm:
    """All faults of one run. Every public method is the `do` of an event."""

    def __init__(
        self, sandbox: Sandbox, postgres: Postgres, daemons: Daemons, notes: Notes, agenda: Agenda
    ) -> None:
        self._sandbox = sandbox
        self._postgres = postgres
        self._daemons = daemons
        self._notes = notes
        self._agenda = agenda
        self._down_since: float | None = None
        self.over = False
        """Whether all faults have been removed."""
        self.under_way = 0
        """Requests that a fault holds or delays."""
        self.removed: list[Job] = []
        """Jobs that were deleted by hand: the Hub knows them no more."""
        self.met: Counter[str] = Counter()
        """Requests that met a fault, by fault and place, and faults of whole services."""

    def do(self, event: Event) -> None:
        """Do one event, unless all faults have been removed already."""
        if not self.over:
            getattr(self, event.do)(**event.how)

    def heal(self) -> None:
        """Remove all faults. Requests that are late by then are still processed late."""
        if not self.over:
            self._notes.add("harm", "all faults are removed")
        self.over = True
        for rule in self._sandbox.faults.rules():
            if not (isinstance(rule.action, _Met) and isinstance(rule.action.action, Late)):
                self._sandbox.faults.remove(rule)
        self._sandbox.hub.reset()
        self._sandbox.realtime.unmute()
        self._sandbox.realtime.drop_events(0)
        self._sandbox.realtime.refuse(503, times=0)
        self._sandbox.realtime.accept_then_drop(times=0)
        self._up()
        self._daemons.trouble = 0
        self._daemons.heal()

    # The daemons.

    def kill(self, *, daemon: int, again_after: float, moved: bool) -> None:
        self._daemons.kill(daemon, again_after=again_after, moved=moved)

    def freeze(self, *, daemon: int, seconds: float) -> None:
        self._daemons.freeze(daemon, seconds=seconds)

    def stop(self, *, daemon: int, twice: bool, again_after: float) -> None:
        self._daemons.stop(daemon, twice=twice, again_after=again_after)

    def ambush(
        self, *, place: str, when: Literal["before", "after"], skip: int, freeze: float, late: float
    ) -> None:
        """Hold a request at a place until all daemons are killed or frozen, and `late` seconds longer; then release it."""
        rule = self._add(faults.Hold(when), place, times=1, skip=skip)

        def spring() -> None:
            if rule.released:
                return
            if not rule.reached:
                self._agenda.later(0.02, spring)
                return
            self._notes.add("harm", f"ambush {when} {place}")
            if freeze:
                self._daemons.freeze_all(freeze)
            else:
                self._daemons.kill_all()
            self._agenda.later(late, lambda: self._sandbox.faults.remove(rule))

        spring()

    # The network.

    def fault(
        self,
        *,
        action: str,
        options: dict[str, Any],
        place: str,
        times: int | None,
        skip: int,
        lasts: float | None = None,
    ) -> None:
        """Inject a fault, for a number of requests or of seconds."""
        rule = self._add(getattr(faults, action)(**options), place, times=times, skip=skip)
        if lasts is not None:
            self._agenda.later(lasts, lambda: self._sandbox.faults.remove(rule))

    def late_objects(self, *, lasts: float) -> None:
        """Find no objects for a while, as before an uploaded one becomes visible."""
        self._for(lasts, Answer(400, NOT_FOUND), "fetch")

    def refuse_once(self, *, place: str, status: int, sentence: str) -> None:
        self._add(Answer(status, {"error": sentence}, {"X-Error-Message": sentence}), place, times=1, skip=0)

    def refuse_repo(self, *, lasts: float) -> None:
        """Refuse whatever is asked about the newest repo, as the Hub does with one that it has disabled."""
        for repo in self._newest_repo():
            self._service("hub", f"refuses one repo, {repo.name}, for {lasts:.1f} s")
            self._for(lasts, Answer(403, DISABLED), "hub", path=f"/{re.escape(repo.name)}")

    def refuse_photo(self, *, lasts: float) -> None:
        """Refuse the newest photo, as a cache in front of Storage may."""
        newest = "select name from storage.objects where bucket_id = 'identity-images' order by created_at desc limit 1"
        for (path,) in self._sql(newest):
            self._service("storage", f"refuses one photo, {path}, for {lasts:.1f} s")
            self._for(lasts, Answer(403, DISABLED), "fetch", path=f"/{re.escape(path)}$")

    def refuse_key(self, *, lasts: float) -> None:
        self._trouble(lasts)
        self._for(lasts, Answer(401, REFUSED_KEY), "verbs")

    # The Hub.

    def knob(self, *, knob: str, value: Any) -> None:
        self._service("hub", f"{knob} {value}")
        getattr(self._sandbox.hub.knobs, knob)(value)

    def limit_requests(self, *, quota: int, lasts: float) -> None:
        self._service("hub", f"allows {quota} requests a second for {lasts:.1f} s")
        self._sandbox.hub.knobs.limit_requests(quota, 1.0)
        self._agenda.later(lasts, lambda: self._sandbox.hub.knobs.limit_requests(None))

    def regular(self, *, lasts: float) -> None:
        self._service("hub", f"takes images as regular files for {lasts:.1f} s")
        self._sandbox.hub.knobs.images_as("regular")
        self._agenda.later(lasts, lambda: self._sandbox.hub.knobs.images_as("lfs"))

    def limit_storage(self, *, lasts: float) -> None:
        self._service("hub", f"has no storage left for {lasts:.1f} s")
        self._trouble(lasts)
        self._sandbox.hub.knobs.limit_storage(0)
        self._agenda.later(lasts, lambda: self._sandbox.hub.knobs.limit_storage(None))

    def revoke(self, *, lasts: float) -> None:
        self._service("hub", f"has revoked the token for {lasts:.1f} s")
        self._trouble(lasts)
        self._sandbox.hub.access.revoke(self._sandbox.hub_token)
        self._agenda.later(lasts, lambda: self._sandbox.hub.access.restore(self._sandbox.hub_token))

    def take_writing(self, *, lasts: float) -> None:
        self._service("hub", f"lets the token only read for {lasts:.1f} s")
        self._trouble(lasts)
        self._sandbox.hub.access.take_writing(self._sandbox.hub_token)
        self._agenda.later(lasts, lambda: self._sandbox.hub.access.restore(self._sandbox.hub_token))

    def edit_by_hand(self) -> None:
        """A person adds a commit to the newest repo."""
        store = self._sandbox.hub.store
        for repo in self._newest_repo():
            held = store.files(repo, store.head(repo).oid)[".gitattributes"]
            content = store.bytes.content(repo.id, held).read_bytes() + b"*.mine filter=lfs\n"
            file = store.bytes.put_blob(repo.id, ".gitattributes", content)
            store.commit(repo, [file], [], title=BY_HAND, message="", author="somebody", parent=None)
            self._service("hub", f"{repo.name}: {BY_HAND}")

    # Jobs.

    def lag_lists(self, *, seconds: float, lasts: float) -> None:
        """Leave new jobs out of lists for so long."""
        self._service("hub", f"lists jobs {seconds:.1f} s late for {lasts:.1f} s")
        self._sandbox.hub.jobs.lag(seconds)
        self._agenda.later(lasts, lambda: self._sandbox.hub.jobs.lag(0))

    def hold_jobs(self, *, stage: Literal["SCHEDULING", "RUNNING"], many: int, lasts: float) -> None:
        self._service("hub", f"keeps the next {many} jobs in {stage} for {lasts:.1f} s")
        self._sandbox.hub.jobs.hold_next(stage, many)
        self._agenda.later(lasts, self._sandbox.hub.jobs.release)

    def exit_jobs(self, *, code: int, many: int) -> None:
        self._service("hub", f"jobs: the next {many} end with {code}")
        self._sandbox.hub.jobs.exit_next(code, many)

    def take_credit(self, *, lasts: float) -> None:
        self._service("hub", f"has no credit left for {lasts:.1f} s")
        self._sandbox.hub.jobs.take_credit()
        self._agenda.later(lasts, self._sandbox.hub.jobs.give_credit)

    def end_slowly(self, *, seconds: float, lasts: float) -> None:
        """Let cancelled jobs go on for a while."""
        self._service("hub", f"ends cancelled jobs {seconds:.1f} s late for {lasts:.1f} s")
        self._sandbox.hub.jobs.set_timing(ending=seconds)
        self._agenda.later(lasts, lambda: self._sandbox.hub.jobs.set_timing(ending=0.0))

    def end_job(self, *, stage: Stage, newest: bool) -> None:
        """A person cancels or deletes a job that runs, or its time-out ends it.

        One is deleted only once the database knows it: what then remains of it on the Hub, nobody could tell from a job that
        was never made. (The real Hub keeps all jobs.)
        """
        jobs = self._sandbox.hub.jobs
        running = [job for job in jobs.all() if not job.ended]
        if stage == "DELETED":
            known = {job for (job,) in self._sql("select job from watcher.trainings where job is not null")}
            running = [job for job in running if job.id in known]
        for job in running[-1:] if newest else running[:1]:
            self._service("hub", f"job {job.id} is ended: {stage}")
            if stage == "DELETED":
                self.removed.append(job)
                jobs.delete(job.id)
            else:
                jobs.set_stage(job.id, stage, "Job timeout" if stage == "ERROR" else None)

    # Realtime.

    def close_sockets(self, *, code: int) -> None:
        self._service("realtime", f"closes all sockets with {code}")
        self._sandbox.realtime.close_all(code)

    def mute(self, *, lasts: float) -> None:
        self._service("realtime", f"is silent for {lasts:.1f} s")
        self._sandbox.realtime.mute()
        self._agenda.later(lasts, self._sandbox.realtime.unmute)

    def drop_events(self, *, seconds: float) -> None:
        self._service("realtime", f"drops events for {seconds:.1f} s")
        self._sandbox.realtime.drop_events(seconds)

    def refuse_sockets(self, *, status: int, times: int) -> None:
        self._service("realtime", f"refuses {times} handshakes with {status}")
        self._sandbox.realtime.refuse(status, times)
        self._sandbox.realtime.close_all(1006)

    def accept_then_drop(self, *, times: int) -> None:
        self._service("realtime", f"accepts and drops {times} sockets")
        self._sandbox.realtime.accept_then_drop(times)
        self._sandbox.realtime.close_all(1006)

    def system_error(self) -> None:
        self._service("realtime", "sends a system error")
        self._sandbox.realtime.system_error("Something went wrong with the subscription")

    # Postgres.

    def restart_postgres(self) -> None:
        if self._down_since is None:
            self.halt_postgres(lasts=0)

    def halt_postgres(self, *, lasts: float) -> None:
        if self._down_since is not None:
            return
        self._service("postgres", f"crashes and is down for {lasts:.1f} s")
        self._down_since = time.monotonic()
        self._postgres.halt(immediate=True)
        self._agenda.later(lasts, self._up)

    def kill_backends(self) -> None:
        """Terminate all connections."""
        self._service("postgres", "ends all connections")
        self._sql(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
            " and backend_type in ('client backend', 'walsender')"
        )

    def _up(self) -> None:
        if self._down_since is not None:
            self._postgres.start()
            self._notes.add("postgres", "is up again")
            self._notes.hidden.append((self._down_since, time.monotonic()))
            self._down_since = None

    # Not faults, but what an operator does.

    def replay(self) -> None:
        """Replay all failed rows."""
        self._agenda.later(0, self._replay)

    def _replay(self) -> None:
        try:
            with psycopg.connect(self._sandbox.admin_db_url, connect_timeout=2) as connection:
                connection.execute("set role service_role")
                [counts] = connection.execute("select public.watcher_replay()").fetchone() or [None]
            self._notes.add("operator", f"replays all failed rows: {counts}")
        except psycopg.Error as error:
            self._notes.add("operator", f"could not replay: {error}")

    def hurry(self) -> None:
        """Make deferred rows due soon, so that a run does not have to wait minutes."""
        self._sql(
            """
            update public.trained_identities set next_attempt_at = now() + interval '0.2 seconds'
            where id in (select id from public.trained_identities
              where status = 'pending' and next_attempt_at > now() + interval '0.5 seconds' for update skip locked)
            """
        )
        self._hurry_sweep()
        # An erasure too, unless it is the second look at what was erased: that one waits for late requests.
        self._sql(
            """
            update watcher.work set next_at = now() + interval '0.2 seconds'
            where id in (select w.id from watcher.work w
              where w.kind = 'erase' and w.next_at > now() + interval '0.5 seconds' and exists (
                select from watcher.erase_lines l
                where l.identity_id = w.identity_id
                  and (l.gone_at is null and l.due_at <= now() or l.look_again_at <= now()))
              for update skip locked)
            """
        )

        self._hurry_trainings()

    # Helpers.

    def _hurry_trainings(self) -> None:
        """Try again soon what was put off; what waits for its job, for a limit or for a late request goes on waiting."""
        self._sql(
            """
            update watcher.work set next_at = now() + interval '0.2 seconds'
            where id in (select w.id from watcher.work w
              where w.next_at > now() + interval '0.5 seconds' and w.spent > 0
                and (w.kind = 'follow' or w.kind = 'train' and w.last_reason not like 'The job %'
                  and w.last_reason not like 'A request for the job %' and w.last_reason not like '%used up.')
              for update skip locked)
            """
        )

    def _hurry_sweep(self) -> None:
        self._sql(
            """
            update watcher.work set next_at = now() + interval '0.2 seconds'
            where id in (select w.id from watcher.work w
              where w.kind = 'sweep' and w.next_at > now() + interval '1 second' for update skip locked)
            """
        )

    def _newest_repo(self) -> list[Repo]:
        """The newest repo that is not a base model's, if there is one."""
        own = f"{self._sandbox.hub_user}/"
        return [repo for repo in self._sandbox.hub.store.repos("models") if repo.name.startswith(own)][:1]

    def _add(self, action: Any, place: str, *, times: int | None, skip: int, path: str | None = None) -> Rule:
        service, method, everywhere = PLACES[place]
        path = path or everywhere
        met: Any = _Met(action, place, self._notes, self)
        self._notes.add("harm", f"{action} at {place}, times {times}, skip {skip}")
        return self._sandbox.faults.add(
            met,
            service=service,
            method=method,
            path=path,
            times=times,
            skip=skip,
        )

    def _for(self, seconds: float, action: Any, place: str, path: str | None = None) -> None:
        rule = self._add(action, place, times=None, skip=0, path=path)
        self._agenda.later(seconds, lambda: self._sandbox.faults.remove(rule))

    def _service(self, which: str, what: str) -> None:
        self._count(f"{which} {' '.join(word for word in what.split() if word.isalpha())}")
        self._notes.add(which, what)

    def _count(self, what: str) -> None:
        self.met[what] += 1

    def _trouble(self, seconds: float) -> None:
        def over() -> None:
            self._daemons.trouble = max(0, self._daemons.trouble - 1)

        self._daemons.trouble += 1
        self._agenda.later(seconds, over)

    def _sql(self, statement: str) -> list[Any]:
        """Run a statement and return its rows; none if Postgres does not execute it."""
        if self._down_since is not None:
            return []
        try:
            with psycopg.connect(self._sandbox.admin_db_url, connect_timeout=2) as connection:
                cursor = connection.execute(statement.encode())
                return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            self._notes.add("harness", f"Postgres did not execute a statement: {error}")
            return []
