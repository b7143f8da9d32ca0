"""Trainings in any order of users, hosts that die, verbs that come late or twice, an operator, and time.

What must always be so is looked at after every step; in the end one host that works makes everything end. Always the same
walks; with EXAMPLES=500 in the environment so many others.
"""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.database import Database, Worker
from tests.support.trainings import Trainer, ask, published, store_samples, switch_on
from watcher.settings.settings import environment

pytestmark = pytest.mark.postgres

BUDGET = 5
STEPS = 100
# What must never be found.
NEVER = {
    "a training without its row, or a row that is training without one": """
        select n.identity_id, t.id from (select * from watcher.trainings where ended_at is null) n
        full join (select * from public.trained_identities where status = 'training') t on t.id = n.identity_id
        where n.number is null or t.id is null
    """,
    "a training that nothing would take up again": """
        select from public.trained_identities t
        where t.train and t.status in ('published', 'ready', 'training')
          and (t.status = 'training' or (select enabled from watcher.training_settings))
          and not exists (select from watcher.work w where w.identity_id = t.id and w.kind = 'train')
    """,
    "work without a wish": """
        select from watcher.work w where w.kind = 'train'
          and not exists (select from public.trained_identities t where t.id = w.identity_id and t.train)
    """,
    "a job that nobody follows": """
        select from watcher.trainings where ended_at is null and job is not null and job_ended_at is null
          and not exists (select from watcher.work where kind = 'follow')
    """,
    "a job that may run, of a training that is over, and nobody cancels": """
        select from watcher.trainings n where n.ended_at is not null and n.spent_usd is null
          and not exists (select from watcher.erase_lines l where l.name = n.namespace || '/' || n.label)
    """,
    "an attempt that holds nothing": """
        select from watcher.attempts a where a.ended_at is null
          and not exists (select from watcher.work w where w.id = a.work_id)
    """,
}


class Walk:
    """Some users, two hosts and their operator."""

    def __init__(self, database: Database, seed: int) -> None:
        self.database = database
        self.random = Random(seed)
        self.hosts = [Trainer(database, name) for name in ("one", "two")]
        self.users = [database.user() for _ in range(3)]
        self.attempts: list[tuple[int, str]] = []
        """All that there ever were, the newest last."""
        switch_on(database, usd_a_day=BUDGET)
        Worker(database).call("set_limit", name="trainings_per_day", value=2)
        for user in self.users:
            published(database, user, train=True)

    def go(self) -> None:
        steps = {
            self.claim: 6, self.act: 16, self.ask: 4, self.time_passes: 3, self.insert: 2, self.follow: 2, self.erase: 2,
            self.delete: 1, self.operate: 1,
        }  # fmt: skip
        for _ in range(STEPS):
            [step] = self.random.choices([*steps], [*steps.values()])
            step()
            self.look()

    def look(self) -> None:
        for what, query in NEVER.items():
            assert self.database.run(query) == [], what
        [costs] = self.database.run("select spent + reserved as dollars from watcher.training_costs()")
        assert costs["dollars"] <= BUDGET, "More than the day has."

    def a_row(self) -> UUID | None:
        rows = self.database.run("select id from public.trained_identities order by created_at, id")
        return self.random.choice(rows)["id"] if rows else None

    # Users.

    def insert(self) -> None:
        published(self.database, self.random.choice(self.users), train=self.random.random() < 0.7)

    def ask(self) -> None:
        if (row := self.a_row()) is not None:
            ask(self.database, row, train=self.random.random() < 0.7)

    def delete(self) -> None:
        if self.random.random() < 0.2:
            gone = self.users.pop(self.random.randrange(3))
            self.database.delete_account(gone)
            self.users.append(self.database.user())
        elif (row := self.a_row()) is not None:
            self.database.run("delete from public.trained_identities where id = %s", [row])

    # Hosts.

    def claim(self) -> None:
        host = self.random.choice(self.hosts)
        if self.random.random() < 0.3:
            self.hosts.remove(host)
            host = Trainer(self.database, host.instance)
            self.hosts.append(host)
        held = [number for number, _ in self.attempts[-20:]]
        for claim in host.claim({"train": self.random.randint(1, 3)}, held):
            self.attempts.append((claim["attempt"], claim["identity_id"]))

    def act(self) -> None:
        """Do the next thing of a training in the name of its attempt, or anything in the name of any that ever was."""
        random, host = self.random, self.random.choice(self.hosts)
        if not self.attempts:
            return
        holding = (
            "select number, identity_id::text from watcher.attempts where kind = 'train' and ended_at is null"
        )
        held = [
            (row["number"], row["identity_id"]) for row in self.database.run(f"{holding} order by number")
        ]
        number, row = random.choice(held) if held and random.random() < 0.8 else random.choice(self.attempts)
        found = self.database.run(
            "select * from watcher.trainings where identity_id = %s and ended_at is null", [row]
        )
        job = found[0]["label"] if found else "none"
        minutes = random.uniform(-1, 69)
        verbs: dict[str, Callable[[], Any]] = {
            "start": lambda: host.start(number),
            "job": lambda: host.job(number, job, random.choice(["SCHEDULING", "RUNNING"])),
            "wait": lambda: host.look_later(number, random.choice([1, 60, 3600])),
            "ended": lambda: host.ended(number, billed=random.choice([None, minutes * 60])),
            "trained": lambda: self.train(host, number, UUID(row)),
            "intend": lambda: host.call("training_intend", attempt=number),
            "undo": lambda: host.call("training_undo", attempt=number),
            "postpone": lambda: host.postpone(number, random.choice(["user", "budget", "off"])),
            "fail": lambda: host.fail(number, "training_failed", "X."),
            "defer": lambda: host.defer(number),
            "release": lambda: host.release(number, cause=random.choice(["shutdown", "outage", "unsure"])),
        }
        usual = "start" if not found else "job" if found[0]["job"] is None else "ended"
        if found and found[0]["job_ended_at"] is not None:
            usual = "trained"
        chosen = usual if random.random() < 0.6 else random.choice([*verbs])
        first = verbs[chosen]()
        if chosen in {"start", "trained", "fail", "defer", "release"} and random.random() < 0.3:
            assert verbs[chosen]() == first, f"{chosen} was answered otherwise the second time."

    def train(self, host: Trainer, number: int, row: UUID) -> Any:
        there = self.database.run("select from public.trained_identities where id = %s", [row])
        return host.trained(number, store_samples(self.database, row, 1) if there else [])

    def follow(self) -> None:
        self.database.pass_time(15)
        jobs = self.database.run("select label, job from watcher.trainings where job is not null")
        for claim in self.hosts[0].claim({"follow": 1}):
            listed = self.random.sample(jobs, self.random.randint(0, len(jobs)))
            self.hosts[0].followed(
                claim["attempt"], *((one["label"], one["job"], "RUNNING") for one in listed)
            )

    def erase(self) -> None:
        for claim in self.hosts[1].claim({"erase": 8}):
            self.database.unstore([line["name"] for line in claim["details"]["lines"]])
            assert self.hosts[1].erased(claim["attempt"]) == "done"

    # The operator, and time.

    def operate(self) -> None:
        worker = Worker(self.database)
        match self.random.randrange(4):
            case 0:
                worker.call("set_training", settings=Jsonb({"enabled": False}))
                self.ask()
                self.look()
                switch_on(self.database)
                self.database.run("select watcher.find_unqueued('{train}')")
            case 1:
                worker.sweep()
            case 2:
                worker.call("replay_trainings")
            case _:
                by_hand = "update public.trained_identities set status = 'published' where status = 'training' and id = %s"
                with suppress(psycopg.errors.CheckViolation):  # it has weights
                    self.database.run(by_hand, [self.a_row()])

    def time_passes(self) -> None:
        """More often than not, what is held is renewed meanwhile."""
        self.database.pass_time(self.random.choice([3, 21, 61, 200, 1300, 6 * 3600, 86400]))
        if self.random.random() < 0.7:
            held = self.database.run("select number from watcher.attempts where ended_at is null")
            self.hosts[0].renew([row["number"] for row in held])

    def nothing_is_stuck(self) -> None:
        switch_on(self.database, usd_a_day=BUDGET)
        host = Trainer(self.database, "healthy")
        for _ in range(60):
            self.database.pass_time(20000)
            self.erase()
            for claim in host.claim({"train": 64, "follow": 1}):
                self.finish(host, claim)
                self.look()
        assert self.database.run("select from public.trained_identities where train") == []
        assert self.database.run("select kind, last_reason from watcher.work where kind <> 'sweep'") == []
        assert self.database.run("select from watcher.erase_lines") == []
        assert (
            self.database.run("select from watcher.trainings where ended_at is null or spent_usd is null")
            == []
        )

    def finish(self, host: Trainer, claim: Any) -> None:
        attempt = claim["attempt"]
        if claim["kind"] == "follow":
            assert host.followed(attempt)["result"] == "done"
            return
        known = claim["details"]["training"]
        answer = {"result": "started", **known} if known else host.start(attempt)
        if answer["result"] != "started":
            assert host.postpone(attempt, answer["result"]) == "done"
            return
        assert host.job(attempt, (known or {}).get("job") or answer["label"]) == "done"
        assert host.ended(attempt) == "done"
        assert self.train(host, attempt, UUID(claim["identity_id"])) == "done"


@pytest.mark.parametrize("seed", range(int(environment().get("EXAMPLES", "0")) or 5))
def test_whatever_happens_every_training_ends_and_costs_no_more_than_the_day_has(
    database: Database, seed: int
) -> None:
    walk = Walk(database, seed)
    walk.go()
    walk.nothing_is_stuck()
