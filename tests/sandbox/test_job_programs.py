"""What jobs of the sandbox's Hub run: the stand-in for the training script, and real commands where that is turned on."""

import base64
import gzip
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, JobInfo, Volume
from PIL import Image

from tests.sandbox.hubs import CARD, IMAGE_LFS, Site, image, served
from tests.sandbox.project import PATIENCE
from tests.support.deprecations import CONTENT
from watcher.sandbox.faults import Answer, LoseAnswer
from watcher.sandbox.hub.jobs import leash
from watcher.sandbox.hub.jobs.job import Job

pytestmark = CONTENT

REPO, BASE = "alice/identity-ada", "black-forest-labs/FLUX.2-klein-base-4B"
LORA_CARD = f"""\
---
base_model: {BASE}
instance_prompt: ohwx
tags:
- lora
$widget---
# A LoRA of $name
""".encode()
LABELS = {"watcher": "abc", "training": "7"}


def publish(api: HfApi, *images: str) -> str:
    """Publish a repo with these images, and return the commit."""
    api.create_repo(REPO, private=True)
    files = {"README.md": CARD, "training_config.json": b"{}\n", ".gitattributes": IMAGE_LFS}
    files |= {path: image(number) for number, path in enumerate(images)}
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return str(api.create_commit(REPO, operations, commit_message="Upload").oid)


@pytest.fixture
def api(site: Site) -> HfApi:
    return site.api()


@pytest.fixture
def revision(api: HfApi) -> str:
    return publish(api, "images/image_001.jpg", "images/image_002.jpg")


def train(api: HfApi, revision: str, *, token: str = "hf_alice", **more: str) -> JobInfo:
    """Run a job as Watcher does."""
    return api.run_job(
        image="python:3.12",
        command=["bash", "-c", "false"],
        env={
            "WATCHER_CARD": base64.b64encode(gzip.compress(LORA_CARD)).decode(),
            "WATCHER_REPO": REPO,
            "WATCHER_REVISION": revision,
            "WATCHER_BASE": BASE,
            "WATCHER_DATA": "/data",
            "WATCHER_TRAINING": "7",
            "WATCHER_PROJECT": "abc",
            "WATCHER_NAMESPACE": "alice",
            "WATCHER_PROMPTS": json.dumps(["a portrait of ohwx", "ohwx in a park"]),
            "WATCHER_STEPS": "20",
            "WATCHER_TRIGGER": "ohwx",
            **more,
        },
        secrets={"HF_TOKEN": token},
        flavor="l40sx1",
        timeout=3600,
        labels=LABELS,
        volumes=[Volume(type="model", source=REPO, revision=revision, mount_path="/data")],
        namespace="alice",
    )


def ended(site: Site, job: JobInfo) -> Job:
    deadline = time.monotonic() + PATIENCE
    while not (found := site.hub.jobs.find(job.id)).ended:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def outcome(site: Site, job: JobInfo) -> tuple[str, str | None]:
    found = ended(site, job)
    return found.stage, found.message


def failed(code: int) -> tuple[str, str]:
    return "ERROR", f"Job failed with exit code: {code}."


def lines(site: Site, job: JobInfo) -> list[str]:
    return [line for _, line in site.hub.jobs.find(job.id).logs]


def test_the_stand_in_makes_one_commit_with_weights_pictures_and_a_card(
    site: Site, api: HfApi, revision: str
) -> None:
    job = train(api, revision)
    assert outcome(site, job) == ("COMPLETED", None), lines(site, job)
    assert [(one.title, one.message) for one in api.list_repo_commits(REPO)][:2] == [
        ("Train a LoRA (20 steps)", "Watcher training: 7"),
        ("Upload", ""),
    ]
    added = set(api.list_repo_files(REPO)) - set(api.list_repo_files(REPO, revision=revision))
    assert added == {"pytorch_lora_weights.safetensors", "samples/sample_1.png", "samples/sample_2.png"}
    weights = Path(api.hf_hub_download(REPO, "pytorch_lora_weights.safetensors")).read_bytes()
    [size] = struct.unpack("<Q", weights[:8])
    header = json.loads(weights[8 : 8 + size])
    assert header.pop("__metadata__")["format"] == "pt"
    assert max(one["data_offsets"][1] for one in header.values()) == len(weights) - 8 - size
    picture = Path(api.hf_hub_download(REPO, "samples/sample_2.png")).read_bytes()
    with Image.open(BytesIO(picture)) as opened:
        opened.load()
    card = api.model_info(REPO).card_data
    assert card is not None
    assert (card["base_model"], card["instance_prompt"], "lora" in card["tags"]) == (BASE, "ohwx", True)
    assert lines(site, job)[1:] == [
        "the oldest job of this training",
        "checked: 2 photos",
        *[f"step {step}/20" for step in range(2, 21, 2)],
        "done",
    ]
    assert not any((site.folder / "jobs").iterdir())


def test_of_two_jobs_for_one_training_only_the_older_goes_on(site: Site, api: HfApi, revision: str) -> None:
    site.hub.jobs.hold_next("RUNNING")
    first, second = train(api, revision), train(api, revision)
    assert outcome(site, second) == failed(10)
    site.hub.jobs.release()
    assert outcome(site, first) == ("COMPLETED", None)
    assert outcome(site, train(api, revision)) == failed(10), "Also an older one that has ended counts."
    assert len(api.list_repo_commits(REPO)) == 3


def test_a_job_waits_until_it_is_listed_so_that_it_sees_older_ones(
    site: Site, api: HfApi, revision: str
) -> None:
    site.hub.jobs.hold_next("RUNNING")
    train(api, revision)
    site.hub.jobs.lag(1.0)
    second = train(api, revision)
    assert outcome(site, second) == failed(10)


def test_what_the_stand_in_checks_has_the_codes_of_the_script(site: Site, api: HfApi, revision: str) -> None:
    site.hub.access.gate(BASE)
    assert outcome(site, train(api, revision)) == failed(12)
    site.hub.reset()
    site.hub.jobs.clear()
    assert outcome(site, train(api, revision, WATCHER_BASE="alice/nothing")) == failed(12)
    site.hub.jobs.clear()
    assert outcome(site, train(api, revision, token="hf_nobody")) == failed(11)
    site.hub.jobs.clear()
    assert outcome(site, train(api, revision, token="hf_alice_read")) == failed(13)
    site.hub.jobs.clear()
    site.hub.jobs.exit_next(15)
    assert outcome(site, train(api, revision)) == failed(15)
    site.hub.jobs.clear()
    api.create_commit(REPO, [CommitOperationAdd("x", b"x")], commit_message="Edit")
    assert outcome(site, train(api, revision)) == failed(14)
    assert len(api.list_repo_commits(REPO)) == 3


def test_without_photos_the_stand_in_ends_with_its_code(site: Site, api: HfApi) -> None:
    assert outcome(site, train(api, publish(api))) == failed(17)


@pytest.mark.parametrize("status", [403, 412])
def test_a_refused_push_has_its_code(site: Site, api: HfApi, revision: str, status: int) -> None:
    site.faults.add(Answer(status, {"error": "no"}), path="/commit/", times=None)
    assert outcome(site, train(api, revision)) == failed(14)


@pytest.mark.parametrize("lost", [LoseAnswer(), LoseAnswer(500, "Internal Error"), Answer(503)])
def test_a_commit_whose_answer_is_lost_is_made_once(
    site: Site, api: HfApi, revision: str, lost: LoseAnswer | Answer
) -> None:
    site.faults.add(lost, path="/commit/")
    assert outcome(site, train(api, revision)) == ("COMPLETED", None)
    assert len(api.list_repo_commits(REPO)) == 3


def test_the_stand_in_gets_no_variable_that_could_run_something_else(
    site: Site, api: HfApi, revision: str
) -> None:
    site.hub.jobs.set_timing(running=None)
    job = train(api, revision, LD_PRELOAD="/x.so", PYTHONPATH="/x")
    [process] = programs(site, job)
    environment = Path(f"/proc/{process}/environ").read_bytes()
    assert b"WATCHER_TRAINING=7\0" in environment
    assert b"LD_PRELOAD" not in environment
    assert b"PYTHONPATH" not in environment
    api.cancel_job(job_id=job.id, namespace="alice")
    wait_for_no_process(process)


def programs(site: Site, job: JobInfo) -> list[int]:
    """Wait for the job's first line of its own, and return the programs that work in its folder, but for their guard."""
    deadline = time.monotonic() + PATIENCE
    while len(lines(site, job)) < 2:
        assert time.monotonic() < deadline, site.hub.jobs.find(job.id)
        if site.hub.jobs.find(job.id).message == "Job timeout":
            raise TimeoutError
        time.sleep(0.01)
    return processes_in(site.folder / "jobs" / job.id / "tmp")


def processes_in(folder: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (
                str((path / "cwd").readlink()).startswith(str(folder))
                and b"leash.py" not in (path / "cmdline").read_bytes()
            ):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def wait_for_no_process(*processes: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while any(alive(one) for one in processes):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


# Real commands


@pytest.fixture(scope="module")
def real_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(tmp_path_factory.mktemp("hub"), job_python=Path(sys.executable)) as site:
        yield site


@pytest.fixture
def real(site: Site, real_hub: Site) -> Iterator[Site]:
    """Give a Hub that runs real commands."""
    yield real_hub
    real_hub.clear()


def shell(site: Site, script: str, **more: Any) -> JobInfo:
    asked: dict[str, Any] = {
        "image": "python:3.12",
        "command": ["bash", "-c", script],
        "timeout": 3600,
        "namespace": "alice",
    }
    return site.api().run_job(**{**asked, **more})


def test_a_real_command_runs_with_its_own_environment_alone(
    real: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_SECRET_KEY", "sb_secret_x")
    job = shell(real, "env; exit 3", env={"STEPS": "3"}, secrets={"HF_TOKEN": "hf_alice"}, flavor="l40sx1")
    assert outcome(real, job) == failed(3)
    seen = dict(line.partition("=")[::2] for line in lines(real, job)[1:])
    assert seen.keys() - {"PWD", "SHLVL", "_", "OLDPWD"} == {
        *("PATH", "HOME", "TMPDIR", "LANG", "JOB_ID", "ACCELERATOR", "CPU_CORES", "MEMORY"),
        *("STEPS", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_DISABLE_XET"),
    }
    assert (seen["STEPS"], seen["HF_TOKEN"], seen["HF_ENDPOINT"], seen["JOB_ID"], seen["ACCELERATOR"]) == (
        *("3", "hf_alice", real.url, job.id, "l40sx1"),
    )


def test_a_volume_is_the_repo_at_its_revision_under_another_path(real: Site) -> None:
    api = real.api()
    revision = publish(api, "images/image_001.jpg")
    api.create_commit(REPO, [CommitOperationAdd("later.txt", b"x")], commit_message="Edit")
    volume = Volume(type="model", source=REPO, revision=revision, mount_path="/data")
    script = "cd $DATA && find . -type f | sort; stat -c %a /data/README.md; echo /database /x/data /data"
    job = shell(real, script, env={"DATA": "/data"}, volumes=[volume])
    assert outcome(real, job) == ("COMPLETED", None)
    *printed, texts = lines(real, job)[1:]
    assert printed == [
        *("./.gitattributes", "./README.md", "./images/image_001.jpg", "./training_config.json", "444"),
    ]
    assert texts == f"/database /x/data {real.folder}/jobs/{job.id}/volume-0"
    assert not any((real.folder / "jobs").iterdir())


@pytest.mark.parametrize("command", [["python", "-c"], ["uv", "run", "--with", "torch", "python", "-c"]])
def test_python_and_uv_are_the_interpreter_of_the_sandbox(real: Site, command: list[str]) -> None:
    job = shell(real, "", command=[*command, "import sys; print(sys.prefix)"])
    assert outcome(real, job) == ("COMPLETED", None), lines(real, job)
    assert lines(real, job)[1:] == [sys.prefix]


def test_pip_installs_nothing_here(real: Site) -> None:
    job = shell(real, "pip install torch")
    assert outcome(real, job) == ("COMPLETED", None)
    assert "the sandbox installs nothing" in lines(real, job)[1]


STUBBORN = "trap '' TERM; sleep 1000 & (sleep 1000; true) & echo started; wait"


@pytest.mark.parametrize("end", ["CANCELED", "DELETED"])
def test_a_job_ends_with_all_that_it_started(real: Site, end: Literal["CANCELED", "DELETED"]) -> None:
    job = shell(real, STUBBORN)
    started = programs(real, job)
    assert len(started) >= 3
    real.hub.jobs.set_stage(job.id, end)
    wait_for_no_process(*started)


def test_a_job_that_is_out_of_time_ends_with_all_that_it_started(real: Site) -> None:
    started, seconds = None, 1
    while started is None:  # on a busy machine, it may be over before it has started anything
        job = shell(real, STUBBORN, timeout=seconds)
        try:
            started = programs(real, job)
        except TimeoutError:
            seconds *= 2
    assert len(started) >= 3
    assert outcome(real, job) == ("ERROR", "Job timeout")
    wait_for_no_process(*started)


@pytest.mark.parametrize("pause", [0, 0.01, 0.03, 0.06])
def test_a_job_that_is_ended_as_it_starts_leaves_nothing(real: Site, pause: float) -> None:
    publish(real.api(), "images/image_001.jpg")
    volume = Volume(type="model", source=REPO, mount_path="/data")
    job = shell(real, "sleep 1000", volumes=[volume])
    time.sleep(pause)
    real.hub.jobs.set_stage(job.id, "CANCELED")
    real.hub.jobs.set_stage(job.id, "DELETED")
    deadline = time.monotonic() + PATIENCE
    while any((real.folder / "jobs").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not processes_in(real.folder / "jobs" / job.id / "tmp")


def test_what_a_command_leaves_in_the_background_ends_with_it(real: Site) -> None:
    job = shell(real, "sleep 1000 & echo started; sleep 0.2")
    started = programs(real, job)
    assert outcome(real, job) == ("COMPLETED", None)
    wait_for_no_process(*started)


def test_jobs_end_with_the_hub(hub_client: None, tmp_path: Path, site: Site) -> None:
    with served(tmp_path / "hub", job_python=Path(sys.executable)) as real:
        started = programs(real, shell(real, "echo started; sleep 1000"))
        assert started
    wait_for_no_process(*started)


def test_a_command_ends_when_the_sandbox_was_killed() -> None:
    leashed = subprocess.Popen(
        [sys.executable, "-I", leash.__file__, "bash", "-c", "sleep 1000 & echo $$ $!; wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with leashed:
        assert leashed.stdin
        assert leashed.stdout
        command, background = map(int, leashed.stdout.readline().split())
        try:
            leashed.stdin.close()
            assert leashed.wait(PATIENCE) == 137
            wait_for_no_process(background)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(command, signal.SIGKILL)


def test_an_unknown_command_and_a_killed_one_end_as_in_a_shell(real: Site) -> None:
    assert outcome(real, shell(real, "", command=["no-such-program"])) == failed(127)
    killed = shell(real, "kill -KILL $$")
    assert outcome(real, killed) == ("ERROR", "Job failed with exit code: 137. Reason: OOMKilled")


def test_a_page_in_a_browser_cannot_run_commands(real: Site) -> None:
    headers = {"authorization": "Bearer hf_alice", "origin": "https://example.com"}
    asked = {"dockerImage": "x", "command": ["touch", "/tmp/x"]}
    answer = httpx.post(f"{real.url}/api/jobs/alice", headers=headers, json=asked)
    assert answer.status_code == 403
    assert real.hub.jobs.all() == []


def test_no_command_is_run_unless_that_was_turned_on(site: Site) -> None:
    job = shell(site, "exit 3")
    assert outcome(site, job) == ("COMPLETED", None)
    with pytest.raises(ValueError, match="mode must be one of stand-in, nothing"):
        site.hub.jobs.run_as("real")
