"""The job of a training, as a pure function of its claim: the same claim gives the same job.

What is in a job can be read by whoever may see it, and is kept: it names the repo, and nobody otherwise.
"""

import base64
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watcher.training.bases import parse_base
from watcher.training.card import card_template
from watcher.training.script import instance_prompt

IMAGE: Final = (
    "ghcr.io/astral-sh/uv:0.9.30-python3.12-bookworm"
    "@sha256:85d4cb1afa769a7338e095b927bee941cf5ec92266c7424b3f6c0f2748567248"
)
"""Python and uv, which installs what the script's header names; PyTorch brings its own CUDA."""

TRIGGER: Final = "ohwx person"
"""How the person is called in prompts where the user has not said. Never the name: prompts end in logs."""

PROMPTS: Final = (
    "a portrait photo of {trigger}, looking into the camera, soft daylight",
    "a photo of {trigger} in a café, reading a book, warm evening light",
    "a photo of {trigger} hiking in the mountains, blue sky",
    "an oil painting of {trigger}, visible brush strokes, dark background",
)
"""What the first pictures show, where the operator has not said."""

TOKEN: Final = "HF_TOKEN"  # noqa: S105
"""The name of the job's one secret."""

_DATA: Final = "/data"
_SCRIPT: Final = Path(__file__).with_name("script.py")
_START: Final = (
    'script="${TMPDIR:-/tmp}/train.py"'
    ' && printf %s "$WATCHER_SCRIPT" | base64 -d | gunzip > "$script"'
    # The checks first: they end what cannot work in seconds, before PyTorch is installed.
    ' && uv run --quiet --no-project --with huggingface_hub==2.4.0 python "$script" --check'
    ' && uv run --quiet "$script"'
)


@dataclass(frozen=True, slots=True)
class Training:
    """What is claimed, and what the operator has set for it."""

    number: int
    """The training's; never used twice."""
    project: str
    """A digest of the project."""
    repo_id: str
    revision: str
    """The commit that the job trains on and commits on top of."""
    namespace: str
    """Who pays for the job."""
    base: str
    flavor: str
    minutes: int
    """The job's time-out."""
    trigger: str = TRIGGER
    prompts: tuple[str, ...] = PROMPTS
    """With `{trigger}` where the person is named."""
    steps: int | None = None
    """None, here and below: what training_config.json says."""
    learning_rate: float | None = None
    resolution: int | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """A repo whose files the job can read under `mount_path`."""

    source: str
    revision: str
    mount_path: str
    type: str = "model"
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job for `run_job`, but for the values of its secrets."""

    namespace: str
    image: str
    command: tuple[str, ...]
    environment: dict[str, str]
    secrets: tuple[str, ...]
    flavor: str
    seconds: int
    labels: dict[str, str]
    volumes: tuple[Volume, ...]


def job_spec(training: Training) -> JobSpec:
    """Return the job of a training; raises ValueError for a base model that cannot be used."""
    return JobSpec(
        namespace=training.namespace,
        image=IMAGE,
        command=("sh", "-c", _START),
        environment=_environment(training),
        secrets=(TOKEN,),
        flavor=training.flavor,
        seconds=training.minutes * 60,
        labels=labels(training.project, training.number),
        volumes=(Volume(training.repo_id, training.revision, _DATA),),
    )


def labels(project: str, number: int) -> dict[str, str]:
    """Return what a training's jobs are found by."""
    return {"watcher": project, "training": str(number)}


def prompts_of(trigger: str, prompts: tuple[str, ...]) -> list[str]:
    """Return the prompts with the trigger in them, before all else where none says where."""
    return [
        prompt.replace("{trigger}", trigger) if "{trigger}" in prompt else f"{trigger}, {prompt}"
        for prompt in prompts
    ]


def _environment(training: Training) -> dict[str, str]:
    base = parse_base(training.base)
    prompts = prompts_of(training.trigger, training.prompts)
    named = instance_prompt(training.trigger)
    overrides = {
        "WATCHER_STEPS": training.steps,
        "WATCHER_LEARNING_RATE": training.learning_rate,
        "WATCHER_RESOLUTION": training.resolution,
    }
    return {
        "WATCHER_REPO": training.repo_id,
        "WATCHER_REVISION": training.revision,
        "WATCHER_BASE": base.model_id,
        "WATCHER_DATA": _DATA,
        "WATCHER_TRAINING": str(training.number),
        "WATCHER_PROJECT": training.project,
        "WATCHER_NAMESPACE": training.namespace,
        "WATCHER_PROMPTS": json.dumps(prompts),
        "WATCHER_TRIGGER": training.trigger,
        "WATCHER_SECONDS": str(training.minutes * 60),
        "WATCHER_CARD": _packed(card_template(base, named, prompts[0] if prompts else named)),
        "WATCHER_SCRIPT": _packed(_SCRIPT.read_text()),
        **{name: str(value) for name, value in overrides.items() if value is not None},
    }


def _packed(text: str) -> str:
    """Return text as one short line: base64 of gzip, the same for the same text."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
