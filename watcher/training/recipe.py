"""The job of a training, as a pure function of its claim: the same claim gives the same job.

What is in a job can be read by whoever may see it, and is kept: it names the repo, and nobody otherwise.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watcher.hub.jobs import JobSpec
from watcher.training.bases import parse_base
from watcher.training.card import card_template
from watcher.training.script import instance_prompt

IMAGE: Final = "python:3.12.12-bookworm"
"""Of Docker's own library. uv installs what the script's header names; PyTorch brings its own CUDA."""

TRIGGER: Final = "ohwx person"
"""How the person is called in prompts where the user has not said. Never the name: prompts end in logs."""

PROMPTS: Final = (
    "a portrait photo of {trigger}, looking into the camera, soft daylight",
    "a photo of {trigger} in a café, reading a book, warm evening light",
    "a photo of {trigger} hiking in the mountains, blue sky",
    "an oil painting of {trigger}, visible brush strokes, dark background",
)
"""What the first pictures show, where the operator has not said."""

TOKEN: Final = "HF_TOKEN"  # noqa: S105  (a name)
"""The name of the secret that holds the job's token."""

_DATA: Final = "/data"
_SCRIPT: Final = Path(__file__).with_name("script.py")
_START: Final = (
    'script="${TMPDIR:-/tmp}/train.py"'
    ' && printf %s "$WATCHER_SCRIPT" | base64 -d | gunzip > "$script"'
    " && { command -v uv > /dev/null || pip install --quiet --root-user-action=ignore uv==0.13.9; }"
    # The checks first: they end what cannot work in seconds, before PyTorch is installed.
    ' && uv run --quiet --no-project --with huggingface_hub==2.4.0 python "$script" --check'
    ' && uv run --quiet "$script"'
)


@dataclass(frozen=True, slots=True)
class Training:
    """What is claimed, and what the operator has set for it."""

    label: str
    """The training's; never used twice."""
    project: str
    """A digest of the project."""
    namespace: str
    """The one that the job runs in."""
    repo_id: str
    revision: str
    """The commit that the job trains on and commits on top of."""
    base: str
    flavor: str
    minutes: int
    """The job's time-out."""
    trigger: str | None = None
    """None: the default one, here and for prompts."""
    prompts: Sequence[str] | None = None
    """With `{trigger}` where the person is named."""
    steps: int | None = None
    """None, here and below: what training_config.json says."""
    learning_rate: float | None = None


def job_spec(training: Training, token: str) -> JobSpec:
    """Return the job of a training, to which it gives a token; raises ValueError for a base model that cannot be used."""
    return JobSpec(
        image=IMAGE,
        command=("sh", "-c", _START),
        environment=_environment(training),
        secrets={TOKEN: token, **_secrets(training)},
        flavor=training.flavor,
        seconds=training.minutes * 60,
        # With a name of its own: the library's, made of the image's, has characters that the Hub refuses in labels.
        labels=labels(training.project, training.label) | {"name": "watcher-training"},
        repo_id=training.repo_id,
        revision=training.revision,
        mount_path=_DATA,
    )


def project_digest(supabase_url: str) -> str:
    """Return what tells the jobs of this project from those of others in the same namespace."""
    return hashlib.sha256(supabase_url.encode()).hexdigest()[:16]


def project_label(project: str) -> dict[str, str]:
    """Return what all jobs of a project are found by."""
    return {"watcher": project}


def labels(project: str, label: str) -> dict[str, str]:
    """Return what a training's jobs are found by."""
    return project_label(project) | {"training": label}


def prompts_of(trigger: str, prompts: Sequence[str]) -> list[str]:
    """Return the prompts with the trigger in them, before all else where none says where."""
    return [
        prompt.replace("{trigger}", trigger) if "{trigger}" in prompt else f"{trigger}, {prompt}"
        for prompt in prompts
    ]


def _secrets(training: Training) -> dict[str, str]:
    """Return what the Hub does not show again: a trigger word or a prompt may name somebody after all."""
    trigger = training.trigger or TRIGGER
    prompts = prompts_of(trigger, training.prompts or PROMPTS)
    card = card_template(parse_base(training.base), instance_prompt(trigger), prompts[0])
    return {
        "WATCHER_TRIGGER": trigger,
        "WATCHER_PROMPTS": json.dumps(prompts),
        "WATCHER_CARD": _packed(card),
    }


def _environment(training: Training) -> dict[str, str]:
    overrides = {
        "WATCHER_STEPS": training.steps,
        "WATCHER_LEARNING_RATE": training.learning_rate,
    }
    return {
        "WATCHER_REPO": training.repo_id,
        "WATCHER_REVISION": training.revision,
        "WATCHER_BASE": parse_base(training.base).model_id,
        "WATCHER_DATA": _DATA,
        "WATCHER_TRAINING": training.label,
        "WATCHER_PROJECT": training.project,
        "WATCHER_NAMESPACE": training.namespace,
        "WATCHER_SECONDS": str(training.minutes * 60),
        "WATCHER_SCRIPT": _packed(_SCRIPT.read_text()),
        # Bars would be most of the log, and a warning may quote a prompt.
        "DIFFUSERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        **{name: str(value) for name, value in overrides.items() if value is not None},
    }


def _packed(text: str) -> str:
    """Return text as one short line: base64 of gzip, the same for the same text."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
