"""Nothing in a row, and no answer of a service, leads the daemon to another's objects, out of its spool or elsewhere."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from tests.support.database import Database
from tests.support.deprecations import CONTENT
from tests.support.pictures import jpeg
from tests.support.scene import PICTURES, Scene, carry, claim
from watcher.engine.attempt import Attempts
from watcher.engine.lease import Leases
from watcher.engine.reach import Reach
from watcher.errors import Transient, WatcherError
from watcher.identity import Identity
from watcher.operator.queries import Queries
from watcher.photos.fetch import Photos
from watcher.photos.spool import Spool
from watcher.publishing.publisher import Publisher, identity_of
from watcher.sandbox.faults import Answer
from watcher.supabase.realtime import Feed
from watcher.supabase.rpc import Rpc
from watcher.supabase.verbs import Verbs

pytestmark = CONTENT

OTHER = "0b4e6f4e-0000-4000-8000-000000000002"

# Of each, {u} is the user's id, {U} the same in capitals, {o} another user who has these objects.
OUTSIDE = [
    "{o}/photo.jpg", "{U}/photo.jpg", "{{{u}}}/photo.jpg", "{u}", "{u}x/photo.jpg", "x{u}/photo.jpg",
    "photo.jpg", "", " ", "/", "//", ".", "..", "*", "%", "/{u}/photo.jpg", "//{u}/photo.jpg",
    "./{u}/photo.jpg", "../{u}/photo.jpg", " {u}/photo.jpg", "{u} /photo.jpg", "\t{u}/photo.jpg",
    "\ufeff{u}/photo.jpg", "{u}\u200b/photo.jpg", "avatars/{u}/photo.jpg", "identity-images/{u}/photo.jpg",
    "identity-images/{o}/photo.jpg", "../avatars/{u}/photo.jpg", "{u}\\photo.jpg", "{u}%2Fphoto.jpg",
    "{u}%2fphoto.jpg", "{u}\u2215photo.jpg", "{u}\u2044photo.jpg", "{u}\uff0fphoto.jpg", "{u}:photo.jpg",
    "file:///etc/passwd", "/etc/passwd", "http://127.0.0.1:1/photo.jpg", "https://{u}/photo.jpg",
    "//127.0.0.1/{u}/photo.jpg", "{u}@127.0.0.1/photo.jpg", "?{u}/photo.jpg", "#{u}/photo.jpg",
    "{u}?/photo.jpg",
]  # fmt: skip
INSIDE_BUT_ODD = [
    "", "/", "//photo.jpg", ".", "..", "...", "./photo.jpg", "../photo.jpg", "../{o}/photo.jpg",
    "../../{o}/photo.jpg", "../../../auth/v1/admin/users", "a/../../{o}/photo.jpg", "a/..", "a/./b", "a//b",
    "a/", ".hidden", "a/.hidden", " a", "a ", "a/ b", "a /b", "a. /..", "%2e%2e/{o}/photo.jpg",
    "%2E%2E%2F{o}%2Fphoto.jpg", "..%2f{o}/photo.jpg", "%252e%252e/x", "..%c0%af{o}/photo.jpg", "%00",
    "a%00.jpg", "a%0d%0aX: y", "..\\{o}\\photo.jpg", "a\\b", "\\\\host\\share", "a\n", "\na", "a\r\nX: y",
    "a\tb", "a\x01b", "a\x7fb", "a\u0085b", "\u2024\u2024/{o}/photo.jpg", "\u2025/{o}/photo.jpg",
    "\uff0e\uff0e/x", "\u3002\u3002/x", "a\u2215b", "a\u2044b", "a\uff0fb", "a\u29f8b", "a\u202egpj",
    "a\u200bb", "a\u00a0b", "a\ufeffb", "a\u00adb", "\u00e9.jpg", "e\u0301.jpg", "\u0430.jpg", "\u212a.jpg",
    "\u017f.jpg", "a\U0001f600", "a?token=x", "?download", "a?", "a#b", "#", "a;b", "a:b", "a,b", "a&b", "a'b",
    'a"b', "a`b", "a|b", "a<b>", "a*b", "a~b", "~", "a!b", "a$(id)", "${{HOME}}", "a^b", "a[1]", "a{{1}}",
    "1/2/3/4/5/6", "x" * 476, "x" * 9_000, "x/" * 250 + "x",
]  # fmt: skip
ODD = [*OUTSIDE, *(f"{{u}}/{path}" for path in INSIDE_BUT_ODD)]
EXACT = [
    "x..y", "a..", "a.", "a b.jpg", "a+b.jpg", "a  b.jpg", "a+ +b.jpg", "a=b", "a@b", "(1)", "-", "--", "-rf",
    "_", "=", "@", "+", "()", "A.JPG", "a.jpg", "a.JPG", "1/2/3/4/5", "con", "nul.jpg", "x" * 200, "@127.0.0.1",
    "a=b=c@d+e (1)", "image_001", "null", "undefined",
]  # fmt: skip


def odd(template: str, user: UUID) -> str:
    return template.format(u=user, U=str(user).upper(), o=OTHER)


def insert(scene: Scene, user: UUID, paths: object, name: str = "Ada") -> httpx.Response:
    """Insert a row over REST, as a stranger would who writes the request by hand."""
    keys = scene.sandbox.keys
    token = keys.sign({"sub": str(user), "role": "authenticated", "exp": 4_000_000_000})
    return scene.http.post(
        f"{scene.sandbox.supabase_url}/rest/v1/trained_identities",
        headers={
            "apikey": keys.publishable,
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Prefer": "return=representation",
        },
        content=json.dumps({"identity_name": name, "image_paths": paths}),
    )


def files(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def rows_of(database: Database) -> int:
    count = database.value("select count(*) from public.trained_identities")
    assert isinstance(count, int)
    return count


# What the database says.


def test_an_odd_path_is_refused_at_insert_though_such_an_object_is_there(scene: Scene) -> None:
    user, good = scene.put()
    wanted = [odd(template, user) for template in ODD]
    scene.database.store(sorted({*wanted, f"{OTHER}/photo.jpg"}))
    assert len(wanted) > 130
    for path in wanted:
        answer = insert(scene, user, [*good, path])
        assert (answer.status_code, answer.json()["code"]) == (400, "23514"), path
        assert answer.json()["message"].startswith("Image 4 ("), path
        assert answer.json()["message"].isprintable(), path
    assert rows_of(scene.database) == 0


def test_an_array_of_an_odd_shape_is_refused_at_insert(scene: Scene) -> None:
    user, good = scene.put([jpeg(seed) for seed in range(41)])
    quoted = ",".join(f'"{path}"' for path in good[:3])
    for paths in (
        [], good[:1], good[:2], good, good * 25, [*good[:3], None], [None] * 3, [None], [*good[:3], good[0]], [good[:3]],
        [good[:3], good[3:6]], [[path] for path in good[:3]], [[[path]] for path in good[:3]], [*good[:2], good[2:4]], None,
        f"[0:2]={{{quoted}}}", f"[2:4]={{{quoted}}}", f"[-1:1]={{{quoted}}}", f"{{{{{quoted}}}}}", "{}",
        f"{{{quoted},NULL}}",
        "", good[0], {"0": good[0], "1": good[1], "2": good[2]}, [{"path": path} for path in good[:3]], [1, 2, 3], 3, True,
        [*good[:3], ""], [*good[:3], f"{user}/a\0"], [*good[:3], f"{user}/\ud800"],
    ):  # fmt: skip
        answer = insert(scene, user, paths)
        assert 400 <= answer.status_code < 500, (paths, answer.text)
    assert rows_of(scene.database) == 0


# What the daemon does where the database did not look.


@contextmanager
def unguarded(scene: Scene) -> Iterator[None]:
    """Let the table's owner write what it likes."""
    database, name = scene.database, "image_paths_are_the_users_own"
    check = database.value(f"select pg_get_constraintdef(oid) from pg_constraint where conname = '{name}'")
    database.run(f"alter table public.trained_identities drop constraint {name}")
    try:
        yield
    finally:
        database.overwrite("delete from public.trained_identities")
        database.run(f"alter table public.trained_identities add constraint {name} {check}")


def overwrite(scene: Scene, user: UUID, expression: str, *parameters: object) -> UUID:
    """Insert a row and replace its paths with what SQL makes of the expression, past every trigger."""
    identity = scene.database.insert(user)
    scene.database.overwrite(
        f"update public.trained_identities set image_paths = {expression} where id = %s",
        [*parameters, identity],
    )
    return identity


def attempts_of(publisher: Publisher) -> Attempts:
    leases = Leases(publisher.verbs, length=20, renewal=5)
    return Attempts(
        verbs=publisher.verbs,
        leases=leases,
        works={"publish": publisher},
        retry=publisher.retry,
        reach=Reach({}),
    )


@pytest.fixture
def attempts(publisher: Publisher) -> Attempts:
    return attempts_of(publisher)


async def forbidden(scene: Scene, verbs: Verbs, attempts: Attempts, identity: UUID) -> None:
    """See that the row fails as it should, and that nobody was asked for anything."""
    await carry(attempts, verbs)
    row = scene.database.row(identity)
    assert (row["status"], row["error_code"]) == ("failed", "path_forbidden"), row["image_paths"]
    assert row["error_message"].isprintable()
    assert scene.seen("GET", "") == [], "Nothing is read, of the good images neither."
    assert {one.service for one in scene.sandbox.faults.log()} == {"rest"}
    assert scene.repos() == []
    scene.database.overwrite("delete from public.trained_identities where id = %s", [identity])


async def test_an_odd_path_that_nobody_refused_fails_its_row_and_nothing_is_read(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    user, good = scene.put()
    theirs = f"{OTHER}/photo.jpg"
    scene.upload(theirs, jpeg(9))
    scene.database.overwrite("insert into watcher.limits (name, value) values ('rows_per_day', 1000)")
    scene.sandbox.faults.reset()
    with unguarded(scene):
        for template in ODD:
            identity = overwrite(scene, user, "%s", [*good, odd(template, user)])
            await forbidden(scene, verbs, attempts, identity)
            scene.sandbox.faults.reset()


async def test_an_odd_array_that_nobody_refused_fails_its_row_and_nothing_is_read(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    user, good = scene.put([jpeg(seed) for seed in range(41)])
    scene.sandbox.faults.reset()
    with unguarded(scene):
        for expression, parameters in (
            ("'{}'", []), ("%s", [good[:2]]), ("%s", [good]), ("%s", [[*good[:3], None]]), ("%s", [[None] * 3]),
            ("%s", [[*good[:3], good[0]]]), ("array[%s::text[], %s::text[]]", [good[:3], good[3:6]]),
            ("array[array[%s::text[]]]", [good[:3]]), ("%s", [[*good[:3], ""]]),
        ):  # fmt: skip
            identity = overwrite(scene, user, expression, *parameters)
            await forbidden(scene, verbs, attempts, identity)
            scene.sandbox.faults.reset()


async def test_an_array_that_counts_from_elsewhere_is_read_in_its_order(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    user, good = scene.put()
    with unguarded(scene):
        identity = overwrite(
            scene, user, "%s::text[]", "[5:7]={" + ",".join(f'"{path}"' for path in good) + "}"
        )
        await carry(attempts, verbs)
        assert scene.database.status(identity) == "published"


async def test_an_odd_path_that_is_accepted_leads_to_exactly_that_object(
    scene: Scene, photos: Photos, verbs: Verbs, tmp_path: Path
) -> None:
    user = scene.database.user()
    paths = [f"{user}/{name}" for name in EXACT]
    for number, path in enumerate(paths):
        scene.upload(path, jpeg(number))
    scene.sandbox.faults.reset()
    for first in range(0, len(paths), 10):
        assert insert(scene, user, paths[first : first + 10]).status_code == 201
        identity = identity_of(await claim(verbs))
        assert identity.image_paths == tuple(paths[first : first + 10])
        photos.check(identity)
        for number in range(1, 11):
            fetched = await photos.fetch(identity, number, tmp_path)
            assert fetched.file.read_bytes() == jpeg(first + number - 1), fetched.path
    assert len(scene.seen("GET", "/object/authenticated/identity-images/")) == len(paths) == 30
    assert files(tmp_path) == [f"image_{n:03}" for n in range(1, 11)]


async def test_a_name_that_looks_like_a_path_names_no_file_of_this_host(
    scene: Scene, verbs: Verbs, attempts: Attempts, spool: Spool, tmp_path: Path
) -> None:
    user, paths = scene.put()
    for number, name in enumerate(
        (
            "../../etc/passwd",
            "/etc/passwd",
            "a/../../b",
            "..",
            "~root",
            "C:\\x",
            "$(id)",
            "%2e%2e%2fx",
            "-rf",
            "x.git/../y",
        )
    ):
        assert insert(scene, user, paths, name).status_code == 201
        await carry(attempts, verbs)
        [repo, *_] = scene.repos()
        assert re.fullmatch(r"sandbox/identity-[a-z0-9-]+-\d+", repo), name
        assert len(scene.repos()) == number + 1
    assert files(tmp_path) == ["spool/lock"]


# Another host.


class Elsewhere:
    """A host that nobody has business with, and what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        elsewhere = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline()
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                elsewhere.told.append(f"{self.requestline}\n{self.headers}\n{body!r}")
                self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    host = Elsewhere()
    thread = threading.Thread(target=host.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield host
    host.server.shutdown()
    host.server.server_close()
    thread.join()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_storage_cannot_send_us_to_another_host(
    scene: Scene, photos: Photos, tmp_path: Path, elsewhere: Elsewhere, status: int
) -> None:
    user, paths = scene.put()
    scene.database.insert(user, paths)
    identity = Identity("1", str(user), "Ada", tuple(paths), "2026-01-01T00:00:00Z")
    answer = Answer(status, "", {"Location": f"{elsewhere.url}/{paths[0]}"})
    scene.sandbox.faults.add(answer, service="storage", path="/object/authenticated/")
    assert (await photos.fetch(identity, 1, tmp_path)).file.read_bytes() == PICTURES[0]
    scene.sandbox.faults.add(answer, service="storage", path="/object/authenticated/", times=None)
    with pytest.raises(Transient, match=rf"Image 2 .*{status}"):
        await photos.fetch(identity, 2, tmp_path)
    assert elsewhere.told == []


@pytest.mark.parametrize("status", [302, 307])
async def test_rest_cannot_send_us_to_another_host(
    scene: Scene, rpc: Rpc, verbs: Verbs, elsewhere: Elsewhere, status: int
) -> None:
    scene.insert()
    answer = Answer(status, "", {"Location": f"{elsewhere.url}/rest/v1/rpc/watcher_claim"})
    scene.sandbox.faults.add(answer, service="rest", path="/rpc/", times=None)
    for ask in (claim(verbs), Queries(rpc).status(), verbs.check_version()):
        with pytest.raises(WatcherError):
            await ask
    assert elsewhere.told == []


@pytest.mark.parametrize("status", [302, 307])
async def test_realtime_cannot_send_us_to_another_host(
    scene: Scene, verbs: Verbs, elsewhere: Elsewhere, status: int
) -> None:
    """Who takes the handshake is sent the key with the first frame."""

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        location = f"{elsewhere.url.replace('http', 'ws')}/socket"
        writer.write(
            f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    async with server:
        url = "http://{}:{}".format(*server.sockets[0].getsockname())
        feed = Feed(
            url=url, key=scene.sandbox.keys.secret, verbs=verbs, pulse=60, pulse_answer=5, wake=lambda: None
        )
        assert "redirect" in await feed.run_once()
    assert elsewhere.told == []


@pytest.mark.parametrize("status", [302, 307])
async def test_a_hub_that_sends_us_to_another_host_does_not_give_it_the_token(
    scene: Scene, verbs: Verbs, publisher: Publisher, elsewhere: Elsewhere, status: int
) -> None:
    for path in ("whoami", "/repos/create", "/objects/batch", "/commit/"):
        rule = scene.sandbox.faults.add(
            Answer(status, "", {"Location": f"{elsewhere.url}/x"}), service="hub", path=path, times=None
        )
        scene.insert()
        if path == "whoami":
            with pytest.raises(WatcherError):
                await publisher.hub.check_token()
        else:
            await carry(attempts_of(publisher), verbs)
        scene.sandbox.faults.remove(rule)
        scene.database.overwrite("delete from public.trained_identities")
        assert rule.reached > 0, path
    assert elsewhere.told, "It was asked, without the token."
    assert scene.sandbox.hub_token not in "".join(elsewhere.told)
