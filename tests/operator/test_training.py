"""The operator's side of trainings: switching them on within a budget, what is shown of them, asking for them again."""

import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from click.testing import Result

from tests.operator.commands import watcher
from tests.support.database import Worker
from tests.support.scene import Scene
from tests.support.trainings import ask
from watcher.errors import Misconfigured, Transient
from watcher.operator.money import Price
from watcher.sandbox.faults import Answer

ON = (
    *("training", "on", "--usd-a-day", "5", "--trainings-per-user-a-day", "2", "--flavor", "l40sx1"),
    *("--minutes", "60", "--base", "black-forest-labs/FLUX.2-klein-base-4B"),
)


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [" ".join(line.split()) for line in result.output.splitlines()]


def asked(scene: Scene, name: str = "Ada") -> UUID:
    """A published row whose user wants it trained."""
    worker = Worker(scene.database)
    identity = scene.insert(name=name)
    worker.complete(worker.claim_one(), answered=True)
    assert ask(scene.database, identity)
    return identity


def started(worker: Worker, job: str = "a1") -> int:
    """Start the one training that is due, and return its attempt."""
    attempt = worker.claim_one(kind="train")
    worker.call("training_start", attempt=attempt, namespace="sandbox", usd_per_minute="0.03")
    url = f"https://hub/jobs/sandbox/{job}"
    worker.call("training_job", attempt=attempt, job=job, url=url, stage="RUNNING")
    return attempt


def failed(scene: Scene, job: str = "a1", code: str = "training_out_of_memory") -> UUID:
    """A row whose training has failed after 90 s."""
    identity, worker = asked(scene), Worker(scene.database)
    attempt = started(worker, job)
    worker.call("training_ended", attempt=attempt, stage="ERROR", billed_seconds=90, running_seconds=90)
    worker.fail(attempt, code, "The training needed more memory.")
    return identity


def posted(scene: Scene, *log: str) -> str:
    """A job on the Hub that has failed, and has printed this."""
    jobs = scene.sandbox.hub.jobs
    jobs.hold_next("RUNNING")
    spec = {
        "command": ["true"], "arguments": [], "environment": {}, "flavor": "l40sx1", "timeoutSeconds": 60,
        "dockerImage": "python", "labels": {},
    }  # fmt: skip
    headers = {"Authorization": f"Bearer {scene.sandbox.hub_token}"}
    url = f"{scene.sandbox.hub_url}/api/jobs/sandbox"
    job = str(scene.http.post(url, json=spec, headers=headers).raise_for_status().json()["id"])
    found = jobs.find(job)
    found.logs[:] = [("2026-11-30T00:00:00.000Z", line) for line in log]
    jobs.set_stage(job, "ERROR", "Job failed with exit code: 1.")
    return job


def settings(scene: Scene) -> dict[str, Any]:
    return scene.database.run("select * from watcher.training_settings")[0]


def test_trainings_are_off_at_first_and_the_prices_are_the_hubs(scene: Scene) -> None:
    shown = lines(watcher(scene, "training"))
    assert shown[0] == "Trainings are off: what users ask for waits until `watcher training on`."
    assert "l40sx1 1x Nvidia L40S $1.80 $2.10 (chosen)" in shown
    assert "Set HF_TOKEN" not in shown
    assert all("l40sx1 1x" not in line for line in lines(watcher(scene, "training", HF_TOKEN=None)))


def test_prices_that_cannot_be_fetched_leave_the_rest_to_be_seen(scene: Scene) -> None:
    scene.sandbox.faults.add(Answer(503), service="hub", times=None)
    shown = lines(watcher(scene, "training"))
    assert shown[0].startswith("Trainings are off")
    assert "The Hub's prices could not be fetched" in shown[-1]


def test_on_says_what_it_has_set(scene: Scene) -> None:
    shown = lines(watcher(scene, *ON))
    assert shown[0] == "Trainings are on: up to $5.00 a day, in UTC, and 2 trainings a day for each user."
    assert "costs at most $2.10" in shown
    assert "licence apache-2.0" in shown
    assert "learning rate as in training_config.json; guides for this model use 0.0001" in shown
    assert "WATCHER_TRAINING_TOKEN" in shown[-1]
    stored = settings(scene)
    assert (stored["enabled"], stored["usd_a_day"], stored["minutes"]) == (True, Decimal(5), 60)
    assert scene.database.value("select watcher.limit_of('trainings_per_day')") == 2


def test_what_is_not_given_stays_and_default_undoes(scene: Scene) -> None:
    own = (
        "--learning-rate",
        "1e-4",
        "--steps",
        "500",
        "--prompt",
        "{trigger} as a knight",
        "--prompt",
        "at sea",
    )
    lines(watcher(scene, *ON, *own))
    shown = json.loads(watcher(scene, "training", "on", "--minutes", "30", "--json").output)
    assert (shown["minutes"], shown["usd_a_day"], shown["learning_rate"], shown["steps"]) == (
        30,
        5,
        0.0001,
        500,
    )
    assert shown["prompts"] == ["{trigger} as a knight", "at sea"]
    assert shown["prices"]["l40sx1"] == {
        "title": "1x Nvidia L40S", "usd_a_minute": "0.03", "usd_at_most": "1.20",
    }  # fmt: skip
    undone = ("--learning-rate", "default", "--steps", "default", "--prompt", "default")
    shown = json.loads(watcher(scene, "training", "on", *undone, "--json").output)
    assert (shown["learning_rate"], shown["steps"], shown["prompts"]) == (None, None, None)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--flavor", "l40sx9"], "The Hub has no machine 'l40sx9': choose one of cpu-basic, "),
        (["--usd-a-day", "2.09"], "can cost $2.10, and $2.09 a day are too little"),
        (["--base", "FLUX"], "is not the id of a model on the Hub"),
        (["--base", "black-forest-labs/FLUX.2-dev"], "does not fit on one GPU"),
        (["--learning-rate", "2"], "'2' is no number from"),
        (["--learning-rate", "nan"], "'nan' is no number from"),
        (["--steps", "1.5"], "'1.5' is no whole number"),
        (["--prompt", "two\nlines"], "Each is one line"),
        (["--prompt", "x"] * 9, "There are at most 8."),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_set(
    scene: Scene, more: list[str], sentence: str
) -> None:
    before = settings(scene)
    ended = watcher(scene, *ON, *more)
    assert ended.exit_code == 2
    assert sentence in " ".join(ended.stderr.split())
    assert settings(scene) == before
    assert scene.database.value("select watcher.limit_of('trainings_per_day')") == 1


def test_on_needs_to_be_told_how_many_dollars_and_a_token(scene: Scene) -> None:
    assert "--usd-a-day 5" in watcher(scene, "training", "on").stderr
    assert isinstance(watcher(scene, *ON, HF_TOKEN=None).exception, Misconfigured)
    scene.sandbox.faults.add(Answer(503), service="hub", times=None)
    assert isinstance(watcher(scene, *ON).exception, Transient)
    assert not settings(scene)["enabled"]


def test_a_model_of_which_nothing_is_known_is_allowed_with_a_caution(scene: Scene) -> None:
    shown = lines(watcher(scene, *ON, "--base", "acme/own"))
    assert any(line.startswith("caution Nothing is known of this model") for line in shown)


def test_off_lets_what_runs_go_on_and_keeps_what_waits(scene: Scene) -> None:
    lines(watcher(scene, *ON))
    asked(scene)
    started(Worker(scene.database))
    asked(scene)
    assert watcher(scene, "training", "off").output == "Trainings are off; 1 still run, and 1 wait.\n"
    assert lines(watcher(scene, "status"))[3] == (
        "Training 1 1 waiting; $0.00 spent and $2.10 reserved of today's $5.00; off"
    )


@pytest.mark.parametrize("minutes", [5, 60, 1440])
def test_what_is_reserved_is_what_the_operator_is_told(scene: Scene, minutes: int) -> None:
    told = Price("", Decimal("0.03")).at_most(minutes)
    assert told == scene.database.value("select watcher.training_reserve(%s, 0.03)", [minutes])


def test_status_and_training_tell_of_money_and_of_what_runs(scene: Scene) -> None:
    assert len(lines(watcher(scene, "status"))) == 4
    lines(watcher(scene, *ON))
    gone = failed(scene)
    running = asked(scene)
    started(Worker(scene.database), "b2")
    asked(scene)
    assert lines(watcher(scene, "status"))[2:5] == [
        "Published 3 in the last 24 hours",
        "Training 1 1 waiting; $0.06 spent and $2.10 reserved of today's $5.00; 1 failed in the last 24 hours",
        "Ready 0 in the last 24 hours",
    ]
    shown = lines(watcher(scene, "training"))
    assert "today $0.06 spent, $2.10 reserved, $5.00 budget" in shown
    [row] = [line for line in shown if line.startswith(str(running))]
    assert "RUNNING" in row
    assert row.endswith("$2.10 b2")
    [row] = [line for line in shown if line.startswith(str(gone))]
    assert row.endswith("failed: training_out_of_memory 2 min $0.06 a1")


def test_status_says_what_is_wrong_with_trainings(scene: Scene) -> None:
    lines(watcher(scene, *ON))
    asked(scene)
    started(Worker(scene.database))
    scene.database.run("update watcher.trainings set doubled = true")
    assert any(
        "1 training of the last 24 hours had more than one job" in line
        for line in lines(watcher(scene, "status"))
    )
    scene.database.pass_time(8 * 3600 + 60)
    shown = lines(watcher(scene, "status"))
    assert "1 training has gone on for longer than a job may wait and run. Run `watcher doctor`." in shown


def test_show_tells_of_a_training_from_the_wish_to_the_pictures(scene: Scene) -> None:
    identity = asked(scene)
    shown = lines(watcher(scene, "show", str(identity)))
    assert "waits until trainings are switched on" in shown
    lines(watcher(scene, *ON))
    worker = Worker(scene.database)
    attempt = started(worker)
    shown = lines(watcher(scene, "show", str(identity)))
    assert "job a1 (RUNNING)" in shown
    assert "its page https://hub/jobs/sandbox/a1" in shown
    assert "cost at most $2.10" in shown
    assert any(line.startswith("status training, published 20") for line in shown)
    worker.call("training_ended", attempt=attempt, stage="COMPLETED", billed_seconds=600, running_seconds=600)
    worker.call("trained", attempt=attempt, commit_sha="c0ffee" * 3, sample_paths=["u/i/1.png", "u/i/2.png"])
    shown = lines(watcher(scene, "show", str(identity)))
    for line in (
        "cost $0.30",
        "weights commit c0ffeec0ffee, after 10 min",
        "pictures u/i/1.png",
        "u/i/2.png",
    ):
        assert line in shown
    assert any(" train " in line and line.endswith(" trained") for line in shown)


def test_show_has_the_last_lines_of_a_failed_job_each_as_one_plain_line_without_secrets(scene: Scene) -> None:
    lines(watcher(scene, *ON))
    token = scene.sandbox.hub_token
    job = posted(
        scene,
        *(f"step {n}" for n in range(30)),
        f"with {token}\x1b[2J",
        "hf_AbCdEfGh0123456789",
        "two\rlines",
    )
    identity = failed(scene, job)
    shown = lines(watcher(scene, "show", str(identity)))
    assert "reason The training needed more memory. (training_out_of_memory)" in shown
    assert f"Once the cause is fixed: watcher replay --trainings {identity}" in shown
    log = shown[shown.index("The last lines of the job's log") + 1 :]
    assert log == [*(f"step {n}" for n in range(13, 30)), "with [secret] [2J", "[secret]", "two lines"]
    assert json.loads(watcher(scene, "show", str(identity), "--json").output)["training_log"] == log


def test_where_the_log_is_not_to_be_had_show_says_how_to_see_it(scene: Scene) -> None:
    lines(watcher(scene, *ON))
    identity = str(failed(scene, "a1"))
    assert lines(watcher(scene, "show", identity))[-1] == "The job has printed nothing, or is gone."
    assert lines(watcher(scene, "show", identity, HF_TOKEN=None))[-1].endswith(
        "hf jobs logs --namespace sandbox a1"
    )
    scene.sandbox.faults.add(Answer(503), service="hub", times=None)
    assert "could not be fetched" in lines(watcher(scene, "show", identity))[-1]


def test_failed_trainings_are_asked_for_again(scene: Scene) -> None:
    lines(watcher(scene, *ON))
    first, second = failed(scene), failed(scene, code="training_refused")
    dry = watcher(scene, "replay", "--trainings", "--dry-run")
    assert dry.output.startswith("Would replay 2 failed trainings: 1 training_")
    assert watcher(scene, "replay", "--trainings").exit_code == 2  # there is no terminal to confirm on
    assert watcher(scene, "replay", "--trainings", "--since", "1h", "--yes").exit_code == 2
    by_code = watcher(scene, "replay", "--trainings", "--code", "training_refused", "--yes", "--json")
    assert json.loads(by_code.output) == {"replayed": 1, "codes": {"training_refused": 1}}
    assert [scene.database.row(row)["train"] for row in (first, second)] == [False, True]
    done = watcher(scene, "replay", "--trainings", str(first), str(second), "--yes")
    assert done.output.splitlines() == [
        "Replayed 1 failed training: 1 training_out_of_memory.",
        "Not found, or not matching: 1 of the 2 given.",
    ]
    assert scene.database.row(first)["training_error_code"] is None
    assert scene.database.work(first, "train")


def test_any_number_of_trainings_is_replayed_in_batches(scene: Scene) -> None:
    lines(watcher(scene, *ON))
    failed(scene)
    scene.database.overwrite(
        "insert into public.trained_identities "
        "select (jsonb_populate_record(t, jsonb_build_object('id', gen_random_uuid()))).* "
        "from public.trained_identities t, generate_series(2, 1200)"
    )
    done = watcher(scene, "replay", "--trainings", "--yes")
    assert done.output == "Replayed 1,200 failed trainings: 1,200 training_out_of_memory.\n"
    assert len(scene.seen("POST", "/rpc/watcher_replay_trainings")) == 2
