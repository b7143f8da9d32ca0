"""Trainings in a test's database: switched on, asked for, started, and led to their ends by the verbs."""

from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from tests.support.database import Database, Row, Worker

PRICE = 0.03
"""US dollars a minute, as l40sx1 costs."""
WORST = 2.1
"""What a training may cost at most: 60 minutes and ten, at that price."""


def switch_on(database: Database, **settings: Any) -> Any:
    """Switch trainings on, for 5 dollars a day unless told otherwise."""
    return Worker(database).call(
        "set_training", settings=Jsonb({"enabled": True, "usd_a_day": 5, **settings})
    )


def published(database: Database, user: UUID | None = None, **more: Any) -> UUID:
    """Insert a row and publish it."""
    identity = database.insert(user or database.user(), **more)
    worker = Worker(database, "publisher")
    [attempt] = [claim["attempt"] for claim in worker.claim(64) if claim["identity_id"] == str(identity)]
    assert worker.complete(attempt) == "done"
    return identity


def ask(database: Database, identity: UUID, *, train: bool = True) -> bool:
    """Ask for a training as the row's user does, or withdraw it; whether the row could be changed."""
    user = database.row(identity)["user_id"]
    query = "update public.trained_identities set train = %s where id = %s returning id"
    return bool(database.run(query, [train, identity], role="authenticated", user=user))


def asked(database: Database, user: UUID | None = None, **more: Any) -> UUID:
    """Publish a row that is to be trained."""
    return published(database, user, train=True, **more)


class Trainer(Worker):
    """A worker that trains."""

    def take(self, identity: UUID | None = None, holding: list[int] | None = None) -> int:
        """Claim a training, that of the row if one is given, and leave the others; the attempt's number."""
        claims = self.claim({"train": 64 if identity else 1}, holding or [])
        others = [one for one in claims if identity is not None and one["identity_id"] != str(identity)]
        for other in others:
            self.release(other["attempt"], cause="outage")
        [attempt] = [one["attempt"] for one in claims if one not in others]
        assert isinstance(attempt, int)
        return attempt

    def start(self, attempt: int, price: float | None = PRICE) -> Any:
        return self.call(
            "training_start",
            attempt=attempt,
            namespace="acme",
            usd_per_minute=None if price is None else str(price),
        )

    def job(self, attempt: int, job: str = "job1", stage: str = "SCHEDULING", **more: Any) -> Any:
        url = f"https://hub/jobs/acme/{job}"
        return self.call("training_job", attempt=attempt, job=job, url=url, stage=stage, **more)

    def look_later(self, attempt: int, seconds: float = 3600, **more: Any) -> Any:
        """Wait as the trainer does while a job is there."""
        arguments = {
            "seconds": seconds,
            "within_seconds": 8 * 3600,
            "answered": True,
            "code": "training_timed_out",
        }
        return self.call(
            "wait", attempt=attempt, reason="The job runs.", message="Too long.", **{**arguments, **more}
        )  # fmt: skip

    def ended(
        self, attempt: int, stage: str = "COMPLETED", billed: float | None = 600, running: float = 540
    ) -> Any:
        return self.call(
            "training_ended", attempt=attempt, stage=stage, billed_seconds=billed, running_seconds=running
        )  # fmt: skip

    def trained(self, attempt: int, samples: list[str] | None = None, commit: str = "beef") -> Any:
        return self.call(
            "trained", attempt=attempt, commit_sha=commit, sample_paths=samples or [], answered=True
        )  # fmt: skip

    def follow(self, *running: tuple[str, str, str]) -> Any:
        """List the jobs that run, each (label, job, stage), when that is due next."""
        self.database.pass_time(15)
        attempt = self.claim_one(kind="follow")
        return self.followed(attempt, *running)

    def followed(self, attempt: int, *running: tuple[str, str, str]) -> Any:
        jobs = [dict(zip(("label", "job", "stage"), one, strict=True)) for one in running]
        return self.call("followed", attempt=attempt, running=Jsonb(jobs))

    def postpone(self, attempt: int, because: str) -> Any:
        return self.call("training_postpone", attempt=attempt, because=because)


def training(database: Database, identity: UUID) -> Row:
    """Return the newest training of a row, nothing if there is none."""
    query = "select * from watcher.trainings where identity_id = %s order by number desc limit 1"
    rows = database.run(query, [identity])
    return rows[0] if rows else {}


def costs(database: Database) -> tuple[float, float]:
    """What today's trainings have cost, and what is reserved; US dollars. What a test has moved into yesterday counts."""
    today = "date_trunc('day', now(), 'UTC')"
    database.overwrite(
        f"update watcher.trainings set started_at = {today}"
        f" where started_at < {today} and started_at > now() - interval '1 hour'"
    )
    [row] = database.run("select * from watcher.training_costs()")
    return float(row["spent"]), float(row["reserved"])


def running(database: Database, user: UUID | None = None, job: str | None = "job1", **more: Any) -> UUID:
    """Return a row whose training runs, with a job unless that is None, and whose attempt waits."""
    identity = asked(database, user, **more)
    trainer = Trainer(database, "trainer")
    attempt = trainer.take(identity)
    assert trainer.start(attempt)["result"] == "started"
    if job is not None:
        assert trainer.job(attempt, job, "RUNNING") == "done"
    assert trainer.look_later(attempt) == "waited"
    return identity


def due(database: Database, identity: UUID) -> None:
    """Make a row's training due, as what happened to its job would."""
    database.run(
        "update watcher.work set turn_at = now(), next_at = null where kind = 'train' and identity_id = %s",
        [identity],
    )


def ready(database: Database, user: UUID | None = None, samples: int = 0, **more: Any) -> UUID:
    """Return a row that was trained, with so many pictures in the bucket."""
    identity = running(database, user, **more)
    due(database, identity)
    trainer = Trainer(database, "trainer")
    attempt = trainer.take(identity)
    assert trainer.ended(attempt) == "done"
    assert trainer.trained(attempt, store_samples(database, identity, samples)) == "done"
    return identity


def store_samples(database: Database, identity: UUID, count: int, folder: str | None = None) -> list[str]:
    """Put so many pictures into the user's folder, as the daemon does; their keys."""
    owner = database.row(identity)["user_id"]
    folder = folder or training(database, identity)["label"]
    keys = [f"{owner}/{identity}/{folder}/{number}.png" for number in range(1, count + 1)]
    database.run(
        "insert into storage.objects (bucket_id, name) select 'identity-samples', unnest(%s::text[])",
        [keys],
        role="supabase_admin",
    )
    return keys
