"""The nouns: pure values, known to every room."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Identity:
    """One row of `trained_identities`, as far as it decides what is published."""

    id: str
    user_id: str
    name: str
    image_paths: tuple[str, ...]
    created_at: str
    """UTC, whole seconds, for example 2025-10-26T12:00:00Z."""


@dataclass(frozen=True, slots=True)
class Image:
    """One stored file of an identity, as it lies in the spool."""

    number: int
    """Its place in the row, from 1."""
    path: str
    """Its key in the bucket."""
    file: Path
    extension: Literal["jpg", "png"]
    """What the bytes are, whatever the key says."""
    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to do one piece of work, proven by the number of the attempt."""

    attempt: int
    kind: str
    """Of the work."""
    identity_id: str
    details: Mapping[str, Any]
    """What the kind's SQL says of the work, for the kind's own code."""
    look_only: bool
    """The budget is spent: look at what there is, clean up, and end the work."""
    exhausted: str | None
    """With `look_only`: the sentence to fail the work with."""
    never_tried: bool
    """No attempt was ever made on this work before."""
    age: float
    """Seconds since the row was inserted."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What came of an attempt that succeeded."""

    url: str
    commit_sha: str
