"""A short, fixed part of `make chaos`, and the proof that its audit finds what it is there to find."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tqdm import tqdm

from tests.acceptance.stage import Stage
from tests.checks.chaos.fence import Fence
from tests.checks.chaos.record import Exchange
from tests.checks.chaos.report import figures
from tests.checks.chaos.run import play
from tests.checks.chaos.schedule import Event, Schedule, draw
from tests.checks.chaos.users import Register
from tests.support.database import migrate
from tests.support.pictures import png
from watcher.sandbox import Postgres

_TEMPLATE = "template_of_chaos"


@pytest.fixture(autouse=True)
def _no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the thread with which tqdm watches progress bars, which stays for ever."""
    monkeypatch.setattr(tqdm, "monitor_interval", 0)


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """A cluster that may be crashed while other tests use theirs, with a migrated template."""
    with Postgres() as postgres:
        postgres.create(_TEMPLATE)
        migrate(postgres.dsn(_TEMPLATE, "postgres"))
        yield postgres


@pytest.mark.parametrize("seed", [8, 159])
def test_nothing_is_lost_and_nothing_doubled_whatever_happens(own_postgres: Postgres, seed: int) -> None:
    run = play(draw(seed, lasts=4.0), own_postgres, _TEMPLATE)
    assert not run.findings, "\n".join([*run.story, *run.findings])
    assert run.rows == sum(run.verdict.ended.values()) > 0
    assert run.kills
    assert run.met


def test_each_training_has_one_job_and_its_weights_whatever_happens(own_postgres: Postgres) -> None:
    lost = {"action": "LoseAnswer", "options": {}, "place": "run job", "times": 2, "skip": 0}
    ambush = {"place": "trained", "when": "after", "skip": 0, "freeze": 0, "late": 0}
    schedule = dataclasses.replace(
        _calm(4, train=True),
        lasts=6.0,
        slots=(2, 2),
        acts=(Event(0.5, "delete_training", {"row": 3, "with_job": True}),),
        harms=(
            Event(0.0, "lag_lists", {"seconds": 1.5, "lasts": 6.0}),
            Event(0.0, "exit_jobs", {"code": 15, "many": 1}),
            Event(0.1, "fault", lost),
            Event(0.1, "ambush", ambush),
        ),
    )
    run = play(schedule, own_postgres, _TEMPLATE)
    assert not run.findings, "\n".join([*run.story, *run.findings])
    trainings = run.verdict.trainings
    assert trainings.jobs == trainings.ended.total() > 1
    assert trainings.ended["ready"]


def test_the_audit_finds_what_is_lost_doubled_or_nobodys(own_postgres: Postgres) -> None:
    damaged: dict[str, str] = {}

    def damage(stage: Stage, register: Register) -> None:
        assert stage.sandbox is not None
        store = stage.sandbox.hub.store
        for repo, kind in zip(store.repos("models"), ("image", "commit", "public", "deleted"), strict=True):
            damaged[kind] = repo.name
            match kind:
                case "image":
                    image = next(
                        path for path in store.files(repo, store.head(repo).oid) if "image_002" in path
                    )
                    message = store.head(repo).message
                    other = store.bytes.put_blob(repo.id, image, b"other bytes")
                    store.commit(repo, [other], [], title="Again", message=message, author="x", parent=None)
                case "commit":
                    store.commit(repo, [], [], title="Again", message="", author="x", parent=None)
                case "public":
                    store.set_private(repo, private=False)
                case "deleted":
                    store.delete(repo)
        # One is named by nobody, one is the second of a row that is published.
        for name in ("nobody", "left"):
            stage.api.create_repo(f"{stage.namespace}/identity-{name}-1", private=True)
        stage.sql(
            "insert into watcher.names (model_id, namespace, slug, seconds, identity_id) "
            "values ('sandbox/identity-left-1', 'sandbox', 'left', 1, %s)",
            next(iter(register.rows)),
        )

    run = play(_calm(4), own_postgres, _TEMPLATE, before_audit=damage)
    assert run.verdict.ended == {"published": 4}
    assert sorted(run.verdict.orphans) == ["sandbox/identity-left-1", "sandbox/identity-nobody-1"]
    doubled, lost = "\n".join(run.verdict.doubled), "\n".join(run.verdict.lost)
    assert damaged["image"] in doubled
    assert damaged["commit"] in doubled
    assert "has commit" in lost
    assert f"{damaged['public']} is public" in lost
    [without_repo] = run.verdict.without_repo
    assert damaged["deleted"] in without_repo
    told = json.loads(figures([run]))
    assert (told["lost"], told["doubled"], told["orphan_repos"]) == (2, 2, 2)
    assert told["published_without_repo"] == 1
    assert told["seed_of_first_failure"] == run.seed


def test_the_audit_finds_trainings_that_are_doubled_without_weights_stuck_or_over_the_budget(
    own_postgres: Postgres,
) -> None:
    damaged: dict[str, str] = {}

    def damage(stage: Stage, register: Register) -> None:
        assert stage.sandbox is not None
        rows: Any = stage.admin.table("trained_identities").select("*").order("created_at").execute().data
        first, second, third = rows
        damaged.update(weights=first["id"], sample=second["sample_paths"][2])
        stage.sql(
            "update public.trained_identities set training_commit_sha = commit_sha where id = %s", first["id"]
        )
        stage.admin.storage.from_("identity-samples").remove([damaged["sample"]])
        nobodys = f"{third['user_id']}/{damaged['weights'][::-1]}/1-a/sample_1.png"
        stage.admin.storage.from_("identity-samples").upload(nobodys, png(1), {"content-type": "image/png"})
        # Three jobs of one training: one went on beside another, and one gave way.
        one, beside, gave_way = stage.sandbox.hub.jobs.all()
        beside.spec = gave_way.spec = one.spec
        gave_way.logs.clear()
        one.stage = "RUNNING"
        damaged["label"] = one.spec.labels["training"]
        stage.sql("update watcher.trainings set spent_usd = null where identity_id = %s", third["id"])
        stage.sql("update watcher.training_settings set usd_a_day = 0.08")

    run = play(_calm(3, train=True), own_postgres, _TEMPLATE, before_audit=damage)
    found = run.verdict.trainings
    assert found.ended == {"ready": 3}
    assert found.jobs == 3
    [doubled] = found.doubled
    assert f"training {damaged['label']} went on in 2 jobs" in doubled
    assert [wrong.partition(" ")[0] for wrong in found.without_weights].count(damaged["weights"]) == 1
    assert any(damaged["sample"] in wrong for wrong in found.without_weights)
    stuck = "\n".join(found.stuck)
    assert "is still RUNNING" in stuck
    assert "is not settled" in stuck
    assert len(found.overspent) == 2
    assert len(found.unerased) == 1
    told = json.loads(figures([run]))
    assert {name: told[name] for name in _TRAINING_FIGURES} == {
        "jobs_doubled": 1,
        "ready_without_weights": 2,
        "training_stuck": 2,
        "overspent": 2,
    }
    assert told["seed_of_first_failure"] == run.seed


_TRAINING_FIGURES = ("jobs_doubled", "ready_without_weights", "training_stuck", "overspent")


def test_a_schedule_is_a_function_of_its_seed() -> None:
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def _exchange(began: float, name: str, answer: Any, **asked: Any) -> Exchange:
    request = {f"p_{key}": value for key, value in asked.items()}
    return Exchange(
        began, name, "", began + 0.1, 200, json.dumps(request).encode(), json.dumps(answer).encode()
    )


def _claim(began: float, attempt: int, instance: str, kind: str = "publish") -> Exchange:
    return _exchange(
        began,
        "claim",
        {"claims": [{"attempt": attempt, "kind": kind, "identity_id": "row"}]},
        instance=instance,
    )


@pytest.mark.parametrize(
    ("name", "answer", "asked"),
    [
        ("complete", "done", {"attempt": 1}),
        ("fail", "done", {"attempt": 1}),
        ("defer", "done", {"attempt": 1}),
        ("trained", "done", {"attempt": 1}),
        ("training_start", {"result": "started", "label": "1-a"}, {"attempt": 1}),
        ("training_job", "done", {"attempt": 1}),
        ("training_postpone", "done", {"attempt": 1}),
        ("reserve", "me/identity-ada-1", {"attempt": 1}),
        ("renew", {"held": [1], "busy": []}, {"progress": {"1": {}}}),
    ],
)
def test_a_write_accepted_from_an_attempt_that_was_replaced_is_found(
    name: str, answer: Any, asked: dict[str, Any]
) -> None:
    claims = [_claim(1, 1, "a"), _claim(5, 2, "b")]
    late = _exchange(6, name, answer, **asked)
    assert len(Fence([*claims, late]).stale_writes({1: "crashed", 2: "published"})) == 1
    in_time = dataclasses.replace(late, began=3, ended=3.1)
    assert not Fence([claims[0], in_time, claims[1]]).stale_writes({1: "crashed", 2: "published"})


def test_work_of_another_kind_on_the_same_row_replaces_no_attempt() -> None:
    claims = [_claim(1, 1, "a"), _claim(5, 2, "b", kind="erase")]
    done = _exchange(6, "complete", "done", attempt=1)
    assert not Fence([*claims, done]).stale_writes({1: "published"})


def test_the_same_end_said_again_is_no_stale_write() -> None:
    said = [_exchange(at, "fail", "done", attempt=1) for at in (2, 6)]
    assert not Fence([_claim(1, 1, "a"), said[0], _claim(5, 2, "b"), said[1]]).stale_writes({})


def test_a_takeover_is_counted_without_the_time_in_which_nobody_could_claim() -> None:
    fence = Fence([_claim(1, 1, "a"), _claim(9, 2, "b")])
    assert fence.takeovers([(4, "a"), (5, "b")], [(3, 5), (4.5, 6), (8.1, 20)]) == [pytest.approx(2.1)]
    ended = Fence([_claim(1, 1, "a"), _exchange(2, "release", "done", attempt=1), _claim(9, 2, "b")])
    assert ended.takeovers([(4, "a")], []) == []


def _calm(rows: int, *, train: bool = False) -> Schedule:
    """A run in which nothing goes wrong, with money for every training."""
    drawn = draw(1, lasts=1.0)
    fit = tuple(
        dataclasses.replace(row, at=0.1, train=train, pictures=(("jpeg", 1), ("png", 2), ("jpeg", 3)))
        for row in drawn.rows[:rows]
    )
    calm = dataclasses.replace(drawn, rows=fit, acts=(), harms=(), latency=0.0, slots=(4,))
    return dataclasses.replace(calm, usd_a_day=5.0, trainings_a_day=10)
