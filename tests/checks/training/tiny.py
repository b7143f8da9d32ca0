"""Tiny FLUX pipelines, whose weights are random, and what a LoRA changes in their pictures.

A program for the environment of watcher/training/script.py: `build FOLDER` saves a pipeline of each family in a folder of
that name; `compare BASE REPO` prints as JSON how much the LoRA of a repo changes a picture of its base, with HF_TOKEN.
"""

import json
import string
import sys
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from huggingface_hub import hf_hub_download

_CHARACTERS = [character for character in string.printable if not character.isspace()]
_VAE = {
    "sample_size": 32,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [4] * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 1,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_TRANSFORMER = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
}


def flux1() -> Any:
    """Return a FluxPipeline."""
    clip_words = ["<|startoftext|>", "<|endoftext|>"]
    clip_words += [character + end for character in _CHARACTERS for end in ("", "</w>")]
    clip = transformers.CLIPTextConfig(
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        hidden_size=32,
        intermediate_size=32,
        num_attention_heads=4,
        num_hidden_layers=2,
        vocab_size=len(clip_words),
        projection_dim=32,
    )
    t5_words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0)]
    t5_words += [(character, -3.0) for character in _CHARACTERS]
    t5 = transformers.T5Config(
        vocab_size=len(t5_words), d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4
    )
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=diffusers.AutoencoderKL(**_VAE, shift_factor=0.1159, scaling_factor=0.3611),
        text_encoder=transformers.CLIPTextModel(clip),
        tokenizer=transformers.CLIPTokenizer(vocab=_numbered(clip_words), merges=[], model_max_length=77),
        text_encoder_2=transformers.T5EncoderModel(t5),
        tokenizer_2=transformers.T5TokenizerFast(vocab=t5_words, extra_ids=0),
        transformer=diffusers.FluxTransformer2DModel(
            **_TRANSFORMER,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=[4, 4, 8],
            guidance_embeds=True,
        ),
    )


def klein() -> Any:
    """Return a Flux2KleinPipeline."""
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *_CHARACTERS, *map(chr, range(256, 324))]
    tokenizer = transformers.Qwen2TokenizerFast(vocab=_numbered(words), merges=[])
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
    )
    # The pipeline reads the text encoder's layers 9, 18 and 27.
    qwen = transformers.Qwen3Config(
        intermediate_size=16,
        hidden_size=16,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=len(words),
        max_position_embeddings=512,
    )
    return diffusers.Flux2KleinPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=diffusers.AutoencoderKLFlux2(**_VAE),
        text_encoder=transformers.Qwen3ForCausalLM(qwen),
        tokenizer=tokenizer,
        transformer=diffusers.Flux2Transformer2DModel(
            **_TRANSFORMER,
            joint_attention_dim=48,
            timestep_guidance_channels=256,
            axes_dims_rope=[4, 4, 4, 4],
            guidance_embeds=False,
        ),
    )


def _numbered(words: list[str]) -> dict[str, int]:
    return {word: number for number, word in enumerate(words)}


def build(folder: Path) -> None:
    """Save both."""
    for make in (flux1, klein):
        torch.manual_seed(0)
        make().save_pretrained(folder / make.__name__)


def compare(base: str, repo: str) -> dict[str, Any]:
    """Return how much the LoRA of a repo changes a picture of its base, and how large its file is."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(base)
    before = _picture(pipe)
    pipe.load_lora_weights(repo, weight_name="pytorch_lora_weights.safetensors", token=True)
    after = _picture(pipe)
    pipe.unload_lora_weights()
    back = _picture(pipe)
    weights = Path(hf_hub_download(repo, "pytorch_lora_weights.safetensors", token=True))
    return {
        "pipeline": type(pipe).__name__,
        "changed": float(abs(after - before).mean()),
        "repeated": float(abs(back - before).mean()),
        "bytes": weights.stat().st_size,
    }


def _picture(pipe: Any) -> Any:
    """Return the pixels of the same picture, from 0 to 1."""
    generator = torch.Generator().manual_seed(0)
    arguments = {"width": 64, "height": 64, "num_inference_steps": 4, "output_type": "np"}
    return pipe(prompt="a photo of ohwx person", generator=generator, **arguments).images[0]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["build", folder]:
            build(Path(folder))
        case ["compare", base, repo]:
            sys.stdout.write(json.dumps(compare(base, repo)) + "\n")
