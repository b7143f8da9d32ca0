"""What a job does before and after it trains: checks, photos, card, commit. `make check-training` trains."""

import json
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from gzip import compress
from pathlib import Path
from string import Template

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, JobInfo, constants
from hypothesis import example, given
from hypothesis import settings as settings_of_hypothesis
from PIL import Image

from tests.publishing.test_documents import names, steady
from tests.sandbox.hubs import Site, served
from tests.support import jobs
from tests.support.deprecations import CONTENT
from tests.support.pictures import photo, saved
from watcher.identity import Identity
from watcher.publishing.documents import documents
from watcher.sandbox.faults import Answer, LoseAnswer
from watcher.sandbox.hub.card import metadata, validate
from watcher.training.bases import parse_base
from watcher.training.card import card_template
from watcher.training.recipe import Training, job_spec
from watcher.training.script import (
    Exit,
    Settings,
    Stop,
    check,
    commit,
    fill_card,
    has_landed,
    read_photo,
    read_photos,
    unexpected,
)

pytestmark = CONTENT

REPO, BASE = "alice/identity-zoe-1", "bob/klein"
LABELS = {"watcher": "abc", "training": "7"}
IDENTITY = Identity("an-id", "a-user", "Zoë `1`", ("a", "b", "c"), "2026-01-01T00:00:00Z")
FILES = {"images/image_001.jpg": saved(photo(seed=1)), **documents(IDENTITY, REPO)}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(tmp_path_factory.mktemp("hub"), job_python=Path(sys.executable)) as site:
        yield site


@pytest.fixture
def site(hub: Site) -> Iterator[Site]:
    hub.hub.jobs.run_as("nothing")
    hub.hub.jobs.set_timing(running=None)
    yield hub
    hub.clear()
    hub.hub.jobs.clear()


@pytest.fixture
def settings(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of a job for a published repo, on a base model that can be trained; on a machine that has fetched nothing."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    push(site.api("hf_bob"), BASE, {"model_index.json": b'{"_class_name": "Flux2KleinPipeline"}'})
    for path, content in FILES.items():
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / path).write_bytes(content)
    return Settings.read(variables(tmp_path / "data", push(site.api(), REPO, FILES), site.url))


def push(api: HfApi, repo: str, files: dict[str, bytes]) -> str:
    api.create_repo(repo, private=repo == REPO)
    added = [CommitOperationAdd(path, content) for path, content in files.items()]
    return str(api.create_commit(repo, added, commit_message="Add files").oid)


def variables(data: Path, revision: str, endpoint: str) -> dict[str, str]:
    return {
        "WATCHER_REPO": REPO,
        "WATCHER_REVISION": revision,
        "WATCHER_BASE": BASE,
        "WATCHER_DATA": str(data),
        "WATCHER_TRAINING": LABELS["training"],
        "WATCHER_PROJECT": LABELS["watcher"],
        "WATCHER_NAMESPACE": "alice",
        "WATCHER_PROMPTS": json.dumps(["ohwx by the sea", "ohwx reading"]),
        "WATCHER_TRIGGER": "ohwx",
        "WATCHER_SECONDS": "600",
        "WATCHER_CARD": b64encode(compress(CARD.template.encode())).decode(),
        "HF_TOKEN": "hf_alice",
        "HF_ENDPOINT": endpoint,
    }


CARD = Template(card_template(parse_base(BASE), "a photo of ohwx", "ohwx by the sea"))


def stopped(act: Callable[[], object]) -> Exit:
    """The exit code with which it stops, with a sentence that names nobody."""
    with pytest.raises(Stop) as caught:
        act()
    assert "zoe" not in str(caught.value).lower()
    return caught.value.code


# Settings


def test_the_repos_config_holds_where_nothing_else_is_asked_for(settings: Settings) -> None:
    assert (settings.steps, settings.learning_rate, settings.resolution) == (1000, 4e-4, 512)


def test_the_operators_values_come_first(settings: Settings) -> None:
    own = {"WATCHER_STEPS": "20", "WATCHER_LEARNING_RATE": "0.0001", "WATCHER_RESOLUTION": "768"}
    read = Settings.read(variables(settings.data, settings.revision, "http://x") | own)
    assert (read.steps, read.learning_rate, read.resolution) == (20, 1e-4, 768)


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"training_params": null}', '{"training_params": {}}']
)
def test_a_config_that_cannot_be_read_is_an_exit_code(settings: Settings, content: str | None) -> None:
    config = settings.data / "training_config.json"
    if content is None:
        config.unlink()
    else:
        config.write_text(content)
    assert stopped(lambda: Settings.read(variables(settings.data, "a", "http://x"))) == Exit.DATA


def test_the_token_is_not_shown_with_the_settings(settings: Settings) -> None:
    assert "hf_alice" not in repr(settings)


# Checks


def test_where_nothing_stands_in_the_way_the_base_model_is_pinned(site: Site, settings: Settings) -> None:
    base = check(settings)
    assert base.pipeline == "Flux2KleinPipeline"
    assert base.revision == site.api().model_info(BASE).sha


def test_the_checks_leave_nothing_on_the_hub(site: Site, settings: Settings) -> None:
    site.faults.reset()
    check(settings)
    assert {one.method for one in site.faults.log()} <= {"GET", "HEAD"}


def test_a_revoked_token_is_refused(site: Site, settings: Settings) -> None:
    site.hub.access.revoke("hf_alice")
    assert stopped(lambda: check(settings)) == Exit.TOKEN


def test_a_token_that_may_not_write_is_refused_before_anything_costs_money(
    site: Site, settings: Settings
) -> None:
    site.hub.access.take_writing("hf_alice")
    assert stopped(lambda: check(settings)) == Exit.PUSH


def test_a_repo_that_has_moved_on_is_not_trained(site: Site, settings: Settings) -> None:
    site.api().create_commit(REPO, [CommitOperationAdd("more", b"1")], commit_message="By somebody else")
    assert stopped(lambda: check(settings)) == Exit.MOVED


def test_a_base_whose_licence_was_not_accepted_is_refused(site: Site, settings: Settings) -> None:
    site.hub.access.gate(BASE)
    assert stopped(lambda: check(settings)) == Exit.BASE


@pytest.mark.parametrize("index", [{}, {"model_index.json": b'{"_class_name": "Flux2Pipeline"}'}])
def test_a_base_of_another_class_is_refused(site: Site, settings: Settings, index: dict[str, bytes]) -> None:
    push(site.api("hf_bob"), "bob/other", {"a": b"1", **index})
    assert stopped(lambda: check(replace(settings, base="bob/other"))) == Exit.BASE


def test_a_base_that_does_not_exist_is_refused(settings: Settings) -> None:
    assert stopped(lambda: check(replace(settings, base="bob/none"))) == Exit.BASE


@pytest.mark.parametrize("path", ["whoami", "auth-check", "models/bob/klein$", "api/jobs"])
def test_a_hub_that_is_busy_for_a_moment_is_asked_again(site: Site, settings: Settings, path: str) -> None:
    site.faults.add(Answer(503), service="hub", path=path)
    check(settings)


# Only the oldest job


def job(site: Site, **labels: str) -> str:
    api = site.api()
    made = api.run_job(
        image="python:3.12",
        command=["true"],
        flavor="cpu-basic",
        labels=LABELS | labels,
        namespace="alice",
    )
    return str(made.id)


def test_of_two_jobs_of_a_training_the_older_goes_on(site: Site, settings: Settings) -> None:
    older, younger = job(site), job(site)
    check(replace(settings, job=older))
    assert stopped(lambda: check(replace(settings, job=younger))) == Exit.DOUBLED


def test_an_older_job_counts_also_when_it_has_ended(site: Site, settings: Settings) -> None:
    older, younger = job(site), job(site)
    site.hub.jobs.set_stage(older, "ERROR")
    assert stopped(lambda: check(replace(settings, job=younger))) == Exit.DOUBLED


def test_jobs_of_other_trainings_and_projects_do_not_count(site: Site, settings: Settings) -> None:
    job(site, training="6")
    job(site, watcher="other")
    check(replace(settings, job=job(site)))


def test_a_list_counts_only_once_it_has_this_job(site: Site, settings: Settings) -> None:
    older, younger = job(site), job(site)
    site.hub.jobs.lag(0.8)
    assert stopped(lambda: check(replace(settings, job=younger))) == Exit.DOUBLED
    check(replace(settings, job=older))


def test_without_an_id_of_its_own_a_job_goes_on_only_if_it_is_alone(site: Site, settings: Settings) -> None:
    job(site)
    check(settings)
    job(site)
    assert stopped(lambda: check(settings)) == Exit.DOUBLED


# Photos


def test_a_photo_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    upright = Image.new("RGB", (40, 40), "black")
    upright.paste("white", (0, 0, 40, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right for viewing
    file = tmp_path / "1.jpg"
    file.write_bytes(saved(upright.rotate(90), exif=exif.tobytes(), quality=95))
    read = read_photo(file, 40, 1)
    assert read.getpixel((20, 2))[0] > 240
    assert read.getpixel((2, 20))[0] < 15


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_what_is_transparent_becomes_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    file = tmp_path / "1.png"
    file.write_bytes(
        saved(
            image.convert("LA")
            if mode == "LA"
            else image.convert(mode.rstrip("A") + "A" if mode == "RGBA" else "P"),
            "PNG",
        )
    )
    read = read_photo(file, 20, 1)
    assert (read.mode, read.getpixel((10, 10))) == ("RGB", (255, 255, 255))


def test_16_bits_keep_their_shades(tmp_path: Path) -> None:
    image = Image.new("I;16", (20, 20), 0x8000)
    file = tmp_path / "1.png"
    file.write_bytes(saved(image, "PNG"))
    assert read_photo(file, 20, 1).getpixel((10, 10)) == (128, 128, 128)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "1"])
def test_every_kind_of_photo_becomes_a_square_in_rgb(tmp_path: Path, mode: str) -> None:
    file = tmp_path / f"1.{'jpg' if mode in {'L', 'CMYK'} else 'png'}"
    file.write_bytes(saved(photo(mode, (90, 60)), "JPEG" if file.suffix == ".jpg" else "PNG"))
    read = read_photo(file, 32, 1)
    assert (read.mode, read.size) == ("RGB", (32, 32))


def test_a_photo_keeps_its_middle(tmp_path: Path) -> None:
    image = Image.new("RGB", (300, 100), "black")
    image.paste("white", (100, 0, 200, 100))
    file = tmp_path / "1.png"
    file.write_bytes(saved(image, "PNG"))
    read = read_photo(file, 50, 1)
    assert all(read.getpixel((x, 25)) == (255, 255, 255) for x in (1, 25, 48))


def test_a_photo_that_cannot_be_read_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "image_001.jpg").write_bytes(saved(photo()))
    (tmp_path / "image_002.jpg").write_bytes(saved(photo())[:200])
    with pytest.raises(Stop, match="Photo 2 cannot be read") as caught:
        read_photos(tmp_path, 32)
    assert caught.value.code == Exit.DATA


def test_a_repo_without_photos_is_not_trained(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    assert stopped(lambda: read_photos(tmp_path, 32)) == Exit.DATA


# The card

MADE = ["ohwx by the sea", 'ohwx says "hi": #1']


def filled(published: str, settings: Settings, pictures: list[str] | None = None) -> str:
    return fill_card(CARD, published, settings, count=3, pictures=MADE if pictures is None else pictures)


@pytest.fixture
def published(settings: Settings) -> str:
    return FILES["README.md"].decode()


def test_the_card_becomes_a_loras(settings: Settings, published: str) -> None:
    card = filled(published, settings)
    assert validate(card) == ([], [])
    data = metadata(card)
    assert data["base_model"] == BASE
    assert [one["text"] for one in data["widget"]] == MADE
    assert [one["output"]["url"] for one in data["widget"]] == [
        "samples/sample_1.jpg",
        "samples/sample_2.jpg",
    ]
    assert "# A LoRA of `` Zoë `1` ``\n" in card
    assert REPO in card
    assert "There are no weights in here yet" not in card


def test_what_the_published_card_says_of_the_photos_stays(settings: Settings, published: str) -> None:
    kept = published[published.index("**Keep this repo private.**") :]
    assert kept in filled(published, settings)


def test_a_second_training_makes_the_same_card(settings: Settings, published: str) -> None:
    once = filled(published, settings)
    assert filled(once, settings) == once


def test_without_pictures_the_card_promises_none(settings: Settings, published: str) -> None:
    card = filled(published, settings, [])
    assert validate(card) == ([], [])
    assert "widget" not in card
    assert "<Gallery />" not in card


@settings_of_hypothesis(steady, max_examples=30)
@given(names)
@example("**Keep this repo private.**")
@example("$name ${repo} $$")
def test_no_name_breaks_the_card(name: str) -> None:
    settings = Settings(
        **dict.fromkeys(("repo", "revision", "base", "training", "project", "namespace", "trigger"), "x"),
        data=Path(),
        prompts=(),
        steps=1,
        learning_rate=1.0,
        resolution=512,
        seconds=1.0,
        card="",
        job=None,
        token="",
    )
    published = documents(replace(IDENTITY, name=name), REPO)["README.md"].decode()
    card = filled(published, settings)
    title = next(line for line in published.split("\n") if line.startswith("# "))
    assert f"# A LoRA of {title.removeprefix('# Training data for ')}\n" in card
    assert validate(card) == ([], [])
    assert filled(card, settings) == card


# The commit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "samples").mkdir(parents=True)
    (made / "pytorch_lora_weights.safetensors").write_bytes(b"\0" * 5000)
    (made / "samples/sample_1.jpg").write_bytes(saved(photo()))
    (made / "README.md").write_text("---\nlicense: other\n---\n# A LoRA\n")
    return made


def within(seconds: float) -> float:
    return time.monotonic() + seconds


def test_all_is_in_one_commit_that_names_the_training(site: Site, settings: Settings, folder: Path) -> None:
    assert not has_landed(settings.hub(), settings)
    commit(settings, folder, within(60))
    newest, before = site.api().list_repo_commits(REPO)[:2]
    assert newest.title == "Train a LoRA (1000 steps)"
    assert "Watcher training: 7" in newest.message.splitlines()
    assert before.commit_id == settings.revision
    files = set(site.api().list_repo_files(REPO))
    assert {"pytorch_lora_weights.safetensors", "samples/sample_1.jpg", *FILES} <= files
    assert has_landed(settings.hub(), settings)


def test_the_pictures_of_an_earlier_training_do_not_stay(
    site: Site, settings: Settings, folder: Path
) -> None:
    (settings.data / "samples").mkdir()
    added = []
    for number in (1, 2):
        path = f"samples/sample_{number}.jpg"
        (settings.data / path).write_bytes(b"an older one")
        added.append(CommitOperationAdd(path, b"an older one"))
    older = site.api().create_commit(REPO, added, commit_message="Train a LoRA (1 steps)").oid
    commit(replace(settings, revision=older), folder, within(60))
    files = [path for path in site.api().list_repo_files(REPO) if path.startswith("samples/")]
    assert files == ["samples/sample_1.jpg"]


@pytest.mark.parametrize("fault", [LoseAnswer(), Answer(503), Answer(429)])
def test_a_commit_without_an_answer_is_looked_for_and_made_once(
    site: Site, settings: Settings, folder: Path, fault: Answer | LoseAnswer
) -> None:
    site.faults.add(fault, service="hub", path="/commit/main")
    commit(settings, folder, within(60))
    titles = [one.title for one in site.api().list_repo_commits(REPO)]
    assert titles.count("Train a LoRA (1000 steps)") == 1


def test_a_hub_that_is_away_for_a_while_costs_no_weights(
    site: Site, settings: Settings, folder: Path
) -> None:
    site.faults.add(LoseAnswer(), service="hub", path="/commit/main")
    site.faults.add(Answer(503), service="hub", path="/commits/main")
    commit(settings, folder, within(60))
    assert site.api().list_repo_commits(REPO)[1].commit_id == settings.revision


def test_a_repo_that_moved_on_while_it_was_trained_keeps_what_it_has(
    site: Site, settings: Settings, folder: Path
) -> None:
    site.api().create_commit(REPO, [CommitOperationAdd("more", b"1")], commit_message="By somebody else")
    assert stopped(lambda: commit(settings, folder, within(60))) == Exit.MOVED
    assert site.api().list_repo_commits(REPO)[0].title == "By somebody else"


def test_a_token_that_lost_its_rights_meanwhile_ends_it(site: Site, settings: Settings, folder: Path) -> None:
    site.hub.access.take_writing("hf_alice")
    assert stopped(lambda: commit(settings, folder, within(60))) == Exit.MOVED


def test_a_commit_is_tried_until_the_job_ends_and_no_longer(
    site: Site, settings: Settings, folder: Path
) -> None:
    site.faults.add(Answer(503), service="hub", path="/commit/main", times=None)
    with pytest.raises(Exception, match="503"):
        commit(settings, folder, within(1))


# The program, as a job runs it


def ran(site: Site, settings: Settings, base: str = BASE) -> tuple[JobInfo, str]:
    """The job of a training, at its end, and its log."""
    training = Training(
        label=LABELS["training"],
        project=LABELS["watcher"],
        namespace="alice",
        repo_id=REPO,
        revision=settings.revision,
        base=base,
        flavor="cpu-basic",
        minutes=10,
    )
    site.hub.jobs.run_as("real")
    return jobs.run(site.api(), job_spec(training, "hf_alice"))


def test_a_job_ends_with_the_code_of_the_check_that_failed(site: Site, settings: Settings) -> None:
    made, log = ran(site, settings, base="bob/none")
    assert made.status.message == f"Job failed with exit code: {Exit.BASE}."
    assert log.count("Exit 12:") == 1


def test_what_an_error_says_is_logged_without_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HF_TOKEN": "hf_alice", "WATCHER_REPO": REPO, "WATCHER_TRIGGER": "zoë"}.items():
        monkeypatch.setenv(name, value)
    text = f"403 for https://hub/{REPO}/x and identity-zoe-1 of zoë\n with hf_alice: the driver is old"
    assert unexpected(RuntimeError(text)) == Exit.FAILED
    said = capsys.readouterr().out
    assert "RuntimeError: 403 for https://hub/…" in said
    assert "the driver is old" in said
    assert not any(name in said for name in ("zo", "hf_alice"))


def test_no_memory_is_an_exit_code_of_its_own() -> None:
    class OutOfMemoryError(RuntimeError):
        """As PyTorch calls it."""

    assert unexpected(OutOfMemoryError("CUDA out of memory")) == Exit.MEMORY
    assert unexpected(MemoryError()) == Exit.MEMORY


def test_an_error_that_nobody_foresaw_is_logged_without_names(site: Site, settings: Settings) -> None:
    """Where PyTorch is missing, say."""
    made, log = ran(site, settings)
    assert made.status.message == f"Job failed with exit code: {Exit.FAILED}."
    assert "Checks passed" in log
    assert "ModuleNotFoundError" in log
    assert "train.py:" in log
    assert "zo" not in log.lower()
    assert "hf_alice" not in log
