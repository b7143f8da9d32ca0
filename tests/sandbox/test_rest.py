"""PostgREST, asked by the real clients and by plain HTTP: what it answers, and with what it refuses.

The status, code, message, details and hint of each refusal are those of PostgREST 14.5, by its source, its tests and its
documentation; the texts of SQL errors are Postgres's. There was no PostgREST to record.

Not tested are PGRST002 and PGRST003: the sandbox has no schema cache, and 10 s is too long to wait for a connection.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import ANY

import httpx
import psycopg
import pytest
from postgrest import APIError, AsyncPostgrestClient, CountMethod
from supabase import AsyncClientOptions, acreate_client, create_client
from supabase.lib.client_options import SyncClientOptions

from tests.sandbox.project import FOREIGN, NEVER, PATIENCE, Project
from watcher.sandbox.faults import Answer
from watcher.sandbox.keys import Keys

ANNA = "00000000-0000-4000-8000-00000000000a"
BERT = "00000000-0000-4000-8000-00000000000b"

SCHEMA = """
create table public.secrets (id int primary key);
alter table public.secrets enable row level security;

create table public.notes (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null default auth.uid(),
    title text not null check (length(title) < 20),
    tags text[] not null default '{}',
    data jsonb,
    rank int unique,
    secret int references public.secrets,
    created_at timestamptz not null default now()
);
alter table public.notes enable row level security;
create policy own on public.notes for all to authenticated
    using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
revoke all on public.notes from anon, authenticated, service_role;
grant select, delete on public.notes to authenticated;
grant insert (id, title, tags, data, rank, secret, user_id), update (title, tags, data, rank) on public.notes
    to authenticated;
grant all on public.notes to service_role;

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
create function public.time_limit() returns text language sql stable
    as $$ select current_setting('statement_timeout') $$;
create function public.own_time_limit() returns text language sql stable set statement_timeout = '77s'
    as $$ select current_setting('statement_timeout') $$;
create function public.slow() returns void language sql set statement_timeout = '50ms' as 'select pg_sleep(60)';
create function public.twice(a int) returns int language sql as 'select a';
create function public.twice(a text) returns int language sql as 'select 1';
create function public.plain_raise() returns void language plpgsql as
    $$ begin raise exception 'You may not.'; end $$;
create function public.calls_nothing() returns void language plpgsql as
    $$ begin perform public.no_such_function(); end $$;
create function public.reads_nothing() returns void language plpgsql as
    $$ begin perform from public.no_such_table; end $$;
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
    project.sandbox.faults.clear()
    with psycopg.connect(project.sandbox.admin_db_url) as connection:
        connection.execute("truncate public.notes")


def as_user(project: Project, user: str = ANNA) -> httpx.Client:
    return project.http("rest", token=project.token(user))


def as_service(project: Project) -> httpx.Client:
    return project.http("rest", project.keys.secret)


def as_nobody(project: Project) -> httpx.Client:
    return project.http("rest")


@asynccontextmanager
async def connected(
    project: Project, token: str | None = None, key: str | None = None
) -> AsyncIterator[AsyncPostgrestClient]:
    """Give a client as supabase-py makes it: with `token`, or `key`, or else the secret key."""
    key = key or (project.keys.publishable if token else project.keys.secret)
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        headers = project.headers(key, token)
        yield AsyncPostgrestClient(f"{project.url}/rest/v1", headers=headers, http_client=http)


def rpc(client: Any, name: str, *, get: bool = False, **arguments: object) -> Any:
    """Call a function with arguments of any type; the client's own types know only text."""
    return client.rpc(name, arguments, get=get)


def insert(project: Project, *titles: str, user: str = ANNA) -> list[dict[str, Any]]:
    rows = [{"title": title, "rank": rank} for rank, title in enumerate(titles, 1 if user == ANNA else 101)]
    answer = as_user(project, user).post("/notes", json=rows, headers={"Prefer": "return=representation"})
    assert answer.status_code == 201, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def rows(answer: Any) -> list[dict[str, Any]]:
    """Return a client's rows, of which its types say less."""
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
        client.postgrest.auth(project.token(ANNA))
        notes = client.table("notes")
        new: dict[str, Any] = {"title": "first", "tags": ["a,b", "c"], "data": {"deep": [1]}}
        (inserted,) = rows(await notes.insert(new).execute())
        assert (inserted["user_id"], inserted["tags"]) == (ANNA, ["a,b", "c"])
        assert (await notes.select("title").execute()).data == [{"title": "first"}]
        assert (await notes.select("*", count=CountMethod.exact).execute()).count == 1
        changed = await notes.update({"title": "second"}).eq("title", "first").execute()
        assert [row["title"] for row in rows(changed)] == ["second"]
        single = await notes.select("title,data->deep").eq("title", "second").single().execute()
        assert single.data == {"title": "second", "deep": [1]}
        assert await notes.select("*").eq("title", "none").maybe_single().execute() is None
        deleted = await notes.delete().eq("title", "second").execute()
        assert len(deleted.data) == 1


async def test_the_async_client_calls_functions_with_the_secret_key(project: Project) -> None:
    insert(project, "one", "two", "three")
    async with connected(project) as client:
        claimed = await rpc(client, "claim", worker="w", n=2).execute()
        assert [row["title"] for row in rows(claimed)] == ["one", "two"]
        assert (await rpc(client, "add", a=1).execute()).data == 11
        assert (await rpc(client, "nothing").execute()).data == []


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


def test_columns_are_selected_renamed_cast_and_reached_into(project: Project) -> None:
    with as_user(project) as client:
        client.post("/notes", json={"title": "t", "rank": 7, "data": {"list": [{"name": "x"}]}})
        answer = client.get("/notes?select=name:title,rank::text,at:data->list->0->>name,data->list")
        assert answer.json() == [{"name": "t", "rank": "7", "at": "x", "list": [{"name": "x"}]}]
        filtered = client.get("/notes", params={"data->list->0->>name": "eq.x", "select": "rank"})
        assert filtered.json() == [{"rank": 7}]


def test_an_answer_names_its_range_and_the_total(project: Project) -> None:
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


def test_at_most_1000_rows_are_answered(project: Project) -> None:
    with as_nobody(project) as client:
        assert client.get("/numbers").headers["content-range"] == "0-999/*"
        assert client.get("/numbers?limit=1200").headers["content-range"] == "0-999/*"


def test_the_profile_is_echoed(project: Project) -> None:
    answer = as_nobody(project).get("/numbers", headers={"Accept-Profile": "public"})
    assert answer.headers["content-profile"] == "public"


def test_users_see_their_own_rows_and_the_service_all(project: Project) -> None:
    insert(project, "anna's")
    insert(project, "bert's", user=BERT)
    assert titles(as_user(project).get("/notes")) == ["anna's"]
    assert titles(as_user(project, BERT).get("/notes")) == ["bert's"]
    assert titles(as_service(project).get("/notes?order=title")) == ["anna's", "bert's"]
    assert as_user(project).patch("/notes?title=eq.bert's", json={"title": "x"}).status_code == 204
    assert titles(as_user(project, BERT).get("/notes")) == ["bert's"]


def test_an_old_project_exposes_its_tables_unless_rls_closes_them(old_project: Project) -> None:
    old_project.sql(
        "create table public.open (id int); insert into public.open values (1);"
        "create table public.closed (id int); alter table public.closed enable row level security;"
        "insert into public.closed values (1);"
    )
    with as_nobody(old_project) as client:
        assert client.get("/open").json() == [{"id": 1}]
        assert client.get("/closed").json() == []
        assert client.post("/open", json={"id": 2}).status_code == 201


def test_a_new_project_exposes_no_table_by_itself(project: Project) -> None:
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


def test_a_refused_change_is_undone(project: Project) -> None:
    insert(project, "one", "two")
    single = {"Prefer": "return=representation", "Accept": "application/vnd.pgrst.object+json"}
    strict = {"Prefer": "handling=strict, max-affected=1"}
    with as_user(project) as client:
        changed = client.patch("/notes?rank=gt.0", json={"title": "x"}, headers=single)
        assert changed.json()["code"] == "PGRST116"
        assert client.delete("/notes?rank=gt.0", headers=strict).json()["code"] == "PGRST124"
        assert titles(client.get("/notes?order=rank")) == ["one", "two"]


def test_functions_answer_in_the_shape_of_what_they_return(project: Project) -> None:
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
        single = {"Accept": "application/vnd.pgrst.object+json"}
        claimed = client.post("/rpc/claim", json={"worker": "w", "n": 1}, headers=single)
        assert claimed.json() == note
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


def test_a_function_that_is_declared_stable_cannot_write(project: Project) -> None:
    answer = as_service(project).post("/rpc/lying")
    assert (answer.status_code, answer.json()["code"]) == (405, "25006")


def test_a_function_can_read_who_calls_and_how(project: Project) -> None:
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


def test_the_time_limit_is_the_roles_or_the_functions(project: Project) -> None:
    assert as_nobody(project).post("/rpc/time_limit").json() == "3s"
    assert as_user(project).post("/rpc/time_limit").json() == "8s"
    assert as_user(project).post("/rpc/own_time_limit").json() == "77s"


# Refusals. What the real client raises has the body's code, message, details and hint; the status is in the log.


@dataclass(frozen=True)
class Refused:
    """A refusal; ANY stands for what is not known of the real one."""

    status: int
    code: str | None
    message: Any
    details: Any = None
    hint: Any = None


async def refusal(project: Project, query: Any) -> Refused:
    """Return what the client raises, and the status of the answer, which it does not tell."""
    project.sandbox.faults.reset()
    with pytest.raises(APIError) as caught:
        await query.execute()
    [seen] = project.sandbox.faults.log()
    assert seen.status is not None
    error = caught.value
    assert type(error) is APIError
    return Refused(seen.status, error.code, error.message, error.details, error.hint)


def notes(client: AsyncPostgrestClient) -> Any:
    return client.from_("notes")


def raising(state: str) -> Callable[[AsyncPostgrestClient], Any]:
    return lambda client: rpc(client, "raising", code=state)


CACHE = "in the schema cache"
COERCE = "Cannot coerce the result to a single JSON object"
BY_A_USER: dict[str, tuple[Callable[[AsyncPostgrestClient], Any], Refused]] = {
    "a row that a policy forbids": (
        lambda client: notes(client).insert({"title": "x", "user_id": BERT}),
        Refused(403, "42501", 'new row violates row-level security policy for table "notes"'),
    ),
    "a column without a grant": (
        lambda client: notes(client).insert({"title": "x", "created_at": "2020-01-01"}),
        Refused(403, "42501", "permission denied for table notes"),
    ),
    "a table without a grant": (
        lambda client: client.from_("secrets").select("*"),
        Refused(403, "42501", "permission denied for table secrets"),
    ),
    "a function without a grant": (
        lambda client: rpc(client, "shut"),
        Refused(403, "42501", "permission denied for function shut"),
    ),
    "a row that a check forbids": (  # its details would show what a policy hides
        lambda client: notes(client).insert({"title": "x" * 20}),
        Refused(400, "23514", 'new row for relation "notes" violates check constraint "notes_title_check"'),
    ),
    "a row that exists": (
        lambda client: notes(client).insert({"title": "x", "rank": 1}),
        Refused(409, "23505", 'duplicate key value violates unique constraint "notes_rank_key"'),
    ),
    "a reference to a row that does not exist": (
        lambda client: notes(client).insert({"title": "x", "secret": 99}),
        Refused(
            409,
            "23503",
            'insert or update on table "notes" violates foreign key constraint "notes_secret_fkey"',
            'Key is not present in table "secrets".',
        ),
    ),
    "a value that is missing": (
        lambda client: notes(client).insert({"title": None}),
        Refused(400, "23502", 'null value in column "title" of relation "notes" violates not-null constraint'),
    ),
    "a value of another type": (
        lambda client: notes(client).select("*").eq("user_id", "me"),
        Refused(400, "22P02", 'invalid input syntax for type uuid: "me"'),
    ),
    "None, for which the client writes null": (
        lambda client: notes(client).select("*").eq("user_id", None),
        Refused(400, "22P02", 'invalid input syntax for type uuid: "null"'),
    ),
    "a zero byte": (
        lambda client: notes(client).select("*").eq("title", "\0"),
        Refused(400, "22021", ANY),
    ),
    "a filter on an unknown column": (
        lambda client: notes(client).select("*").eq("colour", "red"),
        Refused(400, "42703", "column notes.colour does not exist"),
    ),
    "an unknown operator": (
        lambda client: notes(client).select("*").filter("id", "nonsense", "1"),
        Refused(400, "PGRST100", ANY, ANY),
    ),
    "a page beyond the last": (
        lambda client: client.from_("numbers").select("*", count=CountMethod.exact).range(2000, 2001),
        Refused(
            416,
            "PGRST103",
            "Requested range not satisfiable",
            "An offset of 2000 was requested, but there are only 1500 rows.",
        ),
    ),
    "a limit below 0": (
        lambda client: notes(client).select("*").limit(-1),
        Refused(416, "PGRST103", "Requested range not satisfiable", ANY),
    ),
    "a schema that is not exposed": (
        lambda client: client.schema("auth").from_("users").select("*"),
        Refused(
            406,
            "PGRST106",
            "Invalid schema: auth",
            None,
            "Only the following schemas are exposed: public, graphql_public",
        ),
    ),
    "a media type that is not available": (
        lambda client: notes(client).select("*").explain(),
        Refused(406, "PGRST107", ANY),
    ),
    "one row, where there is none": (
        lambda client: notes(client).select("*").eq("rank", 99).single(),
        Refused(406, "PGRST116", COERCE, "The result contains 0 rows"),
    ),
    "one row, where there are two": (
        lambda client: rpc(client, "pairs").single(),
        Refused(406, "PGRST116", COERCE, "The result contains 2 rows"),
    ),
    "more changes than allowed": (
        lambda client: notes(client).delete().gt("rank", 0).max_affected(1),
        Refused(
            400,
            "PGRST124",
            "Query result exceeds max-affected preference constraint",
            "The query affects 2 rows",
        ),
    ),
    "a function with other arguments": (
        lambda client: rpc(client, "claim", worker="w", m=2),
        Refused(
            404,
            "PGRST202",
            f"Could not find the function public.claim(m, worker) {CACHE}",
            "Searched for the function public.claim with parameters m, worker or with a single unnamed json/jsonb"
            f" parameter, but no matches were found {CACHE}.",
            "Perhaps you meant to call the function public.claim(n, worker)",
        ),
    ),
    "an unknown function with an argument": (
        lambda client: rpc(client, "zzz", a=1),
        Refused(
            404,
            "PGRST202",
            f"Could not find the function public.zzz(a) {CACHE}",
            "Searched for the function public.zzz with parameter a or with a single unnamed json/jsonb parameter,"
            f" but no matches were found {CACHE}.",
        ),
    ),
    "a function with a misspelt name": (
        lambda client: rpc(client, "clam"),
        Refused(
            404,
            "PGRST202",
            f"Could not find the function public.clam without parameters {CACHE}",
            ANY,
            "Perhaps you meant to call the function public.claim",
        ),
    ),
    "a function of which there are two": (
        lambda client: rpc(client, "twice", a=1),
        Refused(300, "PGRST203", ANY, None, ANY),
    ),
    "a value for an unknown column": (
        lambda client: notes(client).insert({"title": "x", "colour": "red"}),
        Refused(400, "PGRST204", f"Could not find the 'colour' column of 'notes' {CACHE}"),
    ),
    "an unknown table": (
        lambda client: client.from_("zzz").select("*"),
        Refused(404, "PGRST205", f"Could not find the table 'public.zzz' {CACHE}"),
    ),
    "an unknown table whose rows are to be counted": (  # without a body: the code is from Proxy-Status
        lambda client: client.from_("zzz").select("*", head=True),
        Refused(404, "PGRST205", "Not Found"),
    ),
    "a table with a misspelt name": (
        lambda client: client.from_("notse").select("*"),
        Refused(404, "PGRST205", ANY, None, "Perhaps you meant the table 'public.notes'"),
    ),
    "a change of all rows": (
        lambda client: notes(client).update({"title": "x"}),
        Refused(400, "21000", "UPDATE requires a WHERE clause"),
    ),
    "a deletion of all rows": (
        lambda client: notes(client).delete(),
        Refused(400, "21000", "DELETE requires a WHERE clause"),
    ),
    "a GET that writes": (
        lambda client: rpc(client, "inserting", get=True),
        Refused(405, "25006", "cannot execute INSERT in a read-only transaction"),
    ),
    "a statement that takes too long": (
        lambda client: rpc(client, "slow"),
        Refused(500, "57014", "canceling statement due to statement timeout"),
    ),
    "a function that calls an unknown one": (
        lambda client: rpc(client, "calls_nothing"),
        Refused(404, "42883", "function public.no_such_function() does not exist", None, ANY),  # by version
    ),
    "a function that reads an unknown table": (
        lambda client: rpc(client, "reads_nothing"),
        Refused(404, "42P01", 'relation "public.no_such_table" does not exist'),
    ),
    "a function's own message": (
        lambda client: rpc(client, "plain_raise"),
        Refused(400, "P0001", "You may not."),
    ),
    "a function's own answer": (
        lambda client: rpc(client, "controlled"),
        Refused(402, "123", "Payment Required", "Quota exceeded"),
    ),
    **{
        f"state {code}": (raising(code), Refused(status, code, "no", "why", "how"))
        for code, status in {
            "P0001": 400, "P0002": 500, "PT409": 409, "40001": 500, "40P01": 500, "55P03": 500, "53300": 503,
            "08006": 503, "57P01": 503, "XX000": 500, "22023": 400, "23514": 400,
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("what", BY_A_USER)
async def test_each_refusal_is_the_one_that_postgrest_makes(project: Project, what: str) -> None:
    insert(project, "one", "two")
    ask, refused = BY_A_USER[what]
    async with connected(project, project.token(ANNA)) as client:
        assert await refusal(project, ask(client)) == refused


async def test_without_a_session_a_missing_privilege_is_a_401(project: Project) -> None:
    async with connected(project, key=project.keys.publishable) as client:
        denied = Refused(401, "42501", "permission denied for table secrets")
        assert await refusal(project, client.from_("secrets").select("*")) == denied
        denied = Refused(401, "42501", "permission denied for function shut")
        assert await refusal(project, rpc(client, "shut")) == denied


async def test_the_service_is_shown_the_refused_row(project: Project) -> None:
    async with connected(project) as client:
        query = notes(client).insert({"title": "x" * 20, "user_id": ANNA})
        refused = await refusal(project, query)
    assert (refused.status, refused.code) == (400, "23514")
    assert "xxxxx" in refused.details


@pytest.mark.parametrize(
    ("token", "refused"),
    [
        (Keys().sign({"role": "anon", "exp": 1}), Refused(401, "PGRST303", "JWT expired")),
        (Keys().sign({"role": "anon", "iat": NEVER}), Refused(401, "PGRST303", "JWT issued at future")),
        (FOREIGN.anon_jwt, Refused(401, "PGRST301", "No suitable key or wrong key type", ANY)),
        ("a", Refused(401, "PGRST301", "Expected 3 parts in JWT; got 1")),
        ("a.b.c", Refused(401, "PGRST301", "JWT cryptographic operation failed")),
        (Keys().sign({"role": "wizard"}), Refused(401, "22023", 'role "wizard" does not exist')),
        (Keys().sign({"role": "supabase_admin"}), Refused(403, "42501", ANY)),
    ],
)
async def test_a_bad_token_is_refused(project: Project, token: str, refused: Refused) -> None:
    async with connected(project, token) as client:
        assert await refusal(project, notes(client).select("*")) == refused


def test_a_token_without_a_role_is_that_of_anon(project: Project) -> None:
    client = project.http("rest", token=project.keys.sign({}))
    assert client.get("/numbers?limit=1").json() == [{"n": 1, "even": False}]


async def test_an_unknown_key_is_refused_without_a_code(project: Project) -> None:
    async with connected(project, key="sb_secret_typo") as client:
        refused = Refused(401, None, "Invalid API key", None, ANY)
        assert await refusal(project, notes(client).select("*")) == refused


async def test_an_answer_that_is_not_postgrests_is_raised_as_it_is(project: Project) -> None:
    project.sandbox.faults.add(Answer(502, "<h1>Bad Gateway</h1>"), service="rest")
    async with connected(project) as client:
        refused = await refusal(project, notes(client).select("*"))
    assert refused == Refused(502, "502", "Bad Gateway", "<h1>Bad Gateway</h1>")


async def test_the_client_repeats_a_read_and_not_a_call(project: Project) -> None:
    later = Answer(503, {"code": "PGRST002", "message": "later"})
    project.sandbox.faults.add(later, service="rest", times=2)
    async with connected(project) as client:
        assert await refusal(project, rpc(client, "add", a=1)) == Refused(503, "PGRST002", "later")
        project.sandbox.faults.reset()
        assert (await notes(client).select("*").execute()).data == []  # a second later
    assert [seen.status for seen in project.sandbox.faults.log()] == [503, 200]


def test_a_refusal_says_in_its_headers_what_it_is_and_what_to_do(project: Project) -> None:
    denied, forbidden = as_nobody(project).get("/secrets"), as_user(project).get("/secrets")
    assert denied.headers["proxy-status"] == forbidden.headers["proxy-status"] == "PostgREST; error=42501"
    assert denied.headers["www-authenticate"] == "Bearer"
    assert "www-authenticate" not in forbidden.headers
    expired = project.http("rest", token=project.token(exp=1)).get("/notes")
    challenge = 'Bearer error="invalid_token", error_description="JWT expired"'
    assert expired.headers["www-authenticate"] == challenge
    with as_user(project) as client:
        assert client.post("/rpc/raising", json={"code": "53300"}).headers["retry-after"] == "1"
        assert "retry-after" not in client.post("/rpc/raising", json={"code": "40001"}).headers
        assert client.post("/rpc/controlled").headers["x-powered-by"] == "Nerd Rage"


def test_what_the_real_client_cannot_send_is_refused_with_its_code(project: Project) -> None:
    strict = {"Prefer": "handling=strict, count=some"}
    with as_user(project) as client:
        answers = {
            (400, "PGRST100"): client.get("/notes?id=x"),
            (405, "PGRST101"): client.put("/rpc/add", json={}),
            (400, "PGRST102"): client.post("/notes", content=b"{"),
            (400, "PGRST122"): client.get("/notes", headers=strict),
            (404, "PGRST125"): client.get("/a/b"),
        }
    for refused, answer in answers.items():
        assert (answer.status_code, answer.json()["code"]) == refused


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


def test_numbers_keep_every_digit(project: Project) -> None:
    project.sql(
        "create table public.exact (big int8, money numeric); grant all on public.exact to service_role"
    )
    body = '{"big": 9007199254740993, "money": 1.50}'
    with as_service(project) as client:
        headers = {"Prefer": "return=representation", "Content-Type": "application/json"}
        answer = client.post("/exact", content=body, headers=headers)
        assert json.loads(answer.text, parse_float=str) == [{"big": 9007199254740993, "money": "1.50"}]


def test_a_postgres_that_is_down_is_reported_at_once_and_used_when_it_is_back(project: Project) -> None:
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


def test_open_connections_see_a_migration(project: Project) -> None:
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
