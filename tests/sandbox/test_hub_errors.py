"""What the real huggingface_hub raises here: type, code, status and sentence, as it does against the Hub itself."""

import hashlib
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants, set_client_factory
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.lfs import UploadInfo, post_lfs_batch_info
from huggingface_hub.utils._http import default_client_factory

from tests.sandbox import hubs
from tests.sandbox.hubs import Site, image
from watcher.sandbox.faults import Answer, Hang, LoseAnswer

# huggingface_hub hands its LFS bodies to httpx2 by the old name of the argument.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

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
    """What is asked, by which token, and what comes of it."""

    call: Callable[[HfApi], object]
    type: type[HfHubHTTPError]
    status: int
    code: str | None
    message: str
    token: str | bool = "hf_alice"


REFUSALS = {
    "a repo that is not there": Refused(
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
    "a commit to a repo that is not there": Refused(
        lambda api: upload(api, repo="alice/absent"),
        RepositoryNotFoundError, 404, "RepoNotFound", NOT_FOUND,
    ),
    "the deletion of a repo that is not there": Refused(
        lambda api: api.delete_repo("alice/absent"), RepositoryNotFoundError, 404, "RepoNotFound", NOT_FOUND
    ),
    "a revision that is not there": Refused(
        lambda api: api.model_info("alice/hidden", revision="v1"),
        RevisionNotFoundError, 404, "RevisionNotFound", "Invalid rev id: v1",
    ),
    "a file of a revision that is not there": Refused(
        lambda api: api.hf_hub_download("alice/hidden", "a.txt", revision="0" * 40),
        RevisionNotFoundError, 404, "RevisionNotFound", f"Invalid rev id: {'0' * 40}",
    ),
    "a commit to a branch that is not there": Refused(
        lambda api: api.create_commit(
            "alice/hidden", [CommitOperationAdd("x", b"x")], commit_message="x", revision="other"
        ),
        RevisionNotFoundError, 404, "RevisionNotFound", "Invalid rev id: other",
    ),
    "a file that is not there": Refused(
        lambda api: api.hf_hub_download("alice/hidden", "absent"),
        RemoteEntryNotFoundError, 404, "EntryNotFound", "Entry not found",
    ),
    "a look with a token that is no longer good": Refused(
        lambda api: api.model_info("alice/shown"), HfHubHTTPError, 401, None, REVOKED, "hf_gone"
    ),
    "a creation with such a token": Refused(
        lambda api: api.create_repo("alice/b"), HfHubHTTPError, 401, None, REVOKED, "hf_gone"
    ),
    "a commit with such a token": Refused(
        lambda api: upload(api, repo="alice/shown"), HfHubHTTPError, 401, None, REVOKED, "hf_gone"
    ),
    "a batch with such a token": Refused(batch, HfHubHTTPError, 401, None, REVOKED, "hf_gone"),
    "a deletion with such a token": Refused(
        lambda api: api.delete_repo("alice/shown"), HfHubHTTPError, 401, None, REVOKED, "hf_gone"
    ),
    "a creation with a token that reads": Refused(
        lambda api: api.create_repo("alice/b"), HfHubHTTPError, 403, None, NO_CREATE, "hf_alice_read"
    ),
    "a creation with a token of narrow rights": Refused(
        lambda api: api.create_repo("alice/b"), HfHubHTTPError, 403, None, NO_CREATE, "hf_alice_narrow"
    ),
    "a creation in somebody else's namespace": Refused(
        lambda api: api.create_repo("bob/b"), HfHubHTTPError, 403, None, NO_CREATE
    ),
    "a creation in an organisation where one may only read": Refused(
        lambda api: api.create_repo("museum/b"), HfHubHTTPError, 403, None, NO_CREATE
    ),
    "a commit with a token that reads": Refused(
        upload, HfHubHTTPError, 403, None, NO_WRITE, "hf_alice_read"
    ),
    "a commit with a token of narrow rights": Refused(
        upload, HfHubHTTPError, 403, None, NO_WRITE, "hf_alice_narrow"
    ),
    "a batch with a token that reads": Refused(
        batch, HfHubHTTPError, 403, None, "Authorization error.", "hf_alice_read"
    ),
    "a deletion with a token that reads": Refused(
        lambda api: api.delete_repo("alice/hidden"),
        HfHubHTTPError, 403, None, "You don't have the rights to delete this model", "hf_alice_read",
    ),
    "a creation of what is there": Refused(
        lambda api: api.create_repo("alice/hidden"),
        HfHubHTTPError, 409, None, "You already created this model repo",
    ),
    "a commit on a parent that is no longer the last": Refused(
        lambda api: api.create_commit(
            "alice/hidden",
            [CommitOperationAdd("x", b"x")],
            commit_message="x",
            parent_commit=api.list_repo_commits("alice/hidden")[-1].commit_id,
        ),
        HfHubHTTPError, 412, None, "A commit has happened since. Please refresh and try again.",
    ),
}  # fmt: skip


@pytest.fixture
def two_repos(site: Site) -> Site:
    """A Hub with a private and a public repo, one file in each."""
    api = site.api()
    for name, visibility in (("alice/hidden", "private"), ("alice/shown", "public")):
        api.create_repo(name, visibility=visibility)
        api.upload_file(path_or_fileobj=b"a", path_in_repo="a.txt", repo_id=name)
    return site


def test_a_refusal_is_the_hubs_in_type_code_status_and_sentence(
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


def test_whoami_with_a_bad_token_is_said_by_the_client_itself(site: Site) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        site.api("hf_gone").whoami()
    assert (str(caught.value), caught.value.response.status_code) == ("Invalid user token.", 401)
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert caught.value.__cause__.server_message == REVOKED


def test_the_answer_to_a_name_that_is_taken_has_its_url(site: Site) -> None:
    api = site.api()
    first = api.create_repo("alice/a", private=True)
    assert api.create_repo("alice/a", private=True, exist_ok=True) == first


def test_private_is_not_heard_where_the_repo_exists(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=False)
    api.create_repo("alice/a", private=True, exist_ok=True)
    assert api.model_info("alice/a").private is False


@pytest.mark.parametrize("token", ["hf_alice_read", "hf_alice_narrow", "hf_bob"])
def test_to_create_with_exist_ok_seems_to_succeed_without_the_right(
    two_repos: Site, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setattr(
        constants, "ENDPOINT", two_repos.url
    )  # where the client looks for the repo it then returns
    repo = "alice/shown" if token == "hf_bob" else "alice/hidden"
    assert two_repos.api(token).create_repo(repo, exist_ok=True).repo_id == repo


@pytest.mark.parametrize("token", ["hf_alice_read", "hf_alice_narrow"])
def test_a_token_that_reads_is_told_so_when_it_asks(two_repos: Site, token: str) -> None:
    api = two_repos.api(token)
    assert api.model_info("alice/hidden").private
    api.auth_check("alice/hidden")
    with pytest.raises(HfHubHTTPError) as caught:
        api.auth_check("alice/hidden", write=True)
    assert caught.value.response.status_code == 403


def test_a_parent_that_is_no_oid_is_refused_by_the_client(site: Site) -> None:
    site.api().create_repo("alice/a")
    site.faults.reset()
    with pytest.raises(ValueError, match="parent_commit"):
        site.api().create_commit(
            "alice/a", [CommitOperationAdd("x", b"x")], commit_message="x", parent_commit="main"
        )
    assert site.paths() == []


def test_a_commit_whose_objects_are_gone_is_a_bad_request(site: Site) -> None:
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


def test_bytes_that_are_not_the_announced_ones_are_refused(site: Site, tmp_path: Path) -> None:
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


def test_an_upload_that_is_refused_is_a_runtime_error_with_its_cause(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a", private=True)
    site.faults.add(Answer(403, {"error": "The signature does not match"}), path="/_lfs/put/")
    with pytest.raises(RuntimeError, match="Error while uploading") as caught:
        upload(api, image(1), "alice/a")
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert caught.value.__cause__.response.status_code == 403


def test_an_object_that_the_batch_refuses_is_a_value_error(site: Site) -> None:
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
    assert not isinstance(caught.value, HfHubHTTPError)
    assert site.paths() == ["POST validate-yaml"]


def test_a_gateways_page_in_place_of_the_judgement_is_a_json_error(site: Site) -> None:
    site.api().create_repo("alice/a")
    site.faults.add(Answer(502, "<html>Bad Gateway</html>"), path="/api/validate-yaml")
    with pytest.raises(json.JSONDecodeError):
        site.api().create_commit("alice/a", [CommitOperationAdd("README.md", hubs.CARD)], commit_message="x")


def test_what_breaks_on_the_way_is_httpx2s_own(site: Site) -> None:
    api = site.api()
    api.create_repo("alice/a")
    site.faults.add(LoseAnswer(), path="/commit/")
    with pytest.raises(httpx2.RemoteProtocolError):
        upload(api, b"landed", "alice/a")
    assert api.file_exists("alice/a", "x")
    set_client_factory(lambda: httpx2.Client(timeout=0.2))
    try:
        site.faults.add(Hang(), path="/commit/")
        with pytest.raises(httpx2.ReadTimeout):
            upload(api, b"never", "alice/a")
        with pytest.raises(httpx2.ConnectError) as caught:
            HfApi(endpoint="http://127.0.0.1:9", token="hf_alice").whoami()
    finally:
        set_client_factory(default_client_factory)
    assert not isinstance(caught.value, HfHubHTTPError)
