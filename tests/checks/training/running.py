"""Trains tiny models with the real script, and looks at what it leaves."""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, JobInfo
from PIL import Image

from tests.acceptance.person import Person
from tests.acceptance.running import Watcher, environment
from tests.acceptance.stage import Stage, opened
from tests.checks.verdict import Wrong, expect
from tests.support import jobs
from tests.support.pictures import photo, saved
from watcher.sandbox.hub.card import metadata
from watcher.training.recipe import Training, job_spec

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-training/bin/python"
_TINY = Path(__file__).with_name("tiny.py")
FAMILIES = {"klein": "Flux2KleinPipeline", "flux1": "FluxPipeline"}
_STEPS = 20
_RESOLUTION = 64
_RATE = 1e-2
_WITHIN = 1800.0
"""Seconds for a training on a busy machine; it is the job's time-out, too."""
_VISIBLE = 1e-3
"""By how much a pixel has to change on average, from 0 to 1, for a picture to be another one."""
_PROJECT = "check"
_PROMPTS = ("a portrait of {trigger}", "{trigger} by the sea")


@dataclass(frozen=True)
class Repo:
    """A published repo, at its newest commit."""

    stage: Stage
    name: str

    @property
    def revision(self) -> str:
        sha = self.stage.api.model_info(self.name).sha
        assert sha is not None
        return sha


def check(folder: Path) -> Iterator[str]:
    """Yield a line for each thing that was found to be right; raises Wrong."""
    began = time.monotonic()
    _run(folder, "build", str(folder / "bases"))
    yield f"two tiny pipelines were built in {time.monotonic() - began:.0f} s"
    with opened(folder, job_python=PYTHON) as stage:
        try:
            with Watcher(stage).ready():
                repo = _publish(stage)
            yield f"{len(_photos())} photos were published by the daemon"
            for number, family in enumerate(FAMILIES, 1):
                yield from _train(stage, repo, number, family)
        finally:
            stage.clear()


def _publish(stage: Stage) -> Repo:
    """Publish photos through the daemon."""
    person = Person(stage)
    paths = [person.upload(content, name) for name, content in _photos().items()]
    identity = person.insert("Zoë `Check`", paths)
    return Repo(stage, person.wait_for(identity, "published")["model_id"])


def _photos() -> dict[str, bytes]:
    """Return photos as people have them: turned by EXIF, transparent, of 16 bits, in CMYK."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "turned.jpg": saved(photo(size=(320, 240), seed=1), exif=exif.tobytes()),
        "transparent.png": saved(photo("RGBA", (240, 320), seed=2), "PNG"),
        "grey.png": saved(photo("L", (200, 200), seed=3).convert("I;16"), "PNG"),
        "cmyk.jpg": saved(photo("RGB", (260, 200), seed=4).convert("CMYK")),
    }


def _train(stage: Stage, repo: Repo, number: int, family: str) -> Iterator[str]:
    """Train on a base model of a family, on top of the repo's newest commit, and look at the result."""
    base = f"{stage.namespace}/tiny-{family}"
    _push(stage, base, stage.folder / "bases" / family)
    parent, began = repo.revision, time.monotonic()
    job, log = _job(stage, repo, parent, number, base)
    seconds = time.monotonic() - began
    expect(f"the stage of the job for {family}, which said:\n{log}\n", job.status.stage, "COMPLETED")
    _look(stage, repo, parent, number, base)
    losses = [line.rpartition(" ")[2] for line in log.splitlines() if line.startswith("step ")]
    yield f"{family}: {_STEPS} steps in {seconds:.0f} s, with all else; loss {losses[0]} at first, {losses[-1]} at last"
    began = time.monotonic()
    found = json.loads(_run(stage.folder, "compare", base, repo.name, **_reader(stage)).splitlines()[-1])
    expect(f"the class of {base}", found["pipeline"], FAMILIES[family])
    if found["changed"] < _VISIBLE or found["repeated"] > _VISIBLE / 100:
        raise Wrong(f"{family}: the LoRA should change the picture, and nothing else should: {found}")
    yield (
        f"{family}: its LoRA of {found['bytes']:,} bytes loads with a token and changes the picture by "
        f"{found['changed']:.4f} of 1 ({time.monotonic() - began:.0f} s)"
    )


def _push(stage: Stage, repo: str, folder: Path) -> None:
    """Make a repo of a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    added = [CommitOperationAdd(str(path.relative_to(folder)), path) for path in files]
    stage.api.create_repo(repo)
    stage.api.create_commit(repo, added, commit_message="Add a tiny pipeline")


def _job(stage: Stage, repo: Repo, revision: str, number: int, base: str) -> tuple[JobInfo, str]:
    """Run the job of a training; returns it at its end, and its log."""
    training = Training(
        label=str(number),
        project=_PROJECT,
        repo_id=repo.name,
        revision=revision,
        base=base,
        flavor="cpu-basic",
        minutes=int(_WITHIN / 60),
        prompts=_PROMPTS,
        steps=_STEPS,
        learning_rate=_RATE,
        resolution=_RESOLUTION,
    )
    return jobs.run(stage.api, job_spec(training, stage.token), _WITHIN)


def _look(stage: Stage, repo: Repo, parent: str, number: int, base: str) -> None:
    """See that the training has made one commit, with all that belongs into it."""
    commits = stage.api.list_repo_commits(repo.name)
    expect("the commit below the training's", commits[1].commit_id, parent)
    expect("the title of the training's commit", commits[0].title, f"Train a LoRA ({_STEPS} steps)")
    if f"Watcher training: {number}" not in commits[0].message.splitlines():
        raise Wrong(f"The training's commit does not name it: {commits[0].message!r}")
    files = stage.api.list_repo_files(repo.name)
    samples = [f"samples/sample_{one}.jpg" for one in range(1, len(_PROMPTS) + 1)]
    expected = {"pytorch_lora_weights.safetensors", "README.md", "training_config.json", *samples}
    if missing := expected - set(files):
        raise Wrong(f"The repo lacks {', '.join(sorted(missing))}.")
    for sample in samples:
        with Image.open(
            stage.api.hf_hub_download(repo.name, sample, local_dir=stage.folder / "seen")
        ) as image:
            expect(f"the size of {sample}", image.size, (2 * _RESOLUTION, 2 * _RESOLUTION))
    card = Path(
        stage.api.hf_hub_download(repo.name, "README.md", local_dir=stage.folder / "seen")
    ).read_text()
    fields = metadata(card)
    expect("the base model in the card", fields["base_model"], base)
    expect("the pictures in the card", [one["output"]["url"] for one in fields["widget"]], samples)
    if "# A LoRA of `` Zoë `Check` ``" not in card or card.count("## What is inside") != 1:
        raise Wrong(f"The card does not name the person and the photos once:\n{card}")


def _reader(stage: Stage) -> dict[str, str]:
    return {"HF_ENDPOINT": stage.endpoint, "HF_TOKEN": stage.token, "HF_HUB_DISABLE_XET": "1"}


def _run(folder: Path, *arguments: str, **settings: str) -> str:
    """Run tiny.py in the script's environment, and return what it printed."""
    done = subprocess.run(
        [PYTHON, _TINY, *arguments],
        env=environment({"TQDM_DISABLE": "1", **settings}, folder),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Wrong(f"tiny.py {arguments[0]} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout
