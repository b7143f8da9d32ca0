"""What the repo holds follows from the row alone, and no name can break it."""

import json
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.utils._validators import validate_repo_id
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from watcher.hub.repos import commit_description, is_commit_of
from watcher.identity import Identity, Image
from watcher.publishing import documents as publication
from watcher.publishing.documents import slug

ID = "5f0e4c5e-6a1f-4b6e-9d3a-0d6f1b6f2c11"
USER = "b7c1d9c0-2f3e-4a55-8a77-51c0a9d3e0aa"
REPO = "alice/identity-john-1761480000"
HOSTILE = [
    ': - "',
    "---",
    "{{ name }}",
    "{% raw %}",
    "# [a](javascript:alert(1))",
    "<script>alert(1)</script>",
    "<!--",
    "`",
    "``` ```` `",
    "`a`",
    "a|b|c",
    "www.example.com",
    "https://example.com/",
    "@everyone",
    "\\",
    "&lt;b&gt;",
    "🎉",
    "مهدی‌زاده",
    "'\"",
    "%s %(name)s {0}",
    "x" * 100,
]
steady = settings(derandomize=True, deadline=None)


def _shown(name: str) -> bool:
    return name.strip() == name != "" and all(
        unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in name
    )


names = st.one_of(
    st.text(min_size=1, max_size=100).filter(_shown),
    st.text("ab`*_<>&[]()|#-:{}\"'\\! @/.", min_size=1, max_size=40).filter(_shown),
    st.sampled_from(HOSTILE),
)


def identity(name: str = "John", count: int = 3) -> Identity:
    paths = tuple(f"{USER}/photo{number}.jpg" for number in range(1, count + 1))
    return Identity(ID, USER, name, paths, "2025-10-26T12:00:00Z")


def images(count: int = 3) -> list[Image]:
    return [
        Image(
            number,
            f"{USER}/photo{number}.jpg",
            Path(f"/spool/{number}"),
            "png" if number == 2 else "jpg",
            1_000,
            "0" * 64,
        )
        for number in range(1, count + 1)
    ]


def card(name: str = "John", count: int = 3) -> str:
    return publication.documents(identity(name, count), REPO)["README.md"].decode()


def test_the_card_says_what_the_photos_tell_and_which_trainers_turn_them() -> None:
    kept = publication.documents(identity(), REPO, cleaned=False)["README.md"].decode()
    assert "photos are without the metadata" in card()
    assert "photos are as they were uploaded, including their metadata" in kept
    assert "ai-toolkit and diffusers turn it upright.\nsd-scripts does not" in card()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("John", "john"),
        ("Test Person", "test-person"),
        ("Zoë", "zoe"),
        ("Zoe\u0308", "zoe"),
        ("李雷", "li-lei"),
        ("Иван李雷", "ivan-li-lei"),
        ("田中たろう", "tian-zhong-tarou"),
        ("김철수", "gim-cheol-su"),
        (unicodedata.normalize("NFD", "김철수"), "gim-cheol-su"),
        ("Straße", "strasse"),
        ("Владимир", "vladimir"),
        ("مریم", "mrym"),
        ("سعید", "syd"),
        ("مهدی\u200cزاده", "mhdyzdh"),
        ("अमित", "amit"),
        ("Nguyễn Văn An", "nguyen-van-an"),
        ("Ｊｏｈｎ", "john"),
        ("O’Brien", "o-brien"),
        ("--Jean__Luc  P.--", "jean-luc-p"),
        ("I ❤️ you", "i-you"),
        ("👩\u200d🚀", "person"),
        ("!!!", "person"),
        ("", "person"),
        ("x" * 100, "x" * 75),
    ],
)
def test_a_name_becomes_a_readable_part_of_the_repos_name(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_a_long_name_ends_with_a_whole_word() -> None:
    name = "Anna Maria von und zu Hohenlohe-Waldenburg-Schillingsfürst die Zweite und Letzte"
    assert slug(name) == "anna-maria-von-und-zu-hohenlohe-waldenburg-schillingsfurst-die-zweite-und"


def test_a_word_that_just_fits_is_kept_whole() -> None:
    assert slug("a" * 70 + " bbbb cc") == "a" * 70 + "-bbbb"


def test_a_name_that_is_nearly_one_word_is_cut_within_it() -> None:
    assert slug("A " + "b" * 99) == "a-" + "b" * 73


@steady
@given(st.one_of(st.text(max_size=120), names), st.sampled_from([0, 1_761_480_000, 99_999_999_999]))
def test_the_hub_accepts_every_name(name: str, timestamp: int) -> None:
    repo = f"identity-{slug(name)}-{timestamp}"
    validate_repo_id(f"alice/{repo}")
    assert len(repo) <= 96
    assert repo == repo.lower()
    assert repo.isascii()


def test_the_training_config_is_the_seeds_byte_for_byte() -> None:
    config = publication.documents(identity(count=10), REPO)["training_config.json"]
    assert config.decode() == (
        "{\n"
        '  "identity_name": "John",\n'
        '  "num_images": 10,\n'
        '  "created_at": "2025-10-26T12:00:00Z",\n'
        f'  "user_id": "{USER}",\n'
        '  "model_type": "flux-lora",\n'
        '  "training_params": {\n'
        '    "steps": 1000,\n'
        '    "learning_rate": 0.0004,\n'
        '    "resolution": 512\n'
        "  }\n"
        "}\n"
    )


@steady
@given(names)
def test_the_training_config_says_the_name_as_it_is(name: str) -> None:
    config = publication.documents(identity(name), REPO)["training_config.json"]
    assert json.loads(config) == publication.training_config(identity(name))
    assert json.loads(config)["identity_name"] == name
    assert json.dumps(name, ensure_ascii=False) in config.decode()


def test_the_documents_depend_on_the_row_alone() -> None:
    documents = publication.documents(identity(), REPO)
    assert list(documents) == [".gitattributes", "README.md", "training_config.json"]
    assert publication.documents(identity(), REPO) == documents


def test_an_image_is_named_by_its_place_in_the_row_and_by_its_bytes() -> None:
    paths = [publication.image_path(image) for image in images()]
    assert paths == ["images/image_001.jpg", "images/image_002.png", "images/image_003.jpg"]


def test_forty_images_are_numbered_in_the_order_of_their_names() -> None:
    paths = [publication.image_path(image) for image in images(40)]
    assert paths == sorted(paths)
    assert paths[-1] == "images/image_040.jpg"


@pytest.mark.parametrize(
    "path", ["images/image_001.jpg", "images/image_002.png", "a.jpeg", "lora.safetensors", "optimizer.pt"]
)
def test_git_keeps_images_and_weights_as_lfs(path: str) -> None:
    lines = publication.documents(identity(), REPO)[".gitattributes"].decode().splitlines()
    patterns = [line.removesuffix(" filter=lfs diff=lfs merge=lfs -text") for line in lines]
    assert all(" " not in pattern for pattern in patterns)
    assert len(set(patterns)) == len(patterns)
    assert any(PurePosixPath(path).match(pattern) for pattern in patterns)


@pytest.mark.parametrize("path", ["README.md", "training_config.json", ".gitattributes"])
def test_git_keeps_documents_as_text(path: str) -> None:
    lines = publication.documents(identity(), REPO)[".gitattributes"].decode().splitlines()
    assert not any(PurePosixPath(path).match(line.split(" ")[0]) for line in lines)


def test_the_card_says_what_is_inside_and_how_to_train_with_it() -> None:
    text = card(count=12)
    for said in ("# Training data for `John`", "12 photos", "`image_001` to `image_012`", "private", REPO):
        assert said in text
    for trainer in ("ai-toolkit", "train_dreambooth_lora_flux.py", "sd-scripts"):
        assert trainer in text


@steady
@given(names)
def test_the_cards_front_matter_is_the_same_for_every_name(name: str) -> None:
    data: Any = ModelCard(card(name), ignore_metadata_errors=False).data
    assert data.to_dict() == {"license": "mit", "tags": ["flux", "flux-lora", "identity", "training-data"]}


def _blocks(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text.split("---\n", 2)[2])


@steady
@example("``")
@example("`` ` ``")
@example("a  b")
@given(names)
def test_a_name_is_neither_markup_nor_link_nor_html_in_the_card(name: str) -> None:
    title, plain_title = _blocks(card(name))[1], _blocks(card())[1]
    text, code = title.children or []
    assert (text.type, text.content) == ("text", "Training data for ")
    assert (code.type, code.content) == ("code_inline", name)
    assert plain_title.content == "Training data for `John`"
    others = [[token.as_dict() for token in _blocks(card(each))[2:]] for each in (name, "John")]
    assert others[0] == others[1]


def test_the_commit_says_whose_images_and_how_many() -> None:
    assert publication.commit_message(identity(count=10)) == "Upload training data for John (10 images)"


@pytest.mark.parametrize(
    "description", [f"Identity: {ID}", f"Identity: {ID}\n", f"Said\n\nIdentity: {ID}\r\nmore"]
)
def test_a_description_names_its_row(description: str) -> None:
    assert is_commit_of(ID, description)


@pytest.mark.parametrize(
    "description",
    [
        "",
        ID,
        f"Identity: {ID}1",
        f"Identity: {ID[:-1]}",
        f" Identity: {ID}",
        f"identity: {ID}",
        f"Identity: {ID} and others",
        f"Upload training data for Identity: {ID} (3 images)",
        f"No\x0bIdentity: {ID}",
        f"No\u2028Identity: {ID}",
        "Identity: 00000000-0000-0000-0000-000000000000",
    ],
)
def test_nothing_but_a_line_of_ours_names_a_row(description: str) -> None:
    assert not is_commit_of(ID, description)


def test_what_is_written_names_its_own_row_and_no_other() -> None:
    description = commit_description(ID)
    assert is_commit_of(ID, description)
    assert not is_commit_of(USER, description)
