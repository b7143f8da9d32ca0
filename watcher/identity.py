"""The values that all packages share: data without behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What the database says of an object in the bucket; each None where it says nothing."""

    size: int | None
    """Bytes."""
    etag: str | None
    version: str | None
    """Changes with each upload."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One row of `trained_identities`: the columns that determine what is published."""

    id: str
    user_id: str
    name: str
    image_paths: tuple[str, ...]
    created_at: str
    """UTC, whole seconds, for example 2025-10-26T12:00:00Z."""
    objects: tuple[StoredObject, ...] = ()
    """What is stored under each path; empty where nothing is known."""


@dataclass(frozen=True, slots=True)
class Image:
    """One fetched image of an identity, as stored in the spool folder."""

    number: int
    """Its position in the row, from 1."""
    path: str
    """Its key in the bucket."""
    file: Path
    extension: Literal["jpg", "png"]
    """Of its actual format, whatever the key says."""
    size: int
    """Bytes, as it is published."""
    sha256: str
    """Hexadecimal."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to do one piece of work. The number of the attempt proves it."""

    attempt: int
    kind: str
    """The kind of work."""
    identity_id: str
    details: Mapping[str, Any]
    """What the kind's SQL returns for the kind's own code."""
    look_only: bool
    """All attempts are used up: only check what was done before, clean up, and end the work."""
    exhausted: str | None
    """With `look_only`: the sentence to fail the work with."""
    never_tried: bool
    """Whether this is the first attempt on this work."""
    age: float
    """Seconds since the row was inserted."""


@dataclass(frozen=True, slots=True)
class Publication:
    """Where a row is published."""

    url: str
    commit_sha: str
