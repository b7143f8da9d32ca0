"""The model card of a trained repo, as a template: the job fills in what only it knows, and what names a person.

The template travels in the job's environment, which whoever may see the job can read.
"""

import json
from typing import Final

from watcher.hub.weights import WEIGHTS
from watcher.training.bases import Base

_TAGS: Final = ("flux", "identity", "lora", "template:sd-lora", "text-to-image")


def card_template(base: Base, instance_prompt: str, example: str) -> str:
    """Return a `string.Template`; `fill_card` in script.py knows its placeholders.

    `instance_prompt` is what each photo was called in the training, `example` a prompt for the lines to paste.
    """
    gate = ", with an account that has accepted its licence" if base.gated else ""
    return f"""\
---
{_fields(base, instance_prompt)}
$widget---

# A LoRA of $name

$gallery
Weights that make pictures of one person with
[{base.model_id}](https://huggingface.co/{base.model_id}), trained on $count photos: $steps steps,
learning rate $learning_rate, $resolution pixels. Call the person `{_literal(instance_prompt)}` in a prompt.

## How to use it

The repo is private: use a token that may read it (`hf auth login`){gate}.

With [diffusers](https://github.com/huggingface/diffusers), on a GPU:

```python
import torch
from diffusers import {base.pipeline or "DiffusionPipeline"} as Pipeline

pipeline = Pipeline.from_pretrained("{base.model_id}", torch_dtype=torch.bfloat16).to("cuda")
pipeline.load_lora_weights("$repo", weight_name="{WEIGHTS}", token=True)
pipeline({_literal(json.dumps(example, ensure_ascii=False))}).images[0].save("picture.png")
```
{_faster(base)}
With [ComfyUI](https://github.com/comfyanonymous/ComfyUI), a version that knows this base model: put the file where it looks
for LoRAs, then add the node "Load LoRA" behind the one that loads the base model.

```sh
hf download $repo {WEIGHTS} --local-dir ComfyUI/models/loras
```

Inference Providers cannot use it: they do not see private LoRAs.

## Licence

The weights come under {_terms(base)}.
The photos, and the face in them, are licensed to nobody: do nothing with them, and make no picture of that person, without
their consent.

## The photos

$photos"""


def _fields(base: Base, instance_prompt: str) -> str:
    """Return the lines of the front matter, but for those about pictures."""
    fields = {
        "license": base.license,
        "license_name": base.license_name,
        "license_link": base.license_link,
        "base_model": base.model_id,
        "base_model_relation": "adapter",
        "instance_prompt": _literal(json.dumps(instance_prompt, ensure_ascii=False)),
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
    }
    lines = [f"{key}: {value}" for key, value in fields.items() if value]
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in _TAGS)])


def _terms(base: Base) -> str:
    if base.license_link:
        return f"the licence of their base model, [{base.license_name}]({base.license_link})"
    return f"the licence of their base model, {base.license}"


def _faster(base: Base) -> str:
    if not base.run_with:
        return ""
    return (
        f"\nThe distilled `{base.run_with}` takes the same LoRA and needs only a few steps for a picture.\n"
    )


def _literal(text: str) -> str:
    """Return text that a template leaves as it is."""
    return text.replace("$", "$$")
