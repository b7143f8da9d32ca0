"""The recording of the real Storage, and how its requests are sent again.

`recorded/storage.jsonl` has 181 exchanges with Storage 1.70.6 (file backend), in order, of 2026-11-22. Tokens were
replaced in it (`<jwt:userA>`), and of large bodies it has the length and the first bytes.
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

from tests.sandbox.project import FOREIGN, NEVER
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
"""What a signed-in user was allowed when it was recorded; there was no UPDATE policy, and none for anon."""

_JPEG = bytes.fromhex("ffd8ffe000104a464946000101010060")

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
E_TAG = r'"[0-9a-f]{32}"'
TOKEN = r"<jwt:none>|[\w-]+\.[\w-]+\.[\w-]+"
LOCATION = r"https?://[^/]+(?:/storage/v1)?/upload/resumable/[\w-]+"
"""Recorded with two configurations: Storage's own path, and that of the Supabase CLI, which the sandbox has."""
DATE = r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"


@dataclass(frozen=True)
class Exchange:
    """One request and the real server's answer."""

    number: int
    label: str
    request: dict[str, Any]
    response: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.number:03} {self.label}"

    @property
    def path(self) -> str:
        """The path and the query without the gateway's prefix."""
        return str(self.request["path"]).removeprefix(PREFIX)


def recorded() -> list[Exchange]:
    """Return the recording, in order."""
    lines = Path(__file__).with_name("recorded").joinpath("storage.jsonl").read_text("utf-8").splitlines()
    return [
        Exchange(number, one["label"], one["request"], one["response"])
        for number, one in enumerate(map(json.loads, lines), 1)
    ]


def tokens(keys: Keys) -> dict[str, str]:
    """Return a token for each that was replaced in the recording."""
    user = {"sub": A, "role": "authenticated", "exp": NEVER}
    return {
        "<jwt:anon>": keys.anon_jwt,
        "<jwt:service_role>": keys.service_role_jwt,
        "<jwt:userA>": keys.sign(user),
        "<jwt:userB>": keys.sign({**user, "sub": B}),
        "<jwt:expiredA>": keys.sign({**user, "exp": 1}),
        "<jwt:badsig>": FOREIGN.sign(user),
    }


def picture(size: int) -> bytes:
    """Return bytes that begin like a JPEG, in place of those that were sent; always the same for a size."""
    return (_JPEG + random.Random(size).randbytes(max(0, size - len(_JPEG))))[:size]


@dataclass(frozen=True)
class Answer:
    """The sandbox's answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@contextmanager
def serve(postgres: Postgres, folder: Path, *, gate: bool) -> Iterator[tuple[str, str]]:
    """Serve a Storage without a bucket, with or without its gateway; yield its URL and its database."""
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
    """A request whose headers are sent, on a connection of its own."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self._body = body
        self._connection = http.client.HTTPConnection(headers["host"], timeout=60)
        # http.client changes nothing of what it is given.
        self._connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            self._connection.putheader(name, value)
        self._connection.endheaders()

    def finish(self) -> Answer:
        """Send the body, and return the answer."""
        try:
            self._connection.send(self._body)
            with self._connection.getresponse() as response:
                headers = {name.lower(): value for name, value in response.getheaders()}
                return Answer(response.status, headers, response.read())
        finally:
            self._connection.close()


class Replay:
    """Sends the recorded requests to one server, with its ids, times, e-tags and tokens in place of the recorded ones."""

    def __init__(self, server: str, prefix: str, keys: Keys) -> None:
        self.here: dict[str, str] = {}
        """The id, time or e-tag here for each recorded one."""
        self.signed: dict[str, str] = {}
        """The last token for each path for which a signed URL was asked."""
        self._host = urlsplit(server).netloc
        self.prefix = prefix
        self._tokens = tokens(keys)
        self.stored: dict[str, bytes] = {}
        """The uploaded bytes, by bucket and key."""

    def begin(self, exchange: Exchange, *, bearer: str = "", token: str = "") -> Sent:
        """Send the headers of a recorded request.

        `bearer` is for callers whom the recording does not name. `token` replaces the last token of a signed URL.
        """
        known = {**self._tokens, **self.here, "<jwt:?>": bearer}
        headers = {
            name: re.sub("|".join(map(re.escape, known)), lambda found: known[found[0]], value)
            for name, value in exchange.request["headers"].items()
        }
        path = exchange.path.replace("<jwt:none>", token or self.signed.get(_base(exchange.path), ""))
        for there, here in self.here.items():
            if there.endswith(path) and path.startswith("/upload/resumable/"):
                path = f"/upload{here.rpartition('/upload')[2]}"
        body = _body(exchange.request)
        assert len(body) == exchange.request["body_bytes"], exchange
        return Sent(exchange.request["method"], self.prefix + path, {**headers, "host": self._host}, body)

    def remember(self, exchange: Exchange, status: int, body: bytes) -> None:
        """Remember what was uploaded, and the tokens of signed URLs."""
        if status == 200 and _uploads(exchange):
            self.stored[object_of(exchange.path)] = content(exchange.request)
        if b"?token=" in body:
            self.signed.update(re.findall(r'"(/[^"]*)\?token=([^"]*)"', body.decode()))


def _uploads(exchange: Exchange) -> bool:
    answered = exchange.response["body"]
    return isinstance(answered, dict) and "Key" in answered and exchange.path != "/object/copy"


def object_of(path: str) -> str:
    """Return the object in a path."""
    return re.sub(r"^/object/(authenticated/|upload/sign/|sign/)?", "", _base(path))


def _base(path: str) -> str:
    return path.partition("?")[0]


def content(request: dict[str, Any]) -> bytes:
    """Return the bytes of the object in a recorded upload."""
    match request["body"]:
        case {"parts": [*_, {"value": str(value)}]}:
            return _part(value)
        case str(text) if text.startswith("--"):
            return text.split("\r\n\r\n")[-1].rpartition("\r\n--")[0].encode()
    return _body(request)


def _body(request: dict[str, Any]) -> bytes:
    """Return a recorded request's body; where only its length and beginning are known, the rest is made up."""
    match request["body"]:
        case None:
            return b""
        case {"parts": parts}:
            boundary = request["headers"]["content-type"].rpartition("=")[2]
            # The recorder split at the dashes of the boundary, and decoded bytes as Latin-1.
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
    # The large file's e-tag is that of one byte repeated; what the small ones held is not known.
    return b"\xff" * int(size[1]) if int(size[1]) > 1_000_000 else picture(int(size[1]))
