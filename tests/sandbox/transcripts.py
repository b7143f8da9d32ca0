"""The recordings of the real Realtime client and server, line by line, and how their frames are compared."""

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
    """Seconds; in merged recordings, on a clock that they share."""
    line: Mapping[str, Any]

    @property
    def connection(self) -> tuple[str, int]:
        return self.recording, self.line["conn"]

    @property
    def sent(self) -> bool:
        return bool(self.line.get("dir") == "client->server")

    @property
    def received(self) -> bool:
        return bool(self.line.get("dir") == "server->client")


def lines(recording: str) -> list[dict[str, Any]]:
    """Return the lines of a recording."""
    [path] = FOLDER.glob(f"{recording}_*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps(recording: str, began: float = 0) -> Iterator[Step]:
    """Yield the lines of a recording that began at that second; a line without a time has that of the line before."""
    at = began
    for line in lines(recording):
        at = began + line["t"] if "t" in line else at
        yield Step(recording, at, line)


def merged(began: Mapping[str, float], more: Iterable[Step] = ()) -> list[Step]:
    """Return several recordings as one, in order of time; `began` has the second at which each began."""
    found = [step for recording, second in began.items() for step in steps(recording, second)]
    return sorted([*found, *more], key=lambda step: step.at)


def fields(frame: Any) -> tuple[str, str, Any, Any]:
    """Return topic, event, ref and payload of a frame of either protocol, even if the recorder cut it off."""
    if isinstance(frame, list):
        return frame[2], frame[3], frame[1], frame[4]
    if "_truncated_len" in frame:
        frame = repaired(frame)
    return frame["topic"], frame["event"], frame["ref"], frame["payload"]


def repaired(cut: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was kept of a frame that was cut off within the last text of its record."""
    return dict(json.loads(cut["head"] + '"}}}}'))


def system(step: Step) -> bool:
    """Return whether this is a system frame: the server has subscribed to Postgres, or could not."""
    return step.received and fields(step.line["frame"])[1] == "system"


def row(step: Step, table: str = "jobs") -> dict[str, Any] | None:
    """Return the row in an event, or None."""
    if not step.received:
        return None
    _, event, _, payload = fields(step.line["frame"])
    if event != "postgres_changes" or payload["data"]["table"] != table:
        return None
    record: dict[str, Any] | None = payload["data"].get("record")
    return record


class Comparison:
    """Prepares frames for comparison by masking what is generated. There is one for each replay."""

    # What is generated in each run: the field, and what is masked in it. Binding ids are handled below, tokens are
    # replaced before they are sent, and headers of the handshake (`date`, `sec-websocket-*`) are not compared.
    GENERATED = (
        ("commit_timestamp", re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")),
        ("created_at", re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00")),
        ("message", re.compile(r"(?<=Token has expired )\d+(?= seconds ago)")),
        ("reason", re.compile(r"(?<=Token has expired )\d+(?= seconds ago)")),
    )

    def __init__(self) -> None:
        self._bindings: dict[int, int] = {}

    def plain(self, recorded: Any, received: Any, text: str) -> tuple[Any, Any]:
        """Return both frames with what is generated masked; `text` is the received frame as it came."""
        self._learn(recorded, received)
        if isinstance(recorded, dict) and "_truncated_len" in recorded:
            return self._cut(recorded, received, text)
        return self._plain(recorded, {}), self._plain(received, self._bindings)

    def _learn(self, recorded: Any, received: Any) -> None:
        """Remember which binding id here stands for which recorded one."""
        for theirs, ours in zip(_bindings(recorded), _bindings(received), strict=False):
            # The ids of two bindings are equal exactly if the bindings are.
            if 0 < ours["id"] < 2**27 and theirs["id"] not in self._bindings.values():
                self._bindings.setdefault(ours["id"], theirs["id"])

    def _cut(self, recorded: Mapping[str, Any], received: dict[str, Any], text: str) -> tuple[Any, Any]:
        """Return both frames' length and beginning, for one that was recorded without its end."""
        kept = repaired(recorded)
        theirs, ours = kept["payload"]["data"], received["payload"]["data"]
        record = {
            name: str(ours["record"][name])[: len(str(value))] for name, value in theirs["record"].items()
        }
        # Ids and times may be longer or shorter here.
        [binding] = received["payload"]["ids"]
        text = text.replace(str(binding), str(self._bindings[binding]))
        text = text.replace(ours["record"]["created_at"], "2026-11-22T14:33:24.617017+00:00")
        return (
            ({**kept, "payload": recorded["_truncated_len"]}, {**theirs, "record": _texts(theirs["record"])}),
            ({**received, "payload": len(text)}, {**{name: ours[name] for name in theirs}, "record": record}),
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
    """Return the bindings in a reply to a join."""
    _, event, _, payload = fields(frame)
    if event != "phx_reply":
        return []
    return list(payload["response"].get("postgres_changes", []))


def _texts(record: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in record.items()}
