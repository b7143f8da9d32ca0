"""A training: one job, followed, its weights seen in the repo; what can go wrong, and what it then costs and says."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from tests.support.deprecations import CONTENT
from tests.support.scene import Scene, carry
from tests.support.trainings import PRICE, ask, costs, due, switch_on, training
from tests.support.waiting import until
from watcher.engine.attempt import Attempts
from watcher.errors import Outage
from watcher.sandbox.faults import Answer, LoseAnswer
from watcher.sandbox.hub.jobs.job import Job
from watcher.supabase.verbs import Verbs

pytestmark = CONTENT


@pytest.fixture
async def identity(scene: Scene, verbs: Verbs, attempts: Attempts) -> UUID:
    """A published row, to be trained; trainings are switched on, and the programs of jobs run."""
    switch_on(scene.database, usd_a_day=10, minutes=30)
    identity = scene.insert()
    await carry(attempts, verbs, "publish")
    ask(scene.database, identity)
    return identity


def jobs(scene: Scene) -> list[Job]:
    return scene.sandbox.hub.jobs.all()


async def ended(scene: Scene) -> None:
    await until(lambda: all(job.ended for job in jobs(scene)))


async def train(scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID) -> None:
    """Start a training, and look at it once its job has ended."""
    await carry(attempts, verbs, "train")
    await ended(scene)
    due(scene.database, identity)
    await carry(attempts, verbs, "train")


async def test_a_training_gives_a_row_its_weights_and_first_pictures(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID
) -> None:
    await carry(attempts, verbs, "train")
    row = scene.database.row(identity)
    assert (row["status"], row["train"]) == ("training", True)
    [job] = jobs(scene)
    assert row["training_url"].endswith(f"/jobs/sandbox/{job.id}")
    assert costs(scene.database) == (0, 40 * PRICE)
    await ended(scene)

    due(scene.database, identity)
    await carry(attempts, verbs, "train")
    row = scene.database.row(identity)
    assert (row["status"], row["train"], row["training_error_code"]) == ("ready", False, None)
    assert row["training_commit_sha"] != row["commit_sha"]
    assert [path.rpartition("/")[2] for path in row["sample_paths"]] == [
        f"sample_{number}.png" for number in (1, 2, 3, 4)
    ]
    assert scene.database.outcomes(identity, "train") == ["waited", "trained"]
    assert scene.database.work(identity, "train") == {}
    spent, reserved = costs(scene.database)
    assert reserved == 0
    assert 0 <= spent <= 2 * PRICE


async def test_a_ready_row_is_trained_again(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID
) -> None:
    scene.database.run("insert into watcher.limits (name, value) values ('trainings_per_day', 5)")
    weights = set()
    for _ in range(2):
        ask(scene.database, identity)
        await train(scene, verbs, attempts, identity)
        row = scene.database.row(identity)
        assert (row["status"], row["training_error_code"]) == ("ready", None)
        weights.add(row["training_commit_sha"])
    assert len(weights) == 2


async def test_weights_that_landed_after_their_training_had_failed_stand_in_no_later_ones_way(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID
) -> None:
    scene.database.run("insert into watcher.limits (name, value) values ('trainings_per_day', 5)")
    scene.sandbox.hub.jobs.exit_next(1)
    for expected in ("published", "ready"):
        ask(scene.database, identity)
        await train(scene, verbs, attempts, identity)
        assert scene.database.status(identity) == expected
        commit_by_hand(scene, identity, f"Watcher training: {training(scene.database, identity)['label']}")


@pytest.mark.parametrize("what", ["gone", "changed"])
async def test_a_repo_that_is_not_as_it_was_published_is_not_trained(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID, what: str
) -> None:
    store = scene.sandbox.hub.store
    if what == "gone":
        store.delete(store.repos("models")[0])
    else:
        commit_by_hand(scene, identity, "")
    await carry(attempts, verbs, "train")
    row = scene.database.row(identity)
    assert (row["status"], row["training_error_code"]) == ("published", "training_refused")
    assert jobs(scene) == []


def commit_by_hand(scene: Scene, identity: UUID, message: str) -> None:
    store = scene.sandbox.hub.store
    repo = store.repo("models", scene.database.row(identity)["model_id"])
    assert repo is not None
    store.commit(repo, [], [], title="By hand", message=message, author="x", parent=None)


async def test_nobody_is_named_in_what_the_job_shows(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID
) -> None:
    await carry(attempts, verbs, "train")
    await ended(scene)
    [job] = jobs(scene)
    shown = {**job.spec.environment, "WATCHER_REPO": "", "WATCHER_SCRIPT": ""}
    logged = "\n".join(line for _, line in job.logs)
    user = str(scene.database.row(identity)["user_id"])
    for secret in ("Ada", user, "ohwx", scene.sandbox.hub_token, "portrait"):
        assert secret not in str(shown), secret
        assert secret not in str(job.spec.labels), secret
        assert secret not in logged, secret


@pytest.mark.parametrize("landed", [True, False], ids=["landed", "lost"])
async def test_a_request_that_was_not_answered_is_looked_for_before_the_next(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID, landed: bool
) -> None:
    fault = LoseAnswer() if landed else Answer(503)
    scene.sandbox.faults.add(fault, service="hub", method="POST", path="/api/jobs/sandbox")
    await carry(attempts, verbs, "train")
    assert scene.database.status(identity) == "training"
    assert len(jobs(scene)) == landed
    due(scene.database, identity)
    await carry(attempts, verbs, "train")
    assert len(jobs(scene)) == landed
    if not landed:
        # It may land still: believed to be lost only after a while.
        due(scene.database, identity)
        await carry(attempts, verbs, "train")
        assert jobs(scene) == []
        scene.database.pass_time(160)
        due(scene.database, identity)
        await carry(attempts, verbs, "train")
    [job] = jobs(scene)
    assert training(scene.database, identity)["job"] == job.id


async def test_of_two_jobs_with_one_label_the_older_one_is_the_trainings(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID
) -> None:
    scene.sandbox.hub.jobs.hold_next("RUNNING", times=2)
    scene.sandbox.faults.add(LoseAnswer(), service="hub", method="POST", path="/api/jobs/sandbox")
    scene.sandbox.hub.jobs.lag(600)
    await carry(attempts, verbs, "train")
    scene.database.pass_time(160)
    due(scene.database, identity)
    await carry(attempts, verbs, "train")  # the list lags for longer than it ever should
    older, younger = jobs(scene)
    assert training(scene.database, identity)["job"] == younger.id
    scene.sandbox.hub.jobs.lag(0)
    scene.sandbox.hub.jobs.release()
    await ended(scene)
    assert (older.stage, younger.message) == ("COMPLETED", "Job failed with exit code: 10.")
    for expected in ("training", "ready"):
        due(scene.database, identity)
        await carry(attempts, verbs, "train")
        assert scene.database.status(identity) == expected
    made = training(scene.database, identity)
    assert (made["job"], made["doubled"]) == (older.id, True)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (11, "training_refused"),
        (12, "training_base_refused"),
        (13, "training_refused"),
        (14, "training_refused"),
        (15, "training_out_of_memory"),
        (137, "training_out_of_memory"),
        (16, "training_failed"),
        (17, "training_failed"),
        (1, "training_failed"),
    ],
)
async def test_a_script_that_fails_gives_its_code_and_the_repo_stays_good(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID, code: int, expected: str
) -> None:
    scene.sandbox.hub.jobs.exit_next(code)
    await train(scene, verbs, attempts, identity)
    row = scene.database.row(identity)
    assert (row["status"], row["train"], row["training_error_code"]) == ("published", False, expected)
    assert row["training_error_message"].endswith(".")
    assert costs(scene.database)[1] == 0
    assert scene.database.work(identity, "erase") == {}
    # What the first checks refuse does not use up the user's day.
    counted = 0 if expected in {"training_refused", "training_base_refused"} else 1
    assert scene.database.value("select sum(trainings) from watcher.usage") == counted

    # Asked for again, it succeeds: a second training on the same day.
    scene.database.run("insert into watcher.limits (name, value) values ('trainings_per_day', 5)")
    ask(scene.database, identity)
    await train(scene, verbs, attempts, identity)
    row = scene.database.row(identity)
    assert (row["status"], row["training_error_code"]) == ("ready", None)


@pytest.mark.parametrize(
    ("stage", "message", "expected"),
    [
        ("ERROR", "Job timeout", "training_timed_out"),
        ("COMPLETED", None, "training_left_nothing"),
        ("CANCELED", None, "training_failed"),
        ("DELETED", None, "training_failed"),
        ("gone", None, "training_failed"),
    ],
)
async def test_a_job_that_leaves_no_weights_fails_the_training(
    scene: Scene,
    verbs: Verbs,
    attempts: Attempts,
    identity: UUID,
    stage: Any,
    message: str | None,
    expected: str,
) -> None:
    scene.sandbox.hub.jobs.hold_next("RUNNING")
    await carry(attempts, verbs, "train")
    [job] = jobs(scene)
    await until(lambda: job.stage == "RUNNING")
    if stage == "gone":
        scene.sandbox.hub.jobs.delete(job.id)
    else:
        scene.sandbox.hub.jobs.set_stage(job.id, stage, message)
    due(scene.database, identity)
    await carry(attempts, verbs, "train")
    if stage == "COMPLETED":
        # Its commit may be shown a moment later.
        assert scene.database.status(identity) == "training"
        scene.database.pass_time(60)
        due(scene.database, identity)
        await carry(attempts, verbs, "train")
    row = scene.database.row(identity)
    assert (row["status"], row["training_error_code"]) == ("published", expected)


@pytest.mark.parametrize("status", [402, 403, 401, 404])
async def test_a_hub_that_runs_nobodys_jobs_is_an_outage_and_nothing_is_spent(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID, status: int
) -> None:
    scene.sandbox.faults.add(Answer(status, {"error": "No."}), method="POST", path="/api/jobs/sandbox")
    with pytest.raises(Outage) as outage:
        await carry(attempts, verbs, "train")
    assert outage.value.of_kind
    row = scene.database.row(identity)
    assert (row["status"], row["train"]) == ("published", True)
    assert costs(scene.database) == (0, 0)
    assert scene.database.value("select sum(trainings) from watcher.usage") == 0
    assert scene.database.work(identity, "train")["spent"] == 0


async def test_a_job_that_the_hub_refuses_fails_the_training(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID
) -> None:
    scene.sandbox.faults.add(Answer(400, {"error": "Bad flavor"}), method="POST", path="/api/jobs/sandbox")
    await carry(attempts, verbs, "train")
    row = scene.database.row(identity)
    assert (row["status"], row["training_error_code"]) == ("published", "training_refused")


@pytest.mark.parametrize("stage", ["SCHEDULING", "RUNNING"])
async def test_a_training_that_goes_on_for_too_long_is_ended_and_its_job_cancelled(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID, stage: Any
) -> None:
    scene.sandbox.hub.jobs.set_timing(speed=1e4 if stage == "RUNNING" else 1)
    scene.sandbox.hub.jobs.hold_next(stage)
    await carry(attempts, verbs, "train")
    [job] = jobs(scene)
    await until(lambda: job.stage == stage)
    if stage == "RUNNING":
        await asyncio.sleep(41 * 60 / 1e4)
    else:
        scene.database.pass_time(6 * 3600)
    due(scene.database, identity)
    await carry(attempts, verbs, "train")
    row = scene.database.row(identity)
    assert (row["status"], row["training_error_code"]) == ("published", "training_timed_out")
    assert training(scene.database, identity)["spent_usd"] is None
    await carry(attempts, verbs, "erase")
    assert job.stage == "CANCELED"
    scene.database.pass_time(160)
    while scene.database.work(identity, "erase"):
        await carry(attempts, verbs, "erase")
        scene.database.pass_time(160)
    assert training(scene.database, identity)["spent_usd"] > 0
    assert scene.database.value("select count(*) from watcher.erasures") == 0


async def test_a_deleted_row_cancels_its_job_and_takes_its_pictures_along(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID
) -> None:
    await train(scene, verbs, attempts, identity)
    assert samples(scene) == 4
    scene.database.run("insert into watcher.limits (name, value) values ('trainings_per_day', 5)")
    scene.sandbox.hub.jobs.hold_next("RUNNING")
    ask(scene.database, identity)
    await carry(attempts, verbs, "train")
    job = jobs(scene)[-1]
    scene.database.run("delete from public.trained_identities where id = %s", [identity])
    await carry(attempts, verbs, "erase")
    assert job.stage == "CANCELED"
    assert repos(scene) == 1, "while its job has not ended, a repo stays"
    scene.database.run("update watcher.work set turn_at = now(), next_at = null where kind = 'erase'")
    await carry(attempts, verbs, "erase")
    assert repos(scene) == 0
    assert samples(scene) == 0


def repos(scene: Scene) -> int:
    """How many repos there are, without those of base models."""
    return sum(name.startswith("sandbox/") for name in scene.repos())


def samples(scene: Scene) -> int:
    count = scene.database.value("select count(*) from storage.objects where bucket_id = 'identity-samples'")
    assert isinstance(count, int)
    return count


async def test_what_has_ended_is_found_by_one_list(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID
) -> None:
    scene.sandbox.hub.jobs.hold_next("RUNNING")
    await carry(attempts, verbs, "train")
    [job] = jobs(scene)
    await until(lambda: job.stage == "RUNNING")
    scene.database.run("update watcher.work set turn_at = now(), next_at = null where kind = 'follow'")
    await carry(attempts, verbs, "follow")
    assert scene.database.work(identity, "train")["turn_at"] is None
    assert training(scene.database, identity)["running_since"] is not None
    scene.sandbox.hub.jobs.release()
    await ended(scene)
    scene.database.pass_time(20)
    scene.database.run("update watcher.work set turn_at = now(), next_at = null where kind = 'follow'")
    await carry(attempts, verbs, "follow")
    assert scene.database.work(identity, "train")["turn_at"] is not None
    await carry(attempts, verbs, "train")
    assert scene.database.status(identity) == "ready"
    follower = scene.database.run("select * from watcher.attempts where kind = 'follow'")
    assert follower == []


async def test_a_job_that_belongs_to_no_training_is_cancelled(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID
) -> None:
    scene.sandbox.hub.jobs.hold_next("RUNNING", times=2)
    await carry(attempts, verbs, "train")
    # As where a backup was restored that does not know of the training.
    scene.database.overwrite("update watcher.trainings set label = '99-00000000', job = 'another'")
    scene.database.run("update watcher.work set turn_at = now(), next_at = null where kind = 'follow'")
    await carry(attempts, verbs, "follow")
    await until(lambda: jobs(scene)[0].stage == "CANCELED")


async def test_with_its_attempts_used_up_a_training_fails_and_cancels_its_job(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID
) -> None:
    scene.sandbox.hub.jobs.hold_next("RUNNING")
    await carry(attempts, verbs, "train")
    [job] = jobs(scene)
    scene.sandbox.faults.add(Answer(500), method="GET", path=f"/api/jobs/sandbox/{job.id}", times=None)
    for _ in range(8):
        due(scene.database, identity)
        await carry(attempts, verbs, "train")
    due(scene.database, identity)
    await carry(attempts, verbs, "train")  # the last look
    row = scene.database.row(identity)
    assert (row["status"], row["training_error_code"]) == ("published", "training_failed")
    assert "Gave up after 8 attempts" in row["training_error_message"]
    await carry(attempts, verbs, "erase")
    assert job.stage == "CANCELED"


@pytest.mark.parametrize(
    ("settings", "limit", "because"),
    [({"usd_a_day": 1}, 1, "budget"), ({}, 1, "user")],
)
async def test_a_full_day_waits_until_tomorrow(
    scene: Scene,
    verbs: Verbs,
    attempts: Attempts,
    identity: UUID,
    settings: dict[str, Any],
    limit: int,
    because: str,
) -> None:
    if because == "user":
        scene.database.run(
            "insert into watcher.usage (user_id, hour, trainings) values (%s, date_trunc('hour', now(), 'UTC'), 1)"
            " on conflict (user_id, hour) do update set trainings = 1",
            [scene.database.row(identity)["user_id"]],
        )
    switch_on(scene.database, **{"usd_a_day": 10, **settings})
    await carry(attempts, verbs, "train")
    row = scene.database.row(identity)
    assert (row["status"], row["train"]) == ("published", True)
    assert row["training_waits_until"] == scene.database.value("select watcher.tomorrow()")
    assert jobs(scene) == []
    assert scene.database.work(identity, "train")["spent"] == 0
    assert costs(scene.database) == (0, 0)


async def test_where_the_hub_says_no_exit_code_the_last_line_of_the_log_does(
    scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID
) -> None:
    scene.sandbox.hub.jobs.hold_next("RUNNING")
    await carry(attempts, verbs, "train")
    [job] = jobs(scene)
    await until(lambda: job.stage == "RUNNING")
    job.logs.append((job.created_at, "Exit 15: OutOfMemoryError"))
    scene.sandbox.hub.jobs.set_stage(job.id, "ERROR", "Something went wrong")
    due(scene.database, identity)
    await carry(attempts, verbs, "train")
    assert scene.database.row(identity)["training_error_code"] == "training_out_of_memory"
