"""The job of a training follows from its claim, and names nobody."""

import base64
import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from string import Template

import pytest

from tests.checks.training.requirements import requirements
from watcher.errors import TRAINING_CODES
from watcher.hub.weights import training_description
from watcher.sandbox.hub.card import metadata, validate
from watcher.training.bases import KNOWN, parse_base
from watcher.training.card import card_template
from watcher.training.outcomes import exit_code, failure
from watcher.training.recipe import PROMPTS, TRIGGER, Training, job_spec, prompts_of
from watcher.training.script import Exit, description

KLEIN, FLUX1 = "black-forest-labs/FLUX.2-klein-base-4B", "black-forest-labs/FLUX.1-dev"
TRAINING = Training(
    label="7",
    project="0123abcd",
    namespace="studio",
    repo_id="alice/identity-1761480000",
    revision="a" * 40,
    base=KLEIN,
    flavor="l40sx1",
    minutes=60,
)


def test_the_same_training_is_the_same_job() -> None:
    assert job_spec(TRAINING, "hf_x") == job_spec(TRAINING, "hf_x")


def test_a_job_has_a_time_out_labels_and_the_published_commit() -> None:
    spec = job_spec(TRAINING, "hf_x")
    assert (spec.seconds, spec.flavor) == (3600, "l40sx1")
    assert spec.labels["watcher"] == "0123abcd"
    assert spec.labels["training"] == "7"
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,100}", part) for pair in spec.labels.items() for part in pair)
    assert (spec.repo_id, spec.revision, spec.mount_path) == (TRAINING.repo_id, TRAINING.revision, "/data")


def test_a_job_looks_for_its_like_where_it_runs_and_not_where_the_repo_is() -> None:
    assert job_spec(TRAINING, "hf_x").environment["WATCHER_NAMESPACE"] == "studio"


def test_the_daemon_knows_a_commit_by_what_the_script_writes() -> None:
    assert training_description("7") == description("7")


def test_the_script_travels_whole_and_in_one_line() -> None:
    packed = job_spec(TRAINING, "hf_x").environment["WATCHER_SCRIPT"]
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", packed)
    assert len(packed) < 16_000  # far from what one variable may hold
    script = Path(__file__).parents[2] / "watcher/training/script.py"
    assert gzip.decompress(base64.b64decode(packed)).decode() == script.read_text()


def test_what_is_asked_of_a_job_fits_into_a_request() -> None:
    spec = job_spec(TRAINING, "hf_x")
    assert sum(len(value) for value in (*spec.environment.values(), *spec.secrets.values())) < 32_000


def test_the_token_is_a_secret_and_nothing_else() -> None:
    spec = job_spec(TRAINING, "hf_x")
    assert spec.secrets["HF_TOKEN"] == "hf_x"
    assert "hf_x" not in json.dumps([spec.command, dict(spec.environment), dict(spec.labels)])


def test_trigger_and_prompts_are_not_shown_with_the_job() -> None:
    spec = job_spec(replace(TRAINING, trigger="zoë", prompts=["{trigger} laughs"]), "hf_x")
    assert json.loads(spec.secrets["WATCHER_PROMPTS"]) == ["zoë laughs"]
    assert "zo" not in json.dumps({k: v for k, v in spec.environment.items() if k != "WATCHER_SCRIPT"})


def test_what_is_not_overridden_is_left_to_the_repos_own_config() -> None:
    assert "WATCHER_STEPS" not in job_spec(TRAINING, "hf_x").environment
    own = job_spec(replace(TRAINING, steps=20, learning_rate=1e-4), "hf_x").environment
    assert (own["WATCHER_STEPS"], own["WATCHER_LEARNING_RATE"]) == ("20", "0.0001")


def test_every_prompt_names_the_trigger() -> None:
    assert all(TRIGGER in prompt for prompt in prompts_of(TRIGGER, PROMPTS))
    assert prompts_of("ohwx", ["by the sea", "{trigger} laughs"]) == ["ohwx, by the sea", "ohwx laughs"]


def test_requirements_are_pinned_exactly_and_those_of_the_checks_are_the_same() -> None:
    required = requirements()
    assert {"torch", "diffusers", "peft", "transformers", "accelerate"} < {
        one.partition("==")[0] for one in required
    }
    assert all(re.fullmatch(r"[a-z_]+==[0-9.]+", one) for one in required)
    [of_the_checks] = re.findall(r"--with (\S+)", job_spec(TRAINING, "hf_x").command[-1])
    assert of_the_checks in required


@pytest.mark.parametrize("base", [*KNOWN, "somebody/some-flux"])
def test_the_card_is_one_that_the_hub_accepts(base: str) -> None:
    card = _card(base, "a photo of ohwx")
    assert validate(card) == ([], [])
    data = metadata(card)
    assert data["base_model"] == base
    assert data["license"] == parse_base(base).license
    assert {"lora", "template:sd-lora"} < set(data["tags"])


def test_a_card_says_how_to_use_the_weights_and_what_does_not_work() -> None:
    card = _card(FLUX1, "a photo of ohwx")
    assert "from diffusers import FluxPipeline as Pipeline" in card
    assert (
        'load_lora_weights("alice/ada", weight_name="pytorch_lora_weights.safetensors", token=True)' in card
    )
    assert "ComfyUI/models/loras" in card
    assert "Inference Providers cannot use it" in card
    assert "accepted its licence" in card
    assert "FLUX.1-dev/blob/main/LICENSE.md" in card


@pytest.mark.parametrize("trigger", ["$name", "${repo}", 'a "quoted" \\ one', "{trigger}", "#: '", "é"])
def test_no_trigger_breaks_the_card(trigger: str) -> None:
    card = _card(KLEIN, trigger)
    assert validate(card) == ([], [])
    assert metadata(card)["instance_prompt"] == trigger


def _card(base: str, prompt: str) -> str:
    template = Template(card_template(parse_base(base), prompt, prompt))
    return template.substitute(
        name="`Ada`",
        repo="alice/ada",
        count=3,
        steps=1,
        learning_rate=1e-4,
        resolution=512,
        widget="",
        gallery="",
        photos="",
    )


def test_a_base_is_known_in_whatever_case_and_an_unknown_one_has_a_caution() -> None:
    assert parse_base(" Black-Forest-Labs/flux.2-KLEIN-base-4b ").model_id == KLEIN
    assert parse_base(KLEIN).caution is None
    unknown = parse_base("somebody/some-flux")
    assert (unknown.pipeline, unknown.license) == (None, "other")
    assert "licence" in (unknown.caution or "")


@pytest.mark.parametrize("text", ["", "flux", "a/b/c", "a b/c", "https://huggingface.co/a/b", "../x"])
def test_what_is_no_model_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="is not the id of a model"):
        parse_base(text)


def test_a_base_that_fits_on_no_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        parse_base("black-forest-labs/FLUX.2-dev")


@pytest.mark.parametrize(
    ("stage", "message", "code"),
    [
        ("ERROR", "Job failed with exit code: 11.", "training_refused"),
        ("ERROR", "Job failed with exit code: 12. Reason: Error", "training_base_refused"),
        ("ERROR", "Job failed with exit code: 13.", "training_refused"),
        ("ERROR", "Job failed with exit code: 14.", "training_refused"),
        ("ERROR", "Job failed with exit code: 15.", "training_out_of_memory"),
        ("ERROR", "Job failed with exit code: 137. Reason: OOMKilled", "training_out_of_memory"),
        ("ERROR", "Job failed with exit code: 16.", "training_failed"),
        ("ERROR", "Job failed with exit code: 1.", "training_failed"),
        ("ERROR", "Job timeout", "training_timed_out"),
        ("ERROR", "Job timed out", "training_timed_out"),
        ("ERROR", "", "training_failed"),
        ("COMPLETED", "", "training_left_nothing"),
        ("CANCELED", "", "training_failed"),
        ("DELETED", "", "training_failed"),
        ("SOMETHING_NEW", "", "training_failed"),
    ],
)
def test_an_ended_job_has_a_code_and_a_sentence(stage: str, message: str, code: str) -> None:
    found = failure(stage, exit_code(message), message)
    assert found.code == code
    assert found.code in TRAINING_CODES
    assert found.sentence.endswith(".")


def test_every_exit_code_but_the_general_one_has_a_sentence_of_its_own() -> None:
    sentences = [failure("ERROR", code, "").sentence for code in Exit]
    assert len(set(sentences)) == len(Exit)


def test_the_exit_code_is_read_from_the_message() -> None:
    assert exit_code("Job failed with exit code: 137. Reason: OOMKilled") == 137
    assert exit_code("Job timeout") is None
    assert exit_code("") is None
