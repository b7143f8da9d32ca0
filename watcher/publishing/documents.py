"""The contents of the repo, as a pure function of the row and its images.

The same row always gives the same bytes.
"""

import json
import re
import unicodedata
from typing import Any, Final

from anyascii import anyascii

from watcher.identity import Identity, Image

_STEPS, _LEARNING_RATE, _RESOLUTION = 1000, 0.0004, 512


def slug(name: str) -> str:
    """Return the name as part of a repo's name: 1 to 75 characters of a-z and 0-9, with single hyphens inside.

    With the prefix `identity-` and the suffix of a hyphen and 11 digits, it is within the Hub's limit of 96.
    """
    words = re.sub(r"[^a-z0-9]+", "-", "".join(map(_ascii, unicodedata.normalize("NFC", name)))).strip("-")
    if len(words) > _MAX_SLUG:
        # Cut at a word, unless that loses half of the name.
        whole_words = words[: _MAX_SLUG + 1].rpartition("-")[0]
        words = whole_words if len(whole_words) > _MAX_SLUG // 2 else words[:_MAX_SLUG]
    return words or "person"


_MAX_SLUG: Final = 96 - len("identity--") - 11


def _ascii(character: str) -> str:
    """Transliterate one character; anything but a letter or digit, including emoji, separates words."""
    category = unicodedata.category(character)
    if category == "Cf":
        return ""  # joiners
    if category[0] not in "LMN":
        return "-"
    latin = re.sub(r"[^A-Za-z0-9]", "", anyascii(character))
    # From a script without case, a capital begins a separate word: 李雷 is Li and Lei.
    return f"-{latin.lower()}-" if category == "Lo" and latin[:1].isupper() else latin.lower()


def training_config(identity: Identity) -> dict[str, Any]:
    """Return the content of training_config.json, in its order: the row and the parameters of a FLUX LoRA training."""
    return {
        "identity_name": identity.name,
        "num_images": len(identity.image_paths),
        "created_at": identity.created_at,
        "user_id": identity.user_id,
        "model_type": "flux-lora",
        "training_params": {
            "steps": _STEPS,
            "learning_rate": _LEARNING_RATE,
            "resolution": _RESOLUTION,
        },
    }


def commit_message(identity: Identity) -> str:
    """Return the commit's first line."""
    return f"Upload training data for {identity.name} ({len(identity.image_paths)} images)"


def image_path(image: Image) -> str:
    """Return the image's path in the repo, from its position in the row and its actual type."""
    return f"images/image_{image.number:03}.{image.extension}"


def documents(identity: Identity, repo_id: str, *, cleaned: bool = True) -> dict[str, bytes]:
    """Return the files other than the images, by path. They do not depend on the images' content.

    `cleaned`: whether the images are published without their metadata.
    """
    config = json.dumps(training_config(identity), ensure_ascii=False, indent=2) + "\n"
    return {
        ".gitattributes": _GITATTRIBUTES.encode(),
        "README.md": _card(identity, repo_id, cleaned=cleaned).encode(),
        "training_config.json": config.encode(),
    }


def _card(identity: Identity, repo_id: str, *, cleaned: bool) -> str:
    """Return the model card. No name can break it: the front matter is constant, and the name is a code span."""
    name, count = _code_span(identity.name), len(identity.image_paths)
    inside = _CLEANED if cleaned else _KEPT
    return f"""\
---
license: mit
tags:
- flux
- flux-lora
- identity
- training-data
---

# Training data for {name}

{count} photos of one person, to train a FLUX LoRA with. There are no weights in here yet.

The MIT licence is that of this card and of `training_config.json`. The photos, and the face in them, are licensed to
nobody: they belong to the person.

**Keep this repo private.** {inside}

## What is inside

| path | what it is |
|---|---|
| `images/` | `image_001` to `image_{count:03}`, JPG or PNG, in the order of the upload; nothing else |
| `training_config.json` | whose photos these are, and the parameters below |

| steps | learning rate | resolution |
|---|---|---|
| {_STEPS} | {_LEARNING_RATE} | {_RESOLUTION} |

## How to train with it

Download it, with a token that may read it (`hf auth login`):

```sh
hf download {repo_id} --local-dir training-data
```

or from Python:

```python
from huggingface_hub import snapshot_download

folder = snapshot_download("{repo_id}")  # the photos are in its folder images/
```

Then give the folder `training-data/images` to a trainer:

- [ai-toolkit](https://github.com/ostris/ai-toolkit): `folder_path` of a dataset, a `trigger_word`,
  `resolution: [{_RESOLUTION}]`, `steps: {_STEPS}`, `lr: {_LEARNING_RATE}`.
- [diffusers](https://github.com/huggingface/diffusers), `train_dreambooth_lora_flux.py`:
  `--instance_data_dir` (`--dataset_name` expects a dataset repo), `--instance_prompt`,
  `--resolution={_RESOLUTION}`, `--max_train_steps={_STEPS}`, `--learning_rate={_LEARNING_RATE}`.
- [kohya's sd-scripts](https://github.com/kohya-ss/sd-scripts): `image_dir` of a subset, with `class_tokens`.

A photo may be stored turned, with a note of its orientation in EXIF. ai-toolkit and diffusers turn it upright.
sd-scripts does not: before training with it, turn such photos, for example with `mogrify -auto-orient` (ImageMagick).

Captions are optional: ai-toolkit and sd-scripts read `image_001.txt` beside `image_001.jpg`; diffusers opens
every file in the folder as a picture, so put none there for it.
"""


_CLEANED: Final = """\
The photos are without the metadata that they had when they were uploaded (when, where and with
which camera they were taken); their pixels are unchanged."""
_KEPT: Final = """\
The photos are as they were uploaded, including their metadata: when, where and with
which camera they were taken."""


def _code_span(text: str) -> str:
    """Quote text as a Markdown code span, with a longer fence than any in it, so that nothing in it is markup."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if "`" in text else ""  # the content may neither begin nor end with a backtick
    return f"{fence}{space}{text}{space}{fence}"


# The Hub's default for a new model repo, so that weights added later are stored as LFS too, plus images.
_GITATTRIBUTES: Final = "".join(
    f"{pattern} filter=lfs diff=lfs merge=lfs -text\n"
    for pattern in (
        *("*.7z", "*.arrow", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gz", "*.h5", "*.joblib", "*.lfs.*"),
        *("*.mlmodel", "*.model", "*.msgpack", "*.npy", "*.npz", "*.onnx", "*.ot", "*.parquet", "*.pb"),
        *("*.pickle", "*.pkl", "*.pt", "*.pth", "*.rar", "*.safetensors", "saved_model/**/*", "*.tar.*"),
        *("*.tar", "*.tflite", "*.tgz", "*.wasm", "*.xz", "*.zip", "*.zst", "*tfevents*"),
        *("*.jpg", "*.jpeg", "*.png"),
    )
)
