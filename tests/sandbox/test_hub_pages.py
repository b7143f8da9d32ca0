"""The Hub in a browser: pages of a repo, and what a page of another origin may do."""

import re
from collections.abc import Iterator

import httpx
import pytest
from huggingface_hub import CommitOperationAdd

from tests.sandbox.hubs import IMAGE_LFS, Site
from tests.sandbox.project import PATIENCE
from tests.support.deprecations import CONTENT
from tests.support.pictures import jpeg

pytestmark = CONTENT

REPO = "alice/identity-zoe-1"
CARD = b"---\nlicense: mit\n---\n# Zo\xc3\xab <script>alert(1)</script>\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
PHOTO = jpeg(seed=1)


@pytest.fixture
def browser(site: Site) -> Iterator[httpx.Client]:
    """Ask as a browser does, without a token; alice has a private repo, and bob another."""
    site.api("hf_bob").create_repo("bob/secret", private=True)
    api = site.api()
    api.create_repo(REPO, private=True)
    files = {"README.md": CARD, ".gitattributes": IMAGE_LFS, "images/image_001.jpg": PHOTO}
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    api.create_commit(REPO, operations, commit_message="Upload <photos>", commit_description="row 1")
    with httpx.Client(base_url=site.url, timeout=PATIENCE) as client:
        yield client


def test_a_repo_has_pages_for_its_card_files_and_commits(browser: httpx.Client, site: Site) -> None:
    card = browser.get(f"/{REPO}")
    assert card.headers["content-type"] == "text/html; charset=utf-8"
    assert "Signed in as alice" in card.text
    assert "<h1>Zoë &lt;script&gt;" in card.text, "no HTML of a card is passed on"
    assert "<td>1</td>" in card.text
    assert "license" not in card.text
    assert "images/image_001.jpg" in browser.get(f"/{REPO}/tree/main").text
    assert "README.md" not in browser.get(f"/{REPO}/tree/main/images").text
    commits = browser.get(f"/{REPO}/commits/main").text
    assert "Upload &lt;photos&gt;" in commits
    assert "initial commit" in commits
    newest = site.api().list_repo_commits(REPO)[0].commit_id
    commit = browser.get(f"/{REPO}/commit/{newest}").text
    assert "row 1" in commit
    assert REPO in browser.get("/").text


def test_a_job_has_a_page_with_its_stage_and_log(browser: httpx.Client, site: Site) -> None:
    made = site.api().run_job(image="python:3.12", command=["true"], namespace="alice")
    site.hub.jobs.find(made.id).logs.append(("now", "a <line>"))
    page = browser.get(made.url)
    assert page.status_code == 200
    assert "a &lt;line&gt;" in page.text
    others = site.api("hf_bob").run_job(image="python:3.12", command=["true"], namespace="bob")
    for url in (f"/jobs/alice/{others.id}", others.url, "/jobs/alice/0"):
        assert browser.get(url).status_code == 404, url


def test_every_link_of_every_page_opens(browser: httpx.Client) -> None:
    seen, left = set(), {f"{browser.base_url}/{REPO}".replace("//alice", "/alice")}
    while left:
        url = left.pop()
        answer = browser.get(url)
        assert answer.status_code == 200, url
        seen.add(url)
        if answer.headers["content-type"].startswith("text/html"):
            found = re.findall(r"(?:href|src)=[\"']([^\"']+)", answer.text)
            left |= {str(httpx.URL(url).join(link)) for link in found} - seen
    assert len(seen) > 10


def test_a_picture_is_shown_and_nothing_else_runs(browser: httpx.Client) -> None:
    assert "<img" in browser.get(f"/{REPO}/blob/main/images/image_001.jpg").text
    photo = browser.get(f"/{REPO}/raw/main/images/image_001.jpg")
    assert (photo.headers["content-type"], photo.content) == ("image/jpeg", PHOTO)
    card = browser.get(f"/{REPO}/raw/main/README.md")
    assert card.headers["content-type"] == "text/plain; charset=utf-8"
    assert "default-src 'none'" in card.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    ["/alice/none", "/bob/secret", f"/{REPO}/tree/main/none", f"/{REPO}/blob/main/none", f"/{REPO}/raw/main/none",
     f"/{REPO}/commit/{'0' * 40}", f"/datasets/{REPO}"],
)  # fmt: skip
def test_what_is_not_there_or_not_the_owners_is_a_404(browser: httpx.Client, path: str) -> None:
    assert browser.get(path).status_code == 404


def test_another_origin_may_use_the_api_with_a_token_and_read_no_page(browser: httpx.Client) -> None:
    origin = {"Origin": "http://localhost:5173"}
    asked = {
        **origin,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization",
    }
    preflight = browser.options(f"/api/models/{REPO}", headers=asked)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, "*")
    assert preflight.headers["access-control-allow-headers"] == "authorization"
    known = {**origin, "Authorization": "Bearer hf_alice"}
    for path in (f"/api/models/{REPO}", f"/{REPO}/resolve/main/README.md"):
        answer = browser.get(path, headers=known)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
        assert "X-Error-Code" in answer.headers["access-control-expose-headers"]
    assert browser.get(f"/api/models/{REPO}", headers=origin).status_code == 401
    assert "access-control-allow-origin" not in browser.get(f"/{REPO}", headers=origin).headers
