"""The Hub, asked by the real huggingface_hub and the real `hf` command: what it does, and what it refuses.

A refusal has the type, code, status and message that huggingface_hub raises for the Hub itself.
"""

import hashlib
import json
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import httpx2
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
from huggingface_hub.lfs import UploadInfo, post_lfs_batch_info

from tests.sandbox import hubs
from tests.sandbox.hubs import CARD, IMAGE_LFS, USERS, Site, additions, image
from tests.sandbox.project import PATIENCE
from tests.support.deprecations import CONTENT
from watcher.sandbox.faults import Answer
from watcher.sandbox.hub import Hub
from watcher.sandbox.hub.bytes import Bytes, RepoGoneError
from watcher.sandbox.server import HOST, Server

pytestmark = CONTENT


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


def test_images_can_be_uploaded_in_batches_before_one_commit(site: Site, tmp_path: Path) -> None:
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


def test_of_several_commits_on_one_parent_one_lands_and_the_others_get_a_412(site: Site) -> None:
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
        assert "The branch was updated since you opened this page" in str(refusal)
    assert len(api.list_repo_commits("alice/a")) == 2


def test_a_new_repo_has_the_hubs_gitattributes(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    [attributes] = api.get_paths_info("alice/a", [".gitattributes", "absent"])
    assert isinstance(attributes, RepoFile)
    assert attributes.blob_id == "a6344aac8c09253b3b630fb776ae94478aa0275b"
    assert attributes.size == 1519
    assert api.list_repo_refs("alice/a").branches[0].target_commit == api.model_info("alice/a").sha
    assert re.fullmatch("[0-9a-f]{40}", api.model_info("alice/a").sha or "")


@pytest.mark.parametrize("name", ["-a", "a.", "a--b", "a..b", "a.git", "a b", "é", "x" * 97, ""])
def test_an_invalid_repo_name_is_refused(site: Site, name: str) -> None:
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
def test_a_private_repo_looks_absent_to_others(site: Site, token: str | bool, status: int) -> None:
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


def test_a_repo_is_public_by_default_as_on_the_hub(site: Site) -> None:
    site.api().create_repo("alice/a")
    assert site.api(token=False).model_info("alice/a").private is False


def test_a_fine_grained_token_with_the_permission_may_write(site: Site) -> None:
    api = site.api("hf_alice_fine")
    api.create_repo("alice/a", private=True)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="alice/a")


def test_members_may_read_an_organisations_repos(site: Site) -> None:
    api = site.api()
    api.create_repo("acme/a", private=True)
    assert api.model_info("acme/a").author == "acme"
    assert site.api("hf_alice_read").repo_exists("acme/a")
    assert not site.api("hf_bob").repo_exists("acme/a")


def test_whoami_names_the_user_the_orgs_and_the_permissions(site: Site) -> None:
    alice = site.api().whoami()
    assert alice["name"] == "alice"
    assert {org["name"]: org["roleInOrg"] for org in alice["orgs"]} == {"acme": "write", "museum": "read"}
    assert alice["auth"]["accessToken"]["role"] == "write"
    fine = site.api("hf_alice_narrow").whoami()["auth"]["accessToken"]
    assert fine["role"] == "fineGrained"
    assert fine["fineGrained"]["scoped"][0]["entity"]["name"] == "alice"
    assert fine["fineGrained"]["scoped"][0]["permissions"] == ["repo.content.read"]


def test_a_deleted_repos_name_can_be_used_again(site: Site, tmp_path: Path) -> None:
    api = site.api()
    for _ in range(2):
        api.create_repo("alice/a", private=True)
        api.create_commit("alice/a", additions(tmp_path, 3), commit_message="Upload")
        api.delete_repo("alice/a")
        assert not api.repo_exists("alice/a")
        assert not list((site.folder / "repos").iterdir())
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("alice/a")
    api.delete_repo("alice/a", missing_ok=True)


def test_a_repo_that_is_deleted_while_files_are_put_into_it_is_gone(tmp_path: Path) -> None:
    stored = Bytes(tmp_path)

    def put_until_gone(repo: str) -> None:
        with pytest.raises(RepoGoneError):
            for number in range(20_000):
                stored.put_blob(repo, "x.txt", str(number).encode())

    for number in range(20):
        stored.make_folders(repo := f"repo{number}")
        blobs = tmp_path / "repos" / repo / "blobs"
        with ThreadPoolExecutor(1) as executor:
            putting = executor.submit(put_until_gone, repo)
            while len(list(blobs.iterdir())) < 20:
                time.sleep(0.001)
            stored.delete(repo)
            putting.result()
    assert not list((tmp_path / "repos").iterdir())
    assert not list((tmp_path / "incoming").iterdir())


def test_everything_survives_a_restart(hub_client: None, tmp_path: Path) -> None:
    def started() -> tuple[Server, HfApi]:
        server = Server({"hub": (Hub(tmp_path / "hub", USERS).app, 0)})
        server.start()
        return server, HfApi(endpoint=f"http://{HOST}:{server.ports['hub']}", token="hf_alice")

    server, api = started()
    api.create_repo("alice/a", private=True)
    commit = api.create_commit("alice/a", additions(tmp_path, 3), commit_message="Upload")
    server.stop()
    server, api = started()
    assert api.model_info("alice/a").sha == commit.oid
    assert Path(api.hf_hub_download("alice/a", "images/image_003.jpg")).read_bytes() == image(3)
    server.stop()


def test_preupload_decides_by_pattern_size_and_content(site: Site) -> None:
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
        ("file", {"path": "a", "content": "eHh4" * 3_500_000, "encoding": "base64"}, "larger than 10 MiB"),
        ("file", {"path": "README.md", "content": "---\nlicense: none\n---\n"}, '"license" must be one of'),
        ("file", {"path": "../a", "content": ""}, "Invalid path: ../a"),
        ("file", {"path": "a"}, "Invalid line in the commit"),
    ],
)
def test_a_commit_that_the_hubs_hooks_refuse_is_a_400_and_changes_nothing(
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
        timeout=PATIENCE,
    )
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
    assert len(api.list_repo_commits("alice/a")) == 1


def test_an_upload_url_is_signed_for_one_object_of_one_repo(site: Site) -> None:
    site.api().create_repo("alice/a", private=True)
    content = image(1)
    oid = hashlib.sha256(content).hexdigest()

    def batch(repo: str) -> dict[str, Any]:
        answer = httpx.post(
            f"{site.url}/{repo}.git/info/lfs/objects/batch",
            json={"operation": "upload", "objects": [{"oid": oid, "size": len(content)}]},
            headers={"authorization": "Bearer hf_alice"},
        )
        return dict(answer.json()["objects"][0])

    href = batch("alice/a")["actions"]["upload"]["href"]
    assert httpx.put(href.replace(oid, "0" * 64), content=content).status_code == 403
    assert httpx.put(href[:-1], content=content).status_code == 403
    assert httpx.put(href, content=content[:-1]).status_code == 400
    assert httpx.put(href, content=content).status_code == 200
    assert "actions" not in batch("alice/a")
    site.api().create_repo("alice/b", private=True)
    assert "actions" in batch("alice/b")


def test_a_card_without_metadata_is_a_warning(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    with pytest.warns(UserWarning, match="empty or missing yaml metadata in repo card"):
        api.create_commit("alice/a", [CommitOperationAdd("README.md", b"# Hello\n")], commit_message="x")


def test_lfs_files_are_listed_and_deleted_for_good_and_otherwise_outlive_their_repo(site: Site) -> None:
    api = site.api()
    store = site.hub.store
    store.bytes.collect()
    for name in ("alice/a", "alice/b"):
        api.create_repo(name, private=True)
        operations = [CommitOperationAdd(f"{n}.jpg", image(n)) for n in range(3)]
        api.create_commit(name, operations, commit_message="x", commit_description="of this row")
    listed = list(api.list_lfs_files("alice/a"))
    assert sorted(one.filename for one in listed) == ["0.jpg", "1.jpg", "2.jpg"]
    before = api.list_repo_commits("alice/a")
    api.permanently_delete_lfs_files("alice/a", listed)
    assert list(api.list_lfs_files("alice/a")) == []
    assert api.list_repo_files("alice/a") == [".gitattributes"]
    after = api.list_repo_commits("alice/a")
    assert [one.message for one in after] == [one.message for one in before]
    assert {one.commit_id for one in after}.isdisjoint(one.commit_id for one in before)
    api.delete_repo("alice/a")
    assert store.bytes.uncollected() == []
    api.delete_repo("alice/b")
    assert len(store.bytes.uncollected()) == 3
    store.bytes.collect()
    with pytest.raises(RepositoryNotFoundError):
        list(site.api("hf_bob").list_lfs_files("alice/a"))


@pytest.fixture
def small_pages(hub_client: None, tmp_path: Path) -> Iterator[Site]:
    """Serve a Hub with seven entries on a page."""
    with hubs.served(tmp_path / "hub", page_size=7) as site:
        yield site


def test_trees_and_commits_are_paginated(small_pages: Site) -> None:
    api = small_pages.api()
    api.create_repo("alice/a", private=True)
    files = [CommitOperationAdd(f"folder/{n:02}.txt", b"x") for n in range(20)]
    first = api.create_commit("alice/a", files, commit_message="many")
    for number in range(8):
        api.upload_file(path_or_fileobj=str(number).encode(), path_in_repo="folder/00.txt", repo_id="alice/a")
    small_pages.faults.reset()
    tree = list(api.list_repo_tree("alice/a", recursive=True, expand=True))
    assert [one.path for one in tree] == [
        ".gitattributes",
        "folder",
        *(f"folder/{n:02}.txt" for n in range(20)),
    ]
    assert len(small_pages.faults.log()) == 4
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


def test_blobs_and_trees_have_gits_ids(site: Site, tmp_path: Path) -> None:
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


def test_a_range_of_a_file_can_be_downloaded(site: Site) -> None:
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


def test_datasets_are_created_committed_to_and_deleted_like_models(site: Site) -> None:
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
            [program, *arguments], env=environment, capture_output=True, text=True, check=False
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


# Refusals.

NOT_FOUND = "Repository not found"
NOBODY = "Invalid username or password."
REVOKED = "Invalid credentials in Authorization header"
NO_CREATE = "You don't have the rights to create a model under this namespace"
NO_WRITE = "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"


def upload(api: HfApi, content: bytes = b"x", repo: str = "alice/hidden") -> object:
    operations = [CommitOperationAdd("x", content)]
    return api.create_commit(repo, operations, commit_message="x")


def batch(api: HfApi) -> object:
    digest = hashlib.sha256(b"x").digest()
    infos = [UploadInfo(sha256=digest, size=1, sample=b"x")]
    return post_lfs_batch_info(infos, str(api.token), "model", "alice/hidden", endpoint=api.endpoint)


@dataclass(frozen=True)
class Refused:
    """A call, and what huggingface_hub raises for it."""

    call: Callable[[HfApi], object]
    type: type[HfHubHTTPError]
    status: int
    code: str | None
    message: str
    token: str | bool = "hf_alice"


REFUSALS = {
    "an unknown repo": Refused(
        lambda api: api.model_info("alice/absent"), RepositoryNotFoundError, 404, "RepoNotFound", NOT_FOUND
    ),
    "somebody else's private repo": Refused(
        lambda api: api.model_info("alice/hidden"),
        RepositoryNotFoundError, 404, "RepoNotFound", NOT_FOUND, "hf_bob",
    ),
    "a private repo, without a token": Refused(
        lambda api: api.model_info("alice/hidden"),
        RepositoryNotFoundError, 401, "RepoNotFound", NOBODY, False,
    ),
    "a file of a private repo, without a token": Refused(
        lambda api: api.hf_hub_download("alice/hidden", "a.txt"),
        RepositoryNotFoundError, 401, "RepoNotFound", NOBODY, False,
    ),
    "a commit to an unknown repo": Refused(
        lambda api: upload(api, repo="alice/absent"),
        RepositoryNotFoundError, 404, "RepoNotFound", NOT_FOUND,
    ),
    "the deletion of an unknown repo": Refused(
        lambda api: api.delete_repo("alice/absent"), RepositoryNotFoundError, 404, "RepoNotFound", NOT_FOUND
    ),
    "an unknown revision": Refused(
        lambda api: api.model_info("alice/hidden", revision="v1"),
        RevisionNotFoundError, 404, "RevisionNotFound", "Invalid rev id: v1",
    ),
    "a file of an unknown revision": Refused(
        lambda api: api.hf_hub_download("alice/hidden", "a.txt", revision="0" * 40),
        RevisionNotFoundError, 404, "RevisionNotFound", f"Invalid rev id: {'0' * 40}",
    ),
    "a commit to an unknown branch": Refused(
        lambda api: api.create_commit(
            "alice/hidden", [CommitOperationAdd("x", b"x")], commit_message="x", revision="other"
        ),
        RevisionNotFoundError, 404, "RevisionNotFound", "Invalid rev id: other",
    ),
    "an unknown file": Refused(
        lambda api: api.hf_hub_download("alice/hidden", "absent"),
        RemoteEntryNotFoundError, 404, "EntryNotFound", "Entry not found",
    ),
    "a read with an invalid token": Refused(
        lambda api: api.model_info("alice/shown"), HfHubHTTPError, 401, None, REVOKED, "hf_gone"
    ),
    "a creation with an invalid token": Refused(
        lambda api: api.create_repo("alice/b"), HfHubHTTPError, 401, None, REVOKED, "hf_gone"
    ),
    "a commit with an invalid token": Refused(
        lambda api: upload(api, repo="alice/shown"), HfHubHTTPError, 401, None, REVOKED, "hf_gone"
    ),
    "an LFS batch with an invalid token": Refused(batch, HfHubHTTPError, 401, None, REVOKED, "hf_gone"),
    "a deletion with an invalid token": Refused(
        lambda api: api.delete_repo("alice/shown"), HfHubHTTPError, 401, None, REVOKED, "hf_gone"
    ),
    "a creation with a read token": Refused(
        lambda api: api.create_repo("alice/b"), HfHubHTTPError, 403, None, NO_CREATE, "hf_alice_read"
    ),
    "a creation with a narrow token": Refused(
        lambda api: api.create_repo("alice/b"), HfHubHTTPError, 403, None, NO_CREATE, "hf_alice_narrow"
    ),
    "a creation in somebody else's namespace": Refused(
        lambda api: api.create_repo("bob/b"), HfHubHTTPError, 403, None, NO_CREATE
    ),
    "a creation in an organisation that the user may only read": Refused(
        lambda api: api.create_repo("museum/b"), HfHubHTTPError, 403, None, NO_CREATE
    ),
    "a commit with a read token": Refused(
        upload, HfHubHTTPError, 403, None, NO_WRITE, "hf_alice_read"
    ),
    "a commit with a narrow token": Refused(
        upload, HfHubHTTPError, 403, None, NO_WRITE, "hf_alice_narrow"
    ),
    "an LFS batch with a read token": Refused(
        batch, HfHubHTTPError, 403, None, "Authorization error.", "hf_alice_read"
    ),
    "a deletion with a read token": Refused(
        lambda api: api.delete_repo("alice/hidden"),
        HfHubHTTPError, 403, None, "You don't have the rights to delete this model", "hf_alice_read",
    ),
    "the creation of a repo that exists": Refused(
        lambda api: api.create_repo("alice/hidden"),
        HfHubHTTPError, 409, None, "You already created this model repo",
    ),
    "a commit on a parent that is not the head": Refused(
        lambda api: api.create_commit(
            "alice/hidden",
            [CommitOperationAdd("x", b"x")],
            commit_message="x",
            parent_commit=api.list_repo_commits("alice/hidden")[-1].commit_id,
        ),
        HfHubHTTPError, 412, None, "The branch was updated since you opened this page. Please refresh and try again.",
    ),
}  # fmt: skip


@pytest.fixture
def two_repos(site: Site) -> Site:
    """Give a Hub with a private and a public repo, with a file in each."""
    api = site.api()
    for name, private in (("alice/hidden", True), ("alice/shown", False)):
        api.create_repo(name, private=private)
        api.upload_file(path_or_fileobj=b"a", path_in_repo="a.txt", repo_id=name)
    return site


def test_each_refusal_has_the_hubs_type_code_status_and_message(
    two_repos: Site, subtests: pytest.Subtests
) -> None:
    before = two_repos.api().list_repo_commits("alice/hidden")
    for what, refused in REFUSALS.items():
        with subtests.test(what):
            with pytest.raises(HfHubHTTPError) as caught:
                refused.call(two_repos.api(refused.token))
            error = caught.value
            assert type(error) is refused.type
            answer = error.response
            assert (answer.status_code, answer.headers.get("x-error-code")) == (refused.status, refused.code)
            assert error.server_message == refused.message
            assert error.request_id == answer.request.headers["x-amzn-trace-id"]
            assert type(pickle.loads(pickle.dumps(error))) is refused.type
    assert two_repos.api().list_repo_commits("alice/hidden") == before


def test_whoami_with_an_invalid_token_has_the_clients_own_message(site: Site) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        site.api("hf_gone").whoami()
    assert (str(caught.value), caught.value.response.status_code) == ("Invalid user token.", 401)
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert caught.value.__cause__.server_message == REVOKED


def test_the_409_for_a_name_that_is_taken_has_its_url(site: Site) -> None:
    api = site.api()
    first = api.create_repo("alice/a", private=True)
    assert api.create_repo("alice/a", private=True, exist_ok=True) == first


def test_private_is_ignored_where_the_repo_exists(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=False)
    api.create_repo("alice/a", private=True, exist_ok=True)
    assert api.model_info("alice/a").private is False


@pytest.mark.parametrize("token", ["hf_alice_read", "hf_alice_narrow", "hf_bob"])
def test_create_repo_with_exist_ok_succeeds_even_without_the_right(
    two_repos: Site, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", two_repos.url)  # the client reads the repo there
    repo = "alice/shown" if token == "hf_bob" else "alice/hidden"
    assert two_repos.api(token).create_repo(repo, exist_ok=True).repo_id == repo


@pytest.mark.parametrize("token", ["hf_alice_read", "hf_alice_narrow"])
def test_auth_check_tells_reading_from_writing(two_repos: Site, token: str) -> None:
    api = two_repos.api(token)
    assert api.model_info("alice/hidden").private
    api.auth_check("alice/hidden")
    with pytest.raises(HfHubHTTPError) as caught:
        api.auth_check("alice/hidden", write=True)
    assert caught.value.response.status_code == 403


def test_the_client_refuses_a_parent_that_is_no_oid(site: Site) -> None:
    site.api().create_repo("alice/a")
    site.faults.reset()
    with pytest.raises(ValueError, match="parent_commit"):
        site.api().create_commit(
            "alice/a", [CommitOperationAdd("x", b"x")], commit_message="x", parent_commit="main"
        )
    assert site.paths() == []


def test_a_commit_without_its_lfs_objects_is_a_bad_request(site: Site) -> None:
    api = site.api()
    operation = CommitOperationAdd("a.jpg", image(1))
    api.create_repo("alice/a", private=True)
    api.preupload_lfs_files("alice/a", [operation])
    api.delete_repo("alice/a")
    api.create_repo("alice/a", private=True)
    with pytest.raises(BadRequestError, match="LFS pointer pointed to a file that does not exist") as caught:
        api.create_commit("alice/a", [operation], commit_message="x")
    assert isinstance(caught.value, ValueError)
    assert caught.value.response.status_code == 400


def test_an_upload_with_another_digest_is_refused(site: Site, tmp_path: Path) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    path = tmp_path / "a.jpg"
    path.write_bytes(image(1))
    operation = CommitOperationAdd("a.jpg", str(path))
    operation.upload_info.sha256 = hashlib.sha256(image(2)).digest()
    with pytest.raises(RuntimeError, match=r"Error while uploading 'a\.jpg' to the Hub") as caught:
        api.create_commit("alice/a", [operation], commit_message="x")
    assert isinstance(caught.value.__cause__, BadRequestError)
    assert not list((site.folder / "incoming").iterdir())
    assert api.list_repo_files("alice/a") == [".gitattributes"]


def test_a_refused_upload_is_a_runtime_error_with_the_refusal_as_its_cause(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    site.faults.add(Answer(403, {"error": "The signature does not match"}), path="/_lfs/put/")
    with pytest.raises(RuntimeError, match="Error while uploading") as caught:
        upload(api, image(1), "alice/a")
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert caught.value.__cause__.response.status_code == 403


def test_an_lfs_object_that_is_refused_is_a_value_error(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    operation = CommitOperationAdd("a.jpg", image(1))
    operation.upload_info.sha256 = b"short"
    with pytest.raises(ValueError, match="The oid is not a sha256"):
        api.create_commit("alice/a", [operation], commit_message="x")


@pytest.mark.parametrize(
    ("card", "problem"),
    [
        ("---\nlicense: gpl-3\n---\n", '"license" must be one of [apache-2.0, mit,'),
        ("---\ntags: {a: b}\n---\n", '"tags" must be a string or an array of strings'),
        ("---\nmodel-index: foo\n---\n", '"model-index" must be an array'),
        ("---\nlicense: [mit\n---\n", "expected ',' or ']'"),
        ("---\njust text\n---\n", "metadata must be an object"),
    ],
)
def test_a_bad_card_is_refused_before_anything_else_is_sent(site: Site, card: str, problem: str) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    site.faults.reset()
    operations = [CommitOperationAdd("README.md", card.encode()), CommitOperationAdd("a.jpg", image(1))]
    with pytest.raises(ValueError, match=re.escape(problem)) as caught:
        api.create_commit("alice/a", operations, commit_message="x")
    assert str(caught.value).startswith("Invalid metadata in README.md")
    assert not isinstance(caught.value, HfHubHTTPError)
    assert site.paths() == ["POST validate-yaml"]


def test_a_gateways_page_instead_of_the_cards_validation_is_a_json_error(site: Site) -> None:
    site.api().create_repo("alice/a")
    site.faults.add(Answer(502, "<html>Bad Gateway</html>"), path="/api/validate-yaml")
    with pytest.raises(json.JSONDecodeError):
        site.api().create_commit("alice/a", [CommitOperationAdd("README.md", CARD)], commit_message="x")


def test_a_hub_that_cannot_be_reached_is_httpx2s_own_error(hub_client: None) -> None:
    with pytest.raises(httpx2.ConnectError) as caught:
        HfApi(endpoint="http://127.0.0.1:9", token="hf_alice").whoami()
    assert not isinstance(caught.value, HfHubHTTPError)
