"""Phoenix's channel protocol: frames of five fields, as an object (1.0.0) or an array (2.0.0)."""

import json
from dataclasses import dataclass
from typing import Any, Literal

Version = Literal["1.0.0", "2.0.0"]


@dataclass(frozen=True)
class Frame:
    """One message in either direction."""

    topic: str
    event: str
    payload: Any
    ref: str | None = None
    join_ref: str | None = None


def decode(version: Version, text: str) -> Frame | None:
    """Return the frame in `text`, or None for malformed text, which Phoenix ignores."""
    try:
        message = json.loads(text)
    except ValueError:
        return None
    match version, message:
        case "1.0.0", {"topic": str(topic), "event": str(event), "payload": payload, "ref": ref}:
            return Frame(topic, event, payload, ref, message.get("join_ref"))
        case "2.0.0", [join_ref, ref, str(topic), str(event), payload]:
            return Frame(topic, event, payload, ref, join_ref)
    return None


def encode(version: Version, frame: Frame) -> str:
    """Return `frame` as text; a payload that is text is JSON. In 1.0.0 the server does not send the join's ref."""
    payload = frame.payload if isinstance(frame.payload, str) else _json(frame.payload)
    if version == "2.0.0":
        head = _json([frame.join_ref, frame.ref, frame.topic, frame.event])
        return f"{head[:-1]},{payload}]"
    head = _json({"ref": frame.ref, "event": frame.event, "topic": frame.topic})
    return f'{head[:-1]},"payload":{payload}}}'


def reply(to: Frame, status: Literal["ok", "error"], response: Any) -> Frame:
    """Return the reply to a frame."""
    payload = {"status": status, "response": response}
    return Frame(to.topic, "phx_reply", payload, to.ref, to.join_ref)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
