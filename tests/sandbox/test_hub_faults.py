"""The Hub's own faults, asked for here or by another process, and what the real huggingface_hub makes of them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._http import parse_ratelimit_headers

from tests.sandbox.hubs import IMAGE_LFS, Site, additions, image
from tests.support.deprecations import CONTENT
from watcher.sandbox.faults import Answer

pytestmark = CONTENT

Ask = Callable[..., None]


@pytest.fixture(params=["here", "over HTTP"])
def ask(request: pytest.FixtureRequest, site: Site) -> Ask:
    """Return a function that calls an action by name, in this process or as another one does."""

    def here(action: str, /, **arguments: Any) -> None:
        site.hub.actions[action](**arguments)

    def over_http(action: str, /, **arguments: Any) -> None:
        answer = httpx.post(f"{site.control}/actions/{action}", json=arguments)
        assert answer.status_code == 200, answer.text

    return here if request.param == "here" else over_http


@pytest.fixture
def api(site: Site) -> HfApi:
    """Give Alice's client; she has one private repo, `alice/a`."""
    api = site.api()
    api.create_repo("alice/a", private=True)
    site.faults.reset()
    return api


def upload(api: HfApi, path: str = "x", content: bytes = b"x") -> None:
    api.create_commit("alice/a", [CommitOperationAdd(path, content)], commit_message="x")


def refused(call: Callable[[], object]) -> tuple[int, str | None]:
    """Return the status and message of a refusal."""
    with pytest.raises(HfHubHTTPError) as caught:
        call()
    assert type(caught.value) is HfHubHTTPError
    return caught.value.response.status_code, caught.value.server_message


def test_a_request_quota_is_announced_in_headers_and_enforced(site: Site, api: HfApi, ask: Ask) -> None:
    ask("hub_limit_requests", quota=2, window=300)
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
    assert (info.remaining, 0 < info.reset_in_seconds <= 300) == (0, True)
    assert site.api("hf_bob").whoami()["name"] == "bob"
    ask("hub_limit_requests", quota=2)
    api.model_info("alice/a")
    ask("hub_limit_requests", quota=None)
    for _ in range(3):
        api.model_info("alice/a")


def test_the_client_waits_for_the_quota_where_it_retries_by_itself(site: Site, api: HfApi) -> None:
    headers = {"RateLimit": '"api";r=0;t=0', "RateLimit-Policy": '"fixed window";"api";q=1000;w=300'}
    site.faults.add(Answer(429, {"error": "slow down"}, headers), path="/preupload/")
    began = time.monotonic()
    upload(api)
    assert time.monotonic() - began >= 1
    assert site.paths() == ["POST main", "POST main", "POST main"]


@pytest.mark.parametrize("action", ["create", "commit"])
def test_an_actions_quota_is_a_429_without_rate_limit_headers(
    site: Site, api: HfApi, ask: Ask, action: str
) -> None:
    ask("hub_exceed", action=action)
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_repo("alice/b") if action == "create" else upload(api)
    assert caught.value.response.status_code == 429
    sentence = f"You have exceeded our hourly quotas for action: {action}. We invite you to retry later."
    assert caught.value.server_message == sentence
    assert parse_ratelimit_headers(caught.value.response.headers) is None
    upload(api)
    api.create_repo("alice/b")


def test_a_409_without_url_is_a_key_error_in_the_client(api: HfApi, ask: Ask) -> None:
    ask("hub_omit_url")
    with pytest.raises(KeyError, match="url"):
        api.create_repo("alice/a", private=True, exist_ok=True)
    assert api.create_repo("alice/a", private=True, exist_ok=True).repo_id == "alice/a"


def test_after_a_conflicting_operation_the_client_asks_again_without_waiting(
    site: Site, api: HfApi, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("hub_conflict", times=5)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    api.create_repo("alice/b", private=True)
    assert waits == []
    assert [one.status for one in site.faults.log()] == [409] * 5 + [200]


def test_a_full_storage_is_a_403_before_any_byte_is_sent(site: Site, api: HfApi, ask: Ask) -> None:
    ask("hub_limit_storage", limit=30_000)
    upload(api, "1.jpg", image(1))
    site.faults.reset()
    status, sentence = refused(lambda: upload(api, "2.jpg", image(2)))
    assert (status, str(sentence).startswith("Private repository storage limit reached")) == (403, True)
    assert "PUT LFS" not in site.paths()
    ask("hub_limit_storage", limit=None)
    upload(api, "2.jpg", image(2))


def test_a_token_can_lose_the_right_to_write(api: HfApi, ask: Ask) -> None:
    ask("hub_take_writing", token="hf_alice")
    assert api.whoami()["auth"]["accessToken"]["role"] == "read"
    assert api.model_info("alice/a").private
    forbidden = "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"
    assert refused(lambda: upload(api)) == (403, forbidden)
    status, sentence = refused(lambda: api.create_repo("alice/b"))
    assert (status, "rights to create" in str(sentence)) == (403, True)
    ask("hub_restore", token="hf_alice")
    upload(api)


def test_a_token_can_be_revoked_and_restored(api: HfApi, ask: Ask) -> None:
    api.update_repo_settings("alice/a", visibility="public")
    ask("hub_revoke", token="hf_alice")
    for call in (lambda: api.model_info("alice/a"), lambda: upload(api), lambda: api.create_repo("alice/b")):
        assert refused(call) == (401, "Invalid credentials in Authorization header")
    ask("hub_restore", token="hf_alice")
    upload(api)


def test_a_small_image_can_be_made_a_regular_file(site: Site, api: HfApi, ask: Ask, tmp_path: Path) -> None:
    ask("hub_images_as", mode="regular")
    # The pattern for images comes in the same commit, and preupload looks at the one before.
    api.create_commit("alice/a", additions(tmp_path, 3), commit_message="Upload")
    assert site.paths() == ["POST validate-yaml", "POST main", "POST main"]
    [info] = api.get_paths_info("alice/a", "images/image_001.jpg")
    assert isinstance(info, RepoFile)
    assert info.lfs is None
    assert Path(api.hf_hub_download("alice/a", "images/image_001.jpg")).read_bytes() == image(1)


def test_the_hub_can_edit_gitattributes_in_a_commit_though_a_pattern_is_there(
    api: HfApi, ask: Ask, tmp_path: Path
) -> None:
    ask("hub_edit_attributes")
    api.create_commit("alice/a", additions(tmp_path, 2), commit_message="x")
    held = Path(api.hf_hub_download("alice/a", ".gitattributes")).read_bytes()
    ours = [b"images/image_%03d.jpg filter=lfs diff=lfs merge=lfs -text\n" % number for number in (1, 2)]
    assert held == IMAGE_LFS + b"".join(ours)
    assert len(api.list_repo_commits("alice/a")) == 2
    # So the same commit again is a new one: the file that is sent differs from the one in the repo.
    api.create_commit("alice/a", additions(tmp_path, 2), commit_message="x")
    assert len(api.list_repo_commits("alice/a")) == 3


def test_a_new_repo_can_be_missing_for_some_reads(api: HfApi, ask: Ask) -> None:
    ask("hub_hide_new_repo", reads=2)
    api.create_repo("alice/b", private=True)
    for _ in range(2):
        with pytest.raises(RepositoryNotFoundError) as caught:
            api.model_info("alice/b")
        assert caught.value.response.status_code == 404
    assert api.model_info("alice/b").id == "alice/b"


def test_the_hub_can_ask_for_uploads_to_be_verified(site: Site, api: HfApi, ask: Ask, tmp_path: Path) -> None:
    ask("hub_offer_verify")
    api.create_commit("alice/a", additions(tmp_path, 3), commit_message="Upload")
    assert site.paths().count("POST verify") == 3


def test_a_reset_ends_all_of_them(api: HfApi, ask: Ask) -> None:
    ask("hub_conflict", times=1_000_000)
    ask("hub_exceed", action="commit", times=100)
    ask("hub_limit_requests", quota=0)
    ask("hub_limit_storage", limit=0)
    ask("hub_revoke", token="hf_alice")
    ask("hub_reset")
    api.create_repo("alice/b", private=True)
    upload(api, "a.jpg", image(1))


FAULTS: dict[str, dict[str, Any]] = {
    "500 after landing": {"action": "lose_answer", "status": 500, "body": {"error": "Internal Error"}},
    "504 after landing": {"action": "lose_answer", "status": 504, "body": "Gateway Time-out"},
    "412": {"action": "answer", "status": 412, "body": {"error": "The branch was updated since"}},
    "402": {"action": "answer", "status": 402, "body": {"error": "Payment required"}},
    "403 for abuse": {"action": "answer", "status": 403, "body": {"error": "Your storage patterns"}},
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_commit_can_fail_or_seem_to(site: Site, api: HfApi, name: str) -> None:
    fault = FAULTS[name]
    asked = httpx.post(f"{site.control}/faults", json={**fault, "service": "hub", "path": "/commit/main$"})
    assert asked.status_code == 201
    body = fault["body"]
    message = body["error"] if isinstance(body, dict) else body
    assert refused(lambda: upload(api)) == (fault["status"], message)
    assert api.file_exists("alice/a", "x") == (fault["action"] == "lose_answer")


def test_an_unknown_token_is_an_error_for_the_process_that_asks(site: Site) -> None:
    for action in ("hub_revoke", "hub_take_writing", "hub_restore"):
        answer = httpx.post(f"{site.control}/actions/{action}", json={"token": "hf_nobody"})
        assert (answer.status_code, answer.json()) == (400, {"error": f"{action}: no such token"})
