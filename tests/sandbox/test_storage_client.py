"""What storage3 returned and raised against the real Storage, it returns and raises against the sandbox's."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from storage3 import AsyncStorageClient
from storage3.exceptions import StorageApiError

from tests.sandbox.recorded_storage import (
    E_TAG,
    TIME,
    TOKEN,
    UUID,
    A,
    B,
    Exchange,
    Replay,
    content,
    recorded,
    serve,
    tokens,
)
from watcher.sandbox.keys import Keys
from watcher.sandbox.postgres import Postgres

BUCKET = "identity-images"
LIMITS = {"public": False, "file_size_limit": 20971520, "allowed_mime_types": ["image/jpeg", "image/png"]}
FIRST, NONE = f"{A}/ident1/0001.jpg", "none.jpg"
SIGNED_UPLOAD = f"/object/upload/sign/{BUCKET}/{A}/i/su.jpg"
LENGTH = 600
"""Longer results were cut off here when they were recorded."""

MASKS = {
    "<time>": rf"datetime\.datetime\([^)]*\)\)|{TIME}",
    "<e-tag>": E_TAG.strip('"'),
    "<token>": TOKEN,
    "<id>": rf"(?!{A}|{B}){UUID}",
}
"""What was generated, by name; all else is compared."""

Call = Callable[[AsyncStorageClient, bytes, Replay], Awaitable[object]]


def upload(key: str, kind: str = "image/jpeg", bucket: str = BUCKET, **options: Any) -> Call:
    return lambda it, sent, _: it.from_(bucket).upload(key, sent, {"content-type": kind, **options})


def listed(prefix: str, bucket: str = BUCKET, **options: Any) -> Call:
    return lambda it, *_: it.from_(bucket).list(prefix, options or None)


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
"""Uploads that were not made by storage3; what is listed later depends on them."""

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
        f"{A}/i/su.jpg", here.handed_out[SIGNED_UPLOAD], sent, {"content-type": "image/jpeg"}
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
    """What a call sent, and what came of it."""

    sent: tuple[str, str, str]
    result: str


def results() -> list[tuple[str, str]]:
    """What storage3 made of the recorded answers, in their order, by label."""
    file = Path(__file__).with_name("recorded") / "storage_client_results.json"
    return [(one["label"], one["client_result"]) for one in json.loads(file.read_text("utf-8"))]


def masked(text: str) -> str:
    """Replace what was generated by its name."""
    text = re.sub(r"http://127\.0\.0\.1:\d+(/storage/v1)?/", "<server>/", text)
    for name, pattern in MASKS.items():
        text = re.sub(pattern, name, text)
    return text


async def outcome(call: Awaitable[object]) -> str:
    """Write down what comes of a call, as it was written down then."""
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
    """Make the call of an exchange with a client that holds the recorded caller's key and token."""
    known = tokens(Keys())
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
    """Make all calls in their order, for later results depend on earlier ones."""

    async def make_all(server: str) -> dict[int, Made]:
        replay = Replay(server, "", Keys())
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
def test_storage3_gets_what_it_got_from_the_real_storage(
    made: dict[int, Made], number: int, wanted: str
) -> None:
    request = EXCHANGES[number].request
    method, path, length = made[number].sent
    assert (method, masked(path)) == (request["method"], masked(EXCHANGES[number].path))
    if "token=" not in path:
        assert length == request["headers"].get("content-length", "")
    result = masked(made[number].result)
    if len(wanted) == LENGTH or wanted.endswith("<token>"):
        # Cut off in the middle of something.
        assert result.startswith(masked(wanted).rpartition(" " if len(wanted) == LENGTH else "<token>")[0])
    else:
        assert result == masked(wanted)
