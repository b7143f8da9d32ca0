"""What a job is asked to do: the body of a POST, checked as far as the Hub's rules are known."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from watcher.sandbox.absent import STATUS, Absent
from watcher.sandbox.hub.errors import HubError, bad_request
from watcher.sandbox.hub.jobs.hardware import FLAVORS
from watcher.sandbox.hub.store import Commit, Kind, Repo

# On the Hub the label `name` may also have dots, which the client's own default for it never has.
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,100}")
_DEFAULT_SECONDS = 30 * 60
_ELSEWHERE = ("expose", "ssh", "network", "resourceGroupId", "spaceId")
_KINDS: dict[object, Kind] = {"model": "models", "dataset": "datasets"}

FindCommit = Callable[[Kind, str, str], tuple[Repo, Commit]]
"""Returns the repo and commit of a kind, a name and a revision; raises HubError if the caller may not read it."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A repo's files at a commit, which the job finds at `mount_path`."""

    repo: Repo
    commit: str
    mount_path: str
    shown: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Spec:
    """A job's command, and where and how long it runs."""

    image: str
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    flavor: str
    seconds: float
    """The time-out, from the start."""
    labels: Mapping[str, str]
    volumes: tuple[Volume, ...]


def read(body: Mapping[str, Any], find: FindCommit) -> Spec:
    """Return the spec of a body; raises HubError."""
    if any(body.get(name) for name in _ELSEWHERE) or body.get("attempts", 1) != 1:
        raise HubError(STATUS, Absent.HUB_JOB_FEATURES.sentence)
    image = body.get("dockerImage")
    if not isinstance(image, str) or not image:
        raise bad_request('"dockerImage" is required')
    command = _texts(body, "command")
    if not command:
        raise bad_request('"command" must contain at least 1 item')
    flavor = body.get("flavor", "cpu-basic")
    if flavor not in FLAVORS:
        raise bad_request(f'"flavor" must be one of [{", ".join(FLAVORS)}]')
    seconds = body.get("timeoutSeconds", _DEFAULT_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
        raise bad_request('"timeoutSeconds" must be a positive number')
    labels = _mapping(body, "labels")
    for text in (*labels, *labels.values()):
        if not _LABEL.fullmatch(text):
            raise bad_request(
                "Labels must be at most 100 characters, and contain only alphanumeric characters, dashes and underscores"
            )
    return Spec(
        image=image,
        command=command,
        arguments=_texts(body, "arguments"),
        environment=_mapping(body, "environment"),
        secrets=_mapping(body, "secrets"),
        flavor=flavor,
        seconds=seconds,
        labels=labels,
        volumes=_volumes(body.get("volumes", []), find),
    )


def _texts(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    texts = body.get(name, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise bad_request(f'"{name}" must be an array of strings')
    return tuple(texts)


def _mapping(body: Mapping[str, Any], name: str) -> dict[str, str]:
    pairs = body.get(name, {})
    if not isinstance(pairs, dict) or not all(isinstance(value, str) for value in pairs.values()):
        raise bad_request(f'"{name}" must be an object of strings')
    return pairs


def _volumes(asked: object, find: FindCommit) -> tuple[Volume, ...]:
    if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
        raise bad_request('"volumes" must be an array of objects')
    return tuple(_volume(one, find) for one in asked)


def _volume(asked: Mapping[str, Any], find: FindCommit) -> Volume:
    kind = _KINDS.get(asked.get("type"))
    if kind is None or asked.get("path"):
        raise HubError(STATUS, Absent.HUB_JOB_FEATURES.sentence)
    source, path, revision = asked.get("source"), asked.get("mountPath"), asked.get("revision", "main")
    if not isinstance(source, str) or not isinstance(revision, str):
        raise bad_request('"source" and "revision" of a volume must be strings')
    if not isinstance(path, str) or not re.fullmatch(r"(/[^/\0]+)+", path):
        raise bad_request('"mountPath" must be an absolute path')
    repo, commit = find(kind, source, revision)
    return Volume(repo, commit.oid, path, {**asked, "readOnly": True})
