# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "accelerate==1.15.0",
#     "diffusers==0.42.0",
#     "huggingface_hub==2.4.0",
#     "peft==0.21.2",
#     "pillow==13.0.0",
#     "safetensors==0.8.0",
#     "torch==2.13.0",
#     "transformers==5.24.0",
# ]
# [tool.uv]
# exclude-newer = "2026-11-30T00:00:00Z"
# ///
"""What a training's job runs: it trains a LoRA on the photos of a published repo and commits it there, once.

The job gets this file alone, so nothing of Watcher is imported. `Settings` is its input, `Exit` how it ends. What it
prints names nobody, since the logs of jobs are kept. Nothing that can fail comes after the commit.
"""

import json
import os
import random
import sys
import tempfile
import time
import traceback
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from gzip import decompress
from pathlib import Path
from string import Template
from typing import Any, Final, TypeVar

from httpx2 import TransportError
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

T = TypeVar("T")

RANK: Final = 16
KEEP: Final = "\n**Keep this repo private.**"
"""From here on, the card of the published photos stays."""
PAUSES: Final = (1, 4, 15, 30, 60)
"""Seconds before a request is tried again that the Hub has not answered."""
RESERVED: Final = 300
"""Seconds at the end of the job's time in which no picture is made: the weights have to be committed."""


class Exit(IntEnum):
    """Why the job ended without weights. The daemon turns the exit code into a code and a sentence."""

    FAILED = 1
    DOUBLED = 10
    TOKEN = 11
    BASE = 12
    PUSH = 13
    MOVED = 14
    MEMORY = 15
    LOSS = 16
    DATA = 17


class Stop(Exception):
    """The job cannot go on; the text is a sentence that names nobody."""

    def __init__(self, code: Exit, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True, slots=True)
class Settings:
    """What the job was given, mostly in its environment."""

    repo: str
    revision: str
    """The commit to train on, and to commit on top of."""
    base: str
    data: Path
    """Where the repo's files at that commit are."""
    training: str
    project: str
    namespace: str
    prompts: tuple[str, ...]
    trigger: str
    steps: int
    learning_rate: float
    resolution: int
    seconds: float
    """How long the job may run."""
    card: str
    job: str | None
    """Its id; None where it is run by hand."""
    token: str = field(repr=False)
    endpoint: str | None = None
    """The Hub's URL; None: the usual one."""

    @classmethod
    def read(cls, given: Mapping[str, str]) -> "Settings":
        """Read them; raises Stop where the repo's training_config.json cannot be read, and LookupError."""
        data = Path(given["WATCHER_DATA"])
        steps, learning_rate, resolution = read_parameters(data / "training_config.json", given)
        return cls(
            repo=given["WATCHER_REPO"],
            revision=given["WATCHER_REVISION"],
            base=given["WATCHER_BASE"],
            data=data,
            training=given["WATCHER_TRAINING"],
            project=given["WATCHER_PROJECT"],
            namespace=given["WATCHER_NAMESPACE"],
            prompts=tuple(json.loads(given["WATCHER_PROMPTS"])),
            trigger=given["WATCHER_TRIGGER"],
            steps=steps,
            learning_rate=learning_rate,
            resolution=resolution,
            seconds=float(given["WATCHER_SECONDS"]),
            card=decompress(b64decode(given["WATCHER_CARD"])).decode(),
            job=given.get("JOB_ID"),
            token=given["HF_TOKEN"],
            endpoint=given.get("HF_ENDPOINT"),
        )

    def hub(self) -> HfApi:
        """Return the Hub, used with the job's token."""
        return HfApi(endpoint=self.endpoint, token=self.token)


def read_parameters(file: Path, given: Mapping[str, str]) -> tuple[int, float, int]:
    """Return steps, learning rate and resolution: what was given, and the rest from the repo's own file; raises Stop."""
    try:
        config = json.loads(file.read_text())["training_params"]
        return (
            int(given.get("WATCHER_STEPS") or config["steps"]),
            float(given.get("WATCHER_LEARNING_RATE") or config["learning_rate"]),
            int(given.get("WATCHER_RESOLUTION") or config["resolution"]),
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Stop(Exit.DATA, "The repo's training_config.json cannot be read.") from error


@dataclass(frozen=True, slots=True)
class Base:
    """The base model as it is now."""

    model_id: str
    revision: str
    pipeline: str
    """Its class in diffusers."""


def main() -> int:
    """Run the job, or its checks alone, and return its exit code."""
    try:
        started = time.monotonic()
        settings = Settings.read(os.environ)
        base = check(settings)
        if "--check" not in sys.argv[1:]:
            run(settings, base, started + settings.seconds)
    except Stop as stop:
        say(f"Exit {stop.code}: {stop}")
        return stop.code
    except Exception as error:  # noqa: BLE001 -- whatever it is, its text may name somebody
        return unexpected(error)
    return 0


def say(text: str) -> None:
    """Print a line into the job's log."""
    print(text, flush=True)


def unexpected(error: Exception) -> Exit:
    """Say what an error is and where it comes from, without what may name somebody."""
    for frame in traceback.extract_tb(error.__traceback__):
        say(f"  {Path(frame.filename).name}:{frame.lineno} in {frame.name}")
    name, text = type(error).__name__, " ".join(str(error).split())[:300]
    for variable in ("HF_TOKEN", "WATCHER_REPO", "WATCHER_TRIGGER"):
        for part in reversed(os.environ.get(variable, "").partition("/")):
            text = text.replace(part, "…") if len(part) > 1 else text
    code = Exit.MEMORY if "OutOfMemory" in name or isinstance(error, MemoryError) else Exit.FAILED
    say(f"Exit {code}: {name}: {text}")
    return code


# The checks: what would be in vain is to end before it costs anything.


def check(settings: Settings) -> Base:
    """Return the base model, if nothing stands in the way of this training; raises Stop."""
    api = settings.hub()
    ask(api.whoami, Exit.TOKEN, "The Hub refuses the token.")
    check_oldest(api, settings)
    ask(lambda: api.auth_check(settings.repo, write=True), Exit.PUSH, "The token may not write to the repo.")
    repo = ask(lambda: api.model_info(settings.repo), Exit.PUSH, "The token may not read the repo.")
    if repo.sha != settings.revision:
        raise Stop(Exit.MOVED, "The repo has a newer commit than the one to train on.")
    base = find_base(api, settings.base)
    say(f"Checks passed; the base model is a {base.pipeline}.")
    return base


def ask(request: Callable[[], T], code: Exit, refusal: str) -> T:
    """Return what the Hub answers, asking again while it does not; raises Stop if it refuses."""
    for pause in PAUSES:
        try:
            return request()
        except (OSError, TransportError) as error:
            refuse(error, code, refusal)
        time.sleep(pause)
    return request()


def refuse(error: Exception, code: Exit, refusal: str) -> None:
    """Raise Stop for an answer that will stay the same."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 503
    if status < 500 and status not in {408, 429}:
        raise Stop(code, f"{refusal} (HTTP {status})") from error


def check_oldest(api: HfApi, settings: Settings) -> None:
    """Raise Stop unless this is the oldest job of the training, so that one is paid for, whatever has been started.

    A list may lag behind, so it counts only if this job is in it. A token that may not list jobs does not stop the training:
    a second job is nearly always prevented before.
    """
    labels = {"watcher": settings.project, "training": settings.training}

    def jobs() -> list[str]:
        found = api.list_jobs(namespace=settings.namespace, labels=labels)
        return [job.id for job in sorted(found, key=lambda job: (str(job.created_at), job.id))]

    for pause in (*PAUSES, None):
        try:
            ids = ask(jobs, Exit.TOKEN, "The token may not list the jobs")
        except Stop as refused:
            say(f"{refused}: it is not known whether another job trains the same.")
            return
        if settings.job in ids or settings.job is None:
            break
        if pause is None:
            raise Stop(Exit.FAILED, "The list of jobs does not show this one.")
        time.sleep(pause)
    if ids[1:] and ids[0] != settings.job:
        raise Stop(Exit.DOUBLED, "Another job of the same training is older.")


def find_base(api: HfApi, model_id: str) -> Base:
    """Return the base model; raises Stop if its files may not be read, or its class cannot be trained here."""
    refusal = (
        "The base model cannot be read: does it exist, and has the token's account accepted its licence?"
    )
    revision = ask(lambda: api.model_info(model_id), Exit.BASE, refusal).sha
    assert revision is not None, "the Hub names the commit of each model"
    index = ask(
        lambda: api.hf_hub_download(model_id, "model_index.json", revision=revision), Exit.BASE, refusal
    )
    pipeline = json.loads(Path(index).read_text())["_class_name"]
    if pipeline not in FAMILIES:
        raise Stop(
            Exit.BASE, f"The base model is a {pipeline}; only {' and '.join(FAMILIES)} can be trained."
        )
    return Base(model_id, revision, pipeline)


# The training


def run(settings: Settings, base: Base, end: float) -> None:
    """Train, make pictures, and commit. `end`: when the job is stopped, on the monotonic clock."""
    images = read_photos(settings.data / "images", settings.resolution)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = make(settings, base, images, folder, end)
        template = Template(settings.card)
        published = (settings.data / "README.md").read_text()
        card = fill_card(template, published, settings, count=len(images), pictures=pictures)
        (folder / "README.md").write_text(card)
        commit(settings, folder, end)
    say(f"Committed the weights and {len(pictures)} pictures.")


def instance_prompt(trigger: str) -> str:
    """Return what each photo is called in the training."""
    return f"a photo of {trigger}"


def read_photos(folder: Path, size: int) -> list[Any]:
    """Return the photos as squares of `size` pixels, in the order of their names; raises Stop."""
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not files:
        raise Stop(Exit.DATA, "The repo has no photos.")
    return [read_photo(file, size, number) for number, file in enumerate(files, 1)]


def read_photo(file: Path, size: int, number: int) -> Any:
    """Return a photo upright, on white where it is transparent, in RGB, and its middle as a square; raises Stop."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16 bits, of which Pillow's own conversion would keep the lower 8
                image = image.point(lambda value: value * (1 / 256)).convert("L")
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError) as error:
        raise Stop(Exit.DATA, f"Photo {number} cannot be read ({type(error).__name__}).") from error


class Flux1:
    """FLUX.1: two text encoders, and a VAE whose latents are shifted and scaled."""

    encoders = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    embeddings = ("prompt_embeds", "pooled_prompt_embeds")
    needs_negative = False
    layers = (
        r".*transformer_blocks\.\d+\."
        r"(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)|ff(_context)?\.net\.(0\.proj|2))"
    )

    @staticmethod
    def latents(pipe: Any, pixels: Any) -> tuple[Any, Any]:
        """Return an image's latents as the transformer takes them, and their positions."""
        found = pipe.vae.encode(pixels).latent_dist.mode()
        found = (found - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor
        ids = pipe._prepare_latent_image_ids(
            1, found.shape[2] // 2, found.shape[3] // 2, found.device, found.dtype
        )
        return pipe._pack_latents(found, *found.shape), ids

    @staticmethod
    def text(prompt: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the transformer takes of an encoded prompt."""
        return {
            "encoder_hidden_states": prompt["prompt_embeds"],
            "pooled_projections": prompt["pooled_prompt_embeds"],
        }


class Flux2Klein:
    """FLUX.2 klein: one text encoder, and a VAE whose latents are normalized by its own statistics."""

    encoders = ("text_encoder", "tokenizer")
    embeddings = ("prompt_embeds",)
    needs_negative = True
    layers = (
        r"transformer_blocks\.\d+\.attn\.(to_[qkv]|to_out\.0)"
        r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)"
    )

    @staticmethod
    def latents(pipe: Any, pixels: Any) -> tuple[Any, Any]:
        """Return an image's latents as the transformer takes them, and their positions."""
        found = pipe._encode_vae_image(pixels, None)
        return pipe._pack_latents(found), pipe._prepare_latent_ids(found).to(found.device)

    @staticmethod
    def text(prompt: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the transformer takes of an encoded prompt."""
        return {"encoder_hidden_states": prompt["prompt_embeds"]}


Family = type[Flux1] | type[Flux2Klein]
FAMILIES: Final[dict[str, Family]] = {"FluxPipeline": Flux1, "Flux2KleinPipeline": Flux2Klein}


def make(settings: Settings, base: Base, images: Sequence[Any], folder: Path, end: float) -> list[str]:
    """Write the weights and pictures into the folder; returns the prompts of the pictures."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import set_seed
    from diffusers.training_utils import free_memory

    set_seed(0)
    on_gpu = torch.cuda.is_available()
    accelerator = Accelerator(mixed_precision="bf16" if on_gpu else "no")
    family, dtype = FAMILIES[base.pipeline], torch.bfloat16 if on_gpu else torch.float32
    if not on_gpu and os.environ.get("ACCELERATOR", "none") != "none":
        raise Stop(
            Exit.FAILED, "PyTorch cannot use the GPU: its CUDA may be newer than the machine's driver."
        )
    device = torch.cuda.get_device_name() if on_gpu else "a CPU"
    say(f"{len(images)} photos, {settings.steps} steps on {device}.")
    wanted = [instance_prompt(settings.trigger), *settings.prompts, ""]
    prompts = encode_prompts(load(base, dtype, "transformer", "vae").to(accelerator.device), family, wanted)
    free_memory()
    pipe = load(base, dtype, *family.encoders).to(accelerator.device)
    photos = [encode_photo(pipe, family, image) for image in images]
    adapt(pipe.transformer, family)
    text = family.text(prompts[0]) | {"txt_ids": prompts[0]["text_ids"]}
    for step, loss in fit(accelerator, pipe.transformer, photos, text, settings):
        say(f"step {step}/{settings.steps} loss {loss:.4f}")
    save(pipe, dtype, folder)
    return make_pictures(pipe, family, prompts[1:], settings, folder, end)


def load(base: Base, dtype: Any, *without: str) -> Any:
    """Load the base model's pipeline, but for some of its parts."""
    import diffusers

    pipeline = getattr(diffusers, base.pipeline)
    parts = dict.fromkeys(without)
    pipe = ask(
        lambda: pipeline.from_pretrained(base.model_id, revision=base.revision, dtype=dtype, **parts),
        Exit.BASE,
        "The base model cannot be downloaded.",
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encode_prompts(pipe: Any, family: Family, prompts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the prompts' embeddings by name, so that the text encoders need not stay in memory."""
    import torch

    with torch.no_grad():
        found = [pipe.encode_prompt(prompt=prompt) for prompt in prompts]
    return [dict(zip((*family.embeddings, "text_ids"), one, strict=True)) for one in found]


def encode_photo(pipe: Any, family: Family, image: Any) -> tuple[Any, Any]:
    """Return a photo's latents and their positions."""
    import torch

    pixels = pipe.image_processor.preprocess(image).to(pipe.vae.device, pipe.vae.dtype)
    with torch.no_grad():
        return family.latents(pipe, pixels)


def adapt(transformer: Any, family: Family) -> None:
    """Add a LoRA to the transformer, which alone is trained, in 32 bits."""
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    transformer.requires_grad_(requires_grad=False)
    config = LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=family.layers)
    transformer.add_adapter(config)
    transformer.enable_gradient_checkpointing()
    transformer.train()
    cast_training_params(transformer)


def fit(
    accelerator: Any, transformer: Any, photos: Sequence[Any], text: Mapping[str, Any], settings: Settings
) -> Iterator[tuple[int, float]]:
    """Train by flow matching, a photo a step in random order; yields some steps and their loss, and raises Stop."""
    import torch

    weights = [one for one in transformer.parameters() if one.requires_grad]
    optimizer = accelerator.prepare(torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=1e-4))
    order: list[Any] = []
    for step in range(1, settings.steps + 1):
        order = order or random.sample(photos, len(photos))
        latents, ids = order.pop()
        with accelerator.autocast():
            loss = flow_loss(transformer, latents, ids, text)
        if not torch.isfinite(loss):
            raise Stop(Exit.LOSS, f"The loss of step {step} is not finite.")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step in {1, settings.steps}:
            yield step, loss.item()
    if not all(bool(torch.isfinite(one).all()) for one in weights):
        raise Stop(Exit.LOSS, "The weights are not finite.")


def flow_loss(transformer: Any, latents: Any, ids: Any, text: Mapping[str, Any]) -> Any:
    """Return the squared error of the direction predicted from a random point between a photo and noise."""
    import torch

    noise, sigma = torch.randn_like(latents), torch.rand(1, device=latents.device, dtype=latents.dtype)
    guided = getattr(transformer.config, "guidance_embeds", False)
    predicted = transformer(
        hidden_states=(1 - sigma) * latents + sigma * noise,
        timestep=sigma,
        guidance=torch.ones_like(sigma) if guided else None,
        img_ids=ids,
        return_dict=False,
        **text,
    )[0]
    return torch.nn.functional.mse_loss(predicted.float(), (noise - latents).float())


def save(pipe: Any, dtype: Any, folder: Path) -> None:
    """Write the LoRA's weights, as the pipeline's own class loads them."""
    from diffusers.training_utils import cast_training_params
    from peft.utils import get_peft_model_state_dict

    cast_training_params(pipe.transformer, dtype=dtype)
    pipe.save_lora_weights(folder, transformer_lora_layers=get_peft_model_state_dict(pipe.transformer))


def make_pictures(
    pipe: Any,
    family: Family,
    prompts: Sequence[Mapping[str, Any]],
    settings: Settings,
    folder: Path,
    end: float,
) -> list[str]:
    """Make a picture of each prompt into samples/, and return the prompts of those that were made.

    The weights are worth more: what cannot be made, or not in time, is left out.
    """
    made: list[str] = []
    size = min(1024, 2 * settings.resolution)
    last = end - min(RESERVED, settings.seconds / 4)
    extra = {f"negative_{name}": prompts[-1][name] for name in family.embeddings if family.needs_negative}
    (folder / "samples").mkdir()

    def in_time(_pipe: Any, _step: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if time.monotonic() > last:
            raise TimeoutError
        return kwargs

    try:
        pipe.transformer.eval()
        for number, (text, prompt) in enumerate(zip(settings.prompts, prompts, strict=False), 1):
            embeddings = {name: prompt[name] for name in family.embeddings}
            picture = pipe(
                **embeddings, **extra, width=size, height=size, callback_on_step_end=in_time
            ).images[0]
            picture.save(folder / "samples" / f"sample_{number}.jpg", quality=92)
            made.append(text)
            say(f"picture {number}/{len(settings.prompts)}")
    except Exception as error:  # noqa: BLE001  (whatever it is: the weights are worth more than pictures)
        say(f"{len(made)} of {len(settings.prompts)} pictures were made ({type(error).__name__}).")
    return made


# The result


def fill_card(
    template: Template, published: str, settings: Settings, *, count: int, pictures: Sequence[str]
) -> str:
    """Return the card of the trained repo. What the published card says of the photos stays, and so does the name."""
    title = next((line for line in published.split("\n") if line.startswith("# ")), "")
    widget = "".join(
        f"- text: {json.dumps(prompt, ensure_ascii=False)}\n  output:\n    url: samples/sample_{number}.jpg\n"
        for number, prompt in enumerate(pictures, 1)
    )
    return template.substitute(
        name="".join(title.partition("`")[1:]) or "a person",
        repo=settings.repo,
        count=count,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        resolution=settings.resolution,
        widget=f"widget:\n{widget}" if widget else "",
        gallery="<Gallery />\n" if widget else "",
        photos="".join(published.partition(KEEP)[1:]).lstrip(),
    )


def commit(settings: Settings, folder: Path, end: float) -> None:
    """Commit the folder's files on top of the revision, once; raises Stop if the Hub refuses.

    They have been paid for, so it is tried as long as the job may run. `parent_commit` makes a second one impossible.
    """
    api, pause = settings.hub(), 2
    while True:
        try:
            api.create_commit(
                settings.repo,
                operations(settings, folder),
                commit_message=f"Train a LoRA ({settings.steps} steps)",
                commit_description=description(settings.training),
                parent_commit=settings.revision,
            )
            return
        except Exception as error:  # an upload by Xet raises more than its client's own errors
            say(f"The commit was not answered ({type(error).__name__}).")
            landed = has_landed(api, settings)
            if landed:
                return
            if landed is False:
                refuse(error, Exit.MOVED, "The Hub does not accept the weights.")
            if time.monotonic() + pause > end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 60)


def operations(settings: Settings, folder: Path) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Return what adds the folder's files, and removes the pictures of an earlier training that have no successor."""
    new = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
    old = {f"samples/{file.name}" for file in (settings.data / "samples").glob("*")}
    return [
        *(CommitOperationAdd(path, file) for path, file in new.items()),
        *(CommitOperationDelete(path) for path in sorted(old - new.keys())),
    ]


def description(training: str) -> str:
    """Return the line by which the commit of a training is recognized."""
    return f"Watcher training: {training}"


def has_landed(api: HfApi, settings: Settings) -> bool | None:
    """Whether the repo has this training's commit; None where the Hub does not answer. Raises Stop if it refuses."""
    try:
        commits = api.list_repo_commits(settings.repo)
    except (OSError, TransportError) as error:
        refuse(error, Exit.MOVED, "The token may not read the repo any more.")
        return None
    return any(description(settings.training) in one.message.splitlines() for one in commits)


if __name__ == "__main__":
    sys.exit(main())
