"""An image is judged by its structure, in one pass, whatever its chunks."""

import io
import re
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support import hostile, pictures
from watcher.photos.image_check import ImageCheck
from watcher.photos.refusals import InvalidImage

ORDINARY = [*pictures.ordinary(), *hostile.ordinary()]
ACCEPTED = [*ORDINARY, *pictures.odd(), *hostile.odd()]
REFUSED = [*pictures.refused(), *hostile.refused()]
steady = settings(derandomize=True, deadline=None)
SMALL = [("jpg", pictures.jpeg(size=(16, 8))), ("png", pictures.png(size=(16, 8)))]


def judged(image: bytes, chunk: int = 65_536) -> str:
    """What the image is, or the code and the words it is refused with."""
    judge = ImageCheck()
    try:
        for start in range(0, len(image), chunk):
            feed(judge, image[start : start + chunk])
        return judge.finish()
    except InvalidImage as refusal:
        return f"{refusal.code} {refusal.reason}"


def feed(judge: ImageCheck, chunk: bytes) -> list[bytes | memoryview]:
    """Judge a chunk; what is published of it."""
    for step in judge.feed(chunk):
        step()
    return judge.take()


def turns(image: bytes, work: Callable[[], object]) -> float:
    """How many turns of an empty loop the work costs a byte: both are slower on a slow or busy machine."""

    def look() -> None:
        for _ in image:
            pass

    return cpu_seconds(work) / cpu_seconds(look)


def cpu_seconds(work: Callable[[], object]) -> float:
    """The least of three tries."""
    tries = []
    for _ in range(3):
        started = time.thread_time()
        work()
        tries.append(time.thread_time() - started)
    return min(tries)


@pytest.mark.parametrize(("image", "kind"), [pytest.param(*rest, id=name) for name, *rest in ACCEPTED])
def test_a_sound_picture_is_accepted_as_what_its_bytes_are(image: bytes, kind: str) -> None:
    assert judged(image) == kind


@pytest.mark.parametrize(
    ("image", "code", "words"), [pytest.param(*rest, id=name) for name, *rest in REFUSED]
)
def test_a_bad_file_is_refused_with_its_code_and_what_to_do(image: bytes, code: str, words: str) -> None:
    verdict = judged(image)
    assert verdict.startswith(f"{code} ")
    assert words in verdict
    assert not verdict.endswith(".")  # the sentence goes on or ends where the words are used


@pytest.mark.parametrize(
    "image", [pytest.param(image, id=name) for name, image, *_ in ACCEPTED + REFUSED if len(image) < 20_000]
)
def test_the_verdict_does_not_depend_on_the_chunks(image: bytes) -> None:
    assert {judged(image, size) for size in (1, 2, 3, 7, 512)} == {judged(image, 1 << 30)}


@pytest.mark.parametrize(("kind", "image"), SMALL)
def test_a_picture_split_anywhere_is_the_same_picture(kind: str, image: bytes) -> None:
    for at in range(len(image) + 1):
        judge = ImageCheck()
        for part in (image[:at], b"", image[at:]):
            feed(judge, part)
        assert judge.finish() == kind


@pytest.mark.parametrize(("kind", "image"), SMALL)
def test_a_picture_cut_off_anywhere_is_unreadable(kind: str, image: bytes) -> None:
    for length in range(len(image)):
        assert judged(image[:length]).startswith("image_unreadable is "), length
        assert judged(image[:length], 1).startswith("image_unreadable is "), length


def test_a_phones_photo_is_unreadable_until_its_own_end_and_not_its_previews_ends() -> None:
    image = hostile.a_phones_photo()
    ends = [found.end() for found in re.finditer(pictures.EOI, image)]
    assert len(ends) > 20
    [end] = [at for at in ends if judged(image[:at]) == "jpg" != judged(image[: at - 1])]
    with Image.open(io.BytesIO(image[:end])) as picture:
        picture.load()
    assert {judged(image[:at])[:17] for at in ends if at < end} == {"image_unreadable "}


def test_a_png_with_any_bit_changed_is_refused() -> None:
    image = pictures.png(size=(4, 4))
    for at in range(len(image) * 8):
        changed = bytearray(image)
        changed[at // 8] ^= 1 << at % 8
        assert judged(bytes(changed)) != "png", at


@pytest.mark.parametrize(
    "image", [pytest.param(image, id=name) for name, image, code, _ in REFUSED if "not_jpeg" in code]
)
def test_another_format_is_refused_by_its_first_chunk(image: bytes) -> None:
    judge = ImageCheck()
    with pytest.raises(InvalidImage):
        feed(judge, image.ljust(1_000, b" "))


def test_a_bomb_is_refused_by_its_header() -> None:
    judge = ImageCheck()
    with pytest.raises(InvalidImage, match="50000 × 50000"):
        feed(judge, pictures.hand_made_png(pictures.header(50_000, 50_000)))


def test_an_animation_is_refused_before_its_frames_have_come() -> None:
    judge = ImageCheck()
    with pytest.raises(InvalidImage, match="animated"):
        feed(judge, pictures.hand_made_png(pictures.header(5, 5), pictures.chunk(b"acTL", bytes(8))))


def test_twenty_megabytes_pass_by_in_the_memory_of_a_few_chunks() -> None:
    judge = ImageCheck()
    feed(judge, pictures.JPEG_START + pictures.frame(8, 8) + pictures.scan())
    tracemalloc.start()
    try:
        for _ in range(320):
            feed(judge, bytes(65_535) + b"\xff")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * 65_536  # the chunk before, this one as made here, and as joined with the half marker


def test_a_judge_that_has_refused_never_accepts() -> None:
    judge = ImageCheck()
    with pytest.raises(InvalidImage):
        feed(judge, b"GIF89a" + bytes(1_000))
    feed(judge, pictures.jpeg())
    with pytest.raises(InvalidImage):
        judge.finish()


@pytest.mark.parametrize(
    "worst",
    [
        pytest.param(b"\xff", id="filling"),
        pytest.param(b"\xff\x00", id="stuffed bytes"),
        pytest.param(b"\xff\xd0", id="restart markers"),
        pytest.param(b"\xff\xfe\0\2", id="empty segments"),
        pytest.param(pictures.scan(), id="short scans"),
        pytest.param(pictures.scan(bytes(210)), id="just not too many scans"),
    ],
)
def test_twenty_hostile_megabytes_of_jpeg_cost_about_as_much_as_looking_at_each_byte(worst: bytes) -> None:
    start = pictures.JPEG_START + pictures.frame(8, 8) + pictures.scan()
    image = start + worst * (20 * 1024 * 1024 // len(worst))
    assert turns(image, partial(judged, image)) < 8


def test_twenty_megabytes_of_empty_png_chunks_cost_about_as_much_as_looking_at_each_byte() -> None:
    image = pictures.hand_made_png(pictures.header(5, 5), pictures.chunk(b"tEXt") * 1_700_000)
    assert turns(image, partial(judged, image)) < 8


@pytest.mark.parametrize(
    ("start", "worst"),
    [
        (pictures.JPEG_START + pictures.frame(8, 8), b"\xff\xfe\0\2"),
        (pictures.JPEG_START + pictures.frame(8, 8), b"\xff\x01"),
        (pictures.JPEG_START + pictures.frame(8, 8), pictures.scan(b"")),
        (pictures.hand_made_png(pictures.header(5, 5)), pictures.chunk(b"tEXt")),
    ],
)
def test_a_hostile_chunk_costs_a_few_microseconds_a_byte_at_most(start: bytes, worst: bytes) -> None:
    """Between two chunks the daemon does everything else."""
    chunk = (worst * 70_000)[:65_536]

    def begin() -> None:
        judge = ImageCheck()
        feed(judge, start)
        with suppress(InvalidImage):
            feed(judge, chunk)

    assert turns(chunk, begin) < 400


@steady
@given(st.binary(max_size=2_000))
def test_random_bytes_are_refused(image: bytes) -> None:
    assert judged(image).startswith("image_")


@steady
@given(st.sampled_from(SMALL), st.data())
def test_a_damaged_picture_has_a_verdict_that_no_chunk_size_changes(
    small: tuple[str, bytes], data: st.DataObject
) -> None:
    image = bytearray(small[1])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(image) - 1))
        image[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    sizes = data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=5))
    assert len({judged(bytes(image), size) for size in [1 << 30, *sizes]}) == 1


@steady
@given(
    st.lists(
        st.sampled_from([b"\xff", b"\x00", b"\xd0", b"\xda", b"\xc0", b"\x01", b"\2", b"ab"]), max_size=300
    )
)
def test_markers_in_any_order_have_a_verdict_that_no_chunk_size_changes(parts: list[bytes]) -> None:
    image = pictures.JPEG_START + pictures.frame(8, 8) + b"".join(parts) + pictures.scan() + pictures.EOI
    assert len({judged(image, size) for size in (1, 2, 5, 1 << 30)}) == 1
