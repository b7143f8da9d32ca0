"""A cleaned photo has the same pixels, colours and orientation, tells nothing else, and does not depend on the blocks."""

import io
import warnings

import pytest
from PIL import Image

from tests.checks.photos import variants
from tests.checks.photos.judging import decoded, judged
from tests.checks.photos.leaks import leaks
from tests.checks.photos.mutations import png_parts
from tests.checks.photos.running import Figures, mutated
from tests.support import hostile, pictures

VARIANTS = [*variants.jpegs(), *variants.pngs()]
OTHERS = [(name, image) for name, image, _ in (*pictures.ordinary(), *hostile.ordinary())]
ODD = [(name, image) for name, image, _ in (*pictures.odd(), *hostile.odd())]


def cleaned(image: bytes, block: int = 65_536) -> bytes:
    clean, words = judged(image, block)
    assert clean is not None, words
    return clean


@pytest.mark.parametrize("image", [pytest.param(image, id=name) for name, image in VARIANTS])
def test_a_cleaned_photo_shows_the_same_and_tells_nothing(image: bytes) -> None:
    clean = cleaned(image)
    before, after = decoded(image), decoded(clean)
    assert before == after
    assert list(leaks(clean)) == []
    assert len(clean) <= len(image) + 4
    assert cleaned(clean) == clean


@pytest.mark.parametrize("image", [pytest.param(image, id=name) for name, image in VARIANTS])
def test_what_leaves_does_not_depend_on_how_the_blocks_were_cut(image: bytes) -> None:
    assert {cleaned(image, block) for block in (1, 7, 4_096, 262_144)} == {cleaned(image, 1 << 30)}


@pytest.mark.parametrize("image", [pytest.param(image, id=name) for name, image in OTHERS + ODD])
def test_whatever_is_accepted_opens_in_pillow(image: bytes) -> None:
    clean = cleaned(image)
    after, before = decoded(clean), decoded(image)
    assert after is not None
    if before is not None:
        assert (before.pixels, before.profile, before.in_colour) == (
            after.pixels,
            after.profile,
            after.in_colour,
        )
        assert before.orientation in {None, after.orientation}
    assert cleaned(clean) == clean


@pytest.mark.parametrize("image", [pytest.param(image, id=name) for name, image in VARIANTS + OTHERS])
def test_with_its_metadata_kept_each_byte_of_a_photo_is_as_it_came(image: bytes) -> None:
    assert judged(image, clean=False)[0] == image
    assert decoded(image) is not None


@pytest.mark.parametrize("image", [pytest.param(image, id=name) for name, image in ODD])
def test_with_its_metadata_kept_what_is_odd_about_a_photo_is_refused_or_does_no_harm(image: bytes) -> None:
    if judged(image, clean=False)[0] is not None:
        assert decoded(image) is not None


def test_what_the_test_looks_for_is_in_the_photos_that_it_cleans() -> None:
    found = {secret for _, image in VARIANTS for secret in variants.SECRETS if secret in image}
    assert found == set(variants.SECRETS)
    assert {turn for _, image in VARIANTS if (one := decoded(image)) for turn in [one.orientation]} >= {
        2,
        3,
        4,
        5,
        6,
        7,
        8,
    }
    assert any(list(leaks(image)) for _, image in VARIANTS)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_orientation_stays(kind: str, turn: int) -> None:
    image = pictures.saved(variants.picture(), kind, exif=variants.exif(turn))
    with Image.open(io.BytesIO(cleaned(image))) as opened:
        assert dict(opened.getexif()) == {0x0112: turn}


def test_what_is_broken_only_in_its_metadata_is_mended() -> None:
    whole = pictures.jpeg()
    short_jfif = whole[:2] + pictures.segment(0xE0, b"JFIF\0") + whole[20:]
    profile = pictures.chunk(b"iCCP", b"name")
    png = pictures.hand_made_png(pictures.header(5, 5), profile, pictures.pixels(5, 5), pictures.IEND)
    for image in (short_jfif, png):
        assert decoded(image) is None
        assert judged(image, clean=False)[0] is None
        assert decoded(cleaned(image)) is not None


def test_bytes_behind_a_colour_profile_go() -> None:
    first, data = pictures.header(5, 5), pictures.pixels(5, 5)
    whole = pictures.saved(variants.picture(), "PNG", icc_profile=variants.profile())
    [profile] = [part for name, part in png_parts(whole) if name == b"iCCP"]
    longer = pictures.chunk(b"iCCP", profile + b"a private word")
    clean = cleaned(pictures.hand_made_png(first, longer, data, pictures.IEND))
    assert b"private" not in clean
    one = decoded(clean)
    assert one is not None
    assert one.profile == variants.profile()


def test_as_many_pixels_as_pillow_opens_open() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for _, image, kind in pictures.large():
            assert judged(image)[1] == kind
            with Image.open(io.BytesIO(cleaned(image))) as opened:
                opened.load()


@pytest.mark.parametrize("seed", [1, 1_000_000])
def test_nothing_passes_that_pillow_does_not_decode_however_it_was_damaged(seed: int) -> None:
    figures = Figures()
    assert list(mutated(400, seed, figures)) == []
    assert not figures.is_bad
    assert figures.accepted > 50
