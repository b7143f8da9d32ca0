"""Trains tiny models as users do: through the daemon, with the real script, and looks at what comes of it."""

import json
import subprocess
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from huggingface_hub import CommitOperationAdd
from PIL import Image

from tests.acceptance.person import Person, Row
from tests.acceptance.running import Watcher, environment
from tests.acceptance.stage import Stage, opened
from tests.checks.verdict import Wrong, expect
from tests.support.pictures import photo, saved
from watcher.sandbox.hub.card import metadata

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-training/bin/python"
_TINY = Path(__file__).with_name("tiny.py")
FAMILIES = {"klein": "Flux2KleinPipeline", "flux1": "FluxPipeline"}
_STEPS = 20
_RESOLUTION = 64
_WITHIN = 1800.0
"""Seconds for a training on a busy machine; it is the job's time-out, too."""
_VISIBLE = 1e-3
"""By how much a pixel has to change on average, from 0 to 1, for a picture to be another one."""
_PROMPTS = ("a portrait of {trigger}", "{trigger} by the sea")
_SETTINGS = {
    "enabled": True,
    "usd_a_day": 1000,
    "flavor": "cpu-basic",
    "minutes": int(_WITHIN / 60),
    "learning_rate": 1e-2,
    "steps": _STEPS,
    "prompts": list(_PROMPTS),
}


def check(folder: Path) -> Iterator[str]:
    """Yield a line for each thing that was found to be right; raises Wrong."""
    began = time.monotonic()
    _run(folder, "build", str(folder / "bases"))
    yield f"two tiny pipelines were built in {time.monotonic() - began:.0f} s"
    with opened(folder, job_python=_python(folder)) as stage:
        stage.rpc("watcher_set_limit", name="trainings_per_day", value=100, user=None)
        with Watcher(stage, WATCHER_TRAINING_TOKEN=stage.token).ready():
            person = Person(stage)
            paths = [person.upload(content, name) for name, content in _photos().items()]
            identity = person.insert("Zoë `Check`", paths)
            person.wait_for(identity, "published")
            yield f"{len(paths)} photos were published"
            for family in FAMILIES:
                yield from _train(stage, person, identity, family)
        stage.clear()


def _python(folder: Path) -> Path:
    """Return the interpreter of jobs: that of the script's environment, told to use small pictures."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexport WATCHER_RESOLUTION={_RESOLUTION}\nexec "{PYTHON}" "$@"\n')
    program.chmod(0o755)
    return program


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


def _train(stage: Stage, person: Person, identity: str, family: str) -> Iterator[str]:
    """Train on a base model of a family, on top of what the repo has, and look at the result."""
    base = f"{stage.namespace}/tiny-{family}"
    _push(stage, base, stage.folder / "bases" / family)
    stage.rpc("watcher_set_training", settings={**_SETTINGS, "base": base})
    before, began = person.row(identity), time.monotonic()
    person.table.update({"train": True}).eq("id", identity).execute()
    row, log = _trained(stage, person, before)
    seconds = time.monotonic() - began
    _look(stage, row, before["training_commit_sha"] or before["commit_sha"], base)
    losses = [line.rpartition(" ")[2] for line in log.splitlines() if line.startswith("step ")]
    yield f"{family}: {_STEPS} steps, ready after {seconds:.0f} s; loss {losses[0]} at first, {losses[-1]} at last"
    for path in row["sample_paths"]:
        with Image.open(BytesIO(person.client.storage.from_("identity-samples").download(path))) as image:
            expect(f"the size of {path}", image.size, (2 * _RESOLUTION, 2 * _RESOLUTION))
    expect(f"the number of pictures for the user of {family}", len(row["sample_paths"]), len(_PROMPTS))
    yield f"{family}: {len(_PROMPTS)} pictures lie in the user's folder"
    began = time.monotonic()
    found = json.loads(
        _run(stage.folder, "compare", base, row["model_id"], **_reader(stage)).splitlines()[-1]
    )
    expect(f"the class of {base}", found["pipeline"], FAMILIES[family])
    if found["changed"] < _VISIBLE or found["repeated"] > _VISIBLE / 100:
        raise Wrong(f"{family}: the LoRA should change the picture, and nothing else should: {found}")
    yield (
        f"{family}: its LoRA of {found['bytes']:,} bytes loads with a token and changes the picture by "
        f"{found['changed']:.4f} of 1 ({time.monotonic() - began:.0f} s)"
    )


def _trained(stage: Stage, person: Person, before: Row) -> tuple[Row, str]:
    """Wait for the training; returns the row, and the log of its job."""
    row = person.wait_until(
        before["id"],
        lambda row: (
            (row["status"] == "ready" and row["training_commit_sha"] != before["training_commit_sha"])
            or row["training_error_code"] is not None
        ),
        _WITHIN,
    )
    job = max(stage.api.list_jobs(namespace=stage.namespace), key=lambda job: str(job.created_at))
    log = "\n".join(stage.api.fetch_job_logs(job_id=job.id, namespace=stage.namespace))
    if row["training_error_code"]:
        raise Wrong(f"{row['training_error_code']}: {row['training_error_message']} Its job said:\n{log}")
    return row, log


def _push(stage: Stage, repo: str, folder: Path) -> None:
    """Make a repo of a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    added = [CommitOperationAdd(str(path.relative_to(folder)), path) for path in files]
    stage.api.create_repo(repo)
    stage.api.create_commit(repo, added, commit_message="Add a tiny pipeline")


def _look(stage: Stage, row: Row, parent: str, base: str) -> None:
    """See that the training has made one commit, with all that belongs into it."""
    repo = row["model_id"]
    commits = stage.api.list_repo_commits(repo)
    expect("the commit below the training's", commits[1].commit_id, parent)
    expect("the training's commit in the row", row["training_commit_sha"], commits[0].commit_id)
    expect("the title of the training's commit", commits[0].title, f"Train a LoRA ({_STEPS} steps)")
    files = stage.api.list_repo_files(repo)
    samples = [f"samples/sample_{one}.jpg" for one in range(1, len(_PROMPTS) + 1)]
    expected = {"pytorch_lora_weights.safetensors", "README.md", "training_config.json", *samples}
    if missing := expected - set(files):
        raise Wrong(f"The repo lacks {', '.join(sorted(missing))}.")
    for sample in samples:
        with Image.open(stage.api.hf_hub_download(repo, sample, local_dir=stage.folder / "seen")) as image:
            expect(f"the size of {sample}", image.size, (2 * _RESOLUTION, 2 * _RESOLUTION))
    card = Path(stage.api.hf_hub_download(repo, "README.md", local_dir=stage.folder / "seen")).read_text()
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
