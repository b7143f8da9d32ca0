"""Exchanges with Realtime: the frames that a client sends on one socket, and those that come back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from tests.checks.truth.exchange import FOLDER, Answer, filled, masked
from tests.checks.truth.target import PATIENCE, Target


@dataclass(frozen=True)
class Talk:
    """The steps on one socket: `send` a frame, `get` so many, or run `sql`; and what comes back."""

    name: str
    steps: list[dict[str, Any]]
    caller: str = "service"
    needs: str = ""
    source: str = ""
    answer: Answer | None = None

    @classmethod
    def parse(cls, line: str) -> "Talk":
        """Parse one line."""
        fields = json.loads(line)
        return cls(caller=fields.pop("as", "service"), **fields)


def read() -> list[Talk]:
    """Return all talks."""
    return [Talk.parse(line) for line in (FOLDER / "realtime.jsonl").read_text().splitlines() if line]


def play(target: Target, talk: Talk) -> Answer:
    """Return the frames that come back, in the form in which they are compared."""
    key = target.secret if talk.caller == "service" else target.publishable
    url = f"{target.url.replace('http', 'ws', 1)}/realtime/v1/websocket?apikey={key}&vsn=2.0.0"
    values = {**target.values, **{f"{name}_token": token for name, token in target.tokens.items()}}
    names = {value: name for name, value in values.items() if len(value) > 3}
    came: list[Any] = []
    with connect(url, open_timeout=PATIENCE) as socket:
        for step in talk.steps:
            came += _step(target, socket, step, values)
    return {"frames": [_plain(frame, names) for frame in came]}


def _step(target: Target, socket: Connection, step: dict[str, Any], values: Mapping[str, str]) -> list[Any]:
    match step:
        case {"send": frame}:
            socket.send(filled(json.dumps(frame), values))
        case {"get": int(count)}:
            return [_next(socket) for _ in range(count)]
        case {"sql": str(statement)}:
            assert target.db_url is not None
            with psycopg.connect(target.db_url, autocommit=True) as connection:
                connection.execute(filled(statement, values).encode())
    return []


def _next(socket: Connection) -> Any:
    try:
        return json.loads(socket.recv(PATIENCE))
    except TimeoutError:
        return f"nothing within {PATIENCE:.0f} s"


def _plain(frame: Any, names: Mapping[str, str]) -> Any:
    """Return a frame with what is generated masked; the ids of bindings are numbers of 27 bits."""
    shown = masked(frame, names)
    if isinstance(shown, list) and isinstance(shown[-1], dict):
        payload = shown[-1]
        if "ids" in payload:
            payload["ids"] = ["${binding}" for _ in payload["ids"]]
        response = payload.get("response")
        for binding in response.get("postgres_changes", []) if isinstance(response, dict) else []:
            binding["id"] = "${binding}"
    return shown


def broken(error: Exception) -> Answer:
    """Return the answer that is none."""
    kind = type(error).__name__
    return {"error": f"{kind}: {error}" if isinstance(error, httpx.HTTPError) else kind}
