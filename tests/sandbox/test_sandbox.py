"""The sandbox as a whole: all services in one, kept or thrown away, and nothing left behind."""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from realtime import AsyncRealtimeClient, PostgresChangesPayload, RealtimePostgresChangesListenEvent
from supabase import create_client
from supabase.lib.client_options import SyncClientOptions
from websockets.sync.client import connect

from watcher.sandbox import Postgres, Sandbox
from watcher.sandbox.faults import Answer
from watcher.sandbox.programs import PostgresError
from watcher.sandbox.realtime.timing import Timing

# huggingface_hub hands its LFS bodies to httpx2 by the old name of the argument.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

QUICK = Timing(cold=0.02, poll_idle=0.02, poll_unmatched=0.02)
SCHEMA = """
create table public.notes (id int primary key, user_id uuid references auth.users on delete cascade);
alter publication supabase_realtime add table public.notes;
grant all on public.notes to service_role;
"""
PASSWORD = "correct horse"
RUN = """
import time
from watcher.sandbox import Sandbox
sandbox = Sandbox()
sandbox.start()
print(sandbox._postgres._pid(), sandbox._postgres.folder, flush=True)
time.sleep(60)
"""


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder that others may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def migrate(sandbox: Sandbox) -> None:
    with psycopg.connect(sandbox.db_url) as connection:
        connection.execute(SCHEMA.encode())


def anybody(sandbox: Sandbox, http: httpx.Client) -> Any:
    options = SyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
    return create_client(sandbox.supabase_url, sandbox.keys.secret, options)


def test_all_services_speak_of_the_same_project(postgres: Postgres) -> None:
    with Sandbox(postgres=postgres) as sandbox, httpx.Client() as http:
        migrate(sandbox)
        client = anybody(sandbox, http)
        user = client.auth.admin.create_user({"email": "a@example.com", "password": PASSWORD}).user
        client.table("notes").insert({"id": 1, "user_id": user.id}).execute()
        client.storage.create_bucket("images")
        client.storage.from_("images").upload("a/b.jpg", b"bytes", {"content-type": "image/jpeg"})
        assert client.storage.from_("images").download("a/b.jpg") == b"bytes"
        client.auth.admin.delete_user(user.id)
        assert client.table("notes").select("*").execute().data == []
        whoami = HfApi(endpoint=sandbox.hub_url, token=sandbox.hub_token).whoami()
        assert whoami["name"] == sandbox.hub_user
        assert httpx.get(f"{sandbox.control_url}/faults").json() == []


async def test_realtime_tells_what_rest_wrote(postgres: Postgres) -> None:
    sandbox = Sandbox(postgres=postgres, timing=QUICK)
    with sandbox:
        migrate(sandbox)
        url = f"{sandbox.supabase_url}/realtime/v1"
        realtime = AsyncRealtimeClient(url, sandbox.keys.secret, auto_reconnect=False)
        heard: asyncio.Queue[PostgresChangesPayload] = asyncio.Queue()
        ready = asyncio.Event()
        channel = realtime.channel("notes")
        channel.on_postgres_changes(
            RealtimePostgresChangesListenEvent.Insert, heard.put_nowait, table="notes", schema="public"
        )
        channel.on_system(lambda _: ready.set())
        await channel.subscribe()
        async with asyncio.timeout(10), httpx.AsyncClient(base_url=sandbox.supabase_url) as http:
            await ready.wait()
            headers = {"apikey": sandbox.keys.secret}
            assert (await http.post("/rest/v1/notes", json={"id": 7}, headers=headers)).status_code == 201
            event = await heard.get()
        assert event["data"]["record"] == {"id": 7, "user_id": None}
        await realtime.close()


def test_what_is_kept_is_there_again_under_the_same_keys(data: Path) -> None:
    with Sandbox(data) as sandbox, httpx.Client() as http:
        migrate(sandbox)
        first = sandbox.settings()
        client = anybody(sandbox, http)
        client.table("notes").insert({"id": 7}).execute()
        client.storage.create_bucket("images")
        client.storage.from_("images").upload("a.jpg", b"bytes", {"content-type": "image/jpeg"})
        HfApi(endpoint=sandbox.hub_url, token=sandbox.hub_token).create_repo("sandbox/kept", private=True)
    with sandbox, httpx.Client() as http:
        client = anybody(sandbox, http)
        assert client.table("notes").select("id").execute().data == [{"id": 7}]
        assert client.storage.from_("images").download("a.jpg") == b"bytes"
        hub = HfApi(endpoint=sandbox.hub_url, token=sandbox.hub_token)
        assert hub.repo_exists("sandbox/kept")
        again = sandbox.settings()
    for name in ("SUPABASE_SECRET_KEY", "SUPABASE_PUBLISHABLE_KEY", "HF_TOKEN", "HF_NAMESPACE"):
        assert again[name] == first[name]


def test_a_database_that_is_given_is_used_as_it_is_and_stays(postgres: Postgres) -> None:
    postgres.create("given")
    with psycopg.connect(postgres.dsn("given", "postgres")) as connection:
        connection.execute("create table public.mine (id int); grant all on public.mine to service_role")
    with Sandbox(postgres=postgres, database="given") as sandbox:
        folder = sandbox._folder
        answer = httpx.get(f"{sandbox.supabase_url}/rest/v1/mine", headers={"apikey": sandbox.keys.secret})
        assert answer.json() == []
    assert folder is not None
    assert not folder.exists()
    with psycopg.connect(postgres.dsn("given", "postgres")) as connection:
        connection.execute("select from public.mine")
    postgres.drop("given")


def test_the_migrating_role_is_no_superuser(postgres: Postgres) -> None:
    with Sandbox(postgres=postgres) as sandbox:
        for url, superuser in ((sandbox.db_url, "off"), (sandbox.admin_db_url, "on")):
            with psycopg.connect(url) as connection:
                assert connection.info.parameter_status("is_superuser") == superuser


def test_a_fault_meets_the_service_it_is_meant_for(postgres: Postgres) -> None:
    with Sandbox(postgres=postgres) as sandbox:
        sandbox.faults.add(Answer(503), service="rest")
        headers = {"apikey": sandbox.keys.publishable}
        statuses = [
            httpx.get(f"{sandbox.supabase_url}/{path}", headers=headers).status_code
            for path in ("auth/v1/health", "rest/v1/none", "rest/v1/none")
        ]
    assert statuses == [200, 503, 404]


def test_requests_and_bytes_are_counted_by_route_and_caller_here_and_for_another_process(
    postgres: Postgres, hub_client: None
) -> None:
    with Sandbox(postgres=postgres) as sandbox, httpx.Client() as http:
        migrate(sandbox)
        service, url, keys = anybody(sandbox, http), sandbox.supabase_url, sandbox.keys
        service.storage.create_bucket("images")
        service.storage.from_("images").upload("a/b.jpg", b"x" * 1000, {"content-type": "image/jpeg"})
        user = keys.sign({"sub": str(uuid4()), "role": "authenticated", "exp": 4e9})
        hub = HfApi(endpoint=sandbox.hub_url, token=sandbox.hub_token)
        hub.create_repo("sandbox/a")
        sandbox.faults.reset()

        for _ in range(2):
            service.storage.from_("images").download("a/b.jpg")
        body = b'{"id": 7}'
        as_json = {"content-type": "application/json"}
        http.post(f"{url}/rest/v1/notes", content=body, headers=as_json | {"apikey": keys.secret})
        http.get(f"{url}/rest/v1/notes", headers={"apikey": keys.publishable})
        headers = {"apikey": keys.publishable, "authorization": f"Bearer {user}"}
        refused = http.get(f"{url}/rest/v1/notes", headers=headers)
        with connect(
            f"{url.replace('http', 'ws')}/realtime/v1/websocket?apikey={keys.publishable}&vsn=1.0.0"
        ) as socket:
            socket.send('{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}')
            beat = socket.recv()
        hub.create_commit("sandbox/a", [CommitOperationAdd("a.bin", b"x" * 2000)], commit_message="x")
        HfApi(endpoint=sandbox.hub_url, token=False).model_info("sandbox/a")

        counts = {(one.method, one.route, one.caller): one for one in sandbox.faults.counts()}
        told = httpx.get(f"{sandbox.control_url}/counts").json()
    assert told == [asdict(one) for one in counts.values()]

    def counted(method: str, route: str, caller: str) -> tuple[int, int, int]:
        one = counts[method, route, caller]
        return one.requests, one.bytes_in, one.bytes_out

    notes = "/rest/v1/notes"
    assert counted("GET", "/storage/v1/object/{path}", "service_role") == (2, 0, 2000)
    assert counted("POST", notes, "service_role") == (1, len(body), 0)
    assert counted("GET", notes, "authenticated") == (1, 0, len(refused.content))
    assert counted("GET", notes, "anon")[:2] == (1, 0)
    assert counted("WEBSOCKET", "/realtime/v1/websocket", "anon") == (1, 62, len(beat))
    assert counted("PUT", "/_lfs/put/{oid}", "nobody") == (1, 2000, 0)
    assert counted("POST", "/api/models/{repo}/commit/{revision}", "token")[0] == 1
    assert counted("GET", "/api/models/{repo}", "nobody")[0] == 1
    assert len(counts) == 10


def test_postgres_may_be_taken_away_over_the_control_port() -> None:
    with Sandbox() as sandbox, httpx.Client(base_url=sandbox.control_url, timeout=20) as control:
        url, headers = f"{sandbox.supabase_url}/rest/v1/none", {"apikey": sandbox.keys.publishable}
        assert httpx.get(url, headers=headers).status_code == 404
        assert control.post("/actions/postgres_halt", json={"immediate": True}).is_success
        assert httpx.get(url, headers=headers).status_code == 503
        assert control.post("/actions/postgres_start", json={}).is_success
        assert httpx.get(url, headers=headers).status_code == 404


def test_a_port_that_is_taken_leaves_nothing_running(postgres: Postgres) -> None:
    with Sandbox(postgres=postgres) as first:
        taken = int(first.supabase_url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            Sandbox(postgres=postgres, supabase_port=taken).start()
    with psycopg.connect(postgres.dsn()) as connection:
        query = "select count(*) from pg_database where datname like 'sandbox%'"
        assert connection.execute(query).fetchone() == (0,)


def test_a_sandbox_that_is_killed_leaves_no_process_and_no_folder() -> None:
    with subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server, folder = process.stdout.readline().split()
        process.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (Path(folder).exists() or Path(f"/proc/{server}").exists()):
        time.sleep(0.02)
    assert not Path(folder).exists()
    assert not Path(f"/proc/{server}").exists()


def test_two_sandboxes_on_the_same_data_are_one_too_many(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.sandbox.postgres._PREDECESSOR_SECONDS", 0.1)
    with Sandbox(data), pytest.raises(PostgresError, match="Another sandbox"):
        Sandbox(data).start()
