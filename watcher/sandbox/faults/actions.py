"""What faults do to a request. Each action is between the server and the app, and only Late buffers a body."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import Message

from watcher.sandbox.faults.link import Delay, Rate, RoundTrip
from watcher.sandbox.faults.passage import Passage


@dataclass(frozen=True)
class Answer:
    """Answer at once, without the app. A dict or list is sent as JSON, text as it is."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    async def __call__(self, passage: Passage) -> None:
        """Send the answer."""
        passage.gate.reach()
        plain = self.body is None or isinstance(self.body, str | bytes)
        response = (Response if plain else JSONResponse)(self.body, self.status, self.headers)
        await response(passage.scope, passage.receive, passage.send)


@dataclass(frozen=True)
class Cut:
    """Break the connection within a body: after so many bytes, or by default in the middle."""

    side: Literal["request", "response"] = "response"
    after: int | None = None

    def __post_init__(self) -> None:
        _one_of("side", self.side, "request", "response")

    async def __call__(self, passage: Passage) -> None:
        """Pass on the beginning, and break the connection."""
        passage.gate.reach()
        await (self._request(passage) if self.side == "request" else self._response(passage))
        await passage.drop()

    async def _request(self, passage: Passage) -> None:
        left = _middle(Headers(scope=passage.scope), self.after)

        async def short_receive() -> Message:
            nonlocal left
            if left <= 0:
                await passage.drop()
                return {"type": "http.disconnect"}
            message = await passage.receive()
            if message["type"] == "http.request":
                body = message.get("body", b"")[:left]
                left -= len(body)
                message = {**message, "body": body, "more_body": left <= 0 or message.get("more_body", False)}
            return message

        await passage.go_on(short_receive, _discard)

    async def _response(self, passage: Passage) -> None:
        left = 0

        async def short_send(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                left = _middle(Headers(raw=message["headers"]), self.after)
                await passage.send(message)
            elif left > 0:
                body = message.get("body", b"")[:left]
                left -= len(body)
                await passage.send({**message, "body": body, "more_body": True})
                if not left:
                    await passage.drop()

        await passage.go_on(send=short_send)


@dataclass(frozen=True)
class Truncate:
    """End the response's body early, so that it looks complete: the content length is that of the short body."""

    after: int | None = None

    async def __call__(self, passage: Passage) -> None:
        """Pass the request on, and end the answer's body early."""
        passage.gate.reach()
        left = 0
        ended = False

        async def short_send(message: Message) -> None:
            nonlocal left, ended
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                left = _middle(headers, self.after)
                if "content-length" in headers:
                    left = min(left, int(headers["content-length"]))
                    headers["content-length"] = str(left)
                await passage.send({**message, "headers": headers.raw})
            elif not ended:
                body = message.get("body", b"")[:left]
                left -= len(body)
                ended = not left or not message.get("more_body", False)
                await passage.send({**message, "body": body, "more_body": not ended})

        await passage.go_on(send=short_send)


@dataclass(frozen=True)
class Cache:
    """A cache in front: the first successful answer to each GET is also the answer to the later ones.

    It ignores how long an answer may be kept, and keeps it until the rule is removed. A request that says `no-cache`, or
    whose query is another one, gets past it and is kept in turn; unless the cache is `stubborn`.
    """

    stubborn: bool = False
    _kept: dict[tuple[str, bytes], list[Message]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    async def __call__(self, passage: Passage) -> None:
        """Answer from what is kept, or keep the answer."""
        passage.gate.reach()
        if passage.scope["method"] != "GET":
            await passage.go_on()
            return
        url = (passage.scope["path"], b"" if self.stubborn else passage.scope["query_string"])
        asked = Headers(scope=passage.scope).get("cache-control", "")
        if url not in self._kept or ("no-cache" in asked and not self.stubborn):
            messages: list[Message] = []

            async def keep(message: Message) -> None:
                messages.append(message)
                await passage.send(message)

            await passage.go_on(send=keep)
            if messages and messages[0]["status"] == 200:
                self._kept[url] = messages
            return
        for message in self._kept[url]:
            await passage.send(message)


@dataclass(frozen=True)
class Hang:
    """Never pass the request on, and never answer; break the connection when the rule is removed."""

    async def __call__(self, passage: Passage) -> None:
        """Wait, and break the connection."""
        passage.gate.reach()
        await passage.gate.opened()
        await passage.drop()


@dataclass(frozen=True)
class LoseAnswer:
    """Let the app process the request, then break the connection; or, given a status, answer with that."""

    status: int | None = None
    body: Any = None

    async def __call__(self, passage: Passage) -> None:
        """Pass the request on, and discard the answer."""
        await passage.go_on(send=_discard)
        if self.status is None:
            passage.gate.reach()
            await passage.drop()
        else:
            await Answer(self.status, self.body)(passage)


@dataclass(frozen=True)
class Hold:
    """Hold the request before the app gets it, or its answer after, until the rule is released."""

    when: Literal["before", "after"]

    def __post_init__(self) -> None:
        _one_of("when", self.when, "before", "after")

    async def __call__(self, passage: Passage) -> None:
        """Hold the request or the answer."""

        async def held_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                passage.gate.reach()
                await passage.gate.opened()
            await passage.send(message)

        if self.when == "after":
            await passage.go_on(send=held_send)
        else:
            passage.gate.reach()
            await passage.gate.opened()
            await passage.go_on()


@dataclass(frozen=True)
class Late:
    """Read the request whole, never answer it, and let the app process it so many seconds later.

    It is processed whether or not its caller still lives; earlier if the rule is released or removed; and not at all
    if the server is stopped before. `seconds` None: when the rule is released. The caller's connection is cut at once,
    or hangs until the rule is released.
    """

    seconds: float | None = None
    connection: Literal["cut", "hang"] = "cut"

    def __post_init__(self) -> None:
        _one_of("connection", self.connection, "cut", "hang")

    async def __call__(self, passage: Passage) -> None:
        """Keep the request, and pass it on later."""
        messages = [await passage.receive()]
        while messages[-1].get("more_body", False):
            messages.append(await passage.receive())
        if messages[-1]["type"] != "http.request":
            return  # its caller has gone before all of it was here
        passage.gate.reach()
        if self.connection == "cut":
            await passage.drop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(passage.gate.opened(), self.seconds)

        async def kept_receive() -> Message:
            return messages.pop(0) if messages else await passage.receive()

        await passage.go_on(kept_receive, _discard)
        passage.gate.finish()
        if self.connection == "hang":
            await passage.gate.opened()
            await passage.drop()


Action = Answer | Delay | RoundTrip | Rate | Cut | Truncate | Cache | Hang | LoseAnswer | Hold | Late


def _middle(headers: Headers, after: int | None) -> int:
    """Return how many bytes of a body pass; without a content length, the middle is after one byte."""
    return int(headers.get("content-length", "2")) // 2 if after is None else after


def _one_of(name: str, value: str, *allowed: str) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


async def _discard(message: Message) -> None:
    """Send nothing."""
