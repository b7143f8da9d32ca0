"""What the real client and the real Realtime server said to each other, as it was recorded, line by line."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("recorded") / "realtime"


@dataclass(frozen=True)
class Step:
    """A line of a recording."""

    recording: str
    """The two digits that its file's name begins with."""
    at: float
    """Seconds; those of recordings that are merged, by a clock that they share."""
    line: Mapping[str, Any]

    @property
    def connection(self) -> tuple[str, int]:
        return self.recording, self.line["conn"]

    @property
    def sent(self) -> bool:
        return bool(self.line.get("dir") == "client->server")

    @property
    def told(self) -> bool:
        return bool(self.line.get("dir") == "server->client")


def lines(recording: str) -> list[dict[str, Any]]:
    """Return the lines of a recording."""
    [path] = FOLDER.glob(f"{recording}_*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps(recording: str, began: float = 0) -> Iterator[Step]:
    """Yield the lines of a recording that began at that second; a line without a time has the one before's."""
    at = began
    for line in lines(recording):
        at = began + line["t"] if "t" in line else at
        yield Step(recording, at, line)


def merged(began: Mapping[str, float], more: Iterable[Step] = ()) -> list[Step]:
    """Return several recordings as one, in the order in which it all happened."""
    found = [step for recording, second in began.items() for step in steps(recording, second)]
    return sorted([*found, *more], key=lambda step: step.at)


def fields(frame: Any) -> tuple[str, str, Any, Any]:
    """Return topic, event, ref and payload of a frame of either protocol, which may have been cut."""
    if isinstance(frame, list):
        return frame[2], frame[3], frame[1], frame[4]
    if "_truncated_len" in frame:
        frame = mended(frame)
    return frame["topic"], frame["event"], frame["ref"], frame["payload"]


def mended(cut: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was kept of a frame that was cut in the middle of a record's last text."""
    return dict(json.loads(cut["head"] + '"}}}}'))


def system(step: Step) -> bool:
    """Say whether the server says something of its own accord: that Postgres is subscribed to, or is not."""
    return step.told and fields(step.line["frame"])[1] == "system"


def row(step: Step, table: str = "jobs") -> dict[str, Any] | None:
    """Return the row that a frame tells of."""
    if not step.told:
        return None
    _, event, _, payload = fields(step.line["frame"])
    if event != "postgres_changes" or payload["data"]["table"] != table:
        return None
    record: dict[str, Any] | None = payload["data"].get("record")
    return record


class Comparison:
    """Compares frames; of what is generated only what can be known of it. Lives as long as a replay."""

    # By name, what is generated anew in each run, and what it looks like all the same. Besides these there are the
    # ids of bindings (below), the tokens that are sent, and what is particular to a handshake (`date`, `server`,
    # `sec-websocket-*`).
    GENERATED = (
        ("commit_timestamp", re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")),
        ("created_at", re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00")),
        # How long ago a token expired; but "0 seconds ago" is said when it does, and compared.
        ("message", re.compile(r"(?<=Token has expired )[1-9]\d*(?= seconds ago)")),
        ("reason", re.compile(r"(?<=Token has expired )[1-9]\d*(?= seconds ago)")),
    )

    def __init__(self) -> None:
        self._bindings: dict[int, int] = {}

    def plain(self, recorded: Any, heard: Any, text: str) -> tuple[Any, Any]:
        """Return both frames without what is generated; `text` is how the one came that was heard."""
        self._learn(recorded, heard)
        if isinstance(recorded, dict) and "_truncated_len" in recorded:
            return self._cut(recorded, heard, text)
        return self._plain(recorded, {}), self._plain(heard, self._bindings)

    def _learn(self, recorded: Any, heard: Any) -> None:
        """Take down which id of ours is which of the real server's."""
        for theirs, ours in zip(_bindings(recorded), _bindings(heard), strict=False):
            # Equal bindings have equal ids, and others others.
            if 0 < ours["id"] < 2**27 and theirs["id"] not in self._bindings.values():
                self._bindings.setdefault(ours["id"], theirs["id"])

    def _cut(self, recorded: Mapping[str, Any], heard: dict[str, Any], text: str) -> tuple[Any, Any]:
        """Return how long a frame is that was recorded without its end, and what there is of the beginning."""
        kept = mended(recorded)
        theirs, ours = kept["payload"]["data"], heard["payload"]["data"]
        record = {
            name: str(ours["record"][name])[: len(str(value))] for name, value in theirs["record"].items()
        }
        # Ids and times have other digits, and so may be longer or shorter.
        [binding] = heard["payload"]["ids"]
        text = text.replace(str(binding), str(self._bindings[binding]))
        text = text.replace(ours["record"]["created_at"], "2026-11-22T14:33:24.617017+00:00")
        return (
            ({**kept, "payload": recorded["_truncated_len"]}, {**theirs, "record": _texts(theirs["record"])}),
            ({**heard, "payload": len(text)}, {**{name: ours[name] for name in theirs}, "record": record}),
        )

    def _plain(self, value: Any, bindings: Mapping[int, int], name: str = "") -> Any:
        if name == "ids":
            return [bindings.get(one, one) for one in value]
        if isinstance(value, dict):
            shown = {key: self._plain(one, bindings, key) for key, one in value.items()}
            return {**shown, "id": bindings.get(value["id"], value["id"])} if name == "binding" else shown
        if isinstance(value, list):
            inner = "binding" if name == "postgres_changes" else ""
            return [self._plain(one, bindings, inner) for one in value]
        if isinstance(value, str):
            for generated, pattern in self.GENERATED:
                if name == generated:
                    return pattern.sub(f"<{name}>", value)
        return value


def _bindings(frame: Any) -> list[dict[str, Any]]:
    """Return the bindings that a reply echoes."""
    _, event, _, payload = fields(frame)
    if event != "phx_reply":
        return []
    return list(payload["response"].get("postgres_changes", []))


def _texts(record: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in record.items()}
