"""How an answer of the sandbox's Storage differs from the recorded one."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tests.sandbox.recorded_storage import DATE, TOKEN, Answer, Exchange, Replay, object_of


class Comparison:
    """Compares a replay's answers with the recording.

    `fields` and `headers` have a pattern for each name whose value may differ: what it matches is masked, and the rest
    compared. An id, time or e-tag that the recording has twice must be the same twice here. `ignored` headers are not
    compared; of the others none may be missing or additional.
    """

    def __init__(
        self, replay: Replay, fields: Mapping[str, str], headers: Mapping[str, str], ignored: Collection[str]
    ) -> None:
        self._replay = replay
        self._fields = fields
        self._headers = headers
        self._ignored = ignored

    def differences(self, exchange: Exchange, answer: Answer) -> Iterator[str]:
        """Yield each difference between an answer and the recorded one."""
        wanted = exchange.response
        if answer.status != wanted["status"]:
            yield f"status: {answer.status}, not {wanted['status']}"
        yield from self._of_headers(wanted["headers"], answer)
        body = wanted["body"]
        if exchange.request["method"] == "HEAD" or not wanted["body_bytes"]:
            if answer.body:
                yield f"body: {answer.body[:200]!r}, not nothing"
        elif isinstance(body, dict) and "head_hex" in body:
            yield from self._bytes(exchange, answer)
        elif "application/json" in wanted["headers"]["content-type"]:
            yield from self._json(body, answer)
        elif answer.body.decode() != body:
            yield f"body: {answer.body!r}, not {body!r}"

    def _of_headers(self, wanted: dict[str, str], answer: Answer) -> Iterator[str]:
        masked = "token=" in str(answer.body)  # tokens may be longer or shorter here
        here = {name: value for name, value in answer.headers.items() if name not in self._ignored}
        there = {name: value for name, value in wanted.items() if name not in self._ignored}
        for name in sorted(here.keys() | there.keys()):
            if name == "content-length" and masked:
                continue
            pattern = self._headers.get(name)
            if not self._alike(pattern, there.get(name), here.get(name)):
                yield f"header {name}: {here.get(name)!r}, not {there.get(name)!r}"

    def _json(self, wanted: Any, answer: Answer) -> Iterator[str]:
        try:
            here = json.loads(answer.body)
        except ValueError:
            yield f"body: {answer.body!r}, not JSON"
            return
        yield from self._values("body", "", wanted, here)
        # The order of keys and the spaces between them count too.
        if len(answer.body) != len(json.dumps(here, separators=(",", ":"), ensure_ascii=False).encode()):
            yield f"body: {answer.body!r} is written differently"

    def _values(self, where: str, name: str, wanted: Any, here: Any) -> Iterator[str]:
        match wanted, here:
            case dict(), dict():
                if list(wanted) != list(here):
                    yield f"{where}: has {list(here)}, not {list(wanted)}"
                for key, value in wanted.items():
                    yield from self._values(f"{where}.{key}", key, value, here.get(key))
            case list(), list() if len(wanted) == len(here):
                for index, value in enumerate(wanted):
                    yield from self._values(f"{where}[{index}]", name, value, here[index])
            case _:
                if not self._alike(self._fields.get(name), wanted, here):
                    yield f"{where}: {here!r}, not {wanted!r}"

    def _alike(self, pattern: str | None, wanted: Any, here: Any) -> bool:
        """Return whether two values are equal but for what `pattern` matches, and remember that."""
        if pattern is None or not isinstance(wanted, str) or not isinstance(here, str):
            return type(wanted) is type(here) and wanted == here
        ours, theirs = re.search(pattern, here), re.search(pattern, wanted)
        if ours is None or theirs is None:
            return wanted == here
        if pattern not in (TOKEN, DATE) and self._replay.here.setdefault(theirs[0], ours[0]) != ours[0]:
            return False
        return wanted.replace(theirs[0], "", 1) == here.replace(ours[0], "", 1)

    def _bytes(self, exchange: Exchange, answer: Answer) -> Iterator[str]:
        """Compare a download with the uploaded bytes."""
        wanted = exchange.response
        if len(answer.body) != wanted["body_bytes"]:
            yield f"body: {len(answer.body)} bytes, not {wanted['body_bytes']}"
        key = object_of(exchange.path)
        start = re.match(r"bytes (\d+)-", wanted["headers"].get("content-range", "bytes 0-"))
        assert start is not None
        first = int(start[1])
        if answer.body != self._replay.stored[key][first : first + wanted["body_bytes"]]:
            yield "body: not the uploaded bytes"
        if not first and answer.body[:16].hex() != wanted["body"]["head_hex"]:
            yield f"body: begins with {answer.body[:16].hex()}"
