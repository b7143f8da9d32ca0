"""A migration that was released never changes: databases have it as it was."""

from collections.abc import Mapping
from hashlib import sha256

import pytest

from watcher import migrate

RELEASED: dict[str, str] = {
    "20261122100000_identities.sql": "9469b3f3224bc7e0cb576c399828a57851c2c5df4babc9b8be09264cc7f4ba56",
    "20261122100100_work.sql": "784bee2f8bb1fa732664636cd3b6010f260f31dbd1bca88c6af09fd48a2fef64",
    "20261122100200_publishing.sql": "fc8b654e9b67619751ac36a42b87cadd824558a740cf95341797df623032d138",
    "20261122100225_training.sql": "bc73bb7b9dd1a3c1b9227f7735a6339bf2d1f40835297adb94d9444c19a17840",
    "20261122100250_erasing.sql": "89bfab028291957c162be55db7cdee5c1d362ad9ad7dff28e680a9d43d884bec",
    "20261122100275_notifying.sql": "8dd00af032916af287f522fc9ccec40d88b56fe5fb90494e23601051c38b8717",
    "20261122100300_access.sql": "cde6235aa5fa048610b41de5e78a9e690e1a469d1d8e53f6ca7a7764e8a08d35",
}
"""File name → SHA-256 of every released migration."""


def changed(released: Mapping[str, str], files: Mapping[str, bytes]) -> list[str]:
    """Say of each released migration that is not what it was what to do about it."""
    return [
        f"{name} was released and is {'changed' if name in files else 'gone'}: put it back as it was, and make the change "
        "in a new file with a later version."
        for name, digest in released.items()
        if name not in files or sha256(files[name]).hexdigest() != digest
    ]


def test_released_migrations_are_as_they_were_released() -> None:
    assert changed(RELEASED, {file.name: file.read_bytes() for file in migrate.files()}) == []


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"1_a.sql": b"select 1"}, []),
        ({"1_a.sql": b"select 1", "2_b.sql": b"new"}, []),
        ({"1_a.sql": b"select 2"}, ["1_a.sql was released and is changed"]),
        ({}, ["1_a.sql was released and is gone"]),
    ],
    ids=["unchanged", "a new file", "changed", "gone"],
)
def test_a_released_migration_that_changed_is_named(files: dict[str, bytes], found: list[str]) -> None:
    released = {"1_a.sql": sha256(b"select 1").hexdigest()}
    assert [sentence.partition(":")[0] for sentence in changed(released, files)] == found
