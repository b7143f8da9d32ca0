"""The Hub's Jobs, asked by the real huggingface_hub and the real `hf` command, and their faults."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from huggingface_hub import HfApi, JobInfo, Volume
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, JobNotFoundError, RepositoryNotFoundError

from tests.sandbox.hubs import Site, served
from tests.sandbox.project import PATIENCE
from watcher.sandbox.absent import Absent
from watcher.sandbox.faults import Late, LoseAnswer

HOUR = 3600


def run(api: HfApi, **more: Any) -> JobInfo:
    """Run a job that has no program here, unless `more` says otherwise."""
    asked: dict[str, Any] = {
        "image": "python:3.12",
        "command": ["python", "-c", "print('hello')"],
        "timeout": HOUR,
        "namespace": "alice",
    }
    return api.run_job(**{**asked, **more})


def inspect(api: HfApi, job: JobInfo) -> JobInfo:
    return api.inspect_job(job_id=job.id, namespace="alice")


def wait(api: HfApi, job: JobInfo, *stages: str) -> JobInfo:
    """Wait for one of the stages."""
    deadline = time.monotonic() + PATIENCE
    while (seen := inspect(api, job)).status.stage not in stages:
        assert time.monotonic() < deadline, seen
        time.sleep(0.01)
    return seen


def listed(api: HfApi, **filters: Any) -> list[str]:
    return [job.id for job in api.list_jobs(namespace="alice", **filters)]


@pytest.fixture
def api(site: Site) -> HfApi:
    """Give Alice's client, of a Hub where no job ends by itself."""
    site.hub.jobs.set_timing(running=None)
    return site.api()


def test_a_job_comes_back_as_it_was_asked_for_without_its_secrets(api: HfApi) -> None:
    api.create_repo("alice/a", private=True)
    volume = Volume(type="model", source="alice/a", revision="main", mount_path="/data")
    made = run(
        api,
        env={"STEPS": "3"},
        secrets={"HF_TOKEN": "hf_alice"},
        flavor="l40sx1",
        labels={"watcher": "abc", "training": "7"},
        volumes=[volume],
    )
    seen = inspect(api, made)
    assert (seen.id, seen.docker_image, seen.environment, seen.flavor, seen.owner.name, seen.retry) == (
        *(made.id, "python:3.12", {"STEPS": "3"}, "l40sx1", "alice", 0),
    )
    names: Any = seen.secrets  # a mapping, says the client
    assert names == ["HF_TOKEN"]
    assert seen.labels is not None
    assert seen.labels.items() >= {"watcher": "abc", "training": "7"}.items()
    assert seen.volumes is not None
    assert [(one.source, one.mount_path, one.read_only) for one in seen.volumes] == [
        ("alice/a", "/data", True)
    ]
    assert seen.url == f"{api.endpoint}/jobs/alice/{made.id}"


def test_a_list_is_filtered_by_labels_and_stages_and_shows_the_newest_first(site: Site, api: HfApi) -> None:
    one, two, three = (run(api, labels={"watcher": "abc", "training": number}).id for number in "112")
    site.hub.jobs.set_stage(two, "COMPLETED")
    assert listed(api) == [three, two, one]
    assert listed(api, labels={"watcher": "abc", "training": "1"}) == [two, one]
    assert listed(api, labels={"watcher": "abc", "training": "1"}, status="COMPLETED") == [two]
    assert listed(api, status=["COMPLETED", "ERROR"]) == [two]
    assert listed(api, labels={"training": "3"}) == []
    assert list(site.api("hf_bob").list_jobs(namespace="bob")) == []


def test_an_unknown_stage_is_refused(api: HfApi) -> None:
    with pytest.raises(BadRequestError, match='"stage" must be one of'):
        listed(api, status="WAITING")


def test_a_long_list_comes_in_pages(hub_client: None, tmp_path: Path) -> None:
    with served(tmp_path / "hub", page_size=2) as site:
        ids = [run(site.api()).id for _ in range(5)]
        site.faults.reset()
        assert listed(site.api()) == ids[::-1]
        assert [one.method for one in site.faults.log()] == ["GET"] * 3


def refusal(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(HfHubHTTPError) as caught:
        call()
    return caught.value.response.status_code, str(caught.value.server_message)


@pytest.mark.parametrize(
    ("token", "namespace", "status"),
    [
        (False, "alice", 401),
        ("hf_revoked", "alice", 401),
        ("hf_alice_read", "alice", 403),
        ("hf_alice_fine", "alice", 403),
        ("hf_alice", "museum", 403),
        ("hf_alice", "bob", 403),
        ("hf_alice", "nobody", 404),
        ("hf_alice_jobs", "alice", 200),
        ("hf_alice", "acme", 200),
    ],
)
def test_the_token_must_be_allowed_to_run_jobs_in_the_namespace(
    site: Site, api: HfApi, token: str | bool, namespace: str, status: int
) -> None:
    if status == 200:
        assert run(site.api(token), namespace=namespace).owner.name == namespace
    else:
        assert refusal(lambda: run(site.api(token), namespace=namespace))[0] == status
        assert site.hub.jobs.all() == []


def test_a_read_only_token_sees_jobs_and_cannot_cancel_them(site: Site, api: HfApi) -> None:
    job = run(api)
    reader = site.api("hf_alice_read")
    assert inspect(reader, job).id == job.id
    assert refusal(lambda: reader.cancel_job(job_id=job.id, namespace="alice"))[0] == 403


def test_without_credit_a_job_is_a_402(site: Site, api: HfApi) -> None:
    site.hub.jobs.take_credit()
    status, sentence = refusal(lambda: run(api))
    assert (status, "credit balance is insufficient" in sentence) == (402, True)
    site.hub.jobs.give_credit()
    run(api)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"flavor": "b300"}, '"flavor" must be one of'),
        ({"command": []}, '"command" must contain'),
        ({"labels": {"model": "alice/identity"}}, "Labels must be"),
        ({"labels": {"training": "7" * 101}}, "Labels must be"),
        ({"env": {"STEPS": 3}}, '"environment" must be'),
        ({"volumes": [Volume(type="model", source="alice/a", mount_path="data")]}, '"mountPath" must be'),
    ],
)
def test_what_the_hub_does_not_understand_is_a_400(api: HfApi, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadRequestError, match=sentence):
        run(api, **wrong)


def test_a_volume_that_the_caller_may_not_read_is_not_found(site: Site, api: HfApi) -> None:
    site.api("hf_bob").create_repo("bob/secret", private=True)
    with pytest.raises(RepositoryNotFoundError):
        run(api, volumes=[Volume(type="model", source="bob/secret", mount_path="/data")])


def test_a_job_that_there_is_not_is_its_own_error(site: Site, api: HfApi) -> None:
    gone = run(api)
    site.hub.jobs.delete(gone.id)
    others = run(site.api("hf_bob"), namespace="bob")
    for job in (gone, others):
        for call in (api.inspect_job, api.cancel_job, lambda **which: list(api.fetch_job_logs(**which))):
            with pytest.raises(JobNotFoundError):
                call(job_id=job.id, namespace="alice")
    assert listed(api) == []


def test_a_job_goes_through_its_stages_by_itself(site: Site, api: HfApi) -> None:
    site.hub.jobs.set_timing(speed=1000, scheduling=100, running=200)
    site.hub.jobs.hold_next("RUNNING")
    job = run(api)
    assert (job.status.stage, job.started_at) == ("SCHEDULING", None)
    wait(api, job, "RUNNING")
    site.hub.jobs.release()
    done = wait(api, job, "COMPLETED")
    assert done.durations is not None
    assert (done.durations.scheduling_secs or 0) >= 100
    assert (done.durations.running_secs or 0) >= 200
    times = [str(time) for time in (done.created_at, done.started_at, done.finished_at)]
    assert times == sorted(times)


def test_a_stage_can_be_set_and_what_has_ended_stays_so(site: Site, api: HfApi) -> None:
    job = run(api)
    for stage in ("UPDATING", "RUNNING"):
        site.hub.jobs.set_stage(job.id, stage, "Waiting for hardware")
        seen = inspect(api, job).status
        assert (seen.stage, seen.message) == (stage, "Waiting for hardware")
    site.hub.jobs.set_stage(job.id, "ERROR", "Node lost")
    site.hub.jobs.set_stage(job.id, "RUNNING")
    assert inspect(api, job).status.stage == "ERROR"
    site.hub.jobs.set_stage(job.id, "DELETED")
    assert inspect(api, job).status.stage == "DELETED"


def test_a_cancelled_job_ends_at_once_or_later(site: Site, api: HfApi) -> None:
    first, second = run(api), run(api)
    api.cancel_job(job_id=first.id, namespace="alice")
    assert inspect(api, first).status.stage == "CANCELED"
    api.cancel_job(job_id=first.id, namespace="alice")
    wait(api, second, "RUNNING")
    site.hub.jobs.set_timing(ending=0.05)
    api.cancel_job(job_id=second.id, namespace="alice")
    assert wait(api, second, "CANCELED").finished_at


def test_a_job_ends_at_its_time_out(site: Site, api: HfApi) -> None:
    site.hub.jobs.set_timing(speed=HOUR * 10)
    done = wait(api, run(api, timeout=HOUR), "ERROR")
    assert done.status.message == "Job timeout"
    assert done.durations is not None
    assert (done.durations.running_secs or 0) >= HOUR


@pytest.mark.parametrize("stage", ["SCHEDULING", "RUNNING"])
def test_a_job_can_be_stuck_beyond_its_time_out(site: Site, api: HfApi, stage: Any) -> None:
    site.hub.jobs.set_timing(speed=1000, running=0.0)
    site.hub.jobs.hold_next(stage)
    stuck, free = run(api, timeout=1), run(api, timeout=1)
    wait(api, free, "COMPLETED")
    assert wait(api, stuck, stage)
    site.hub.jobs.release(stuck.id)
    wait(api, stuck, "COMPLETED")


@pytest.mark.parametrize(
    ("code", "message"),
    [(15, "Job failed with exit code: 15."), (137, "Job failed with exit code: 137. Reason: OOMKilled")],
)
def test_the_exit_code_is_in_the_message_alone(site: Site, api: HfApi, code: int, message: str) -> None:
    site.hub.jobs.set_timing(running=0.0)
    site.hub.jobs.exit_next(code)
    assert wait(api, run(api), "ERROR").status.message == message
    assert wait(api, run(api), "COMPLETED").status.message is None


def test_a_list_can_lag_behind(site: Site, api: HfApi) -> None:
    site.hub.jobs.lag(3600)
    job = run(api)
    assert listed(api) == []
    assert inspect(api, job).id == job.id
    site.hub.jobs.lag(0)
    assert listed(api) == [job.id]


def test_an_answer_can_be_lost_with_the_job_made(site: Site, api: HfApi) -> None:
    site.faults.add(LoseAnswer(), method="POST", path="^/api/jobs/alice$")
    with pytest.raises(httpx2.HTTPError):
        run(api)
    assert len(listed(api)) == 1


def test_a_job_can_be_made_long_after_its_caller_has_gone(site: Site, api: HfApi) -> None:
    late = site.faults.add(Late(None), method="POST", path="^/api/jobs/alice$")
    with pytest.raises(httpx2.HTTPError):
        run(api)
    assert listed(api) == []
    late.release()
    late.wait_finished()
    assert len(listed(api)) == 1


def test_too_many_jobs_are_a_429(site: Site, api: HfApi) -> None:
    site.hub.knobs.exceed("job")
    assert refusal(lambda: run(api))[0] == 429
    run(api)


@pytest.mark.parametrize(
    "more",
    [
        {"expose": [8000]},
        {"ssh": True},
        {"attempts": 2},
        {"image": "hf.co/spaces/alice/s"},
        {"volumes": [Volume(type="bucket", source="alice/b", mount_path="/data")]},
        {"volumes": [Volume(type="model", source="alice/b", mount_path="/data", path="images")]},
    ],
)
def test_what_is_not_imitated_is_refused(api: HfApi, more: dict[str, Any]) -> None:
    assert refusal(lambda: run(api, **more)) == (501, Absent.HUB_JOB_FEATURES.sentence)


def test_a_log_can_be_followed_to_its_end_and_read_from_its_end(site: Site, api: HfApi) -> None:
    job = run(api)
    wait(api, job, "RUNNING")
    one = site.hub.jobs.find(job.id)
    one.logs += [(site.hub.store.now(), f"line {number}") for number in range(5)]
    site.hub.jobs.set_stage(job.id, "COMPLETED")
    assert list(api.fetch_job_logs(job_id=job.id, namespace="alice", follow=True))[-1] == "line 4"
    tail = api.fetch_job_logs(job_id=job.id, namespace="alice", tail=2)
    assert list(tail) == ["line 3", "line 4"]


def test_the_hardware_has_prices(api: HfApi) -> None:
    prices = {one.name: one for one in api.list_jobs_hardware()}
    assert (prices["l40sx1"].unit_cost_micro_usd, prices["l40sx1"].unit_label) == (30_000, "minute")
    accelerator = prices["h200"].accelerator
    assert accelerator is not None
    assert accelerator.vram == "141 GB"
    assert prices["cpu-basic"].accelerator is None


def test_another_process_asks_for_the_same(site: Site, api: HfApi) -> None:
    job = run(api)

    def ask(action: str, **fields: Any) -> int:
        return httpx.post(f"{site.control}/actions/{action}", json=fields).status_code

    assert ask("hub_jobs_set_stage", job=job.id, stage="COMPLETED") == 200
    assert inspect(api, job).status.stage == "COMPLETED"
    assert ask("hub_jobs_set_stage", job="0", stage="COMPLETED") == 400
    assert ask("hub_jobs_set_stage", job=job.id, stage="DONE") == 400
    for wrong in ({"pace": 3}, {"speed": 0}, {"running": -1}, {"ending": "long"}):
        assert ask("hub_jobs_set_timing", **wrong) == 400
    assert ask("hub_jobs_run_as", mode="real") == 400, "Nobody may turn that on from outside."


def test_the_hf_command_lists_shows_and_cancels_jobs(site: Site, api: HfApi, tmp_path: Path) -> None:
    job = run(api, labels={"training": "7"})
    wait(api, job, "RUNNING")
    site.hub.jobs.find(job.id).logs.append((site.hub.store.now(), "a line"))

    def hf(*words: str) -> str:
        environment = {
            "HF_ENDPOINT": site.url,
            "HF_TOKEN": "hf_alice",
            "HF_HOME": str(tmp_path),
            "COLUMNS": "200",
        }
        command = [str(Path(sys.executable).with_name("hf")), "jobs", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert job.id in hf("ps", "--label", "training=7", "--namespace", "alice")
    [shown] = json.loads(hf("inspect", f"alice/{job.id}", "--format", "json"))
    assert (shown["id"], shown["status"]["stage"]) == (job.id, "RUNNING")
    hf("cancel", f"alice/{job.id}")
    assert inspect(api, job).status.stage == "CANCELED"
    assert "a line" in hf("logs", f"alice/{job.id}")
