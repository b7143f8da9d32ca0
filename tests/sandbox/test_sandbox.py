"""The sandbox as a whole: all services on one project, temporary or kept, with nothing left behind."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from huggingface_hub import HfApi
from realtime import AsyncRealtimeClient, PostgresChangesPayload, RealtimePostgresChangesListenEvent
from supabase import create_client
from supabase.lib.client_options import SyncClientOptions

from tests.sandbox.project import PATIENCE, QUICK
from watcher.sandbox import Postgres, Sandbox
from watcher.sandbox.faults import Answer

SCHEMA = """
create table public.notes (id int primary key, user_id uuid references auth.users on delete cascade);
alter publication supabase_realtime add table public.notes;
grant all on public.notes to service_role;
"""
PASSWORD = "correct horse"


def migrate(sandbox: Sandbox) -> None:
    with psycopg.connect(sandbox.db_url) as connection:
        connection.execute(SCHEMA.encode())


def service(sandbox: Sandbox, http: httpx.Client) -> Any:
    options = SyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
    return create_client(sandbox.supabase_url, sandbox.keys.secret, options)


def test_all_services_share_one_project(postgres: Postgres) -> None:
    with Sandbox(postgres=postgres) as sandbox, httpx.Client() as http:
        migrate(sandbox)
        client = service(sandbox, http)
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


async def test_realtime_sends_what_rest_wrote(postgres: Postgres) -> None:
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
        async with asyncio.timeout(PATIENCE), httpx.AsyncClient(base_url=sandbox.supabase_url) as http:
            await ready.wait()
            headers = {"apikey": sandbox.keys.secret}
            assert (await http.post("/rest/v1/notes", json={"id": 7}, headers=headers)).status_code == 201
            event = await heard.get()
        assert event["data"]["record"] == {"id": 7, "user_id": None}
        await realtime.close()


def test_a_kept_sandbox_has_its_data_and_keys_again(data: Path) -> None:
    with Sandbox(data) as sandbox, httpx.Client() as http:
        migrate(sandbox)
        first = sandbox.settings()
        client = service(sandbox, http)
        client.table("notes").insert({"id": 7}).execute()
        client.storage.create_bucket("images")
        client.storage.from_("images").upload("a.jpg", b"bytes", {"content-type": "image/jpeg"})
        HfApi(endpoint=sandbox.hub_url, token=sandbox.hub_token).create_repo("sandbox/kept", private=True)
    with sandbox, httpx.Client() as http:
        client = service(sandbox, http)
        assert client.table("notes").select("id").execute().data == [{"id": 7}]
        assert client.storage.from_("images").download("a.jpg") == b"bytes"
        hub = HfApi(endpoint=sandbox.hub_url, token=sandbox.hub_token)
        assert hub.repo_exists("sandbox/kept")
        again = sandbox.settings()
    for name in ("SUPABASE_SECRET_KEY", "SUPABASE_PUBLISHABLE_KEY", "HF_TOKEN", "HF_NAMESPACE"):
        assert again[name] == first[name]


def test_a_given_database_is_used_as_it_is_and_not_dropped(postgres: Postgres) -> None:
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


def test_a_fault_affects_its_service_alone(postgres: Postgres) -> None:
    with Sandbox(postgres=postgres) as sandbox:
        sandbox.faults.add(Answer(503), service="rest")
        headers = {"apikey": sandbox.keys.publishable}
        statuses = [
            httpx.get(f"{sandbox.supabase_url}/{path}", headers=headers).status_code
            for path in ("auth/v1/health", "rest/v1/none", "rest/v1/none")
        ]
    assert statuses == [200, 503, 404]


def test_postgres_can_be_stopped_over_the_control_port() -> None:
    with Sandbox() as sandbox, httpx.Client(base_url=sandbox.control_url, timeout=PATIENCE) as control:
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
