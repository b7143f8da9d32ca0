"""What the sandbox does not imitate: docs/sandbox.md lists all of it, and asked for it each service says so.

The second column of the table is `absent.Absent`, the third is asked here.
"""

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from postgrest import APIError
from realtime import AsyncRealtimeClient
from storage3.exceptions import StorageApiError
from supabase import AsyncClient, AsyncClientOptions, acreate_client
from supabase_auth.errors import AuthApiError

from tests.sandbox.listening import end_timers
from tests.sandbox.project import PATIENCE, Project, until
from tests.support.deprecations import CLOSED
from watcher.sandbox.absent import Absent

PAGE = (Path(__file__).parents[2] / "docs/sandbox.md").read_text()
TABLE = PAGE.partition("| service | feature | for example |")[2].partition("\n\n")[0]
ROWS = re.findall(r"^\| (\w+) \| ([^|]+) \| `([^`]+)` \|$", TABLE, re.MULTILINE)
ENVELOPES = {
    "gateway": ["message"],
    "auth": ["code", "error_code", "msg"],
    "rest": ["code", "details", "hint", "message"],
    "storage": ["statusCode", "error", "message", "code"],
    "realtime": ["error"],
    "hub": ["error"],
}
"""The fields of each service's refusals, in order."""
UNHEARD_OF = {
    "auth": "/auth/v1/no/such/route",
    "realtime": "/realtime/v1/no/such/route",
    "hub": "/api/no-such-route",
}


@pytest.fixture(scope="module", autouse=True)
def things(project: Project) -> None:
    """Make an object and a repo that the examples name."""
    storage = project.http("storage", project.keys.secret)
    assert storage.post("/bucket", json={"name": "b"}).is_success
    assert storage.post("/object/b/k", content=b"x", headers={"content-type": "text/plain"}).is_success
    HfApi(endpoint=project.sandbox.hub_url, token=project.sandbox.hub_token).create_repo("sandbox/a")


@pytest.fixture
async def supabase(project: Project) -> AsyncIterator[AsyncClient]:
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False)
        yield await acreate_client(project.url, project.keys.secret, options)


def ask(project: Project, example: str) -> httpx.Response:
    method, path, *rest = (
        shlex.split(example.replace("\\", "\\\\"), posix=True) if "-H" in example else (example.split(" ", 2))
    )
    headers = dict([rest[1].split(": ")]) if rest[:1] == ["-H"] else {}
    body = None if rest[:1] == ["-H"] else json.loads(rest[0]) if rest else None
    sandbox = project.sandbox
    if path.startswith(("/api/", "/sandbox/")):
        token = {"authorization": f"Bearer {sandbox.hub_token}"}
        return httpx.request(method, f"{sandbox.hub_url}{path}", headers={**headers, **token}, json=body)
    keys = project.headers(project.keys.secret)
    return httpx.request(method, f"{project.url}{path}", headers={**headers, **keys}, json=body)


def test_the_table_lists_everything_and_nothing_else() -> None:
    assert [(service, feature) for service, feature, _ in ROWS] == [
        (one.service, one.value) for one in Absent
    ]


@pytest.mark.parametrize(("service", "feature", "example"), ROWS, ids=[feature for _, feature, _ in ROWS])
def test_each_is_refused_in_a_sentence_and_the_services_own_envelope(
    project: Project, service: str, feature: str, example: str
) -> None:
    if example.startswith("phx_"):
        said = [asyncio.run(refused_join(project, json.loads(example.partition(" ")[2])))]
    else:
        answer = ask(project, example)
        assert answer.status_code == 501, answer.text
        assert list(answer.json()) == ENVELOPES[service]
        said = [one for one in answer.json().values() if isinstance(one, str)]
        if service == "hub":
            assert answer.headers["x-error-message"] == answer.json()["error"]
    assert any(one.startswith(f"The sandbox does not imitate {feature}") for one in said), said


async def refused_join(project: Project, config: dict[str, Any]) -> str:
    async with project.raw() as raw:
        await raw.send("1", "1", "realtime:room", "phx_join", {"config": config})
        reply = (await raw.receive())[4]
        assert reply["status"] == "error"
        return str(reply["response"]["reason"])


@pytest.mark.parametrize("service", UNHEARD_OF)
def test_a_path_that_nothing_serves_is_refused_in_the_same_way(project: Project, service: str) -> None:
    answer = ask(project, f"GET {UNHEARD_OF[service]}")
    assert answer.status_code == 501
    assert list(answer.json()) == ENVELOPES[service]
    assert f"The sandbox does not imitate GET {UNHEARD_OF[service]}." in answer.json().values()


def test_a_browser_that_follows_an_oauth_link_has_no_key_and_gets_the_sentence(project: Project) -> None:
    answer = httpx.get(f"{project.url}/auth/v1/authorize?provider=github")
    assert (answer.status_code, answer.json()["msg"]) == (501, Absent.AUTH_OAUTH.sentence)


async def test_the_real_clients_raise_the_sentence(project: Project, supabase: AsyncClient) -> None:
    with pytest.raises(APIError) as embedding:
        await supabase.table("notes").select("id, users(name)").execute()
    assert embedding.value.message == Absent.REST_EMBEDDING.sentence
    with pytest.raises(APIError) as searching:
        await supabase.table("notes").select("id").text_search("title", "word").execute()
    assert searching.value.message == Absent.REST_FULL_TEXT.sentence
    with pytest.raises(StorageApiError) as signing:
        size: Any = {"transform": {"width": 100}}
        await supabase.storage.from_("b").create_signed_url("k", 60, size)
    assert signing.value.message == Absent.STORAGE_TRANSFORMATIONS.sentence
    with pytest.raises(StorageApiError) as rendering:
        await supabase.storage.from_("b").download("k", {"transform": {"width": 100}})
    assert rendering.value.message == Absent.STORAGE_TRANSFORMATIONS.sentence
    with pytest.raises(AuthApiError) as signing_in:
        await supabase.auth.sign_in_with_otp({"email": "a@example.com"})
    assert signing_in.value.message == Absent.AUTH_OTP.sentence


def test_an_aggregate_says_that_supabase_refuses_it_too(project: Project) -> None:
    hint = ask(project, "GET /rest/v1/notes?select=total:rank.sum()::text").json()["hint"]
    assert hint.endswith("unless pgrst.db_aggregates_enabled is set: PGRST123.")


def test_the_hubs_client_raises_the_sentence(project: Project, hub_client: None) -> None:
    api = HfApi(endpoint=project.sandbox.hub_url, token=project.sandbox.hub_token)
    calls: dict[Absent, Callable[[], object]] = {
        Absent.HUB_BRANCHES: lambda: api.create_branch("sandbox/a", branch="dev"),
        Absent.HUB_PULL_REQUESTS: lambda: list(api.get_repo_discussions("sandbox/a")),
        Absent.HUB_GATED: lambda: api.update_repo_settings("sandbox/a", gated="auto"),
        Absent.HUB_KINDS: lambda: api.create_repo("sandbox/s", repo_type="space", space_sdk="static"),
        Absent.HUB_MOVING: lambda: api.move_repo("sandbox/a", "sandbox/c"),
        Absent.HUB_SCHEDULED_JOBS: lambda: list(api.list_scheduled_jobs(namespace="sandbox")),
    }
    for feature, call in calls.items():
        with pytest.raises(HfHubHTTPError) as caught:
            call()
        assert (caught.value.response.status_code, caught.value.server_message) == (501, feature.sentence)


@CLOSED
async def test_presence_and_broadcast_reach_the_realtime_client_as_errors(project: Project) -> None:
    before = asyncio.all_tasks()
    client = AsyncRealtimeClient(project.realtime_url, project.keys.secret)
    states: list[tuple[str, str]] = []
    try:
        present = client.channel("present").on_presence_sync(lambda: None)
        await present.subscribe(lambda state, error: states.append((state.value, str(error))))
        await until(lambda: states)
        assert states[0][0] == "CHANNEL_ERROR"
        assert Absent.REALTIME_PRESENCE.sentence in states[0][1]
        states.clear()
        own: Any = {"config": {"broadcast": {"ack": True, "self": True}}}
        loud = client.channel("loud", own)
        await loud.subscribe(lambda state, error: states.append((state.value, str(error))))
        await until(lambda: any(Absent.REALTIME_BROADCAST.sentence in error for _, error in states))
    finally:
        await client.close()
        await end_timers(asyncio.all_tasks() - before)


async def test_what_is_broadcast_is_answered_with_an_error_and_reaches_nobody(project: Project) -> None:
    sentence = Absent.REALTIME_BROADCAST.sentence
    async with project.raw() as raw, project.raw() as other:
        for one in (raw, other):
            assert (await one.join(topic="room"))[4]["status"] == "ok"
        await raw.send("1", "2", "realtime:room", "broadcast", {"event": "e", "payload": {}})
        assert (await raw.receive())[3:] == [
            "phx_reply",
            {"status": "error", "response": {"reason": sentence}},
        ]
        frame = (await raw.receive())[4]
        assert (frame["status"], frame["extension"], frame["message"]) == ("error", "broadcast", sentence)
        assert await other.silent()


def test_sending_a_broadcast_from_sql_fails_with_the_sentence(project: Project) -> None:
    with pytest.raises(
        psycopg.errors.FeatureNotSupported, match=re.escape(Absent.REALTIME_BROADCAST.sentence)
    ):
        project.sql("select realtime.send('{}', 'e', 'room')")
