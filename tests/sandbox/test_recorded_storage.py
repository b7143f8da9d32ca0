"""Every recorded exchange with the real Storage, played again to the sandbox's: the same status, headers and body."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
import psycopg
import pytest

from tests.sandbox.recorded_storage import (
    DATE,
    E_TAG,
    OWN_FOLDER,
    PREFIX,
    TIME,
    TOKEN,
    UUID,
    A,
    Answer,
    Exchange,
    Replay,
    Sent,
    recorded,
    serve,
)
from tests.sandbox.storage_comparison import Comparison
from watcher.sandbox.keys import Keys
from watcher.sandbox.postgres import Postgres

LEFT_OUT = {
    "/upload/resumable": "resumable uploads (TUS): neither the daemon nor the README's snippet makes any",
}
"""By how their path begins."""

BY_THE_GATEWAY = {
    "OPTIONS preflight": (200, b""),  # CORS is the gateway's job
    # Who sends a key and no token is named by the gateway: anon, whom the policies refuse.
    "upload no authorization header": (400, b'"code":"AccessDenied"'),
    "download no auth": (400, b'"code":"NoSuchKey"'),
}
"""Recorded without a gateway, answered in another way behind one: the status, and what is in the body."""

UNKNOWN_BYTES = {'"2f10948d9868ee582edbdfdd183396cb"', '"fbe3aaa6d955166cc7756842a85d9c27"'}
"""The recorded e-tags of the two pictures that were uploaded; of all other uploads the bytes are known."""

SET_ASIDE = {
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
    # E-tags: those of two pictures whose bytes the recording lacks; all others are the same, as a test below says
    "eTag": E_TAG,
    "etag": E_TAG,
    # Tokens
    "token": TOKEN,
    "url": TOKEN,
    "signedURL": TOKEN,
}
"""Fields of bodies that are not compared as far as the pattern goes, but where the recording has the same id, time or
e-tag twice, it must be the same twice."""

HEADERS_SET_ASIDE = {"etag": E_TAG, "last-modified": DATE, "expires": DATE}
"""The same for headers."""

OF_THE_WAY = {"date", "connection", "keep-alive", "vary"}
"""Headers of the connection, and of the gateway; all others are compared, also that there are no more."""

AT_ONCE = "policy test: concurrent uploads vs count limit"
LOCK_SECONDS = 0.3
KEYS = Keys()


def may_upload(check: str) -> str:
    """SQL for a policy that lets a user upload to the own folder what passes `check`."""
    return f"""
        drop policy "upload" on storage.objects;
        create policy "upload" on storage.objects for insert to authenticated with check ({OWN_FOLDER} and {check})
    """


# What the recorder did to the database before an exchange. It is not recorded, but the labels tell.
SQL_BEFORE = {
    "list limit 10001": f"""
        -- a resumable upload had been here
        insert into storage.objects (bucket_id, name) values ('identity-images', '{A}/tus/a.jpg')
    """,
    "download orphan row (bytes gone)": f"""
        insert into storage.objects (bucket_id, name, owner_id, version, metadata)
        values ('identity-images', '{A}/orphan.jpg', '{A}', 'abc', '{{"size": 5, "mimetype": "image/jpeg"}}')
    """,
    "policy test: upload with INSERT policy only (SELECT false)": """
        alter policy "read" on storage.objects using (false)
    """,
    "policy test: max 3 files per folder #1": f"""
        alter policy "read" on storage.objects using ({OWN_FOLDER});
        create sequence public.tested; -- counts also what is rolled back
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
"""What stands for `<jwt:?>`."""


def expired(token: str) -> bool:
    try:
        KEYS.verify(token)
    except jwt.ExpiredSignatureError:
        return True
    return False


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "It did not come true."
        time.sleep(0.01)


def left_out(exchange: Exchange) -> bool:
    return any(exchange.path.startswith(beginning) for beginning in LEFT_OUT)


@dataclass
class Played:
    """A server to which the recording was played."""

    postgres: Postgres
    database: str
    replay: Replay
    differences: dict[int, list[str]] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)

    def play(self) -> None:
        self._sql(FUNCTIONS)
        exchanges = [exchange for exchange in recorded() if not left_out(exchange)]
        together = [exchange for exchange in exchanges if exchange.label == AT_ONCE]
        for exchange in exchanges:
            if exchange == together[0]:
                self._play_at_once(together)
            if exchange in together:
                continue
            self._sql(SQL_BEFORE.get(exchange.label, ""))
            with self._meanwhile(exchange.label):
                self._judge(exchange, self._begin(exchange).finish())

    def _begin(self, exchange: Exchange) -> Sent:
        token, label = "", exchange.label
        if label.startswith("signed url ") and exchange.request["method"] == "GET":
            token = self.replay.handed_out[f"/object/sign/identity-images/{A}/ident1/0001.jpg"]
            if label == "signed url tampered":
                token = token[:-8] + ("AAAA" if token[-8:-4] != "AAAA" else "BBBB") + token[-4:]
            if label == "signed url expired GET":
                until(lambda: expired(token))
        return self.replay.begin(exchange, bearer=BEARERS.get(label, ""), token=token)

    def _judge(self, exchange: Exchange, answer: Answer) -> None:
        self.answers[exchange.label] = answer
        comparison = Comparison(self.replay, SET_ASIDE, HEADERS_SET_ASIDE, OF_THE_WAY)
        self.differences[exchange.number] = list(comparison.differences(exchange, answer))
        self.replay.remember(exchange, answer.status, answer.body)

    def _play_at_once(self, exchanges: list[Exchange]) -> None:
        """Send no body before the policy has been asked about all: they must not know of one another."""
        tested = self._ask("select last_value from public.tested")
        begun = [self._begin(exchange) for exchange in exchanges]
        until(lambda: self._ask("select last_value from public.tested") >= tested + len(begun))
        for exchange, request in zip(exchanges, begun, strict=True):
            self._judge(exchange, request.finish())

    @contextmanager
    def _meanwhile(self, label: str) -> Iterator[None]:
        """Do what the recorder did while it waited for this answer."""
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
    """Play it to Storage as it was recorded, without a gateway, and as everybody asks it, behind one."""
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


@pytest.mark.parametrize("exchange", [one for one in recorded() if not left_out(one)], ids=str)
def test_storage_answers_as_it_did(played: Played, exchange: Exchange, behind_the_gateway: bool) -> None:
    if behind_the_gateway and exchange.label in BY_THE_GATEWAY:
        status, words = BY_THE_GATEWAY[exchange.label]
        answer = played.answers[exchange.label]
        assert answer.status == status
        assert words in answer.body
    else:
        assert played.differences[exchange.number] == []


def test_e_tags_are_those_of_the_real_server_where_the_bytes_are_known(played: Played) -> None:
    other = {there for there, here in played.replay.here.items() if there.startswith('"') and there != here}
    assert other == UNKNOWN_BYTES


def test_only_resumable_uploads_are_left_out_and_nothing_that_is_used() -> None:
    everything = recorded()
    assert (len(everything), sum(map(left_out, everything))) == (181, 20)
    used = [
        ("POST", "/object/identity-images/"),  # by the README's snippet
        ("GET", "/object/authenticated/identity-images/"),  # by the daemon
    ]
    for method, beginning in used:
        asked = [
            one for one in everything if one.request["method"] == method and one.path.startswith(beginning)
        ]
        assert asked
        assert not any(map(left_out, asked))
