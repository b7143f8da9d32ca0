"""PostgREST's answers, given to the real clients and to plain HTTP, with RLS decided by Postgres."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import postgrest
import psycopg
import pytest
from supabase import AsyncClientOptions, acreate_client, create_client
from supabase.lib.client_options import SyncClientOptions

from tests.sandbox.served import Project
from watcher.sandbox.keys import Keys

ANNA = "00000000-0000-4000-8000-00000000000a"
BERT = "00000000-0000-4000-8000-00000000000b"

SCHEMA = """
create table public.notes (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null default auth.uid(),
    title text not null check (length(title) < 20),
    tags text[] not null default '{}',
    data jsonb,
    rank int unique,
    created_at timestamptz not null default now()
);
alter table public.notes enable row level security;
create policy own on public.notes for all to authenticated
    using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
revoke all on public.notes from anon, authenticated, service_role;
grant select, delete on public.notes to authenticated;
grant insert (id, title, tags, data, rank, user_id), update (title, tags, data, rank) on public.notes
    to authenticated;
grant all on public.notes to service_role;

create table public.secrets (id int primary key);
alter table public.secrets enable row level security;

create table public.numbers (n int primary key, even boolean generated always as (n % 2 = 0) stored);
insert into public.numbers select generate_series(1, 1500);
grant select on public.numbers to anon, authenticated, service_role;

create function public.add(a int, b int default 10) returns int language sql immutable
    as 'select a + b';
create function public.claim(worker text, n int) returns setof public.notes language sql
    as 'select * from public.notes order by rank limit n';
create function public.nothing() returns void language sql as '';
create function public.one(wanted uuid) returns public.notes language sql stable
    as 'select * from public.notes where id = wanted';
create function public.pairs() returns table (key text, value int) language sql stable
    as $$ values ('a', 1), ('b', 2) $$;
create function public.letters() returns setof text language sql stable as $$ values ('a'), ('b') $$;
create function public.echo(jsonb) returns jsonb language sql immutable as 'select $1';
create function public.mixed(texts text[], flag boolean, at timestamptz default null) returns jsonb
    language sql stable as 'select jsonb_build_object(''texts'', texts, ''flag'', flag, ''at'', at)';
create function public.inserting() returns int language plpgsql volatile
    as $$ begin insert into public.secrets values (1); return 1; end $$;
create function public.lying() returns int language sql stable as 'select public.inserting()';
create function public.raising(code text) returns void language plpgsql as
    $$ begin raise exception 'no' using errcode = code, detail = 'why', hint = 'how'; end $$;
create function public.controlled() returns void language plpgsql as $$
begin
    raise sqlstate 'PGRST' using
        message = '{"code":"123","message":"Payment Required","details":"Quota exceeded"}',
        detail = '{"status":402,"headers":{"X-Powered-By":"Nerd Rage"}}';
end $$;
create function public.timeout() returns text language sql stable set statement_timeout = '77s'
    as $$ select current_setting('statement_timeout') $$;
create function public.sleepy() returns void language sql as 'select pg_sleep(5)';
create function public.told() returns jsonb language sql stable as $$
    select jsonb_build_object('method', current_setting('request.method'), 'path', current_setting('request.path'),
        'agent', current_setting('request.headers')::jsonb ->> 'user-agent', 'uid', auth.uid(),
        'claims', auth.jwt(), 'search_path', current_setting('search_path'), 'user', current_user)
$$;
create function public.shut() returns int language sql as 'select 1';
revoke execute on function public.shut() from public;
"""


@pytest.fixture(scope="module", autouse=True)
def schema(project: Project) -> None:
    project.sql(SCHEMA)


@pytest.fixture(autouse=True)
def empty(project: Project) -> Iterator[None]:
    yield
    with psycopg.connect(project.postgres.dsn(project.database)) as connection:
        connection.execute("truncate public.notes")


def token(project: Project, user: str, **claims: Any) -> str:
    return project.keys.sign({"role": "authenticated", "sub": user, "exp": 4000000000, **claims})


def as_user(project: Project, user: str = ANNA) -> httpx.Client:
    client = project.client(token=token(project, user))
    client.base_url = httpx.URL(f"{project.url}/rest/v1")
    return client


def as_service(project: Project) -> httpx.Client:
    client = project.service()
    client.base_url = httpx.URL(f"{project.url}/rest/v1")
    return client


def as_nobody(project: Project) -> httpx.Client:
    client = project.client()
    client.base_url = httpx.URL(f"{project.url}/rest/v1")
    return client


def insert(project: Project, *titles: str, user: str = ANNA) -> list[dict[str, Any]]:
    rows = [{"title": title, "rank": rank} for rank, title in enumerate(titles, 1 if user == ANNA else 101)]
    answer = as_user(project, user).post("/notes", json=rows, headers={"Prefer": "return=representation"})
    assert answer.status_code == 201, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def rows(answer: Any) -> list[dict[str, Any]]:
    """Return what a client got, whose types say less than we know."""
    found: list[dict[str, Any]] = answer.data
    return found


def titles(answer: httpx.Response) -> list[str]:
    assert answer.is_success, answer.text
    return [row["title"] for row in answer.json()]


async def test_the_async_client_writes_and_reads_its_own_rows_only(project: Project) -> None:
    insert(project, "bert's", user=BERT)
    async with httpx.AsyncClient() as http:
        options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        client = await acreate_client(project.url, project.keys.publishable, options)
        client.postgrest.auth(token(project, ANNA))
        notes = client.table("notes")
        new: dict[str, Any] = {"title": "first", "tags": ["a,b", "c"], "data": {"deep": [1]}}
        (inserted,) = rows(await notes.insert(new).execute())
        assert (inserted["user_id"], inserted["tags"]) == (ANNA, ["a,b", "c"])
        assert (await notes.select("title").execute()).data == [{"title": "first"}]
        assert (await notes.select("*", count=postgrest.CountMethod.exact).execute()).count == 1
        changed = await notes.update({"title": "second"}).eq("title", "first").execute()
        assert [row["title"] for row in rows(changed)] == ["second"]
        single = await notes.select("title,data->deep").eq("title", "second").single().execute()
        assert single.data == {"title": "second", "deep": [1]}
        assert await notes.select("*").eq("title", "none").maybe_single().execute() is None
        deleted = await notes.delete().eq("title", "second").execute()
        assert len(deleted.data) == 1


async def test_the_async_client_calls_functions_with_the_secret_key(project: Project) -> None:
    insert(project, "one", "two", "three")
    async with httpx.AsyncClient() as http:
        options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        client = await acreate_client(project.url, project.keys.secret, options)
        claimed = await client.rpc("claim", {"worker": "w", "n": 2}).execute()
        assert [row["title"] for row in rows(claimed)] == ["one", "two"]
        assert (await client.rpc("add", {"a": 1}).execute()).data == 11
        assert (await client.rpc("nothing", {}).execute()).data == []
        with pytest.raises(postgrest.APIError) as caught:
            await client.rpc("claim", {"n": 1}).execute()
        assert caught.value.code == "PGRST202"
        with pytest.raises(postgrest.APIError) as caught:
            await client.table("notes").select("*").single().execute()
        assert caught.value.code == "PGRST116"


def test_the_sync_client_reads_with_filters_and_order(project: Project) -> None:
    insert(project, "one", "two", "three")
    with httpx.Client() as http:
        options = SyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        client = create_client(project.url, project.keys.service_role_jwt, options)
        some = client.table("notes").select("title").in_("title", ["one", "three"]).order("rank", desc=True)
        assert some.execute().data == [{"title": "three"}, {"title": "one"}]
        either = client.table("notes").select("title").or_("rank.eq.1,and(rank.gt.1,title.like.t*o)")
        assert either.order("rank").execute().data == [{"title": "one"}, {"title": "two"}]
        uno = {"rank": 1, "title": "uno", "user_id": ANNA}
        (upserted,) = rows(client.table("notes").upsert(uno, on_conflict="rank").execute())
        assert upserted["title"] == "uno"
        page = client.table("notes").select("title").order("rank").range(1, 2)
        assert page.execute().data == [{"title": "two"}, {"title": "three"}]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("title=eq.a,b", ["a,b"]),
        ("title=neq.a,b", ["two", "three", "fo*r"]),
        ("rank=gt.2", ["three", "fo*r"]),
        ("rank=gte.2&rank=lt.4", ["two", "three"]),
        ("title=like.t*", ["two", "three"]),
        ("title=ilike.*O", ["two"]),
        ("title=match.^t.o", ["two"]),
        ('title=in.("a,b",two)', ["a,b", "two"]),
        ("title=in.()", []),
        ("title=not.in.(two,three)", ["a,b", "fo*r"]),
        ("rank=eq(any).{1,3}", ["a,b", "three"]),
        ("data=is.null", ["a,b", "two", "three", "fo*r"]),
        ("data=not.is.null", []),
        ("tags=cs.{}&rank=lte.1", ["a,b"]),
        ("or=(rank.eq.1,title.eq.two)", ["a,b", "two"]),
        ('or=(title.eq."a,b",rank.in.(3,4))', ["a,b", "three", "fo*r"]),
        ("and=(rank.gt.1,not.or(title.eq.two,rank.eq.4))", ["three"]),
        ("not.or=(rank.eq.1,rank.eq.2)", ["three", "fo*r"]),
        ("rank=lt.4&order=rank.desc&limit=2", ["three", "two"]),
        ("offset=3", ["fo*r"]),
        ("order=data.desc.nullslast,title.asc&limit=1", ["a,b"]),
        ("rank=isdistinct.1&limit=1", ["two"]),
    ],
)
def test_filters_select_what_they_say(project: Project, query: str, expected: list[str]) -> None:
    insert(project, "a,b", "two", "three", "fo*r")
    order = "" if "order" in query else "&order=rank"
    assert titles(as_user(project).get(f"/notes?select=title&{query}{order}")) == expected


def test_columns_are_selected_renamed_cast_and_taken_apart(project: Project) -> None:
    with as_user(project) as client:
        client.post("/notes", json={"title": "t", "rank": 7, "data": {"list": [{"name": "x"}]}})
        answer = client.get("/notes?select=name:title,rank::text,at:data->list->0->>name,data->list")
        assert answer.json() == [{"name": "t", "rank": "7", "at": "x", "list": [{"name": "x"}]}]
        filtered = client.get("/notes", params={"data->list->0->>name": "eq.x", "select": "rank"})
        assert filtered.json() == [{"rank": 7}]


def test_an_answer_says_which_rows_of_how_many_it_has(project: Project) -> None:
    insert(project, "one", "two", "three")
    with as_user(project) as client:
        exact = {"Prefer": "count=exact"}
        plain = client.get("/notes?limit=2")
        assert (plain.status_code, plain.headers["content-range"]) == (200, "0-1/*")
        assert plain.headers["content-type"] == "application/json; charset=utf-8"
        assert plain.headers["content-location"] == "/notes?limit=2"
        part = client.get("/notes?limit=2", headers=exact)
        assert (part.status_code, part.headers["content-range"]) == (206, "0-1/3")
        assert part.headers["preference-applied"] == "count=exact"
        ranged = client.get("/notes?order=rank", headers={**exact, "Range": "1-2"})
        assert (ranged.status_code, ranged.headers["content-range"]) == (206, "1-2/3")
        assert titles(ranged) == ["two", "three"]
        assert client.get("/notes", headers=exact).status_code == 200
        none = client.get("/notes?title=eq.x", headers=exact)
        assert (none.text, none.headers["content-range"]) == ("[]", "*/0")
        head = client.head("/notes", headers=exact)
        assert (head.status_code, head.content, head.headers["content-range"]) == (200, b"", "0-2/3")
        beyond = client.get("/notes?offset=4", headers=exact)
        assert (beyond.status_code, beyond.json()["code"]) == (416, "PGRST103")
        assert beyond.json()["details"] == "An offset of 4 was requested, but there are only 3 rows."


def test_at_most_a_thousand_rows_are_answered(project: Project) -> None:
    with as_nobody(project) as client:
        assert client.get("/numbers").headers["content-range"] == "0-999/*"
        assert client.get("/numbers?limit=1200").headers["content-range"] == "0-999/*"


def test_profiles_are_echoed_and_only_exposed_ones_accepted(project: Project) -> None:
    with as_nobody(project) as client:
        assert (
            client.get("/numbers", headers={"Accept-Profile": "public"}).headers["content-profile"]
            == "public"
        )
        refused = client.get("/numbers", headers={"Accept-Profile": "auth"})
        assert refused.status_code == 406
        assert refused.json() == {
            "code": "PGRST106",
            "details": None,
            "hint": "Only the following schemas are exposed: public, graphql_public",
            "message": "Invalid schema: auth",
        }


def test_users_see_their_own_rows_and_the_service_all(project: Project) -> None:
    insert(project, "anna's")
    insert(project, "bert's", user=BERT)
    assert titles(as_user(project).get("/notes")) == ["anna's"]
    assert titles(as_user(project, BERT).get("/notes")) == ["bert's"]
    assert titles(as_service(project).get("/notes?order=title")) == ["anna's", "bert's"]
    assert as_user(project).patch("/notes?title=eq.bert's", json={"title": "x"}).status_code == 204
    assert titles(as_user(project, BERT).get("/notes")) == ["bert's"]


def test_a_missing_privilege_is_401_for_anon_and_403_for_users(project: Project) -> None:
    for client, status in ((as_nobody(project), 401), (as_user(project), 403)):
        answer = client.get("/secrets")
        assert answer.status_code == status
        assert answer.json()["code"] == "42501"
        assert answer.json()["message"] == "permission denied for table secrets"
        assert answer.headers["proxy-status"] == "PostgREST; error=42501"
        assert ("www-authenticate" in answer.headers) is (status == 401)
    assert as_user(project).post("/rpc/shut", json={}).status_code == 403


def test_a_row_that_policy_or_column_grants_forbid_is_refused(project: Project) -> None:
    with as_user(project) as client:
        forged = client.post("/notes", json={"title": "x", "user_id": BERT})
        assert forged.status_code == 403
        assert forged.json()["message"] == 'new row violates row-level security policy for table "notes"'
        column = client.post("/notes", json={"title": "x", "created_at": "2020-01-01"})
        assert (column.status_code, column.json()["code"]) == (403, "42501")


def test_an_old_project_opens_its_tables_and_rls_still_closes_them(old_project: Project) -> None:
    old_project.sql(
        "create table public.open (id int); insert into public.open values (1);"
        "create table public.closed (id int); alter table public.closed enable row level security;"
        "insert into public.closed values (1);"
    )
    with as_nobody(old_project) as client:
        assert client.get("/open").json() == [{"id": 1}]
        assert client.get("/closed").json() == []
        assert client.post("/open", json={"id": 2}).status_code == 201


def test_a_new_project_opens_no_table_by_itself(project: Project) -> None:
    project.sql("create table public.fresh (id int)")
    assert as_nobody(project).get("/fresh").status_code == 401
    assert as_service(project).get("/fresh").status_code == 403


def test_inserts_answer_what_is_preferred(project: Project) -> None:
    with as_user(project) as client:
        minimal = client.post("/notes", json={"title": "a"})
        assert (minimal.status_code, minimal.content) == (201, b"")
        assert "content-type" not in minimal.headers
        assert minimal.headers["content-range"] == "*/*"
        whole = {"Prefer": "return=representation, count=exact"}
        many = client.post("/notes?select=title", json=[{"title": "b"}, {"title": "c"}], headers=whole)
        assert many.json() == [{"title": "b"}, {"title": "c"}]
        assert many.headers["content-range"] == "*/2"
        assert many.headers["preference-applied"] == "return=representation, count=exact"
        single = client.post(
            "/notes?select=title",
            json={"title": "d"},
            headers={**whole, "Accept": "application/vnd.pgrst.object+json"},
        )
        assert single.json() == {"title": "d"}
        assert single.headers["content-type"] == "application/vnd.pgrst.object+json; charset=utf-8"
        assert client.post("/notes", json=[]).status_code == 201


def test_only_named_columns_are_written_and_the_others_default(project: Project) -> None:
    whole = {"Prefer": "return=representation"}
    with as_service(project) as client:
        named = client.post(
            '/notes?columns="title","user_id"',
            json=[{"title": "a", "user_id": ANNA, "rank": 5}],
            headers=whole,
        )
        assert named.json()[0]["rank"] is None
        assert named.json()[0]["tags"] == []
        uneven = [{"title": "b", "user_id": ANNA, "tags": ["x"]}, {"title": "c", "user_id": ANNA}]
        assert client.post("/notes", json=uneven).json()["message"] == "All object keys must match"
        columns = "/notes?columns=title,user_id,tags"
        assert client.post(columns, json=uneven).json()["code"] == "23502"
        filled = client.post(
            columns, json=uneven, headers={"Prefer": "return=representation, missing=default"}
        )
        assert [row["tags"] for row in filled.json()] == [["x"], []]


def test_upserts_merge_or_ignore(project: Project) -> None:
    row = {"title": "old", "rank": 1, "user_id": ANNA}
    merge = {"Prefer": "resolution=merge-duplicates, return=representation"}
    with as_service(project) as client:
        assert client.post("/notes?on_conflict=rank", json=row, headers=merge).status_code == 201
        again = client.post("/notes?on_conflict=rank", json={**row, "title": "new"}, headers=merge)
        assert (again.status_code, again.json()[0]["title"]) == (200, "new")
        ignore = {"Prefer": "resolution=ignore-duplicates, return=representation"}
        ignored = client.post("/notes?on_conflict=rank", json=row, headers=ignore)
        assert (ignored.status_code, ignored.json()) == (201, [])
        assert client.post("/notes", json=row).status_code == 409


def test_updates_and_deletes_answer_what_they_changed(project: Project) -> None:
    insert(project, "one", "two", "three")
    whole = {"Prefer": "return=representation"}
    with as_user(project) as client:
        quiet = client.patch("/notes?rank=lt.3", json={"title": "x"})
        assert (quiet.status_code, quiet.content, quiet.headers["content-range"]) == (204, b"", "0-1/*")
        loud = client.patch("/notes?rank=eq.3&select=title,rank", json={"title": "y"}, headers=whole)
        assert (loud.status_code, loud.json()) == (200, [{"title": "y", "rank": 3}])
        nobody = client.patch("/notes?rank=eq.9", json={"title": "y"}, headers=whole)
        assert (nobody.status_code, nobody.json(), nobody.headers["content-range"]) == (200, [], "*/*")
        empty = client.patch("/notes?rank=eq.3", json={}, headers=whole)
        assert (empty.status_code, empty.json()) == (200, [])
        deleted = client.delete("/notes?rank=lt.3&select=rank", headers=whole)
        assert sorted(row["rank"] for row in deleted.json()) == [1, 2]
        assert deleted.headers["content-range"] == "*/*"
        assert client.delete("/notes?rank=eq.3").status_code == 204
        assert titles(client.get("/notes")) == []


def test_what_must_not_be_written_is_undone(project: Project) -> None:
    insert(project, "one", "two")
    single = {"Prefer": "return=representation", "Accept": "application/vnd.pgrst.object+json"}
    strict = {"Prefer": "handling=strict, max-affected=1"}
    with as_user(project) as client:
        assert (
            client.patch("/notes?rank=gt.0", json={"title": "x"}, headers=single).json()["code"] == "PGRST116"
        )
        assert client.delete("/notes?rank=gt.0", headers=strict).json()["code"] == "PGRST124"
        assert (
            client.patch("/notes", json={"title": "x"}).json()["message"] == "UPDATE requires a WHERE clause"
        )
        assert client.delete("/notes").json()["code"] == "21000"
        assert titles(client.get("/notes?order=rank")) == ["one", "two"]


def test_functions_answer_in_the_shape_they_return(project: Project) -> None:
    (note,) = insert(project, "one")
    with as_user(project) as client:
        assert client.post("/rpc/add", json={"a": 1, "b": 2}).json() == 3
        assert client.post("/rpc/add", json={"a": 1, "b": None}).text == "null"
        assert client.post("/rpc/pairs").json() == [{"key": "a", "value": 1}, {"key": "b", "value": 2}]
        assert client.post("/rpc/pairs?key=eq.b&select=value").json() == [{"value": 2}]
        assert client.post("/rpc/letters").json() == ["a", "b"]
        assert client.post("/rpc/echo", json={"any": [1]}).json() == {"any": [1]}
        void = client.post("/rpc/nothing", json={})
        assert (void.status_code, void.content) == (204, b"")
        assert client.post("/rpc/one", json={"wanted": note["id"]}).json() == note
        absent = client.post("/rpc/one", json={"wanted": ANNA}).json()
        assert set(absent) == set(note)
        assert set(absent.values()) == {None}


def test_arguments_have_their_declared_types(project: Project) -> None:
    given = {"texts": ["a", 'b"c'], "flag": True, "at": "2026-01-02T03:04:05Z"}
    with as_user(project) as client:
        posted = client.post("/rpc/mixed", json=given).json()
        assert posted == {"texts": ["a", 'b"c'], "flag": True, "at": "2026-01-02T03:04:05+00:00"}
        got = client.get("/rpc/mixed", params={"texts": "{a,b}", "flag": "false"}).json()
        assert got == {"texts": ["a", "b"], "flag": False, "at": None}
        assert client.post("/rpc/mixed", json={**given, "at": "later"}).json()["code"] == "22007"


def test_a_single_object_is_asked_of_a_set(project: Project) -> None:
    insert(project, "one", "two")
    single = {"Accept": "application/vnd.pgrst.object+json"}
    with as_user(project) as client:
        one = client.post("/rpc/claim", json={"worker": "w", "n": 1}, headers=single)
        assert one.json()["title"] == "one"
        two = client.post("/rpc/claim", json={"worker": "w", "n": 2}, headers=single)
        assert two.status_code == 406
        assert two.json() == {
            "code": "PGRST116",
            "details": "The result contains 2 rows",
            "hint": None,
            "message": "Cannot coerce the result to a single JSON object",
        }


def test_a_function_is_found_by_its_arguments_or_not_at_all(project: Project) -> None:
    with as_service(project) as client:
        wrong = client.post("/rpc/claim", json={"worker": "w", "m": 1})
        assert wrong.status_code == 404
        assert wrong.json() == {
            "code": "PGRST202",
            "details": "Searched for the function public.claim with parameters m, worker or with a single unnamed"
            " json/jsonb parameter, but no matches were found in the schema cache.",
            "hint": "Perhaps you meant to call the function public.claim(n, worker)",
            "message": "Could not find the function public.claim(m, worker) in the schema cache",
        }
        missing = client.post("/rpc/clam", json={})
        assert (
            missing.json()["message"]
            == "Could not find the function public.clam without parameters in the schema cache"
        )
        assert missing.json()["hint"] == "Perhaps you meant to call the function public.claim"
        assert client.post("/rpc/claim", json={"n": 1}).status_code == 404


def test_what_may_not_write_does_not(project: Project) -> None:
    with as_service(project) as client:
        for answer in (client.post("/rpc/lying"), client.get("/rpc/inserting")):
            assert (answer.status_code, answer.json()["code"]) == (405, "25006")
        assert client.put("/rpc/add", json={}).json()["code"] == "PGRST101"


def test_a_function_is_told_who_calls_and_how(project: Project) -> None:
    with as_user(project) as client:
        told = client.post("/rpc/told", headers={"User-Agent": "test"}).json()
    assert told["claims"]["sub"] == ANNA
    told.pop("claims")
    assert told == {
        "method": "POST",
        "path": "/rpc/told",
        "agent": "test",
        "uid": ANNA,
        "user": "authenticated",
        "search_path": '"public", "public", "extensions"',
    }
    assert as_nobody(project).post("/rpc/told").json()["claims"]["role"] == "anon"


def test_time_limits_are_the_roles_or_the_functions(project: Project) -> None:
    assert as_user(project).post("/rpc/timeout").json() == "77s"
    with as_nobody(project) as client:
        started = time.monotonic()
        slow = client.post("/rpc/sleepy", timeout=10)
    assert 2.5 < time.monotonic() - started < 4.5
    assert (slow.status_code, slow.json()["code"]) == (500, "57014")


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("P0001", 400),
        ("P0002", 500),
        ("23514", 400),
        ("40001", 500),
        ("55P03", 500),
        ("53300", 503),
        ("PT418", 418),
    ],
)
def test_a_raised_state_becomes_a_status(project: Project, state: str, status: int) -> None:
    answer = as_user(project).post("/rpc/raising", json={"code": state})
    assert answer.status_code == status
    assert answer.json() == {"code": state, "details": "why", "hint": "how", "message": "no"}
    assert ("retry-after" in answer.headers) is (status == 503)


def test_a_function_may_spell_out_its_answer(project: Project) -> None:
    answer = as_user(project).post("/rpc/controlled")
    assert (answer.status_code, answer.headers["x-powered-by"]) == (402, "Nerd Rage")
    assert answer.json() == {
        "code": "123",
        "details": "Quota exceeded",
        "hint": None,
        "message": "Payment Required",
    }


def test_bad_requests_are_refused_with_their_codes(project: Project) -> None:
    insert(project, "taken")
    with as_user(project) as client:

        def code(answer: httpx.Response) -> tuple[int, str]:
            return answer.status_code, answer.json()["code"]

        assert code(client.get("/notse")) == (404, "PGRST205")
        assert client.get("/notse").json()["hint"] == "Perhaps you meant the table 'public.notes'"
        assert code(client.get("/notes?nocol=eq.1")) == (400, "42703")
        assert client.get("/notes?nocol=eq.1").json()["message"] == "column notes.nocol does not exist"
        assert code(client.get("/notes?id=eq.x")) == (400, "22P02")
        assert code(client.get("/notes?id=x")) == (400, "PGRST100")
        assert code(client.get("/notes?id=eq.%00")) == (400, "22021")
        assert code(client.get("/notes?limit=-1")) == (416, "PGRST103")
        assert code(client.get("/notes?select=*,users(*)")) == (400, "PGRST200")
        assert code(client.get("/notes", headers={"Accept": "image/png"})) == (406, "PGRST107")
        single = {"Accept": "application/vnd.pgrst.object+json"}
        assert code(client.get("/notes?rank=eq.9", headers=single)) == (406, "PGRST116")
        assert code(client.post("/notes", json={"nocol": 1})) == (400, "PGRST204")
        assert code(client.post("/notes", content=b"{")) == (400, "PGRST102")
        assert code(client.post("/notes", json={"title": "x" * 20})) == (400, "23514")
        assert code(client.post("/notes", json={"title": "x", "rank": 1})) == (409, "23505")
        assert code(client.put("/notes?id=eq.1", json={})) == (405, "PGRST117")
        assert code(client.get("/a/b")) == (404, "PGRST125")
        strict = {"Prefer": "handling=strict, count=some"}
        assert code(client.get("/notes", headers=strict)) == (400, "PGRST122")


def test_values_cannot_become_sql(project: Project) -> None:
    insert(project, "one")
    nasty = "x'; drop table public.notes; --%s{}"
    with as_user(project) as client:
        for query in ({"title": f"eq.{nasty}"}, {nasty: "eq.1"}, {"order": nasty}, {"select": nasty}):
            client.get("/notes", params=query)
        client.get("/notes", params={"select": 'title::text"'})
        assert client.post("/notes", json={nasty: 1}).json()["code"] == "PGRST204"
        assert client.post("/notes", json={"title": nasty[:19]}).status_code == 201
        assert sorted(titles(client.get("/notes"))) == ["one", nasty[:19]]


def test_tokens_are_checked(project: Project) -> None:
    def refusal(token: str) -> tuple[int, dict[str, Any], str]:
        answer = project.client(token=token).get("/rest/v1/numbers?limit=1")
        return answer.status_code, answer.json(), answer.headers.get("www-authenticate", "")

    status, body, challenge = refusal(token(project, ANNA, exp=1000))
    assert (status, body) == (
        401,
        {"code": "PGRST303", "details": None, "hint": None, "message": "JWT expired"},
    )
    assert challenge == 'Bearer error="invalid_token", error_description="JWT expired"'
    assert refusal(token(project, ANNA, iat=3900000000))[1]["message"] == "JWT issued at future"
    assert refusal("nonsense")[1]["message"] == "Expected 3 parts in JWT; got 1"
    assert refusal("a.b.c")[1]["message"] == "JWT cryptographic operation failed"
    forged = Keys("another secret that is at least 32 bytes").sign({"role": "service_role"})
    assert refusal(forged)[1]["code"] == "PGRST301"
    assert refusal(project.keys.sign({"role": "wizard"}))[:2] == (
        401,
        {"code": "22023", "details": None, "hint": None, "message": 'role "wizard" does not exist'},
    )
    assert refusal(project.keys.sign({"role": "supabase_admin"}))[0] == 403
    assert project.client(token=project.keys.sign({})).get("/rest/v1/numbers?limit=1").json()[0]["n"] == 1


def test_numbers_pass_through_unharmed(project: Project) -> None:
    project.sql(
        "create table public.exact (big int8, money numeric); grant all on public.exact to service_role"
    )
    body = '{"big": 9007199254740993, "money": 1.50}'
    with as_service(project) as client:
        headers = {"Prefer": "return=representation", "Content-Type": "application/json"}
        answer = client.post("/exact", content=body, headers=headers)
        assert json.loads(answer.text, parse_float=str) == [{"big": 9007199254740993, "money": "1.50"}]


def test_it_says_when_postgres_is_away_and_goes_on_when_it_is_back(project: Project) -> None:
    with as_nobody(project) as client:
        assert client.get("/numbers?limit=1").status_code == 200
        project.postgres.halt(immediate=True)
        try:
            down = client.get("/numbers?limit=1")
            assert (down.status_code, down.json()["code"]) == (503, "PGRST000")
            assert down.headers["retry-after"] == "1"
        finally:
            project.postgres.start()
        assert client.get("/numbers?limit=1").status_code == 200


def test_a_connection_that_postgres_ended_is_replaced(project: Project) -> None:
    with as_nobody(project) as client:
        for _ in range(20):
            assert client.get("/numbers?limit=1").status_code == 200
            project.ask(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                " where datname = current_database() and usename = 'authenticator'"
            )
            assert client.get("/numbers?limit=1").status_code == 200


def test_a_migration_is_seen_by_connections_that_knew_what_was_before(project: Project) -> None:
    project.sql("""
        create table public.shape (a int);
        insert into public.shape values (1);
        grant all on public.shape to service_role;
        create function public.shaped() returns int language sql as 'select 1';
    """)
    with as_service(project) as client:
        for _ in range(10):
            assert client.get("/shape").json() == [{"a": 1}]
            assert client.post("/rpc/shaped", json={}).json() == 1
        project.sql("""
            alter table public.shape add b int default 2;
            drop function public.shaped;
            create function public.shaped(n int default 3) returns setof int language sql as 'select n';
        """)
        assert client.get("/shape").json() == [{"a": 1, "b": 2}]
        assert client.post("/rpc/shaped", json={"n": 4}).json() == [4]


def test_a_token_that_was_good_expires() -> None:
    keys, expires = Keys(), int(time.time()) + 2  # noqa: TID251 - an expiry is a time of day
    good = keys.sign({"role": "anon", "exp": expires})
    assert keys.verify(good) == keys.verify(good) == {"role": "anon", "exp": expires}
    time.sleep(2)
    with pytest.raises(jwt.ExpiredSignatureError):
        keys.verify(good)
    assert keys.verify(good, leeway=30)["exp"] == expires
