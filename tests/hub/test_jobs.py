"""Jobs as the daemon uses them: what is told of one, what each error means, and that none is asked for twice."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from tests.support.scene import Scene
from tests.support.waiting import PATIENCE
from watcher.errors import Misconfigured, Outage, Permanent, Transient
from watcher.hub import client
from watcher.hub.jobs import Job, Jobs, JobSpec
from watcher.hub.repos import Hub
from watcher.sandbox.faults import Answer, Cut, Hang, Late, LoseAnswer
from watcher.sandbox.hub import User
from watcher.training.outcomes import exit_code, failure

REPO = "sandbox/identity-ada-1"
LABELS = {"watcher": "abc", "training": "7"}
POST = "^/api/jobs/sandbox$"
RUN_JOB = client._RUN_JOB


@pytest.fixture
def jobs(scene: Scene, hub: Hub) -> Jobs:
    """Give the jobs of a Hub where none ends by itself."""
    scene.sandbox.hub.jobs.set_timing(running=None)
    return Jobs(hub)


@pytest.fixture
def spec(scene: Scene) -> JobSpec:
    scene.make_repo(REPO)
    return JobSpec(
        image="python:3.12",
        command=("bash", "-c", "true"),
        environment={"STEPS": "3"},
        secrets={"HF_TOKEN": "hf_secret"},
        flavor="l40sx1",
        seconds=3600,
        labels=LABELS,
        repo_id=REPO,
        revision="main",
        mount_path="/data",
    )


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    """Wait until a look returns something true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := await look()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return found


async def test_a_job_is_run_as_it_was_described(scene: Scene, jobs: Jobs, spec: JobSpec) -> None:
    made = await jobs.run_job(spec)
    assert (made.stage, made.labels.items() >= LABELS.items(), made.flavor, made.seconds, made.ended) == (
        *("SCHEDULING", True, "l40sx1", None, False),
    )
    assert made.url == f"{scene.sandbox.hub_url}/jobs/sandbox/{made.id}"
    asked = scene.sandbox.hub.jobs.find(made.id).spec
    assert (asked.image, asked.command, asked.environment, asked.secrets, asked.seconds) == (
        *(spec.image, spec.command, spec.environment, spec.secrets, spec.seconds),
    )
    [volume] = asked.volumes
    assert (volume.repo.name, volume.mount_path) == (REPO, "/data")
    assert "hf_secret" not in repr(spec)


async def test_no_request_asks_who_the_token_is(scene: Scene, jobs: Jobs, spec: JobSpec) -> None:
    made = await jobs.run_job(spec)
    await jobs.list_jobs(LABELS)
    await jobs.inspect(made.id)
    await jobs.cancel(made.id)
    assert await jobs.last_lines(made.id, 5) == ()
    await jobs.hardware()
    seen = {(one.method, one.path.replace(made.id, "ID")) for one in scene.sandbox.faults.log()}
    assert {path for _, path in seen} == {
        "/api/jobs/sandbox",
        *(f"/api/jobs/sandbox/ID{rest}" for rest in ("", "/cancel", "/logs")),
        "/api/jobs/hardware",
    }


async def test_jobs_are_listed_by_their_labels_the_oldest_first(
    scene: Scene, jobs: Jobs, spec: JobSpec
) -> None:
    first, second = await jobs.run_job(spec), await jobs.run_job(spec)
    await jobs.run_job(replace(spec, labels={**LABELS, "training": "8"}))
    scene.sandbox.hub.jobs.set_stage(first.id, "CANCELED")
    found = await jobs.list_jobs(LABELS)
    assert [(job.id, job.ended) for job in found] == [(first.id, True), (second.id, False)]
    assert len(await jobs.list_jobs({"watcher": "abc"})) == 3
    assert [job.id for job in await jobs.list_running(LABELS)] == [second.id]


@pytest.mark.parametrize(
    ("stage", "ended"),
    [
        *((stage, False) for stage in ("SCHEDULING", "RUNNING", "UPDATING")),
        *((stage, True) for stage in ("COMPLETED", "ERROR", "CANCELED", "DELETED")),
    ],
)
async def test_a_job_runs_in_every_stage_but_the_four_last_ones(
    scene: Scene, jobs: Jobs, spec: JobSpec, stage: Any, ended: bool
) -> None:
    made = await jobs.run_job(spec)
    scene.sandbox.hub.jobs.set_stage(made.id, stage)
    seen = await jobs.inspect(made.id)
    assert seen is not None
    assert (seen.stage, seen.ended) == (stage, ended)


async def ended(jobs: Jobs, job: Job) -> Job:
    async def look() -> Job | None:
        seen = await jobs.inspect(job.id)
        assert seen is not None
        return seen if seen.ended else None

    found = await until(look)
    assert isinstance(found, Job)
    return found


@pytest.mark.parametrize("code", [0, 15, 137])
async def test_how_its_command_ended_is_in_the_message(
    scene: Scene, jobs: Jobs, spec: JobSpec, code: int
) -> None:
    scene.sandbox.hub.jobs.set_timing(running=0.0)
    scene.sandbox.hub.jobs.exit_next(code)
    seen = await ended(jobs, await jobs.run_job(spec))
    assert (seen.stage, exit_code(seen.message)) == (("ERROR", code) if code else ("COMPLETED", None))


async def test_a_job_that_timed_out_says_so_and_how_long_it_ran(
    scene: Scene, jobs: Jobs, spec: JobSpec
) -> None:
    scene.sandbox.hub.jobs.set_timing(speed=36000)
    seen = await ended(jobs, await jobs.run_job(spec))
    assert failure(seen.stage, exit_code(seen.message), seen.message).code == "training_timed_out"
    assert (seen.seconds or 0) >= 3600


async def test_a_job_that_is_gone_is_none_and_has_nothing_to_cancel(
    scene: Scene, jobs: Jobs, spec: JobSpec
) -> None:
    made = await jobs.run_job(spec)
    scene.sandbox.hub.jobs.delete(made.id)
    assert await jobs.inspect(made.id) is None
    await jobs.cancel(made.id)
    assert await jobs.last_lines(made.id, 5) == ()


async def test_a_job_is_cancelled_once_and_again(scene: Scene, jobs: Jobs, spec: JobSpec) -> None:
    made = await jobs.run_job(spec)
    await jobs.cancel(made.id)
    await jobs.cancel(made.id)
    seen = await jobs.inspect(made.id)
    assert seen is not None
    assert (seen.stage, exit_code(seen.message)) == ("CANCELED", None)


@pytest.mark.parametrize("status", [400, 409])
async def test_a_refusal_to_cancel_what_has_ended_is_no_error(
    scene: Scene, jobs: Jobs, spec: JobSpec, status: int
) -> None:
    made = await jobs.run_job(spec)
    scene.sandbox.faults.add(Answer(status, {"error": "not running"}), path="/cancel$", times=2)
    with pytest.raises((Transient, Permanent)):
        await jobs.cancel(made.id)
    scene.sandbox.hub.jobs.set_stage(made.id, "COMPLETED")
    await jobs.cancel(made.id)


async def test_the_last_lines_of_a_log(scene: Scene, jobs: Jobs, spec: JobSpec) -> None:
    made = await jobs.run_job(spec)
    now = scene.sandbox.hub.store.now()
    scene.sandbox.hub.jobs.find(made.id).logs += [(now, f"line {number}") for number in range(9)]
    scene.sandbox.hub.jobs.set_stage(made.id, "ERROR")
    assert await jobs.last_lines(made.id, 2) == ("line 7", "line 8")


async def test_a_log_that_has_not_ended_is_read_as_far_as_it_goes(
    scene: Scene, jobs: Jobs, spec: JobSpec
) -> None:
    made = await jobs.run_job(spec)
    scene.sandbox.hub.jobs.find(made.id).logs.append((scene.sandbox.hub.store.now(), "a line"))
    assert "a line" in await jobs.last_lines(made.id, 5)


async def test_prices_are_in_millionths_of_a_dollar_a_minute(scene: Scene, jobs: Jobs) -> None:
    machines = await jobs.hardware()
    assert machines["l40sx1"].micro_usd_per_minute == 30_000
    listed = [
        {"name": unit, "prettyName": "x", "cpu": "", "ram": "", "unitCostMicroUSD": 100, "unitCostUSD": 1}
        for unit in ("second", "hour", "month")
    ]
    answer = [{**one, "unitLabel": one["name"]} for one in listed]
    scene.sandbox.faults.add(Answer(200, answer), path="/api/jobs/hardware")
    machines = await jobs.hardware()
    assert {name: one.micro_usd_per_minute for name, one in machines.items()} == {"second": 6000, "hour": 2}


@pytest.mark.parametrize("lost", [LoseAnswer(), LoseAnswer(500, "<html>"), LoseAnswer(504), Late(0.0)])
async def test_a_job_whose_answer_was_lost_is_asked_for_once_and_found_by_its_labels(
    scene: Scene, jobs: Jobs, spec: JobSpec, lost: LoseAnswer | Late
) -> None:
    scene.sandbox.faults.add(lost, method="POST", path=POST)
    with pytest.raises(Transient):
        await jobs.run_job(spec)
    assert len(await until(lambda: jobs.list_jobs(LABELS))) == 1
    assert len(scene.seen("POST", "/api/jobs/")) == 1


async def test_a_request_to_run_a_job_has_a_time_out_of_its_own(
    scene: Scene, jobs: Jobs, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_RUN_JOB", httpx2.Timeout(0.5))
    scene.sandbox.faults.add(Hang(), method="POST", path=POST)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Transient, match="could not be reached"):
            await jobs.run_job(spec)
    assert sum(value or 0 for value in RUN_JOB.as_dict().values()) <= 60


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_may_pass_is_not_asked_for_again_by_itself(
    scene: Scene, jobs: Jobs, spec: JobSpec, status: int
) -> None:
    scene.sandbox.faults.add(Answer(status, {"error": "later"}, {"Retry-After": "7"}), method="POST")
    with pytest.raises(Transient, match="later") as caught:
        await jobs.run_job(spec)
    assert caught.value.retry_after == 7
    assert len(scene.seen("POST", "/api/jobs/")) == 1


async def test_without_credit_it_is_an_outage_of_this_kind_of_work(
    scene: Scene, jobs: Jobs, spec: JobSpec
) -> None:
    scene.sandbox.hub.jobs.take_credit()
    with pytest.raises(Outage, match=r"credit balance is insufficient.*Add credits") as caught:
        await jobs.run_job(spec)
    assert caught.value.of_kind
    scene.sandbox.hub.jobs.give_credit()
    await jobs.run_job(spec)


@pytest.mark.parametrize(
    ("user", "sentence"),
    [
        (None, "refused the token for jobs.*HTTP 401"),
        (User("sandbox", role="read"), "may not run jobs.*HTTP 403"),
        (User("sandbox", role="fineGrained", permissions=("repo.write",)), "may not run jobs.*HTTP 403"),
    ],
)
async def test_a_token_that_may_not_run_jobs_is_an_outage_of_this_kind_of_work(
    scene: Scene, hub: Hub, spec: JobSpec, user: User | None, sentence: str
) -> None:
    if user is not None:
        scene.sandbox.hub.access.add("hf_other", user)
    token = "hf_other" if user else "hf_nobody"
    other = Hub(endpoint=scene.sandbox.hub_url, token=token, namespace=hub.namespace)
    jobs = Jobs(other)
    try:
        with pytest.raises(Outage, match=sentence) as caught:
            await jobs.run_job(spec)
    finally:
        other.close()
    assert caught.value.of_kind


async def test_a_namespace_without_jobs_is_an_outage_of_this_kind_of_work(
    scene: Scene, spec: JobSpec
) -> None:
    hub = Hub(endpoint=scene.sandbox.hub_url, token=scene.sandbox.hub_token, namespace="elsewhere")
    try:
        with pytest.raises(Misconfigured):
            await hub.check_token()
        jobs = Jobs(hub)
        with pytest.raises(Outage, match=r"knows no jobs of this namespace.*HTTP 404"):
            await jobs.list_jobs(LABELS)
    finally:
        hub.close()


@pytest.mark.parametrize("wrong", [{"flavor": "b300"}, {"labels": {"model": "a/b"}}])
async def test_a_job_that_the_hub_does_not_accept_is_refused_in_a_sentence(
    jobs: Jobs, spec: JobSpec, wrong: dict[str, Any]
) -> None:
    with pytest.raises(Permanent, match=r"The Hub refused the job: .*HTTP 400") as caught:
        await jobs.run_job(replace(spec, **wrong))
    assert caught.value.code == "training_refused"


@pytest.mark.parametrize(
    "body", ["no JSON", [1], [{"id": "1"}], [{"id": "1", "owner": {"id": "", "name": "", "type": ""}}]]
)
async def test_a_malformed_list_is_transient(scene: Scene, jobs: Jobs, body: Any) -> None:
    scene.sandbox.faults.add(Answer(200, body), method="GET", path="/api/jobs/")
    with pytest.raises(Transient, match=r"malformed|could not be reached"):
        await jobs.list_jobs(LABELS)


async def test_a_broken_connection_is_transient(scene: Scene, jobs: Jobs, spec: JobSpec) -> None:
    scene.sandbox.faults.add(Cut(), method="POST", path=POST)
    with pytest.raises(Transient, match="could not be reached"):
        await jobs.run_job(spec)
