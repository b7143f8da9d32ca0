"""The Hub: what a look tells, what each error means, and that whatever is done twice is done once."""

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.utils._http import get_session
from huggingface_hub.utils.tqdm import hf_thread_map

from tests.support.deprecations import CONTENT
from tests.support.limits import no_more_files, no_more_threads
from tests.support.pictures import jpeg
from tests.support.scene import Scene
from tests.support.waiting import PATIENCE
from watcher.errors import Misconfigured, Outage, Refused, Rejected, Transient
from watcher.hub.errors import Conflict, NameTaken
from watcher.hub.files import image_file, text_file
from watcher.hub.repos import Hub, RepoState, commit_description
from watcher.hub.threads import in_thread
from watcher.sandbox.faults import Answer, Hang, LoseAnswer
from watcher.sandbox.hub import User

# httpx2 deprecates what huggingface_hub 2.4.0 still does.
pytestmark = CONTENT

REPO, ROW = "sandbox/identity-ada-1", "5d0f2c1e-0000-4000-8000-000000000001"
CARD = "---\nlicense: mit\n---\n# Ada\n"


def operations(tmp_path: Path, card: str = CARD) -> list[CommitOperationAdd]:
    (tmp_path / "1").write_bytes(jpeg(1))
    return [
        image_file(
            "images/image_001.jpg", tmp_path / "1", sha256(jpeg(1)).hexdigest(), on_uploaded=lambda: None
        ),
        text_file("README.md", card.encode()),
    ]


async def commit(hub: Hub, tmp_path: Path, parent: str, card: str = CARD) -> str:
    return await hub.commit(
        REPO,
        operations(tmp_path, card),
        message="Upload training data for Ada (1 images)",
        description=commit_description(ROW),
        parent=parent,
    )


@pytest.fixture
async def empty(hub: Hub) -> RepoState:
    """The look at a repo that was just created."""
    await hub.create(REPO)
    return await hub.look(REPO, ROW)


async def test_a_look_tells_nothing_from_empty_from_ours(scene: Scene, hub: Hub, tmp_path: Path) -> None:
    assert await hub.look(REPO, ROW) == RepoState("absent")
    await hub.create(REPO)
    look = await hub.look(REPO, ROW)
    assert look.state == "empty"
    sha = await commit(hub, tmp_path, look.sha)
    assert await hub.look(REPO, ROW) == RepoState("ours", sha)
    scene.write(REPO, "Edit README.md")
    assert await hub.look(REPO, ROW) == RepoState("ours", sha), "Its owner may go on with it."
    assert (await hub.look(REPO, "another row")).state == "foreign"


async def test_what_is_not_ours_is_foreign(scene: Scene, hub: Hub) -> None:
    scene.make_repo(REPO, private=False)
    assert (await hub.look(REPO, ROW)).state == "foreign", "Public, so never to be written to."
    scene.make_repo(f"{REPO}0")
    scene.write(f"{REPO}0", message=f"{commit_description(ROW)}0")
    assert (await hub.look(f"{REPO}0", ROW)).state == "foreign"


async def test_a_repo_is_private_from_its_first_moment(scene: Scene, hub: Hub) -> None:
    await hub.create(REPO)
    [repo] = scene.sandbox.hub.store.repos("models")
    assert repo.private
    assert len(scene.seen("POST", "/api/repos/create")) == 1
    assert scene.seen("PUT", "/settings") == []


async def test_a_name_that_is_taken_is_said_whosever_it_is(hub: Hub, empty: RepoState) -> None:
    with pytest.raises(NameTaken):
        await hub.create(REPO)
    assert await hub.look(REPO, ROW) == empty


async def test_a_creation_whose_answer_was_lost_is_found_by_a_look(scene: Scene, hub: Hub) -> None:
    scene.sandbox.faults.add(LoseAnswer(), service="hub", path="/api/repos/create")
    with pytest.raises(Transient):
        await hub.create(REPO)
    with pytest.raises(NameTaken):
        await hub.create(REPO)
    assert (await hub.look(REPO, ROW)).state == "empty"


@pytest.mark.parametrize("lost", [LoseAnswer(), LoseAnswer(504, "<html>"), LoseAnswer(500)])
async def test_a_commit_whose_answer_was_lost_is_found_by_a_look_and_cannot_be_made_twice(
    scene: Scene, hub: Hub, empty: RepoState, tmp_path: Path, lost: LoseAnswer
) -> None:
    scene.sandbox.faults.add(lost, service="hub", path="/commit/")
    with pytest.raises(Transient):
        await commit(hub, tmp_path, empty.sha)
    assert (await hub.look(REPO, ROW)).state == "ours"
    with pytest.raises(Conflict):
        await commit(hub, tmp_path, empty.sha, CARD + "changed")
    assert len(scene.commits(REPO)) == 2


async def test_a_commit_on_a_repo_that_moved_on_is_refused(
    scene: Scene, hub: Hub, empty: RepoState, tmp_path: Path
) -> None:
    scene.write(REPO)
    with pytest.raises(Conflict):
        await commit(hub, tmp_path, empty.sha)
    assert scene.commits(REPO) == ["by somebody else", "initial commit"]


async def test_images_go_byte_for_byte_to_the_store_also_where_the_hub_would_have_them_in_the_commit(
    scene: Scene, hub: Hub, empty: RepoState, tmp_path: Path
) -> None:
    scene.sandbox.hub.knobs.images_as("regular")
    files = operations(tmp_path)
    await hub.upload(REPO, files)
    await hub.commit(REPO, files, message="m", description=commit_description(ROW), parent=empty.sha)
    headers = {"authorization": f"Bearer {scene.sandbox.hub_token}"}
    url = f"{scene.sandbox.hub_url}/{REPO}/resolve/main/images/image_001.jpg"
    assert scene.http.get(url, headers=headers, follow_redirects=True).content == jpeg(1)
    assert len(scene.seen("PUT", "/_lfs/")) == 1
    assert not scene.seen("POST", "/preupload/"), "How they go is settled, not asked."


CALLS: dict[str, Callable[[Hub, Path], Awaitable[object]]] = {
    "check_token": lambda hub, folder: hub.check_token(),
    "look": lambda hub, folder: hub.look(REPO, ROW),
    "create": lambda hub, folder: hub.create(f"{REPO}0"),
    "upload": lambda hub, folder: hub.upload(REPO, operations(folder)),
    "commit": lambda hub, folder: commit(hub, folder, "0" * 40),
    "delete": lambda hub, folder: hub.delete(REPO),
}


@pytest.mark.parametrize("call", [call for call in CALLS if call != "check_token"])
async def test_a_token_that_is_refused_is_the_rows_or_everybodys(
    scene: Scene, hub: Hub, empty: RepoState, tmp_path: Path, call: str
) -> None:
    scene.sandbox.hub.access.revoke(scene.sandbox.hub_token)
    with pytest.raises(Refused, match="refused access to this identity's repo") as caught:
        await CALLS[call](hub, tmp_path)
    assert caught.value.now
    assert "refused the token" in caught.value.everybody
    assert scene.sandbox.hub_token not in f"{caught.value} {caught.value.everybody}"
    with pytest.raises(Outage, match="refused the token"):
        await hub.check_token()


@pytest.mark.parametrize("call", CALLS)
async def test_a_limit_on_requests_is_said_at_once_and_not_slept_through(
    scene: Scene, hub: Hub, empty: RepoState, tmp_path: Path, call: str
) -> None:
    scene.sandbox.hub.knobs.limit_requests(0, window=200)
    before = len(scene.sandbox.faults.log())
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Transient, match="rate limit") as caught:
            await CALLS[call](hub, tmp_path)
    assert caught.value.retry_after == pytest.approx(200, abs=PATIENCE)
    assert len(scene.sandbox.faults.log()) == before + 1


@pytest.mark.parametrize("call", ["create", "commit"])
async def test_a_quota_for_the_hour_names_no_time(
    scene: Scene, hub: Hub, empty: RepoState, tmp_path: Path, call: str
) -> None:
    scene.sandbox.hub.knobs.exceed("create" if call == "create" else "commit")
    with pytest.raises(Transient, match="hourly quotas") as caught:
        await CALLS[call](hub, tmp_path)
    assert caught.value.retry_after is None


async def test_a_retry_after_is_passed_on(scene: Scene, hub: Hub, empty: RepoState, tmp_path: Path) -> None:
    scene.sandbox.faults.add(Answer(503, "busy", {"retry-after": "7"}), service="hub", path="/commit/")
    with pytest.raises(Transient) as caught:
        await commit(hub, tmp_path, empty.sha)
    assert caught.value.retry_after == 7


async def test_a_full_quota_is_an_outage_and_rights_that_were_lost_may_be(
    scene: Scene, hub: Hub, empty: RepoState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.sandbox.hub.knobs.limit_storage(10)
    with pytest.raises(Outage, match="storage limit reached"):
        await hub.upload(REPO, operations(tmp_path))
    monkeypatch.setitem(scene.sandbox.hub.access._users, scene.sandbox.hub_token, User("sandbox", "read"))
    for call in ("create", "upload", "commit", "delete"):
        with pytest.raises(Refused) as caught:
            await CALLS[call](hub, tmp_path)
        assert not caught.value.now
    with pytest.raises(Refused):
        await hub.can_upload(REPO)


async def test_whether_a_repo_takes_uploads_is_asked_without_one(
    scene: Scene, hub: Hub, empty: RepoState
) -> None:
    assert await hub.can_upload(REPO)
    assert not await hub.can_upload(f"{REPO}-no")
    assert scene.seen("PUT", "") == []


async def test_a_page_instead_of_an_answer_is_not_quoted(
    scene: Scene, hub: Hub, empty: RepoState, tmp_path: Path
) -> None:
    page = Answer(403, "<!doctype html><script>alert(1)</script>", {"X-Error-Message": "<b>no</b>"})
    scene.sandbox.faults.add(page, service="hub", path="/commit/")
    with pytest.raises(Refused, match=r"repo: Forbidden \(HTTP 403\)\.$"):
        await commit(hub, tmp_path, empty.sha)


async def test_a_model_card_that_the_hub_refuses_is_for_good(
    hub: Hub, empty: RepoState, tmp_path: Path
) -> None:
    with pytest.raises(Rejected, match="license") as caught:
        await commit(hub, tmp_path, empty.sha, "---\nlicense: mine\n---\n")
    assert caught.value.code == "hub_refused"


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_the_hub_refuses_to_take_is_for_good(
    scene: Scene, hub: Hub, empty: RepoState, tmp_path: Path, status: int
) -> None:
    scene.sandbox.faults.add(Answer(status, {"error": "no such thing"}), service="hub", path="/commit/")
    with pytest.raises(Rejected, match=f"no such thing.*HTTP {status}"):
        await commit(hub, tmp_path, empty.sha)


async def test_an_upload_that_the_hub_has_lost_is_worth_another_try(
    scene: Scene, hub: Hub, empty: RepoState, tmp_path: Path
) -> None:
    said = {"error": "LFS pointer pointed to a file that does not exist"}
    scene.sandbox.faults.add(Answer(400, said), service="hub", path="/commit/")
    with pytest.raises(Transient):
        await commit(hub, tmp_path, empty.sha)


async def test_deleting_what_is_gone_is_fine(hub: Hub, empty: RepoState) -> None:
    await hub.delete(REPO)
    assert await hub.look(REPO, ROW) == RepoState("absent")
    await hub.delete(REPO)


async def test_the_check_of_the_token_settles_the_namespace_and_refuses_what_cannot_work(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, token = scene.sandbox.hub.access._users, scene.sandbox.hub_token

    async def check_token(namespace: str | None) -> str:
        hub = Hub(endpoint=scene.sandbox.hub_url, token=token, namespace=namespace)
        try:
            await hub.check_token()
            return hub.namespace
        finally:
            hub.close()

    monkeypatch.setitem(users, token, User("ada", orgs={"acme": "write"}))
    assert [await check_token(None), await check_token("acme")] == ["ada", "acme"]
    with pytest.raises(Misconfigured, match="HF_NAMESPACE is elsewhere"):
        await check_token("elsewhere")
    monkeypatch.setitem(users, token, User("ada", "read"))
    with pytest.raises(Misconfigured, match="read-only"):
        await check_token(None)
    monkeypatch.setitem(users, token, User("ada", orgs={"acme": "read"}))
    with pytest.raises(Misconfigured, match="ada has read-only access to acme"):
        await check_token("acme")
    monkeypatch.setitem(users, token, User("ada", "fineGrained", permissions=("repo.content.read",)))
    with pytest.raises(Misconfigured, match="may not write to the repos of ada"):
        await check_token(None)
    monkeypatch.setitem(users, token, User("ada", "fineGrained", permissions=("repo.write",)))
    assert await check_token(None) == "ada"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b"<html>", b"\xff", b"[" * 100_000, b'{"name": 1e400}', b'{"name": "a/b"}',
        b'{"name": "\\ud800"}', b'{"name": "ada", "auth": "x"}', b'{"name": "ada", "orgs": [1]}',
        b'{"name": "ada", "auth": {"accessToken": {"role": "fineGrained", "fineGrained": []}}}',
    ],
)  # fmt: skip
async def test_a_strange_answer_about_the_token_is_worth_another_try(scene: Scene, body: bytes) -> None:
    hub = Hub(endpoint=scene.sandbox.hub_url, token=scene.sandbox.hub_token, namespace=None)
    scene.sandbox.faults.add(Answer(200, body), service="hub", path="whoami")
    try:
        with pytest.raises(Transient):
            await hub.check_token()
        await hub.check_token()
        assert hub.namespace == scene.sandbox.hub_user
    finally:
        hub.close()


@pytest.mark.parametrize("sha", ["\\ud800", "", "x", "../main", "a" * 2**20])
async def test_a_commit_without_a_valid_id_is_not_believed(
    scene: Scene, hub: Hub, empty: RepoState, tmp_path: Path, sha: str
) -> None:
    one = f'{{"id": "{sha}", "authors": [], "date": "2026-01-01T00:00:00Z", "title": "x", "message": "Identity: {ROW}"}}'
    for count in (1, 2):
        answer = Answer(200, f"[{', '.join([one] * count)}]".encode())
        scene.sandbox.faults.add(answer, service="hub", path="/commits/")
        with pytest.raises(Transient, match="no valid commit id"):
            await hub.look(REPO, ROW)
    made = Answer(
        200, f'{{"commitOid": "{sha}", "commitUrl": "{scene.sandbox.hub_url}/{REPO}/commit/1"}}'.encode()
    )
    scene.sandbox.faults.add(made, service="hub", path="/commit/")
    with pytest.raises(Transient, match="no valid commit id"):
        await commit(hub, tmp_path, empty.sha)


async def test_a_repo_without_its_first_commit_is_not_taken_for_absent(
    scene: Scene, hub: Hub, empty: RepoState
) -> None:
    scene.sandbox.faults.add(Answer(200, b"[]"), service="hub", path="/commits/")
    with pytest.raises(Transient, match="not its initial commit yet"):
        await hub.look(REPO, ROW)
    assert await hub.look(REPO, ROW) == empty


async def test_nobody_listening_is_worth_another_try() -> None:
    hub = Hub(endpoint="http://127.0.0.1:9", token="hf_x", namespace="a")
    with pytest.raises(Transient, match="could not be reached"):
        await hub.check_token()
    hub.close()


async def test_a_host_that_is_out_of_threads_or_files_is_an_outage() -> None:
    def upload() -> None:
        with no_more_threads():
            hf_thread_map(print, [1, 2], max_workers=2)

    hub = Hub(endpoint="http://127.0.0.1:9", token="hf_x", namespace="a")
    with no_more_threads(), pytest.raises(Outage, match="cannot start more threads"):
        await hub.check_token()
    with pytest.raises(Outage, match="cannot start more threads"):
        await in_thread(upload)
    with no_more_files(), pytest.raises(Outage, match=r"cannot open more files .*LimitNOFILE"):
        await hub.check_token()
    hub.close()


async def test_who_waits_for_a_hung_hub_can_be_cancelled_at_once(scene: Scene, hub: Hub) -> None:
    hung = scene.sandbox.faults.add(Hang(), service="hub", path="/api/repos/create")
    creation = asyncio.create_task(hub.create(REPO))
    await asyncio.to_thread(hung.wait_reached)
    creation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creation


async def test_what_the_store_behind_the_hub_refuses_is_worth_another_try(scene: Scene, hub: Hub) -> None:
    scene.sandbox.faults.add(Answer(403, "<Error>Request has expired</Error>"), service="hub", method="GET")
    elsewhere = scene.sandbox.hub_url.replace("127.0.0.1", "localhost")
    with pytest.raises(Transient, match="storage"):
        await asyncio.to_thread(get_session().get, f"{elsewhere}/api/whoami-v2")
