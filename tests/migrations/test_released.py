"""A migration that was released never changes: databases have it as it was."""

from collections.abc import Mapping
from hashlib import sha256

import pytest

from watcher import migrate

RELEASED: dict[str, str] = {}
"""File name → SHA-256 of every released migration. Empty until 0.2.0 is released; then all files are entered."""


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
