"""The recording of Storage: what was sent to the real server, and how it is sent again.

`recorded/storage.jsonl` has 181 exchanges with Storage 1.70.6 (file backend), taken on 2026-11-22 in their order.
Tokens were replaced when it was taken (`<jwt:userA>`), and of large bodies it has the length and the first bytes.
"""

import http.client
import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from starlette.applications import Starlette

from watcher.sandbox import gateway
from watcher.sandbox.database import Database
from watcher.sandbox.keys import Keys
from watcher.sandbox.postgres import Postgres
from watcher.sandbox.server import HOST, Server
from watcher.sandbox.storage import Storage

A, B = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
PREFIX = "/storage/v1"
OWN_FOLDER = "bucket_id = 'identity-images' and (storage.foldername(name))[1] = (select auth.uid())::text"
POLICIES = f"""
    create policy "read" on storage.objects for select to authenticated using ({OWN_FOLDER});
    create policy "upload" on storage.objects for insert to authenticated with check ({OWN_FOLDER});
    create policy "remove" on storage.objects for delete to authenticated using ({OWN_FOLDER});
"""
"""What a signed-in user could do while it was recorded: no UPDATE policy, and nothing for anon."""

_NEVER = 4102444800
_JPEG = bytes.fromhex("ffd8ffe000104a464946000101010060")

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
E_TAG = r'"[0-9a-f]{32}"'
TOKEN = r"<jwt:none>|[\w-]+\.[\w-]+\.[\w-]+"
DATE = r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"


@dataclass(frozen=True)
class Exchange:
    """One request and what the real server answered to it."""

    number: int
    label: str
    request: dict[str, Any]
    response: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.number:03} {self.label}"

    @property
    def path(self) -> str:
        """The path and the query, as Storage got them behind its gateway."""
        return str(self.request["path"]).removeprefix(PREFIX)


def recorded() -> list[Exchange]:
    """The recording, in its order."""
    lines = Path(__file__).with_name("recorded").joinpath("storage.jsonl").read_text("utf-8").splitlines()
    return [
        Exchange(number, one["label"], one["request"], one["response"])
        for number, one in enumerate(map(json.loads, lines), 1)
    ]


def tokens(keys: Keys) -> dict[str, str]:
    """What stands for the tokens that the recording has no more."""
    forged = Keys("another secret that is at least 32 bytes")
    user = {"sub": A, "role": "authenticated", "exp": _NEVER}
    return {
        "<jwt:anon>": keys.anon_jwt,
        "<jwt:service_role>": keys.service_role_jwt,
        "<jwt:userA>": keys.sign(user),
        "<jwt:userB>": keys.sign({**user, "sub": B}),
        "<jwt:expiredA>": keys.sign({**user, "exp": 1}),
        "<jwt:badsig>": forged.sign(user),
    }


def picture(size: int) -> bytes:
    """Bytes that begin like a JPEG, for the ones that were sent; the same for the same size."""
    return (_JPEG + random.Random(size).randbytes(max(0, size - len(_JPEG))))[:size]


@dataclass(frozen=True)
class Answer:
    """What was answered here."""

    status: int
    headers: dict[str, str]
    body: bytes


@contextmanager
def serve(postgres: Postgres, folder: Path, *, gate: bool) -> Iterator[tuple[str, str]]:
    """Serve a Storage without a bucket, with or without its gateway; yield its address and its database."""
    name, keys = f"test_{uuid4().hex}", Keys()
    postgres.create(name)
    with psycopg.connect(postgres.dsn(name, "postgres")) as connection:
        connection.execute(POLICIES.encode())
    database = Database(postgres.dsn(name, "authenticator"), postgres.dsn(name))
    routes = Storage(database, keys, folder).routes()
    server = Server(
        {"storage": (gateway.app({"storage": routes}, keys) if gate else Starlette(routes=routes), 0)}
    )
    server.start()
    try:
        yield f"http://{HOST}:{server.ports['storage']}", name
    finally:
        server.run(database.close())
        server.stop()
        postgres.drop(name)


class Sent:
    """A request on a connection of its own, of which the head has been sent."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self._body = body
        self._connection = http.client.HTTPConnection(headers["host"], timeout=60)
        # Nothing is added, left out or put into another form.
        self._connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            self._connection.putheader(name, value)
        self._connection.endheaders()

    def finish(self) -> Answer:
        """Send the body and return what is answered."""
        try:
            self._connection.send(self._body)
            with self._connection.getresponse() as response:
                headers = {name.lower(): value for name, value in response.getheaders()}
                return Answer(response.status, headers, response.read())
        finally:
            self._connection.close()


class Replay:
    """The recording played to one server, of which it remembers what stands there for what was recorded."""

    def __init__(self, server: str, prefix: str, keys: Keys) -> None:
        self.here: dict[str, str] = {}
        """The id, time or e-tag that stands here for a recorded one."""
        self.handed_out: dict[str, str] = {}
        """The last token for each path that was signed."""
        self._host = urlsplit(server).netloc
        self.prefix = prefix
        self._tokens = tokens(keys)
        self.stored: dict[str, bytes] = {}
        """What was uploaded, by bucket and key."""

    def begin(self, exchange: Exchange, *, bearer: str = "", token: str = "") -> Sent:
        """Send the head of a recorded request.

        `bearer` is the token of a caller whom the recording does not name. `token` goes into a signed URL instead
        of the one that was handed out for it last.
        """
        known = {**self._tokens, **self.here, "<jwt:?>": bearer}
        headers = {
            name: re.sub("|".join(map(re.escape, known)), lambda found: known[found[0]], value)
            for name, value in exchange.request["headers"].items()
        }
        path = exchange.path.replace("<jwt:none>", token or self.handed_out.get(_base(exchange.path), ""))
        body = _body(exchange.request)
        assert len(body) == exchange.request["body_bytes"], exchange
        return Sent(exchange.request["method"], self.prefix + path, {**headers, "host": self._host}, body)

    def remember(self, exchange: Exchange, status: int, body: bytes) -> None:
        """Remember what was uploaded, and the tokens that were handed out."""
        if status == 200 and _uploads(exchange):
            self.stored[object_of(exchange.path)] = content(exchange.request)
        if b"?token=" in body:
            self.handed_out.update(re.findall(r'"(/[^"]*)\?token=([^"]*)"', body.decode()))


def _uploads(exchange: Exchange) -> bool:
    answered = exchange.response["body"]
    return isinstance(answered, dict) and "Key" in answered and exchange.path != "/object/copy"


def object_of(path: str) -> str:
    """The object that a path is about."""
    return re.sub(r"^/object/(authenticated/|upload/sign/|sign/)?", "", _base(path))


def _base(path: str) -> str:
    return path.partition("?")[0]


def content(request: dict[str, Any]) -> bytes:
    """The object in a recorded upload."""
    match request["body"]:
        case {"parts": [*_, {"value": str(value)}]}:
            return _part(value)
        case str(text) if text.startswith("--"):
            return text.split("\r\n\r\n")[-1].rpartition("\r\n--")[0].encode()
    return _body(request)


def _body(request: dict[str, Any]) -> bytes:
    """A recorded request's body. Where only its length and beginning are known, the rest is made up."""
    match request["body"]:
        case None:
            return b""
        case {"parts": parts}:
            boundary = request["headers"]["content-type"].rpartition("=")[2]
            # The recorder split at the boundary's dashes, and wrote bytes as if they were Latin-1.
            heads = [part["headers"].rpartition(boundary)[2].encode("latin-1") for part in parts]
            joined = b"".join(
                b"--%b%b\r\n\r\n%b\r\n" % (boundary.encode(), head, _part(part["value"]))
                for head, part in zip(heads, parts, strict=True)
            )
            return joined + b"--%b--\r\n" % boundary.encode()
        case {"bytes": int(size), "head_hex": str(head)}:
            beginning = bytes.fromhex(head)
            return picture(size) if beginning == _JPEG else (beginning + beginning[-1:] * size)[:size]
        case str(text):
            return text.encode()
        case value:
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _part(value: str) -> bytes:
    size = re.fullmatch(r"<(\d+) bytes>", value)
    if size is None:
        return value.encode()
    # By its e-tag the large file was one byte over and over; the small ones, nobody knows.
    return b"\xff" * int(size[1]) if int(size[1]) > 1_000_000 else picture(int(size[1]))
