"""The base models: under which licence a LoRA of each comes, what else is known of it, and what is not."""

import re
from dataclasses import dataclass
from typing import Final

_MODEL_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on the Hub."""

    model_id: str
    pipeline: str | None
    """Its class in diffusers; None where it is not known, and the job finds out."""
    license: str
    """As model cards name it; the weights of a LoRA come under it, too."""
    license_name: str | None = None
    """Where `license` is "other"."""
    license_link: str | None = None
    gated: bool = False
    """Whether the account of the token must have accepted the licence on the model's page."""
    learning_rate: float | None = None
    """What guides for this model use. Nothing applies it: it is shown to the operator, who sets the rate."""
    run_with: str | None = None
    """A distilled model that takes the same LoRA and needs fewer steps for a picture."""
    caution: str | None = None
    """What the operator has to know before money is spent, in a sentence."""


_NON_COMMERCIAL: Final = "Its licence does not allow commercial use, of the LoRA neither."

KNOWN: Final = {
    base.model_id: base
    for base in (
        Base(
            "black-forest-labs/FLUX.2-klein-base-4B",
            "Flux2KleinPipeline",
            "apache-2.0",
            learning_rate=1e-4,
            run_with="black-forest-labs/FLUX.2-klein-4B",
        ),
        Base(
            "black-forest-labs/FLUX.2-klein-base-9B",
            "Flux2KleinPipeline",
            "other",
            license_name="flux-non-commercial-license",
            license_link="https://huggingface.co/black-forest-labs/FLUX.2-klein-base-9B/blob/main/LICENSE.md",
            gated=True,
            learning_rate=1e-4,
            run_with="black-forest-labs/FLUX.2-klein-9B",
            caution=_NON_COMMERCIAL,
        ),
        Base(
            "black-forest-labs/FLUX.1-dev",
            "FluxPipeline",
            "other",
            license_name="flux-1-dev-non-commercial-license",
            license_link="https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
            gated=True,
            learning_rate=4e-4,
            caution=_NON_COMMERCIAL,
        ),
    )
}
"""By the id on the Hub."""


def parse_base(text: str) -> Base:
    """Return the base model that an operator names; raises ValueError, with a sentence, for what can be none.

    A model that is not known is allowed, with a caution: the job ends at once if its class is not one it can train.
    """
    model_id = text.strip()
    if not _MODEL_ID.fullmatch(model_id):
        raise ValueError(f"{text!r} is not the id of a model on the Hub, such as {next(iter(KNOWN))}.")
    for known in KNOWN.values():
        if known.model_id.lower() == model_id.lower():
            return known
    if model_id.lower() == "black-forest-labs/flux.2-dev":
        raise ValueError(
            "FLUX.2-dev does not fit on one GPU while it is trained: choose a FLUX.2 klein base model."
        )
    return Base(
        model_id,
        None,
        "other",
        license_name="license-of-the-base-model",
        license_link=f"https://huggingface.co/{model_id}",
        caution="Nothing is known of this model: read its licence, and whether it is a FluxPipeline or a "
        "Flux2KleinPipeline, on its page.",
    )
