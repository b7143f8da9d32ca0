"""What was recorded of the real Storage, from both sides: its answers, and what storage3 made of them.

Each recorded request is sent again, and the status, headers and body of the answer are compared. Each call that storage3
made is made again, and has to send the same request, and to return or raise the same.
"""

import asyncio
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from storage3 import AsyncStorageClient
from storage3.exceptions import StorageApiError

from tests.sandbox.project import wait_until
from tests.sandbox.recorded_storage import (
    DATE,
    E_TAG,
    LOCATION,
    OWN_FOLDER,
    PREFIX,
    TIME,
    TOKEN,
    UUID,
    A,
    Answer,
    B,
    Exchange,
    Replay,
    Sent,
    content,
    recorded,
    serve,
    tokens,
)
from tests.sandbox.storage_comparison import Comparison
from watcher.sandbox.keys import Keys
from watcher.sandbox.postgres import Postgres

BY_THE_GATEWAY = {
    "OPTIONS preflight": (200, b""),  # CORS is the gateway's job
    # To a request with a key and no token, the gateway adds anon's token, whom the policies refuse.
    "upload no authorization header": (400, b'"code":"AccessDenied"'),
    "download no auth": (400, b'"code":"NoSuchKey"'),
    # To one without either, it adds an empty token.
    "GET object/authenticated no auth": (400, b'"message":"Invalid Compact JWS"'),
}
"""What was recorded without a gateway and is answered differently behind one: the status, and a part of the body."""

UNKNOWN_BYTES = {'"2f10948d9868ee582edbdfdd183396cb"', '"fbe3aaa6d955166cc7756842a85d9c27"'}
"""The recorded e-tags of two pictures; the bytes of all other uploads are known."""

MASKED = {
    # Generated ids
    "id": UUID,
    "Id": UUID,
    "version": UUID,
    "message": rf"/{UUID} contains dot",  # the version that the refused object would have had
    # Times
    "created_at": TIME,
    "updated_at": TIME,
    "last_accessed_at": TIME,
    "last_modified": TIME,
    "lastModified": TIME,
    # E-tags: a test below shows that they differ only for the two pictures whose bytes the recording lacks
    "eTag": E_TAG,
    "etag": E_TAG,
    # Tokens
    "token": TOKEN,
    "url": TOKEN,
    "signedURL": TOKEN,
}
"""Fields of bodies in which what the pattern matches is not compared. An id, time or e-tag that the recording has twice
must be the same twice."""

MASKED_HEADERS = {"etag": E_TAG, "last-modified": DATE, "expires": DATE, "location": LOCATION}
"""The same for headers."""

IGNORED_HEADERS = {"date", "connection", "keep-alive", "vary"}
"""Headers of the connection and the gateway. Of the others none may be missing or additional."""

AT_ONCE = "policy test: concurrent uploads vs count limit"
LOCK_SECONDS = 0.3
KEYS = Keys()


def may_upload(check: str) -> str:
    """Return SQL for a policy that lets users upload to their own folder what passes `check`."""
    return f"""
        drop policy "upload" on storage.objects;
        create policy "upload" on storage.objects for insert to authenticated with check ({OWN_FOLDER} and {check})
    """


# What the recorder did to the database before an exchange, which is not recorded, by label.
SQL_BEFORE = {
    "download orphan row (bytes gone)": f"""
        insert into storage.objects (bucket_id, name, owner_id, version, metadata)
        values ('identity-images', '{A}/orphan.jpg', '{A}', 'abc', '{{"size": 5, "mimetype": "image/jpeg"}}')
    """,
    "policy test: upload with INSERT policy only (SELECT false)": """
        alter policy "read" on storage.objects using (false)
    """,
    "policy test: max 3 files per folder #1": f"""
        alter policy "read" on storage.objects using ({OWN_FOLDER});
        create sequence public.tested; -- counts rolled back checks, too
        grant usage on sequence public.tested to authenticated;
        {may_upload("nextval('public.tested') > 0 and public.fewer_than_three(path_tokens[2])")}
    """,
    "policy test: extension gate": may_upload("storage.extension(name) in ('jpg', 'png')"),
    "policy test: metadata size in INSERT check": may_upload("(metadata ->> 'size')::int < 1000"),
    "policy test: owner_id = auth.uid()": may_upload("owner_id = (select auth.uid())::text"),
    "policy test: RAISE inside policy": may_upload("public.refusing()"),
}
FUNCTIONS = """
    create function public.fewer_than_three(folder text) returns boolean language sql security definer
        as 'select count(*) < 3 from storage.objects where path_tokens[2] = folder';
    create function public.refusing() returns boolean language plpgsql
        as $$ begin raise exception 'no'; end $$;
    grant execute on function public.fewer_than_three, public.refusing to authenticated;
"""
BEARERS = {
    "GET object with garbage bearer": "garbage",
    "wrong role claim": KEYS.sign({"sub": A, "role": "nobody_has_this_role"}),
    "no role claim": KEYS.sign({"sub": A}),
}
"""The tokens in place of `<jwt:?>`, by label."""


def expired(token: str) -> bool:
    try:
        KEYS.verify(token)
    except jwt.ExpiredSignatureError:
        return True
    return False


@dataclass
class Played:
    """A server to which the recording was replayed."""

    postgres: Postgres
    database: str
    replay: Replay
    differences: dict[int, list[str]] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)

    def play(self) -> None:
        self._sql(FUNCTIONS)
        exchanges = recorded()
        together = [exchange for exchange in exchanges if exchange.label == AT_ONCE]
        for exchange in exchanges:
            if exchange == together[0]:
                self._play_at_once(together)
            if exchange in together:
                continue
            self._sql(SQL_BEFORE.get(exchange.label, ""))
            with self._meanwhile(exchange.label):
                self._compare(exchange, self._begin(exchange).finish())

    def _begin(self, exchange: Exchange) -> Sent:
        token, label = "", exchange.label
        if label.startswith("signed url ") and exchange.request["method"] == "GET":
            token = self.replay.signed[f"/object/sign/identity-images/{A}/ident1/0001.jpg"]
            if label == "signed url tampered":
                token = token[:-8] + ("AAAA" if token[-8:-4] != "AAAA" else "BBBB") + token[-4:]
            if label == "signed url expired GET":
                wait_until(lambda: expired(token))
        return self.replay.begin(exchange, bearer=BEARERS.get(label, ""), token=token)

    def _compare(self, exchange: Exchange, answer: Answer) -> None:
        self.answers[exchange.label] = answer
        comparison = Comparison(self.replay, MASKED, MASKED_HEADERS, IGNORED_HEADERS)
        self.differences[exchange.number] = list(comparison.differences(exchange, answer))
        self.replay.remember(exchange, answer.status, answer.body)

    def _play_at_once(self, exchanges: list[Exchange]) -> None:
        """Send the bodies after the policy has been checked for all of them, so that none sees another."""
        tested = self._ask("select last_value from public.tested")
        begun = [self._begin(exchange) for exchange in exchanges]
        wait_until(lambda: self._ask("select last_value from public.tested") >= tested + len(begun))
        for exchange, request in zip(exchanges, begun, strict=True):
            self._compare(exchange, request.finish())

    @contextmanager
    def _meanwhile(self, label: str) -> Iterator[None]:
        """Do what the recorder did during this exchange."""
        match label:
            case "database down: download":
                self.postgres.halt()
                yield
            case "database back: download":
                self.postgres.start()
                yield
            case "lock/timeout: upload while storage.objects locked":
                began = time.monotonic()
                with self._connect() as holder:
                    holder.execute("lock table storage.objects")
                    threading.Timer(LOCK_SECONDS, holder.commit).start()
                    yield
                assert time.monotonic() - began >= LOCK_SECONDS
            case _:
                yield

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.postgres.dsn(self.database))

    def _sql(self, script: str) -> None:
        if script:
            with self._connect() as connection:
                connection.execute(script.encode())

    def _ask(self, query: str) -> Any:
        with self._connect() as connection:
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            return row[0]


@pytest.fixture(scope="module", params=["Storage itself", "behind the gateway"])
def played(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Played]:
    """Replay to Storage itself, as it was recorded, and behind the gateway, as clients reach it."""
    gate = request.param == "behind the gateway"
    try:
        with serve(postgres, tmp_path_factory.mktemp("objects"), gate=gate) as (url, database):
            played = Played(postgres, database, Replay(url, PREFIX if gate else "", KEYS))
            played.play()
            yield played
    finally:
        postgres.start()  # if it ended while the database was down


@pytest.fixture
def behind_the_gateway(played: Played) -> bool:
    return bool(played.replay.prefix)


@pytest.mark.parametrize("exchange", recorded(), ids=str)
def test_the_sandbox_answers_as_the_real_storage_did(
    played: Played, exchange: Exchange, behind_the_gateway: bool
) -> None:
    if behind_the_gateway and exchange.label in BY_THE_GATEWAY:
        status, words = BY_THE_GATEWAY[exchange.label]
        answer = played.answers[exchange.label]
        assert answer.status == status
        assert words in answer.body
    else:
        assert played.differences[exchange.number] == []


def test_e_tags_are_the_recorded_ones_where_the_bytes_are_known(played: Played) -> None:
    other = {there for there, here in played.replay.here.items() if there.startswith('"') and there != here}
    assert other == UNKNOWN_BYTES


def test_what_is_used_was_recorded() -> None:
    assert len(recorded()) == 181
    used = [
        ("POST", "/object/identity-images/"),  # by a page, for a small photo
        ("POST", "/upload/resumable"),  # by a page
        ("PATCH", "/upload/resumable/"),
        ("GET", "/object/authenticated/identity-images/"),  # by the daemon
    ]
    for method, beginning in used:
        assert any(
            one.request["method"] == method and one.path.startswith(beginning) for one in recorded()
        ), beginning


# What storage3 makes of it.

BUCKET = "identity-images"
LIMITS = {"public": False, "file_size_limit": 20971520, "allowed_mime_types": ["image/jpeg", "image/png"]}
FIRST, NONE = f"{A}/ident1/0001.jpg", "none.jpg"
SIGNED_UPLOAD = f"/object/upload/sign/{BUCKET}/{A}/i/su.jpg"
LENGTH = 600
"""Where longer results were cut off."""

MASKS = {
    "<time>": rf"datetime\.datetime\([^)]*\)\)|{TIME}",
    "<e-tag>": E_TAG.strip('"'),
    "<token>": TOKEN,
    "<id>": rf"(?!{A}|{B}){UUID}",
}
"""What is generated, and masked before results are compared."""

Call = Callable[[AsyncStorageClient, bytes, Replay], Awaitable[object]]


def upload(key: str, kind: str = "image/jpeg", bucket: str = BUCKET, **more: Any) -> Call:
    options: Any = {"content-type": kind, **more}  # the client's own type for this wants each key by name
    return lambda it, sent, _: it.from_(bucket).upload(key, sent, options)


def listed(prefix: str, bucket: str = BUCKET, **more: Any) -> Call:
    options: Any = more or None
    return lambda it, *_: it.from_(bucket).list(prefix, options)


def info(key: str) -> Call:
    return lambda it, *_: it.from_(BUCKET).info(key)


def exists(key: str, bucket: str = BUCKET) -> Call:
    return lambda it, *_: it.from_(bucket).exists(key)


def download(key: str, bucket: str = BUCKET) -> Call:
    return lambda it, *_: it.from_(bucket).download(key)


def sign(key: str, seconds: int = 60) -> Call:
    return lambda it, *_: it.from_(BUCKET).create_signed_url(key, seconds)


def sign_upload(key: str) -> Call:
    return lambda it, *_: it.from_(BUCKET).create_signed_upload_url(key)


def remove(*keys: str) -> Call:
    return lambda it, *_: it.from_(BUCKET).remove(list(keys))


PLAIN = {35, 36}
"""Uploads that storage3 did not make, and that are listed later."""

CALLS: dict[int, Call] = {
    1: lambda it, *_: it.create_bucket(BUCKET, options=LIMITS),
    2: lambda it, *_: it.create_bucket(BUCKET, options=LIMITS),
    3: lambda it, *_: it.create_bucket("ub"),
    4: lambda it, *_: it.create_bucket("strlimit", options={"public": False, "file_size_limit": "20MB"}),
    5: lambda it, *_: it.get_bucket(BUCKET),
    6: lambda it, *_: it.get_bucket(BUCKET),
    7: lambda it, *_: it.get_bucket("nope"),
    8: lambda it, *_: it.list_buckets(),
    9: lambda it, *_: it.list_buckets(),
    10: upload(FIRST),
    11: upload(FIRST),
    12: upload(f"{B}/x/1.jpg"),
    13: upload("root.jpg"),
    14: upload(FIRST, upsert="true"),
    15: upload(f"{A}/ident1/up.jpg", upsert="true"),
    16: upload(f"{A}/i/big.jpg"),
    17: upload(f"{A}/i/exact.jpg"),
    18: upload(f"{A}/i/huge.jpg"),
    19: lambda it, sent, _: it.from_(BUCKET).upload(f"{A}/i/t.jpg", sent),
    20: upload(f"{A}/i/t.gif", "image/gif"),
    21: upload(f"{A}/i/lie.png", "image/png"),
    22: upload(f"{A}/i/jpg.jpg", "image/jpg"),
    23: upload(f"{A}/i/empty.png", "image/png"),
    24: upload(f"{A}/i/Köln.jpg"),
    25: upload(f"{A}/i/IMG 1 (2)'s.jpg"),
    26: upload(f"{A}/i/a#b.jpg"),
    27: upload(f"{A}//dd.jpg"),
    28: upload(f"{A}/i/1.jpg", bucket="nope"),
    29: upload(f"{A}/i/an.jpg"),
    30: upload(f"{A}/i/an.jpg"),
    31: upload(f"{A}/i/an.jpg"),
    32: upload(f"{A}/i/an.jpg"),
    33: upload(f"{A}/i/svc.jpg"),
    34: upload(f"{A}/i/meta.jpg", metadata={"k": "v"}),
    39: listed(f"{A}/i"),
    40: listed(A),
    41: listed(""),
    42: listed(f"{A}/i"),
    43: listed(f"{A}/i", limit=2, offset=1, sortBy={"column": "created_at", "order": "desc"}),
    44: listed(f"{A}/i", search="ex"),
    45: listed("", "nope"),
    46: lambda it, *_: it.from_(BUCKET).list_v2({"prefix": f"{A}/", "limit": 3, "with_delimiter": True}),
    47: listed(f"{A}/i"),
    48: info(FIRST),
    49: info(FIRST),
    50: info(f"{A}/none.jpg"),
    51: info(f"{A}/i/meta.jpg"),
    52: exists(FIRST),
    53: exists(f"{A}/none.jpg"),
    54: exists("a", "nope"),
    55: download(FIRST),
    56: download(FIRST),
    57: download(FIRST),
    58: download(f"{A}/none.jpg"),
    59: download("x.jpg", "nope"),
    60: download(FIRST),
    61: download(FIRST),
    62: download(FIRST),
    63: download(FIRST),
    82: sign(FIRST),
    87: sign(FIRST, 1),
    89: sign(NONE),
    90: sign(FIRST),
    91: lambda it, *_: it.from_(BUCKET).create_signed_urls([FIRST, NONE], 60),
    92: sign_upload(f"{A}/i/su.jpg"),
    93: lambda it, sent, here: it.from_(BUCKET).upload_to_signed_url(
        f"{A}/i/su.jpg", here.signed[SIGNED_UPLOAD], sent, {"content-type": "image/jpeg"}
    ),
    94: sign_upload(f"{B}/i/su.jpg"),
    95: lambda it, *_: it.from_(BUCKET).move(f"{A}/i/js.jpg", f"{A}/i/js2.jpg"),
    96: lambda it, *_: it.from_(BUCKET).copy(f"{A}/i/js.jpg", f"{A}/i/js3.jpg"),
    97: lambda it, sent, _: it.from_(BUCKET).update(f"{A}/i/raw.jpg", sent, {"content-type": "image/jpeg"}),
    98: remove(FIRST),
    99: remove(NONE),
    100: remove(f"{A}/i/raw.jpg", f"{A}/i/none.jpg"),
    101: remove(f"{A}/i/svc.jpg"),
    102: remove(),
    103: remove(FIRST),
    104: lambda it, *_: it.update_bucket(BUCKET, LIMITS),
    105: lambda it, *_: it.delete_bucket(BUCKET),
}
"""By the number of the exchange that the call made when it was recorded."""


@dataclass(frozen=True)
class Made:
    """What a call sent, and its result."""

    sent: tuple[str, str, str]
    result: str


def results() -> list[tuple[str, str]]:
    """Return the label and the result of each recorded call, in order."""
    file = Path(__file__).with_name("recorded") / "storage_client_results.json"
    return [(one["label"], one["client_result"]) for one in json.loads(file.read_text("utf-8"))]


def masked(text: str) -> str:
    """Return a result with what is generated masked."""
    text = re.sub(r"http://127\.0\.0\.1:\d+(/storage/v1)?/", "<server>/", text)
    for name, pattern in MASKS.items():
        text = re.sub(pattern, name, text)
    return text


async def outcome(call: Awaitable[object]) -> str:
    """Return the result of a call as text, as it was recorded."""
    try:
        result = await call
    except StorageApiError as error:
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        said = {"name": error.name, "message": error.message, "code": error.code, "status": error.status}
        return json.dumps({"EXC": kind, "attrs": said, "cause": type(error.__cause__).__name__})
    match result:
        case bytes():
            return f"<{len(result)} bytes>"
        case dict():
            return json.dumps(result)
    return repr(result)


async def make(exchange: Exchange, replay: Replay, server: str) -> Made:
    """Make the call of an exchange, with the key and token of the recorded caller."""
    known = tokens(KEYS)
    given = exchange.request["headers"]
    headers = {"apikey": known[given["apikey"]]}
    if "authorization" in given:
        headers["authorization"] = f"Bearer {known[given['authorization'].removeprefix('Bearer ')]}"
    sent: list[tuple[str, str, str]] = []

    async def remember(response: httpx.Response) -> None:
        asked = response.request
        sent.append((asked.method, asked.url.raw_path.decode(), asked.headers.get("content-length", "")))
        replay.remember(exchange, response.status_code, await response.aread())

    async with httpx.AsyncClient(timeout=60, event_hooks={"response": [remember]}) as http:
        it = AsyncStorageClient(f"{server}/", headers, http_client=http)
        result = await outcome(CALLS[exchange.number](it, content(exchange.request), replay))
    [one] = sent
    return Made(one, result)


@pytest.fixture(scope="module")
def made(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Made]:
    """Make all calls in order, since later results depend on earlier ones."""

    async def make_all(server: str) -> dict[int, Made]:
        replay = Replay(server, "", KEYS)
        made: dict[int, Made] = {}
        for exchange in recorded():
            if exchange.number in PLAIN:
                replay.begin(exchange).finish()
            elif exchange.number in CALLS:
                made.setdefault(exchange.number, await make(exchange, replay, server))
        return made

    with serve(postgres, tmp_path_factory.mktemp("objects"), gate=False) as (server, _):
        return asyncio.run(make_all(server))


EXCHANGES = {exchange.number: exchange for exchange in recorded()}


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        pytest.param(number, wanted, id=f"{number:03} {label}")
        for number, (label, wanted) in zip(CALLS, results(), strict=True)
    ],
)
def test_storage3_returns_and_raises_what_it_did_with_the_real_storage(
    made: dict[int, Made], number: int, wanted: str
) -> None:
    request = EXCHANGES[number].request
    method, path, length = made[number].sent
    assert (method, masked(path)) == (request["method"], masked(EXCHANGES[number].path))
    if "token=" not in path:
        assert length == request["headers"].get("content-length", "")
    result = masked(made[number].result)
    if len(wanted) == LENGTH or wanted.endswith("<token>"):
        # Cut off within a word or a token.
        assert result.startswith(masked(wanted).rpartition(" " if len(wanted) == LENGTH else "<token>")[0])
    else:
        assert result == masked(wanted)
