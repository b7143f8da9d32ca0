"""The nouns: pure values, known to every room."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["pending", "publishing", "published", "failed"]


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
    """The right to work on one row, proven by the number of the attempt."""

    attempt: int
    identity: Identity
    model_id: str | None
    """The repo's name, once one has been reserved."""
    look_only: bool
    """The budget is spent: look at the Hub, tidy up, and end the row."""
    exhausted: str | None
    """With `look_only`: the sentence to fail the row with."""
    never_tried: bool
    """No attempt was ever made on this row before."""
    age: float
    """Seconds since the row was inserted."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What came of an attempt that succeeded."""

    url: str
    commit_sha: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Which failed rows to replay: those that fit everything that is given."""

    ids: list[str] | None = None
    code: str | None = None
    failed_since: str | None = None
    """A time with its zone."""
    failed_within_seconds: float | None = None
    user: str | None = None
