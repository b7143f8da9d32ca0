"""Every fault of a request, asked for over the control port as another process would, and met by the real clients."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import default_client_factory
from postgrest.exceptions import APIError
from storage3.exceptions import StorageApiError
from supabase import Client, create_client
from supabase.lib.client_options import SyncClientOptions

from tests.support.pictures import jpeg
from tests.support.scene import Scene

# huggingface_hub hands its LFS bodies to httpx2 by the old name of the argument.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

BUCKET, TABLE, REPO = "identity-images", "trained_identities", "sandbox/a"
PHOTO = jpeg(1)
AT = {
    "look": {"service": "hub", "path": "^/api/models/"},
    "commit": {"service": "hub", "path": "/commit/main$"},
    "send": {"service": "hub", "path": "^/_lfs/put/"},
    "download": {"service": "storage", "method": "GET"},
    "upload": {"service": "storage", "method": "POST"},
    "select": {"service": "rest", "method": "GET"},
    "insert": {"service": "rest", "method": "POST"},
}
"""Where the requests of a call of `Person` are met."""


@dataclass(frozen=True)
class Person:
    """Asks each service by its real client, and knows whether it was done."""

    scene: Scene
    supabase: Client
    hub: HfApi
    user: UUID
    paths: list[str]

    def look(self) -> object:
        return self.hub.list_repo_refs(REPO)

    def commit(self) -> object:
        return self.hub.create_commit(REPO, [CommitOperationAdd("x", b"x")], commit_message="x").oid

    def send(self) -> object:
        return self.hub.preupload_lfs_files(REPO, [CommitOperationAdd("a.jpg", PHOTO)])

    def download(self) -> object:
        return self.supabase.storage.from_(BUCKET).download(self.paths[0])

    def upload(self) -> object:
        file = f"{self.user}/set/new.jpg"
        return self.supabase.storage.from_(BUCKET).upload(file, PHOTO, {"content-type": "image/jpeg"})

    def select(self) -> object:
        return self.supabase.table(TABLE).select("identity_name").execute().data

    def insert(self) -> object:
        row = {"identity_name": "Ada", "image_paths": self.paths}
        return self.supabase.table(TABLE).insert(row).execute().data

    def done(self, call: str) -> bool:
        """Whether what a call asks for is there."""
        store, value = self.scene.sandbox.hub.store, self.scene.database.value
        if call == "send":
            return store.bytes.used(self.scene.repo(REPO).id) > 0
        if call == "commit":
            return len(self.scene.commits(REPO)) == 2
        if call == "upload":
            return bool(value("select exists (select from storage.objects where name like '%%new.jpg')"))
        return bool(value(f"select exists (select from {TABLE})"))

    def ask(self, call: str, **fault: Any) -> Any:
        """Ask over the control port for a fault where a call will meet it; what is told of it."""
        answer = httpx.post(f"{self.scene.sandbox.control_url}/faults", json={**AT[call], **fault})
        assert answer.status_code == 201, answer.text
        return answer.json()


@pytest.fixture
def person(scene: Scene, hub_client: None) -> Iterator[Person]:
    scene.make_repo(REPO)
    user, paths = scene.put()
    sandbox = scene.sandbox
    with httpx.Client(timeout=20) as http:
        options = SyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        supabase = create_client(sandbox.supabase_url, sandbox.keys.publishable, options)
        token = sandbox.keys.sign({"sub": str(user), "role": "authenticated", "exp": 4e9})
        supabase.options.headers["Authorization"] = f"Bearer {token}"
        yield Person(scene, supabase, HfApi(sandbox.hub_url, sandbox.hub_token), user, paths)


LATER = {"error": "later", "message": "later", "code": "X"}
BROKEN = (httpx.RemoteProtocolError, httpx2.RemoteProtocolError)


@pytest.mark.parametrize("call", ["look", "commit", "download", "upload", "insert"])
def test_an_answer_is_the_clients_own_error_and_nothing_is_done(person: Person, call: str) -> None:
    person.ask(call, action="answer", status=503, body=LATER)
    with pytest.raises((HfHubHTTPError, StorageApiError, APIError)) as caught:
        getattr(person, call)()
    if isinstance(caught.value, HfHubHTTPError):
        assert (caught.value.response.status_code, caught.value.server_message) == (503, "later")
    elif isinstance(caught.value, StorageApiError):
        assert caught.value.status == 503
    else:
        assert (caught.value.code, caught.value.message) == ("X", "later")
    assert call in {"look", "download"} or not person.done(call)


@pytest.mark.parametrize("call", ["send", "select"])
@pytest.mark.parametrize("fault", [{"action": "answer", "status": 503}, {"action": "lose_answer"}])
def test_a_client_that_tries_again_by_itself_gets_there(
    person: Person, call: str, fault: dict[str, Any]
) -> None:
    met = person.ask(call, **fault)
    getattr(person, call)()
    assert call == "select" or person.done(call)
    control = person.scene.sandbox.control_url
    assert httpx.get(f"{control}/holds/{met['id']}").json()["reached"] == 1


@pytest.mark.parametrize("call", ["look", "commit", "download", "upload", "insert"])
def test_an_answer_that_is_cut_is_a_broken_connection_after_the_work(person: Person, call: str) -> None:
    person.ask(call, action="cut")
    with pytest.raises(BROKEN, match="without sending complete message body"):
        getattr(person, call)()
    assert call in {"look", "download"} or person.done(call)


@pytest.mark.parametrize("call", ["commit", "upload", "insert"])
def test_a_request_that_is_cut_is_a_broken_connection_and_nothing_is_done(person: Person, call: str) -> None:
    person.ask(call, action="cut", side="request")
    with pytest.raises((*BROKEN, httpx.WriteError, httpx2.WriteError, httpx.ReadError, httpx2.ReadError)):
        getattr(person, call)()
    assert not person.done(call)


@pytest.mark.parametrize("call", ["commit", "upload", "insert"])
def test_a_lost_answer_is_a_broken_connection_after_the_work(person: Person, call: str) -> None:
    person.ask(call, action="lose_answer")
    with pytest.raises(BROKEN, match="without sending a response"):
        getattr(person, call)()
    assert person.done(call)


def test_an_image_that_is_truncated_looks_whole(person: Person) -> None:
    person.ask("download", action="truncate", after=100)
    assert person.download() == PHOTO[:100]
    assert person.download() == PHOTO


@pytest.mark.parametrize("call", ["look", "commit", "insert"])
def test_json_that_is_truncated_cannot_be_read(person: Person, call: str) -> None:
    person.ask(call, action="truncate", after=5)
    if call == "insert":
        assert isinstance(person.insert(), str), "postgrest gives what it cannot read as it came."
    else:
        with pytest.raises(json.JSONDecodeError):
            getattr(person, call)()
    assert call == "look" or person.done(call)


@pytest.mark.parametrize("call", ["look", "commit", "download", "upload", "select", "insert"])
def test_what_hangs_is_a_time_out_and_nothing_is_done(person: Person, call: str) -> None:
    person.ask(call, action="hang", times=None)
    person.supabase.options.httpx_client.timeout = 0.3
    set_client_factory(lambda: httpx2.Client(timeout=0.3))
    try:
        with pytest.raises((httpx.ReadTimeout, httpx2.ReadTimeout)):
            getattr(person, call)()
    finally:
        set_client_factory(default_client_factory)
    assert httpx.delete(f"{person.scene.sandbox.control_url}/faults").status_code == 204
    assert call in {"look", "download", "select"} or not person.done(call)


@pytest.mark.parametrize("call", ["commit", "send", "upload", "insert"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_held_goes_on_when_it_is_told_to(person: Person, call: str, when: str) -> None:
    control = person.scene.sandbox.control_url
    hold = person.ask(call, action="hold", when=when)
    with ThreadPoolExecutor() as pool:
        going = pool.submit(getattr(person, call))
        assert httpx.get(f"{control}/holds/{hold['id']}?wait=10", timeout=20).json()["reached"] == 1
        assert (going.done(), person.done(call)) == (False, when == "after")
        assert httpx.post(f"{control}/holds/{hold['id']}/release").json()["released"]
        going.result(timeout=10)
    assert person.done(call)


def seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


@pytest.mark.parametrize("call", ["look", "download", "select", "insert"])
def test_a_delay_is_waited_for(person: Person, call: str) -> None:
    person.ask(call, action="delay", seconds=0.3)
    assert seconds(getattr(person, call)) >= 0.3


@pytest.mark.parametrize("call", ["look", "download", "select"])
def test_a_round_trip_is_waited_for_and_once_more_on_a_new_connection(person: Person, call: str) -> None:
    person.ask(call, action="round_trip", seconds=0.2, times=None)
    assert seconds(getattr(person, call)) >= 0.4
    assert seconds(getattr(person, call)) >= 0.2


@pytest.mark.parametrize("call", ["send", "upload", "download"])
def test_a_rate_holds_in_both_directions(person: Person, call: str) -> None:
    person.ask(call, action="rate", bytes_per_second=len(PHOTO) * 4)
    assert seconds(getattr(person, call)) >= 0.2
