"""What the user meets when something is not allowed, and in which words."""

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from postgrest.exceptions import APIError
from storage3.exceptions import StorageApiError

from tests.acceptance.person import BUCKET, Person
from tests.acceptance.places import outcomes
from tests.acceptance.repo import audit, orphans
from tests.acceptance.stage import Stage
from tests.support.pictures import jpeg, photo, png, saved
from tests.support.waiting import PATIENCE

_FORGED = "42501"


def _refused(person: Person, name: Any, paths: Any, **more: Any) -> APIError:
    with pytest.raises(APIError) as caught:
        person.insert(name, paths, **more)
    assert person.rows() == []
    return caught.value


@pytest.mark.parametrize(("count", "words"), [(0, "No images"), (2, "2 images"), (41, "41 images")])
def test_three_to_forty_images_are_needed(person: Person, count: int, words: str) -> None:
    paths = [f"{person.id}/{n}.jpg" for n in range(count)]
    error = _refused(person, "Ada", paths)
    assert error.message is not None
    assert error.message.startswith(words)
    assert "3 to 40 are needed" in error.message


def test_a_list_of_lists_is_no_list_of_images(person: Person) -> None:
    paths = person.photos(4)
    a, b, c, d = (f'"{path}"' for path in paths)
    nested = f"{{{{{a},{b}}},{{{c},{d}}}}}"
    assert "plain list" in str(_refused(person, "Ada", nested).message)


def test_a_bad_path_is_named_by_number_and_file(people: Callable[[], Person]) -> None:
    person, other = people(), people()
    a, b, _ = mine = person.photos(3)
    theirs = other.upload(jpeg(), "theirs.jpg")
    for third, words in {
        a: f"Image 3 ({a.rpartition('/')[2]}) is given twice: it is also image 1.",
        theirs: "Image 3 (theirs.jpg) lies outside your own folder",
        f"{person.id}/none.jpg": "Image 3 (none.jpg) has not been uploaded",
        f"{person.id}/../{other.id}/x.jpg": "begins with a dot",
        f"{person.id}//x.jpg": "empty",
        f"{person.id}/ä.jpg": "other characters",
        f"{person.id}/a/b/c/d/e/f.jpg": "folders deep",
        f"{person.id}/{'x' * 500}.jpg": "512 characters",
        f"{person.id}/{'x' * 201}": "200 characters",
        f"{person.id}x/x.jpg": "outside your own folder",
        "": "outside your own folder",
        None: "has no path",
    }.items():
        error = _refused(person, "Ada", [a, b, third])
        assert error.code == "23514"
        assert words in str(error.message), third
        assert "Image 3" in str(error.message)
    assert len(mine) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty"),
        ("   ", "no visible character"),
        ("\u200b\u2800", "no visible character"),
        (" Ada", "begins or ends with a space"),
        ("Ada\u00a0", "begins or ends with a space"),
        ("A\u202eda", "U+202E"),
        ("A\nda", "U+000A"),
        ("x" * 101, "101 characters"),
    ],
)
def test_a_name_that_cannot_be_read_is_refused(person: Person, name: str, words: str) -> None:
    assert words in str(_refused(person, name, [f"{person.id}/{n}.jpg" for n in range(3)]).message)


def test_a_name_of_a_hundred_characters_or_with_joiners_is_fine(person: Person) -> None:
    paths = person.photos()
    for name in ("x" * 100, "می\u200cخواهم", "👩\u200d🚀"):
        assert person.row(person.insert(name, paths))["identity_name"] == name


def test_one_user_has_at_most_twenty_open_rows(person: Person) -> None:
    paths = person.photos()
    for n in range(20):
        person.insert(f"Ada {n}", paths)
    with pytest.raises(APIError, match="20 identities waiting"):
        person.insert("Ada 21", paths)
    # Nor in one statement, nor in place of one that is gone.
    one = person.rows()[0]["id"]
    assert len(person.delete(one)) == 1
    both = [{"identity_name": "Ada", "image_paths": paths}] * 2
    with pytest.raises(APIError, match="20 identities waiting"):
        person.table.insert(both).execute()
    person.insert("Ada 20", paths)
    assert len(person.rows()) == 20


def test_what_is_the_daemons_to_say_cannot_be_forged(people: Callable[[], Person]) -> None:
    person, other = people(), people()
    paths = person.photos()
    for forged in (
        {"status": "published"},
        {"status": "failed"},
        {"user_id": other.id},
        {"model_id": "a/b"},
        {"images_published": 3},
        {"huggingface_repo_url": "https://example.com"},
        {"error_message": "x"},
        {"next_attempt_at": "2020-01-01"},
        {"created_at": "2020-01-01"},
    ):
        assert _refused(person, "Ada", paths, **forged).code == _FORGED, forged


def test_a_pending_row_cannot_be_changed(person: Person) -> None:
    identity = person.insert()
    before = person.row(identity)
    for change in ({"identity_name": "Bob"}, {"image_paths": person.photos()}, {"model_id": "a/b"}):
        with pytest.raises(APIError) as caught:
            person.table.update(change).eq("id", identity).execute()
        assert caught.value.code == _FORGED, change
    for status in ("published", "failed", "pending"):
        try:
            assert person.table.update({"status": status}).eq("id", identity).execute().data == []
        except APIError as error:
            assert error.code == _FORGED  # noqa: PT017  (both answers change nothing)
    assert person.row(identity) == before


def test_another_users_row_is_out_of_reach(people: Callable[[], Person]) -> None:
    owner, other = people(), people()
    identity = owner.insert()
    assert other.rows() == []
    assert other.delete(identity) == []
    assert other.retry(identity) == []
    assert owner.row(identity)["status"] == "pending"


def test_without_an_account_there_is_nothing_to_see(stage: Stage, person: Person) -> None:
    person.insert()
    anybody = stage.client(stage.public_key)
    for ask in (anybody.table("trained_identities").select("*"), anybody.table("watcher_pulse").select("*")):
        with pytest.raises(APIError) as caught:
            ask.execute()
        assert caught.value.code == _FORGED
    with pytest.raises(APIError):
        anybody.table("trained_identities").insert({"identity_name": "Ada", "image_paths": []}).execute()


def test_no_verb_is_for_a_user(stage: Stage, person: Person) -> None:
    identity = person.insert()
    for caller in (person.client, stage.client(stage.public_key)):
        verbs: dict[str, dict[str, Any]] = {
            "watcher_story": {"p_id": identity},
            "watcher_replay": {},
            "watcher_status": {},
            "watcher_version": {},
            "watcher_release": {"p_attempt": 1, "p_reason": "x"},
        }
        for verb, arguments in verbs.items():
            with pytest.raises(APIError) as caught:
                caller.rpc(verb, arguments).execute()
            assert caught.value.code == _FORGED, verb


def test_the_bucket_takes_photos_of_twenty_megabytes_and_nothing_else(person: Person) -> None:
    with pytest.raises(StorageApiError, match="maximum allowed size"):
        person.upload(jpeg() + bytes(21_000_000))
    with pytest.raises(StorageApiError, match="mime type image/gif is not supported"):
        person.upload(saved(photo(), "GIF"), "photo.gif", "image/gif")
    path = person.upload(jpeg() + bytes(20 * 2**20 - len(jpeg())))
    found = person.client.storage.from_(BUCKET).info(path)
    assert found["size"] == 20 * 2**20


def test_the_bucket_is_ones_own_folder_and_nothing_is_replaced(people: Callable[[], Person]) -> None:
    person, other = people(), people()
    path = person.upload(jpeg())
    theirs, mine = other.client.storage.from_(BUCKET), person.client.storage.from_(BUCKET)
    with pytest.raises(StorageApiError):
        theirs.upload(f"{person.id}/x.jpg", jpeg(), {"content-type": "image/jpeg"})
    with pytest.raises(StorageApiError):
        theirs.download(path)
    assert theirs.list(person.id) == []
    assert theirs.remove([path]) == []
    with pytest.raises(StorageApiError):
        mine.upload(path, png(), {"content-type": "image/png", "upsert": "true"})
    with pytest.raises(StorageApiError):
        mine.update(path, png(), {"content-type": "image/png"})
    with pytest.raises(StorageApiError):
        mine.move(path, f"{person.id}/moved.jpg")
    assert mine.download(path) == jpeg()
    public = httpx.get(f"{mine.get_public_url(path)}", timeout=PATIENCE)
    assert public.status_code in {400, 404}


def test_a_photo_of_an_open_row_cannot_be_deleted(person: Person) -> None:
    paths = person.photos()
    identity = person.insert("Ada", paths)
    objects = person.client.storage.from_(BUCKET)
    assert objects.remove([paths[0]]) == []
    assert objects.download(paths[0]) == jpeg(seed=0)
    assert len(person.delete(identity)) == 1
    assert len(objects.remove([paths[0]])) == 1


@pytest.mark.usefixtures("daemon")
def test_a_text_declared_as_a_photo_fails_with_the_image_named(stage: Stage, person: Person) -> None:
    good, text = person.photos(2), person.upload(b"Not a photo.\n" * 50, "holiday.jpg")
    identity = person.insert("Ada", [*good, text])
    row = person.wait_for(identity, "failed")
    assert row["error_code"] == "image_not_jpeg_or_png"
    assert re.match(r"Image 3 \(holiday\.jpg\) .*text.*\.$", row["error_message"]), row["error_message"]
    for name in ("huggingface_repo_url", "commit_sha", "published_at", "next_attempt_at"):
        assert row[name] is None
    stage.erase_due()
    assert stage.names() == {}
    assert not orphans(stage)

    # A failed row may be set back to pending, and nothing else may be changed with it.
    with pytest.raises(APIError) as caught:
        person.table.update({"status": "pending", "identity_name": "Bob"}).eq("id", identity).execute()
    assert caught.value.code == _FORGED
    # The one policy for updates lets a published row stay so; the guard of transitions refuses a failed one.
    for status, code in (("publishing", _FORGED), ("published", "23514")):
        with pytest.raises(APIError) as caught:
            person.table.update({"status": status}).eq("id", identity).execute()
        assert caught.value.code == code, status
    # Its photos are free again: with another in its place it goes through.
    objects = person.client.storage.from_(BUCKET)
    assert len(objects.remove([text])) == 1
    objects.upload(text, png(seed=9), {"content-type": "image/jpeg"})
    [again] = person.retry(identity)
    assert (again["error_code"], again["error_message"]) == (None, None)
    row = person.wait_for(identity, "published")
    files = audit(stage, row, photos=[jpeg(seed=0), jpeg(seed=1), png(seed=9)])
    assert "images/image_003.png" in files
    assert len(person.delete(identity)) == 1
    assert stage.api.repo_exists(row["model_id"])


@pytest.mark.usefixtures("daemon")
def test_an_animated_or_broken_photo_fails_at_once_and_leaves_no_repo(stage: Stage, person: Person) -> None:
    frames = saved(photo(), "PNG", save_all=True, append_images=[photo(seed=1)])
    for content, name, code in (
        (frames, "moving.png", "image_animated"),
        (jpeg()[:300], "half.jpg", "image_unreadable"),
        (b"", "empty.jpg", "image_unreadable"),
    ):
        paths = [*person.photos(2), person.upload(content, name)]
        row = person.wait_for(person.insert("Ada", paths), "failed")
        assert row["error_code"] == code, row
        assert f"Image 3 ({name})" in row["error_message"]
        assert outcomes(stage, row["id"]) == ["failed"]
    stage.erase_due()
    assert stage.names() == {}
    assert not orphans(stage)


def test_rows_of_nobody_have_no_door(stage: Stage, person: Person) -> None:
    with pytest.raises(APIError) as caught:
        stage.admin.table("trained_identities").insert(
            {"user_id": person.id, "identity_name": "Ada", "image_paths": person.photos(), "id": str(uuid4())}
        ).execute()
    assert caught.value.code == _FORGED
