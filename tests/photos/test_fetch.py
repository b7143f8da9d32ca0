"""Images: the picture that was uploaded, or a verdict that can be relied on; never one that a bad line made up."""

import asyncio
import hashlib
import inspect
import threading
import tracemalloc
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
from httpcore._async import http11

from tests.support.pictures import IEND, PNG_SIGNATURE, chunk, hand_made_png, header, jpeg, png
from tests.support.scene import PICTURES, Scene
from tests.support.waiting import PATIENCE
from watcher.engine.retry import Retry
from watcher.errors import Outage, Permanent, Refused, Transient, Wait
from watcher.identity import Identity, StoredObject
from watcher.photos.fetch import MAX_BYTES, Photos
from watcher.photos.stream import Step
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Answer, Cache, Cut, Hang, LoseAnswer, Truncate
from watcher.supabase.connections import UNLIMITED
from watcher.supabase.storage import Storage

DOWNLOAD = "/object/authenticated/"


def row(user: object, paths: Sequence[str]) -> Identity:
    return Identity("1", str(user), "Ada", tuple(paths), "2026-01-01T00:00:00Z")


def stored(scene: Scene, pictures: Sequence[bytes | None] = PICTURES) -> Identity:
    """A row with these pictures in the bucket."""
    return row(*scene.put(pictures))


def known(scene: Scene, identity: Identity) -> Identity:
    """The row as a claim has it, which names what is stored under each path."""
    return replace(identity, objects=scene.objects(identity.image_paths))


def in_folder(folder: Path) -> int:
    return len(list(folder.iterdir()))


def tries(scene: Scene) -> int:
    return len(scene.seen("GET", DOWNLOAD))


@pytest.mark.parametrize("clean", [True, False])
async def test_what_is_published_is_on_the_disk_and_nothing_else(
    scene: Scene, photos: Photos, tmp_path: Path, *, clean: bool
) -> None:
    """Size and digest are those of the cleaned file, too."""
    pictures = [jpeg(1), png(2), jpeg(3)]
    identity = stored(scene, [*pictures[:2], pictures[2] + b"a video at its end" * 9999])
    photos.clean = clean
    if not clean:
        pictures[2] += b"a video at its end" * 9999
    fetched = await asyncio.gather(*(photos.fetch(identity, number, tmp_path) for number in (1, 2, 3)))
    assert in_folder(tmp_path) == 3
    for number, (image, picture) in enumerate(zip(fetched, pictures, strict=True), 1):
        assert image.file.read_bytes() == picture
        assert (image.number, image.path) == (number, identity.image_paths[number - 1])
        assert (image.size, image.sha256) == (len(picture), hashlib.sha256(picture).hexdigest())
        assert image.file.stat().st_mode & 0o777 == 0o600
    assert [image.extension for image in fetched] == ["jpg", "png", "jpg"], "The bytes say it, not the names."


async def test_odd_names_are_found(scene: Scene, photos: Photos, tmp_path: Path) -> None:
    user = scene.database.user()
    paths = [
        f"{user}/{name}" for name in ("a b.jpg", "50+50=100@home (1).jpg", "a/b/c/d/e.JPG", "none", "x..y")
    ]
    for path in paths:
        scene.upload(path, PICTURES[0])
    for number in range(1, len(paths) + 1):
        assert (await photos.fetch(row(user, paths), number, tmp_path)).size == len(PICTURES[0])


async def test_an_image_that_is_missing_is_named_by_number_and_file_and_holds_no_slot(
    scene: Scene, photos: Photos, tmp_path: Path
) -> None:
    user, paths = scene.put()
    scene.remove(paths[1])
    with pytest.raises(Wait) as caught:
        await photos.fetch(row(user, paths), 2, tmp_path)
    assert tries(scene) == 1
    wait = caught.value
    assert str(wait) == "Image 2 (photo 2.jpg) is not in the bucket yet."
    assert (wait.code, wait.image, wait.seconds, wait.within) == ("image_missing", 2, 2, 15)
    assert wait.last_words == "Image 2 (photo 2.jpg) is not in the bucket; upload it, then try again."
    await asyncio.to_thread(scene.upload, paths[1], PICTURES[1])
    assert (await photos.fetch(row(user, paths), 2, tmp_path)).size == len(PICTURES[1])


@pytest.mark.parametrize(
    ("picture", "verdict"),
    [
        (jpeg()[:-40], ("image_unreadable", "cut off")),
        (png()[:-20], ("image_unreadable", "cut off")),
        (b"GIF89a" + bytes(99), ("image_not_jpeg_or_png", "Image 1 (photo 1.jpg)")),
        (b"", ("image_unreadable", "is empty")),
        (PNG_SIGNATURE + b"\0\0\0\rIHDR" + bytes(17), ("image_unreadable", "damaged")),
    ],
    ids=["jpeg cut", "png cut", "gif", "empty", "damaged"],
)
async def test_an_unfit_image_is_refused_after_two_looks(
    scene: Scene, photos: Photos, tmp_path: Path, picture: bytes, verdict: tuple[str, str]
) -> None:
    identity = stored(scene, [picture])
    with pytest.raises(Permanent) as caught:
        await photos.fetch(identity, 1, tmp_path)
    code, words = verdict
    assert (caught.value.code, caught.value.image) == (code, 1)
    assert words in str(caught.value)
    assert tries(scene) == 2


async def test_an_image_that_is_too_large_is_left_after_its_limit(
    scene: Scene, photos: Photos, tmp_path: Path
) -> None:
    scene.database.run("update storage.buckets set file_size_limit = null", role="supabase_admin")
    try:
        limit = stored(scene, [jpeg() + bytes(MAX_BYTES - len(jpeg())), jpeg() + bytes(MAX_BYTES)])
    finally:
        scene.database.run("update storage.buckets set file_size_limit = 20971520", role="supabase_admin")
    assert (await photos.fetch(limit, 1, tmp_path)).size == len(jpeg())
    with pytest.raises(Permanent) as caught:
        await photos.fetch(limit, 2, tmp_path)
    assert (caught.value.code, caught.value.image) == ("image_too_large", 2)
    assert str(caught.value).startswith("Image 2 (photo 2.jpg) is larger than 20 MiB")


@pytest.mark.parametrize("after", [0, 1, 100, None])
async def test_a_download_that_ended_early_but_looks_whole_is_fetched_again(
    scene: Scene, photos: Photos, tmp_path: Path, after: int | None
) -> None:
    identity = stored(scene)
    scene.sandbox.faults.add(Truncate(after), service="storage", path=DOWNLOAD)
    assert (await photos.fetch(identity, 1, tmp_path)).file.read_bytes() == PICTURES[0]


@pytest.mark.parametrize(
    "trouble",
    [
        Cut(),
        Cut(after=0),
        LoseAnswer(),
        Answer(503, "<html>"),
        Answer(500, {"statusCode": "500", "error": "Internal", "message": "Internal Server Error"}),
        Answer(400, {"statusCode": "429", "error": "too_many_requests", "message": "Slow down"}),
        Answer(429, "slow down"),
        Answer(544, {"statusCode": "544", "error": "DatabaseTimeout", "message": "The connection timed out"}),
        Answer(404, "<html>no route</html>"),
        Answer(400, "<html>a proxy's</html>"),
    ],
    ids=["cut", "cut at once", "lost", "503", "500", "429 inside", "429", "544", "404", "400"],
)
async def test_trouble_on_the_way_is_tried_again_and_in_the_end_left_for_later(
    scene: Scene, photos: Photos, tmp_path: Path, trouble: Answer
) -> None:
    identity = stored(scene)
    scene.sandbox.faults.add(trouble, service="storage", path=DOWNLOAD, times=2)
    assert (await photos.fetch(identity, 1, tmp_path)).file.read_bytes() == PICTURES[0]
    scene.sandbox.faults.add(trouble, service="storage", path=DOWNLOAD, times=None)
    with pytest.raises(Transient, match=r"Image 2 \(photo 2.jpg\)"):
        await photos.fetch(identity, 2, tmp_path)


async def test_a_cache_that_has_an_earlier_upload_is_got_past(
    scene: Scene, photos: Photos, tmp_path: Path
) -> None:
    identity = stored(scene)
    scene.sandbox.faults.add(Cache(), service="storage", path=DOWNLOAD, times=None)
    assert (await photos.fetch(identity, 1, tmp_path)).file.read_bytes() == PICTURES[0]
    scene.replace(identity.image_paths[0], jpeg(9))
    assert (await photos.fetch(identity, 1, tmp_path)).file.read_bytes() == PICTURES[0], "The cache works."
    before = tries(scene)
    assert (await photos.fetch(known(scene, identity), 1, tmp_path)).file.read_bytes() == jpeg(9)
    assert tries(scene) == before + 2


@pytest.mark.parametrize("later", [jpeg(9), jpeg()[:-40], b"GIF89a" + bytes(99), b""])
async def test_what_comes_instead_of_the_object_that_was_claimed_is_neither_published_nor_judged(
    scene: Scene, photos: Photos, tmp_path: Path, later: bytes
) -> None:
    """It came late, after the row was claimed, or a cache has it and does not let go."""
    identity = known(scene, stored(scene))
    scene.replace(identity.image_paths[0], later)
    with pytest.raises(Transient, match=r"Image 1 \(photo 1.jpg\) is not what was uploaded"):
        await photos.fetch(identity, 1, tmp_path)
    assert tries(scene) == 2
    assert in_folder(tmp_path) == 0


@pytest.mark.parametrize("words", ["unchanged", "weak", "bare"])
async def test_an_etag_is_the_same_however_a_proxy_writes_it(
    scene: Scene, photos: Photos, tmp_path: Path, words: str
) -> None:
    identity = known(scene, stored(scene))
    one = identity.objects[0]
    assert one.etag is not None
    written = {"unchanged": one.etag, "weak": f"W/{one.etag}", "bare": one.etag.strip('"')}[words]
    identity = replace(identity, objects=(replace(one, etag=written), *identity.objects[1:]))
    await photos.fetch(identity, 1, tmp_path)
    assert tries(scene) == 1


@pytest.mark.parametrize(
    ("one", "matches"),
    [
        (StoredObject(None, None, None), True),
        (StoredObject(len(PICTURES[0]), None, None), True),
        (StoredObject(1, None, None), False),
        (StoredObject(None, '"another"', None), False),
    ],
)
async def test_what_the_database_does_not_say_of_an_object_is_not_compared(
    scene: Scene, photos: Photos, tmp_path: Path, one: StoredObject, *, matches: bool
) -> None:
    identity = replace(stored(scene), objects=(one, one, one))
    if matches:
        await photos.fetch(identity, 1, tmp_path)
    else:
        with pytest.raises(Transient):
            await photos.fetch(identity, 1, tmp_path)


async def test_where_storage_names_no_etag_the_size_decides(
    scene: Scene, photos: Photos, tmp_path: Path
) -> None:
    identity = known(scene, stored(scene))
    scene.sandbox.faults.add(Answer(200, PICTURES[0]), service="storage", path=DOWNLOAD)
    await photos.fetch(identity, 1, tmp_path)
    scene.sandbox.faults.add(Answer(200, PICTURES[0] + b"x"), service="storage", path=DOWNLOAD, times=2)
    with pytest.raises(Transient):
        await photos.fetch(identity, 1, tmp_path)


async def test_pngs_are_unpacked_in_threads_two_at_a_time(
    scene: Scene, photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = zlib.compress(bytes(12_000 * (1 + 3 * 1_000)))
    identity = stored(scene, [hand_made_png(header(1_000, 12_000), chunk(b"IDAT", rows), IEND)] * 6)
    running: list[int] = []
    threads: set[int] = set()

    async def counted(step: Step) -> None:
        def work() -> None:
            threads.add(threading.get_ident())
            running.append(2 - photos._steps._free)
            step()

        await in_a_thread(work)

    in_a_thread: Any = asyncio.to_thread
    monkeypatch.setattr("watcher.photos.fetch.asyncio.to_thread", counted)
    await asyncio.gather(*(photos.fetch(identity, number, tmp_path) for number in range(1, 7)))
    assert len(running) >= 6 * 34
    assert set(running) == {1, 2}
    assert threading.get_ident() not in threads


async def test_a_row_of_an_object_without_its_bytes_is_left_for_later(
    scene: Scene, photos: Photos, tmp_path: Path
) -> None:
    identity = stored(scene, [None])
    with pytest.raises(Transient):
        await photos.fetch(identity, 1, tmp_path)


async def test_a_missing_bucket_is_nobodys_fault_but_the_operators(
    scene: Scene, photos: Photos, tmp_path: Path
) -> None:
    identity = stored(scene)
    scene.database.overwrite("update storage.buckets set id = 'other' where id = 'identity-images'")
    try:
        with pytest.raises(Outage, match="run `watcher migrate`"):
            await photos.fetch(identity, 1, tmp_path)
    finally:
        scene.database.overwrite("update storage.buckets set id = 'identity-images' where id = 'other'")


@pytest.mark.parametrize("key", ["sb_secret_revoked", "eyJhbGciOiJIUzI1NiJ9.e30.xxxx"])
async def test_a_key_that_is_refused_is_refused_for_whatever_is_asked(
    scene: Scene, quick: Retry, tmp_path: Path, key: str
) -> None:
    identity = stored(scene)
    async with httpx.AsyncClient() as http:
        storage = Storage(http, url=scene.sandbox.supabase_url, key=key)
        photos = Photos(storage, fetches=4, retry=quick)
        with pytest.raises(Refused) as caught:
            await photos.fetch(identity, 1, tmp_path)
        with pytest.raises(Outage, match="Check SUPABASE_SECRET_KEY"):
            await storage.check()
    assert key not in f"{caught.value} {caught.value.everybody}"


async def test_one_photo_that_is_refused_says_so_without_the_page_of_a_proxy(
    scene: Scene, photos: Photos, bucket: Storage, tmp_path: Path
) -> None:
    identity = stored(scene)
    page = Answer(403, "<html><h1>Forbidden</h1></html>")
    scene.sandbox.faults.add(page, service="storage", path="photo", times=None)
    with pytest.raises(Refused, match=r"refused access to it: HTTP 403\.$") as caught:
        await photos.fetch(identity, 1, tmp_path)
    assert str(caught.value).startswith("Image 1 (photo 1.jpg)")
    assert not caught.value.now
    await bucket.check()


async def test_a_spool_that_takes_nothing_is_an_outage(scene: Scene, photos: Photos) -> None:
    with pytest.raises(Outage, match="spool folder"):
        await photos.fetch(stored(scene), 1, Path("/sys"))  # where not even root may make a file


@pytest.mark.parametrize(
    "path",
    [
        "{other}/photo.jpg", "{user}", "{user}/", "{user}/../{other}/photo.jpg", "{user}//photo.jpg",
        "{user}/.hidden", "{user}/%2e%2e/photo.jpg", "{user}/a?download=1", "{user}/a#b", "{user}/a\\b",
        "{user}/a\n", "{user}/ä.jpg", "{user}/ a", "{user}/a ", "{user}/a/b/c/d/e/f", "/{user}/a", "{user}x/a",
        "{user}/" + 500 * "a",
    ],
)  # fmt: skip
async def test_a_path_outside_the_users_folder_is_never_asked_for(
    sandbox: Sandbox, photos: Photos, tmp_path: Path, path: str
) -> None:
    user, other = "0b4e6f4e-0000-4000-8000-000000000001", "0b4e6f4e-0000-4000-8000-000000000002"
    with pytest.raises(Permanent) as caught:
        await photos.fetch(row(user, [path.format(user=user, other=other)]), 1, tmp_path)
    assert caught.value.code == "path_forbidden"
    assert "\n" not in str(caught.value)
    assert sandbox.faults.log() == []


async def test_no_more_than_so_many_are_fetched_at_once(scene: Scene, photos: Photos, tmp_path: Path) -> None:
    identity = stored(scene, [jpeg(number) for number in range(9)])
    hung = scene.sandbox.faults.add(Hang(), service="storage", path=DOWNLOAD, times=None)
    fetches = [asyncio.create_task(photos.fetch(identity, number, tmp_path)) for number in range(1, 10)]
    await asyncio.to_thread(hung.wait_reached, count=4)
    await asyncio.sleep(0.1)
    assert tries(scene) == 4
    scene.sandbox.faults.clear()
    assert len({image.sha256 for image in await asyncio.gather(*fetches)}) == 9


async def test_fetches_that_were_cancelled_leave_the_others_a_connection(
    scene: Scene, quick: Retry, tmp_path: Path
) -> None:
    identity = stored(scene)
    transport = httpx.AsyncHTTPTransport(limits=UNLIMITED)

    def unused() -> int:
        """Connections that were made and not yet used; cancelled then, httpcore 1.0.9 keeps them for ever."""
        pool: Any = transport._pool
        return sum("NEW" in connection.info() for connection in pool.connections)

    async with httpx.AsyncClient(timeout=httpx.Timeout(PATIENCE, pool=None), transport=transport) as client:
        storage = Storage(client, url=scene.sandbox.supabase_url, key=scene.sandbox.keys.secret)
        photos = Photos(storage, fetches=2, retry=quick)
        async with asyncio.timeout(PATIENCE):
            for kept in range(1, 121):
                fetch = asyncio.create_task(photos.fetch(identity, 1, tmp_path))
                while unused() < kept:  # noqa: ASYNC110  (nothing tells of the one moment that is meant)
                    await asyncio.sleep(0)
                fetch.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await fetch
            await asyncio.gather(*(photos.fetch(identity, number, tmp_path) for number in (1, 2, 3)))


async def test_an_image_is_never_in_memory_as_a_whole(scene: Scene, photos: Photos, tmp_path: Path) -> None:
    large = jpeg() + bytes(12 * 2**20)
    identity = stored(scene, [large])
    del large
    tracemalloc.start()
    try:
        await photos.fetch(identity, 1, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20, "Both ends of the connection together."


async def test_a_project_whose_quota_is_spent_is_not_the_rows_fault(
    scene: Scene, photos: Photos, bucket: Storage, tmp_path: Path
) -> None:
    identity = stored(scene)
    scene.sandbox.faults.add(
        Answer(402, {"message": "exceed_egress_quota"}), service="storage", path=DOWNLOAD, times=None
    )
    with pytest.raises(Refused) as caught:
        await photos.fetch(identity, 1, tmp_path)
    assert "images: exceed_egress_quota." in caught.value.everybody
    with pytest.raises(Outage, match="exceed_egress_quota"):
        await bucket.check()


def test_as_it_comes_httpcore_looks_for_sniffio_each_time() -> None:
    assert "        import sniffio" in inspect.getsource(httpcore._synchronization.current_async_library)


def test_as_it_comes_httpcore_reads_a_quarter_of_what_ours_does() -> None:
    source = inspect.getsource(http11)
    assert "READ_NUM_BYTES = 64 * 1024" in source
    assert "self.READ_NUM_BYTES" in source
    assert http11.AsyncHTTP11Connection.READ_NUM_BYTES == 4 * 64 * 1024
