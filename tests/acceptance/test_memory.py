"""The largest row there can be goes through a small server."""

import io
import struct
from pathlib import Path

import pytest
from PIL import Image

from tests.acceptance.person import Person
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from tests.support.pictures import segment
from tests.support.waiting import PATIENCE

_MEGABYTE = 10**6


def _large_photo() -> bytes:
    """A JPEG of 19 to 20 MB in which every byte is picture."""
    file = io.BytesIO()
    noise = Image.merge("RGB", [Image.effect_noise((3560, 3560), 80)] * 3)
    noise.save(file, "JPEG", quality=100, subsampling=0)
    return file.getvalue()


def _another(photo: bytes, number: int) -> bytes:
    """The same picture with a table of its own that no scan uses: another file, also when it is cleaned."""
    return photo[:2] + segment(0xDB, b"\3" + struct.pack(">I", number).ljust(64, b"\1")) + photo[2:]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
def test_forty_images_of_twenty_megabytes_go_through_under_two_hundred(stage: Stage, person: Person) -> None:
    photo = _large_photo()
    assert 19 * _MEGABYTE < len(photo) < 20 * _MEGABYTE + 900_000
    paths = [person.upload(_another(photo, number)) for number in range(40)]
    with Watcher(stage) as watcher:
        watcher.ready()
        row = person.wait_for(person.insert("Ada", paths), "published", within=5 * PATIENCE)
        peak = watcher.peak()
        watcher.stop()
    print(f"{peak / _MEGABYTE:.0f} MB")  # noqa: T201  (a figure)
    assert peak < 200 * _MEGABYTE, f"{peak / _MEGABYTE:.0f} MB"
    files = stage.api.list_repo_tree(row["model_id"], "images")
    assert [file.size for file in files] == [len(_another(photo, 0))] * 40  # type: ignore[union-attr]  # it holds no folders
    assert list(watcher.spool.glob("attempt-*")) == []
