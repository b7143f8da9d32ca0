"""The Hub, seen from outside: by the real huggingface_hub and the real `hf` command."""

import hashlib
import io
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder
from huggingface_hub.utils._http import close_session, parse_ratelimit_headers
from huggingface_hub.utils.tqdm import tqdm

from watcher.sandbox.faults import Answer, Faults, LoseAnswer
from watcher.sandbox.hub import Hub, User
from watcher.sandbox.server import Server

# huggingface_hub hands its LFS bodies to httpx2 by the old name of the argument.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

USERS = {
    "hf_alice": User("alice", orgs={"acme": "write", "museum": "read"}),
    "hf_alice_read": User("alice", role="read", orgs={"acme": "write"}),
    "hf_alice_fine": User("alice", role="fineGrained", permissions=("repo.content.read", "repo.write")),
    "hf_alice_narrow": User("alice", role="fineGrained", permissions=("repo.content.read",)),
    "hf_bob": User("bob"),
}
CARD = b"---\nlicense: mit\ntags:\n- lora\n---\n# A person\n"
IMAGE_LFS = b"*.jpg filter=lfs diff=lfs merge=lfs -text\n"


@dataclass
class Site:
    """A running Hub."""

    hub: Hub
    faults: Faults
    url: str

    def api(self, token: str | bool = "hf_alice") -> HfApi:
        return HfApi(endpoint=self.url, token=token)

    def paths(self) -> list[str]:
        return [
            f"{one.method} {one.path.split('/')[-1] if '_lfs' not in one.path else 'LFS'}"
            for one in self.faults.log()
        ]


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The client, with a cache of its own and nothing left running."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # its thread starts even where bars are disabled
    yield
    close_session()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    faults = Faults()
    hub = Hub(tmp_path / "hub", USERS, page_size=7)
    server = Server({"hub": (faults.wrap(hub.app, "hub"), 0)})
    server.start()
    yield Site(hub, faults, f"http://127.0.0.1:{server.ports['hub']}")
    server.stop()


def image(number: int, size: int = 20_000) -> bytes:
    return b"\xff\xd8\xff\xe0" + random.Random(number).randbytes(size) + b"\xff\xd9"


def additions(folder: Path, count: int) -> list[CommitOperationAdd]:
    """What a publication adds: images from disk, and three small files from memory."""
    operations = []
    for number in range(1, count + 1):
        path = folder / f"{number}.jpg"
        path.write_bytes(image(number))
        operations.append(CommitOperationAdd(f"images/image_{number:03}.jpg", str(path)))
    small = {"README.md": CARD, "training_config.json": b"{}\n", ".gitattributes": IMAGE_LFS}
    return operations + [CommitOperationAdd(path, content) for path, content in small.items()]


@pytest.mark.parametrize("count", [3, 10])
def test_a_publication_is_one_commit_and_comes_back_byte_for_byte(
    site: Site, tmp_path: Path, count: int
) -> None:
    api = site.api()
    url = api.create_repo("alice/identity-john", visibility="private")
    assert str(url) == f"{site.url}/alice/identity-john"
    before = api.model_info("alice/identity-john")
    assert before.private is True
    assert [one.rfilename for one in before.siblings or []] == [".gitattributes"]
    operations = additions(tmp_path, count)
    site.faults.reset()
    commit = api.create_commit(
        "alice/identity-john",
        operations,
        commit_message="Upload training data",
        commit_description="row 1",
        parent_commit=before.sha,
    )
    assert site.paths() == [
        "POST validate-yaml",
        "POST main",
        "POST batch",
        *["PUT LFS"] * count,
        "POST main",
    ]
    assert commit.commit_url == f"{site.url}/alice/identity-john/commit/{commit.oid}"

    after = api.model_info("alice/identity-john", files_metadata=True)
    assert after.sha == commit.oid
    assert after.card_data is not None
    assert (after.card_data["license"], after.card_data["tags"]) == ("mit", ["lora"])
    held = {one.rfilename: one for one in after.siblings or []}
    assert len(held) == count + 3
    first = held["images/image_001.jpg"]
    assert first.lfs is not None
    assert first.lfs.sha256 == hashlib.sha256(image(1)).hexdigest()
    assert first.size == first.lfs.size == len(image(1))
    assert [
        (one.title, one.message, one.authors) for one in api.list_repo_commits("alice/identity-john")
    ] == [
        ("Upload training data", "row 1", ["alice"]),
        ("initial commit", "", ["alice"]),
    ]

    copy = Path(api.snapshot_download("alice/identity-john", local_dir=tmp_path / "copy"))
    for number in range(1, count + 1):
        assert (copy / f"images/image_{number:03}.jpg").read_bytes() == image(number)
    assert (copy / "README.md").read_bytes() == CARD
    assert (copy / ".gitattributes").read_bytes() == IMAGE_LFS
    one = api.hf_hub_download("alice/identity-john", "images/image_002.jpg", revision=commit.oid)
    assert Path(one).read_bytes() == image(2)


def test_the_same_commit_again_changes_nothing(site: Site, tmp_path: Path) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    initial = api.model_info("alice/a").sha
    commits = []
    for _ in range(2):
        site.faults.reset()
        operations = additions(tmp_path, 3)
        commits.append(
            api.create_commit("alice/a", operations, commit_message="Upload", parent_commit=initial)
        )
    assert site.paths() == ["POST validate-yaml", "POST main", "POST batch", "GET main"]
    assert commits[0].oid == commits[1].oid
    assert len(api.list_repo_commits("alice/a")) == 2


def test_images_can_go_up_in_batches_before_one_commit(site: Site, tmp_path: Path) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    operations = additions(tmp_path, 6)
    for batch in (operations[:3], operations[3:6]):
        api.preupload_lfs_files("alice/a", batch)
        for operation in batch:
            Path(str(tmp_path / operation.path_in_repo.split("_")[-1])).unlink(missing_ok=True)
    site.faults.reset()
    api.create_commit("alice/a", operations, commit_message="Upload")
    assert site.paths() == ["POST validate-yaml", "POST main", "POST main"]
    assert len(api.list_repo_files("alice/a")) == 9
    assert len(api.list_repo_commits("alice/a")) == 2


def test_of_two_commits_on_the_same_parent_one_lands_and_one_is_told_412(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    parent = api.model_info("alice/a").sha

    def commit(number: int) -> None:
        operations = [CommitOperationAdd(f"{number}.txt", b"x")]
        api.create_commit("alice/a", operations, commit_message=f"{number}", parent_commit=parent)

    with ThreadPoolExecutor() as pool:
        commits = [pool.submit(commit, number) for number in range(4)]
    refusals = [error for one in commits if (error := one.exception()) is not None]
    assert len(refusals) == 3
    for refusal in refusals:
        assert isinstance(refusal, HfHubHTTPError)
        assert refusal.response.status_code == 412
        assert "A commit has happened since" in str(refusal)
    assert len(api.list_repo_commits("alice/a")) == 2


def test_a_new_repo_is_as_on_the_hub(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    [attributes] = api.get_paths_info("alice/a", [".gitattributes", "absent"])
    assert isinstance(attributes, RepoFile)
    assert attributes.blob_id == "a6344aac8c09253b3b630fb776ae94478aa0275b"
    assert attributes.size == 1519
    assert api.list_repo_refs("alice/a").branches[0].target_commit == api.model_info("alice/a").sha
    assert re.fullmatch("[0-9a-f]{40}", api.model_info("alice/a").sha or "")


def test_creating_a_repo_that_exists_is_a_409_with_its_url(site: Site) -> None:
    api = site.api()
    first = api.create_repo("alice/a", private=True)
    assert api.create_repo("alice/a", private=True, exist_ok=True) == first
    with pytest.raises(HfHubHTTPError, match="You already created this model repo") as caught:
        api.create_repo("alice/a", private=True)
    assert caught.value.response.status_code == 409


@pytest.mark.parametrize("name", ["-a", "a.", "a--b", "a..b", "a.git", "a b", "é", "x" * 97, ""])
def test_a_name_that_the_hub_would_not_take_is_refused(site: Site, name: str) -> None:
    answer = httpx.post(
        f"{site.url}/api/repos/create",
        json={"name": name, "visibility": "private"},
        headers={"authorization": "Bearer hf_alice"},
    )
    assert answer.status_code == 400


LOOKS: list[Callable[[HfApi, str], object]] = [
    lambda api, repo: api.model_info(repo),
    lambda api, repo: api.list_repo_files(repo),
    lambda api, repo: api.auth_check(repo),
    lambda api, repo: api.list_repo_commits(repo),
    lambda api, repo: api.hf_hub_download(repo, "x.txt"),
    lambda api, repo: api.create_commit(repo, [CommitOperationAdd("y", b"y")], commit_message="y"),
]


@pytest.mark.parametrize(("token", "status"), [("hf_bob", 404), (False, 401)])
def test_private_means_private(site: Site, token: str | bool, status: int) -> None:
    api = site.api()
    api.create_repo("alice/hidden", visibility="private")
    api.create_repo("alice/shown", visibility="public")
    for name in ("alice/hidden", "alice/shown"):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=name)
    stranger = site.api(token)
    assert [one.id for one in stranger.list_models(author="alice")] == ["alice/shown"]
    assert stranger.model_info("alice/shown").private is False
    assert Path(stranger.hf_hub_download("alice/shown", "x.txt")).read_bytes() == b"x"
    assert not stranger.repo_exists("alice/hidden")
    for name in ("alice/hidden", "alice/absent"):
        for look in LOOKS:
            with pytest.raises(RepositoryNotFoundError) as caught:
                look(stranger, name)
            assert caught.value.response.status_code == status
    api.update_repo_settings("alice/shown", visibility="private")
    assert not stranger.repo_exists("alice/shown")


def test_the_owner_finds_private_repos_by_author_and_by_name(site: Site) -> None:
    api = site.api()
    for name in ("alice/one", "alice/two", "acme/one"):
        api.create_repo(name, private=True)
    assert [one.id for one in api.list_models(author="alice")] == ["alice/two", "alice/one"]
    assert [one.id for one in api.list_models(search="ONE")] == ["acme/one", "alice/one"]


def test_a_repo_is_public_if_nothing_is_said_as_on_the_hub(site: Site) -> None:
    site.api().create_repo("alice/a")
    assert site.api(token=False).model_info("alice/a").private is False


@pytest.mark.parametrize("token", ["hf_alice_read", "hf_alice_narrow"])
def test_a_token_without_the_right_to_write_is_told_so_each_time_in_the_hubs_words(
    site: Site, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    site.api().create_repo("alice/a", private=True)
    api = site.api(token)
    assert api.model_info("alice/a").private
    api.auth_check("alice/a")
    refusals: dict[str, Callable[[], object]] = {
        "You don't have the rights to create a model under this namespace": lambda: api.create_repo(
            "alice/b"
        ),
        "Forbidden: pass `create_pr=1`": lambda: api.upload_file(
            path_or_fileobj=b"x", path_in_repo="x", repo_id="alice/a"
        ),
        "You don't have the rights to delete": lambda: api.delete_repo("alice/a"),
        "write access": lambda: api.auth_check("alice/a", write=True),
    }
    for sentence, refused in refusals.items():
        with pytest.raises(HfHubHTTPError, match=re.escape(sentence)) as caught:
            refused()
        assert caught.value.response.status_code == 403
    batch = httpx.post(
        f"{site.url}/alice/a.git/info/lfs/objects/batch",
        json={"operation": "upload", "objects": []},
        headers={"authorization": f"Bearer {token}"},
    )
    assert (batch.status_code, batch.json()) == (403, {"error": "Authorization error."})
    # The trap: with exist_ok a token that may not write seems to succeed.
    monkeypatch.setattr(constants, "ENDPOINT", site.url)
    assert api.create_repo("alice/a", exist_ok=True).repo_id == "alice/a"


def test_a_fine_grained_token_with_the_right_may_write(site: Site) -> None:
    api = site.api("hf_alice_fine")
    api.create_repo("alice/a", private=True)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="alice/a")


def test_an_organisations_repos_follow_its_roles(site: Site) -> None:
    api = site.api()
    api.create_repo("acme/a", private=True)
    assert api.model_info("acme/a").author == "acme"
    assert site.api("hf_alice_read").repo_exists("acme/a")
    assert not site.api("hf_bob").repo_exists("acme/a")
    for name in ("museum/a", "elsewhere/a", "bob/a"):
        with pytest.raises(HfHubHTTPError, match="under this namespace"):
            api.create_repo(name, private=True)


def test_whoami_says_who_and_with_which_right(site: Site) -> None:
    alice = site.api().whoami()
    assert alice["name"] == "alice"
    assert {org["name"]: org["roleInOrg"] for org in alice["orgs"]} == {"acme": "write", "museum": "read"}
    assert alice["auth"]["accessToken"]["role"] == "write"
    fine = site.api("hf_alice_narrow").whoami()["auth"]["accessToken"]
    assert fine["role"] == "fineGrained"
    assert fine["fineGrained"]["scoped"][0]["entity"]["name"] == "alice"
    assert fine["fineGrained"]["scoped"][0]["permissions"] == ["repo.content.read"]


def test_a_revoked_token_is_a_401_everywhere_even_for_what_is_public(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/shown", visibility="public")
    site.hub.access.revoke("hf_alice")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api.whoami()
    for refused in (
        lambda: api.model_info("alice/shown"),
        lambda: api.create_repo("alice/b"),
        lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="alice/shown"),
        lambda: api.delete_repo("alice/shown"),
    ):
        with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header") as caught:
            refused()
        assert caught.value.response.status_code == 401
        assert not isinstance(caught.value, RepositoryNotFoundError)
    site.hub.access.restore("hf_alice")
    assert api.model_info("alice/shown").id == "alice/shown"


def test_a_missing_revision_and_a_missing_file_are_told_apart(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    with pytest.raises(RevisionNotFoundError):
        api.model_info("alice/a", revision="v1")
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download("alice/a", "x", revision="0" * 40)
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("alice/a", "absent.txt")
    assert not api.file_exists("alice/a", "absent.txt")
    with pytest.raises(RevisionNotFoundError):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="alice/a", revision="other")


def test_a_deleted_repo_is_gone_and_its_name_free(site: Site, tmp_path: Path) -> None:
    api = site.api()
    for _ in range(2):
        api.create_repo("alice/a", private=True)
        api.create_commit("alice/a", additions(tmp_path, 3), commit_message="Upload")
        api.delete_repo("alice/a")
        assert not api.repo_exists("alice/a")
        assert not list((tmp_path / "hub" / "repos").iterdir())
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("alice/a")
    api.delete_repo("alice/a", missing_ok=True)


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    def started() -> tuple[Server, HfApi]:
        server = Server({"hub": (Hub(tmp_path / "hub", USERS).app, 0)})
        server.start()
        return server, HfApi(endpoint=f"http://127.0.0.1:{server.ports['hub']}", token="hf_alice")

    server, api = started()
    api.create_repo("alice/a", private=True)
    commit = api.create_commit("alice/a", additions(tmp_path, 3), commit_message="Upload")
    server.stop()
    server, api = started()
    assert api.model_info("alice/a").sha == commit.oid
    assert Path(api.hf_hub_download("alice/a", "images/image_003.jpg")).read_bytes() == image(3)
    server.stop()


def test_preupload_decides_by_patterns_size_and_bytes(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)

    def mode(path: str, content: bytes) -> str:
        operation = CommitOperationAdd(path, content)
        api.preupload_lfs_files("alice/a", [operation])
        return operation._upload_mode or ""

    assert mode("a.jpg", image(1)) == "lfs"
    assert mode("a.bin", b"text") == "lfs"
    assert mode("a.txt", "é".encode() * 600) == "regular"
    assert mode("a.txt", b"x" * (10 * 1024 * 1024 + 1)) == "lfs"
    assert mode("empty.bin", b"") == "regular"
    site.hub.knobs.images_as("regular")
    assert mode("a.jpg", image(1)) == "regular"
    assert mode("a.bin", b"text") == "lfs"
    assert mode("b.jpg", image(1, 11 * 1024 * 1024)) == "lfs"


def test_an_image_sent_as_a_regular_file_comes_back_the_same(site: Site, tmp_path: Path) -> None:
    site.hub.knobs.images_as("regular")
    api = site.api()
    api.create_repo("alice/a", private=True)
    site.faults.reset()
    api.create_commit("alice/a", additions(tmp_path, 3), commit_message="Upload")
    assert site.paths() == ["POST validate-yaml", "POST main", "POST main"]
    [info] = api.get_paths_info("alice/a", "images/image_001.jpg")
    assert isinstance(info, RepoFile)
    assert info.lfs is None
    assert Path(api.hf_hub_download("alice/a", "images/image_001.jpg")).read_bytes() == image(1)


def test_an_lfs_file_that_no_pattern_names_is_added_to_gitattributes_in_the_same_commit(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    operations = [CommitOperationAdd(f"my images/{n}.jpg", image(n)) for n in (1, 2)]
    api.create_commit("alice/a", [*operations, CommitOperationAdd("a.bin", image(3))], commit_message="x")
    assert len(api.list_repo_commits("alice/a")) == 2
    lines = Path(api.hf_hub_download("alice/a", ".gitattributes")).read_text().splitlines()
    assert len(lines) == 35 + 2
    assert lines[-1] == "my[[:space:]]images/2.jpg filter=lfs diff=lfs merge=lfs -text"
    api.create_commit("alice/a", [CommitOperationAdd("my images/1.jpg", image(4))], commit_message="y")
    assert len(Path(api.hf_hub_download("alice/a", ".gitattributes")).read_text().splitlines()) == 37


def test_a_commit_can_delete_files_and_folders(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    files = [CommitOperationAdd(path, b"x") for path in ("a", "b", "folder/a", "folder/b")]
    api.create_commit("alice/a", files, commit_message="x")
    gone = [CommitOperationDelete("a"), CommitOperationDelete("folder/", is_folder=True)]
    api.create_commit("alice/a", gone, commit_message="y")
    assert api.list_repo_files("alice/a") == [".gitattributes", "b"]


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("lfsFile", {"path": "a", "algo": "sha256", "oid": "0" * 64, "size": 1}, "file that does not exist"),
        ("file", {"path": "a", "content": "eHh4" * 3_500_000, "encoding": "base64"}, "larger than 10 MiB"),
        ("file", {"path": "README.md", "content": "---\nlicense: none\n---\n"}, '"license" must be one of'),
        ("file", {"path": "../a", "content": ""}, "Invalid path: ../a"),
        ("file", {"path": "a"}, "Invalid line in the commit"),
    ],
)
def test_what_the_hubs_hooks_refuse_is_a_400_and_changes_nothing(
    site: Site, key: str, value: dict[str, object], sentence: str
) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    lines = [{"key": "header", "value": {"summary": "x"}}, {"key": key, "value": value}]
    body = "\n".join(json.dumps(line) for line in lines)
    answer = httpx.post(
        f"{site.url}/api/models/alice/a/commit/main",
        content=body,
        headers={"authorization": "Bearer hf_alice", "content-type": "application/x-ndjson"},
        timeout=30,
    )
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
    assert len(api.list_repo_commits("alice/a")) == 1


def test_bytes_that_are_not_the_announced_ones_are_refused(site: Site, tmp_path: Path) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    path = tmp_path / "a.jpg"
    path.write_bytes(image(1))
    operation = CommitOperationAdd("a.jpg", str(path))
    operation.upload_info.sha256 = hashlib.sha256(image(2)).digest()
    with pytest.raises(RuntimeError, match="Error while uploading") as caught:
        api.create_commit("alice/a", [operation], commit_message="x")
    assert isinstance(caught.value.__cause__, BadRequestError)
    assert not list((tmp_path / "hub" / "incoming").iterdir())
    assert api.list_repo_files("alice/a") == [".gitattributes"]


def test_an_upload_url_is_its_own_permission_and_for_one_object_of_one_repo(site: Site) -> None:
    site.api().create_repo("alice/a", private=True)
    content = image(1)
    oid = hashlib.sha256(content).hexdigest()

    def batch(repo: str) -> dict[str, object]:
        answer = httpx.post(
            f"{site.url}/{repo}.git/info/lfs/objects/batch",
            json={"operation": "upload", "objects": [{"oid": oid, "size": len(content)}]},
            headers={"authorization": "Bearer hf_alice"},
        )
        return dict(answer.json()["objects"][0])

    href = str(batch("alice/a")["actions"]["upload"]["href"])  # type: ignore[index]
    assert httpx.put(href.replace(oid, "0" * 64), content=content).status_code == 403
    assert httpx.put(href[:-1], content=content).status_code == 403
    assert httpx.put(href, content=content[:-1]).status_code == 400
    assert httpx.put(href, content=content).status_code == 200
    assert "actions" not in batch("alice/a")
    site.api().create_repo("alice/b", private=True)
    assert "actions" in batch("alice/b")


def test_verify_is_asked_for_where_it_is_offered(site: Site, tmp_path: Path) -> None:
    site.hub.knobs.offer_verify()
    api = site.api()
    api.create_repo("alice/a", private=True)
    site.faults.reset()
    api.create_commit("alice/a", additions(tmp_path, 3), commit_message="Upload")
    assert site.paths().count("POST verify") == 3


@pytest.mark.parametrize(
    ("card", "problem"),
    [
        ("---\nlicense: gpl-3\n---\n", '"license" must be one of [apache-2.0, mit,'),
        ("---\ntags: {a: b}\n---\n", '"tags" must be a string or an array of strings'),
        ("---\nlicense: [mit\n---\n", "expected ',' or ']'"),
        ("---\njust text\n---\n", "metadata must be an object"),
    ],
)
def test_a_bad_card_is_refused_before_anything_is_sent(site: Site, card: str, problem: str) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    site.faults.reset()
    operations = [CommitOperationAdd("README.md", card.encode()), CommitOperationAdd("a.jpg", image(1))]
    with pytest.raises(ValueError, match=re.escape(problem)) as caught:
        api.create_commit("alice/a", operations, commit_message="x")
    assert str(caught.value).startswith("Invalid metadata in README.md")
    assert site.paths() == ["POST validate-yaml"]


def test_a_card_without_metadata_is_only_warned_of(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    with pytest.warns(UserWarning, match="empty or missing yaml metadata in repo card"):
        api.create_commit("alice/a", [CommitOperationAdd("README.md", b"# Hello\n")], commit_message="x")


def test_trees_and_commits_come_in_pages(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    files = [CommitOperationAdd(f"folder/{n:02}.txt", b"x") for n in range(20)]
    first = api.create_commit("alice/a", files, commit_message="many")
    for number in range(8):
        api.upload_file(path_or_fileobj=str(number).encode(), path_in_repo="folder/00.txt", repo_id="alice/a")
    site.faults.reset()
    tree = list(api.list_repo_tree("alice/a", recursive=True, expand=True))
    assert [one.path for one in tree] == [
        ".gitattributes",
        "folder",
        *(f"folder/{n:02}.txt" for n in range(20)),
    ]
    assert len(site.faults.log()) == 4
    assert tree[3].last_commit is not None
    assert tree[3].last_commit.oid == first.oid
    assert [one.path for one in api.list_repo_tree("alice/a")] == [".gitattributes", "folder"]
    assert len(list(api.list_repo_tree("alice/a", "folder"))) == 20
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree("alice/a", "absent"))
    commits = api.list_repo_commits("alice/a")
    assert len({one.commit_id for one in commits}) == 10
    assert commits[-2].commit_id == first.oid
    assert [one.path for one in api.list_repo_tree("alice/a", revision=commits[-1].commit_id)] == [
        ".gitattributes"
    ]


def test_names_are_those_that_git_would_give(site: Site, tmp_path: Path) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    files = {"a.txt": b"a", "a/b.txt": b"b", "a-b/c/d.txt": b"d", "a0": b"0"}
    api.create_commit("alice/a", [CommitOperationAdd(p, c) for p, c in files.items()], commit_message="x")
    work = tmp_path / "work"
    api.snapshot_download("alice/a", local_dir=work)

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=work, check=True, capture_output=True, text=True
        ).stdout

    git("init", "--quiet")
    git("add", "--", *files, ".gitattributes")
    blobs = {line.split("\t")[1]: line.split()[1] for line in git("ls-files", "--stage").splitlines()}
    trees = {name: git("write-tree", f"--prefix={name}/").strip() for name in ("a", "a-b", "a-b/c")}
    listed = list(api.list_repo_tree("alice/a", recursive=True))
    assert {one.path: one.blob_id for one in listed if isinstance(one, RepoFile)} == blobs
    assert {one.path: one.tree_id for one in listed if isinstance(one, RepoFolder)} == trees


def test_a_file_can_be_asked_for_in_part(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    operations = [CommitOperationAdd("a.jpg", image(1)), CommitOperationAdd("a.txt", b"0123456789")]
    commit = api.create_commit("alice/a", operations, commit_message="x")
    headers = {"authorization": "Bearer hf_alice"}
    part = httpx.get(f"{site.url}/alice/a/resolve/main/a.txt", headers={**headers, "range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    assert part.headers["x-repo-commit"] == commit.oid
    led = httpx.head(f"{site.url}/alice/a/resolve/main/a.jpg", headers=headers)
    assert led.status_code == 302
    assert led.headers["x-linked-etag"] == f'"{hashlib.sha256(image(1)).hexdigest()}"'
    assert led.headers["x-linked-size"] == str(len(image(1)))
    assert led.headers["location"].startswith("http://localhost:")
    part = httpx.get(led.headers["location"], headers={"range": "bytes=-2"})
    assert (part.status_code, part.content) == (206, b"\xff\xd9")
    assert httpx.get(led.headers["location"][:-1]).status_code == 403


def test_a_full_store_is_a_403_before_any_byte_is_sent(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    site.hub.knobs.limit_storage(30_000)
    api.create_commit("alice/a", [CommitOperationAdd("1.jpg", image(1))], commit_message="fits")
    site.faults.reset()
    with pytest.raises(HfHubHTTPError, match="Private repository storage limit reached") as caught:
        api.create_commit("alice/a", [CommitOperationAdd("2.jpg", image(2))], commit_message="too much")
    assert caught.value.response.status_code == 403
    assert "PUT LFS" not in site.paths()


def test_a_request_quota_is_said_in_headers_and_then_enforced(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    site.hub.knobs.limit_requests(2, window=300)
    answer = httpx.get(f"{site.url}/api/models/alice/a", headers={"authorization": "Bearer hf_alice"})
    info = parse_ratelimit_headers(answer.headers)
    assert info is not None
    assert (info.resource_type, info.remaining, info.limit, info.window_seconds) == ("api", 1, 2, 300)
    api.model_info("alice/a")
    with pytest.raises(HfHubHTTPError, match="quota of 2 api requests per 5 minutes") as caught:
        api.model_info("alice/a")
    assert caught.value.response.status_code == 429
    info = parse_ratelimit_headers(caught.value.response.headers)
    assert info is not None
    assert info.remaining == 0
    assert site.api("hf_bob").whoami()["name"] == "bob"
    site.hub.knobs.limit_requests(None)
    api.model_info("alice/a")


def test_an_actions_quota_is_a_429_without_rate_limit_headers(site: Site) -> None:
    api = site.api()
    site.hub.knobs.exceed("create")
    with pytest.raises(HfHubHTTPError, match="hourly quotas for action: create") as caught:
        api.create_repo("alice/a", private=True)
    assert caught.value.response.status_code == 429
    assert "ratelimit" not in caught.value.response.headers
    api.create_repo("alice/a", private=True)
    site.hub.knobs.exceed("commit")
    with pytest.raises(HfHubHTTPError, match="hourly quotas for action: commit"):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="alice/a")


def test_a_conflicting_operation_makes_the_client_ask_again_at_once(site: Site) -> None:
    site.hub.knobs.conflict(times=5)
    site.api().create_repo("alice/a", private=True)
    assert site.paths() == ["POST create"] * 6


def test_a_409_without_url_is_a_key_error_in_the_client(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    site.hub.knobs.omit_url()
    with pytest.raises(KeyError, match="url"):
        api.create_repo("alice/a", private=True, exist_ok=True)


def test_a_new_repo_can_be_missing_for_some_reads(site: Site) -> None:
    api = site.api()
    site.hub.knobs.hide_new_repo(reads=2)
    api.create_repo("alice/a", private=True)
    for _ in range(2):
        with pytest.raises(RepositoryNotFoundError):
            api.model_info("alice/a")
    assert api.model_info("alice/a").id == "alice/a"


def test_a_commit_whose_answer_is_lost_has_landed(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    site.faults.add(LoseAnswer(500, {"error": "Internal Server Error"}), path="/commit/")
    with pytest.raises(HfHubHTTPError) as caught:
        api.upload_file(path_or_fileobj=io.BytesIO(b"x"), path_in_repo="x", repo_id="alice/a")
    assert caught.value.response.status_code == 500
    assert api.list_repo_files("alice/a") == [".gitattributes", "x"]
    site.faults.add(Answer(503), path="/commit/")
    with pytest.raises(HfHubHTTPError, match="503"):
        api.upload_file(path_or_fileobj=b"y", path_in_repo="y", repo_id="alice/a")
    assert not api.file_exists("alice/a", "y")


def test_datasets_are_repos_too(site: Site) -> None:
    api = site.api()
    url = api.create_repo("alice/a", repo_type="dataset", private=True)
    assert str(url) == f"{site.url}/datasets/alice/a"
    operations = [CommitOperationAdd("a.jpg", image(1))]
    api.create_commit("alice/a", operations, commit_message="x", repo_type="dataset")
    assert Path(api.hf_hub_download("alice/a", "a.jpg", repo_type="dataset")).read_bytes() == image(1)
    assert [one.id for one in api.list_datasets(author="alice")] == ["alice/a"]
    assert not api.repo_exists("alice/a")
    api.delete_repo("alice/a", repo_type="dataset")


def test_the_hf_command_works_against_it(site: Site, tmp_path: Path) -> None:
    def hf(*arguments: str, token: str = "hf_alice") -> str:
        environment = {
            "HF_ENDPOINT": site.url,
            "HF_TOKEN": token,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HOME": str(tmp_path),
        }
        program = str(Path(sys.executable).parent / "hf")
        done = subprocess.run(
            [program, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "alice" in hf("auth", "whoami")
    folder = tmp_path / "up"
    (folder / "images").mkdir(parents=True)
    for number in (1, 2):
        (folder / f"images/{number}.jpg").write_bytes(image(number))
    (folder / "README.md").write_bytes(CARD)
    hf("upload", "alice/a", str(folder), ".", "--private")
    assert json.loads(hf("models", "info", "alice/a"))["private"] is True
    hf("download", "alice/a", "--local-dir", str(tmp_path / "down"))
    assert (tmp_path / "down/images/2.jpg").read_bytes() == image(2)
    hf("repos", "delete", "alice/a", "--yes")
    assert not site.api().repo_exists("alice/a")


def test_its_moods_are_asked_for_by_name_from_another_process(tmp_path: Path) -> None:
    faults, hub = Faults(), Hub(tmp_path / "hub", USERS)
    for name, action in hub.actions.items():
        faults.register(name, action)
    server = Server({"hub": (hub.app, 0), "control": (faults.control_app(), 0)})
    server.start()
    control = f"http://127.0.0.1:{server.ports['control']}/actions"
    api = HfApi(endpoint=f"http://127.0.0.1:{server.ports['hub']}", token="hf_alice")
    try:
        for name, arguments in (
            ("hub_hide_new_repo", {"reads": 1}),
            ("hub_images_as", {"mode": "regular"}),
            ("hub_limit_storage", {"limit": 1}),
            ("hub_exceed", {"action": "commit"}),
            ("hub_limit_requests", {"quota": 100}),
        ):
            assert httpx.post(f"{control}/{name}", json=arguments).status_code == 200
        api.create_repo("alice/a", private=True)
        assert not api.repo_exists("alice/a")
        assert api.repo_exists("alice/a")
        with pytest.raises(HfHubHTTPError, match="hourly quotas"):
            api.upload_file(path_or_fileobj=image(1), path_in_repo="a.jpg", repo_id="alice/a")
        refused = httpx.post(f"{control}/hub_revoke", json={"token": "hf_nobody"})
        assert (refused.status_code, refused.json()) == (400, {"error": "hub_revoke: no such token"})
        assert httpx.post(f"{control}/hub_revoke", json={"token": "hf_alice"}).status_code == 200
        with pytest.raises(HfHubHTTPError, match="Invalid user token"):
            api.whoami()
    finally:
        server.stop()
