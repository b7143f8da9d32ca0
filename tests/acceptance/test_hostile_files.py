"""Hostile and broken photos meet the whole program: each gets its verdict, none takes its memory, its time or its place."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.person import Person
from tests.acceptance.repo import audit
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from tests.checks.photos.judging import judged
from tests.support import hostile, pictures
from watcher.sandbox import Sandbox

_LIMIT = 20 * 2**20
_OPEN_ROWS = 20
_REFUSED = [*hostile.refused(), *pictures.refused()]
_ACCEPTED = [*hostile.ordinary(), *pictures.odd(), *hostile.odd(), *pictures.ordinary()]

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")


def largest() -> Iterator[bytes]:
    """Files of exactly 20 MiB that keep the judge as busy as a file can, and are nothing that §4 refuses."""
    jpeg, png = (
        pictures.JPEG_START + pictures.frame(8, 8) + pictures.scan(),
        pictures.hand_made_png(pictures.header(5, 5)),
    )
    end = pictures.pixels(5, 5) + pictures.IEND
    yield _filled(jpeg, pictures.segment(0xFE, bytes(20_000)), pictures.EOI)
    yield _filled(jpeg, b"\xff\0", pictures.EOI)
    yield _filled(jpeg, b"\xff\xd0", pictures.EOI)
    yield _filled(png, pictures.chunk(b"tEXt", bytes(2_000)), end)
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(1 + 3 * 6_000)) for _ in range(6_000)) + rows.flush()
    bomb = pictures.hand_made_png(
        pictures.header(6_000, 6_000), pictures.chunk(b"IDAT", packed), pictures.IEND
    )
    assert len(bomb) < 200_000, "It unpacks to a hundred megabytes."
    yield bomb


def _filled(start: bytes, filling: bytes, end: bytes) -> bytes:
    """All in one file of 20 MiB, with what is missing behind it."""
    whole = start + filling * ((_LIMIT - len(start) - len(end)) // len(filling)) + end
    return whole.ljust(_LIMIT, b"\0")


@contextmanager
def without_limit(sandbox: Sandbox) -> Iterator[None]:
    """A bucket that takes any size, as one whose operator has changed it."""
    with psycopg.connect(sandbox.admin_db_url, autocommit=True) as connection:
        connection.execute("update storage.buckets set file_size_limit = null")
        yield
        connection.execute("update storage.buckets set file_size_limit = %s", [_LIMIT])


def insert_refused(people: Callable[[], Person]) -> Iterator[tuple[str, str, str, Person, str]]:
    """Insert a row for each file, behind two good photos: its name, code and words, and whose row it is."""
    person, good = people(), []
    for number, (name, content, code, words) in enumerate(_REFUSED[::4]):
        if number % _OPEN_ROWS == 0:
            person = people()
            good = person.photos(2)
        yield name, code, words, person, person.insert("Ada", [*good, person.upload(content)])


def cleaned(photo: bytes) -> bytes:
    """The photo as it is published; tests/photos/test_cleaning.py says what that must be."""
    published, words = judged(photo)
    assert published is not None, words
    return published


def rows_of(photos: list[bytes]) -> Iterator[list[bytes]]:
    """Deal out photos to rows of 3 to 40."""
    rows = -(-len(photos) // 40)
    yield from (photos[row::rows] for row in range(rows))


def test_every_file_has_its_verdict_in_little_memory_and_no_row_hangs(
    stage: Stage, sandbox: Sandbox, people: Callable[[], Person]
) -> None:
    with Watcher(stage, WATCHER_SLOTS="8") as watcher:
        watcher.ready()
        failed = list(insert_refused(people))
        person = people()
        published = [
            (photos, person, person.insert("Ada", [person.upload(photo) for photo in photos]))
            for photos in rows_of([content for _, content, _ in _ACCEPTED[::3]])
        ]
        large = list(largest())
        published.append((large, person, person.insert("Ada", [person.upload(photo) for photo in large])))
        with without_limit(sandbox):
            too_large = [*person.photos(2), person.upload(large[0] + b"\0", "large.jpg")]
        row = person.wait_for(person.insert("Ada", too_large), "failed")
        assert row["error_code"] == "image_too_large"
        assert "Image 3 (large.jpg)" in row["error_message"]
        for name, code, words, somebody, identity in failed:
            row = somebody.wait_for(identity, "failed")
            assert (row["error_code"], row["error_image"]) == (code, 3), (name, row)
            assert row["error_message"].startswith("Image 3 (photo.jpg) "), (name, row)
            assert row["error_message"].endswith("."), (name, row)
            assert words in row["error_message"], (name, row)
            assert row["model_id"] is None or not stage.api.repo_exists(row["model_id"]), name
        for photos, somebody, identity in published:
            audit(stage, somebody.wait_for(identity, "published"), [cleaned(photo) for photo in photos])
        peak = watcher.peak()
        watcher.stop()
    print(f"{peak / 10**6:.0f} MB")  # noqa: T201  (a figure)
    assert peak < 250 * 10**6, f"{peak / 10**6:.0f} MB"
    assert [file.name for file in watcher.spool.iterdir()] == ["lock"]
