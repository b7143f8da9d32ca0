"""Plays all exchanges to a target, and compares two targets."""

from collections.abc import Callable, Iterator

import httpx

from tests.checks.truth import exchange, frames, recordings
from tests.checks.truth.exchange import Answer, differences, kept, plain
from tests.checks.truth.target import PATIENCE, Target

SERVICES = ("gateway", "auth", "rest", "storage", "hub")
Answers = dict[str, Answer]


def answers(target: Target, told: Callable[[str], None] = lambda _: None) -> Answers:
    """Return the answer of a target to each exchange, by its name; `told` is called with each service's name."""
    found: Answers = {}
    for service in SERVICES:
        told(service)
        found.update(_of_file(target, service))
    told("realtime")
    found.update(_of_realtime(target))
    told("recordings")
    found.update(recordings.storage(target))
    if "hub" in target.has:
        found.update(recordings.hub(target))
    return found


def _of_file(target: Target, service: str) -> Iterator[tuple[str, Answer]]:
    with httpx.Client(timeout=PATIENCE) as http:
        for one in exchange.read(service):
            if (one.needs and one.needs not in target.has) or (service == "hub" and "hub" not in target.has):
                continue
            try:
                answer = target.request(http, one)
            except httpx.HTTPError as error:
                yield f"{service}: {one.name}", frames.broken(error)
                continue
            target.values.update(kept(one, answer))
            yield f"{service}: {one.name}", plain(answer, target.values)


def _of_realtime(target: Target) -> Iterator[tuple[str, Answer]]:
    for talk in frames.read():
        if talk.needs and talk.needs not in target.has:
            continue
        try:
            yield f"realtime: {talk.name}", frames.play(target, talk)
        except Exception as error:  # noqa: BLE001 - whatever ends a socket is the answer
            yield f"realtime: {talk.name}", frames.broken(error)


def known() -> Answers:
    """Return the answers of the real services that are in the exchanges, as far as each is known."""
    asked = (one for service in SERVICES for one in exchange.read(service))
    found = {f"{one.service}: {one.name}": one.answer for one in asked}
    found |= {f"realtime: {talk.name}": talk.answer for talk in frames.read()}
    return {name: answer for name, answer in found.items() if answer is not None}


def untrue(here: Answers) -> Iterator[tuple[str, list[str]]]:
    """Yield each exchange that the sandbox answers otherwise than is known of the real service, and where."""
    for name, answer in known().items():
        if name in here:
            parts = {part: here[name].get(part) for part in answer}
            if found := list(differences(answer, parts)):
                yield name, found


def compared(there: Answers, here: Answers) -> Iterator[tuple[str, list[str]]]:
    """Yield each exchange that both were asked and answered differently, and where."""
    for name, answer in there.items():
        if name in here and (found := list(differences(answer, here[name]))):
            yield name, found
