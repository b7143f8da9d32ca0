"""What postgrest raises against the sandbox: status, code, message, details and hint as PostgREST 14.5 has them.

They are read from its source, its tests and its documents, and the texts of SQL errors seen on Postgres itself: no
PostgREST was there to be recorded.

Not here, for the real client cannot be made to ask for them: PGRST102 (it names the columns of many rows),
PGRST117 and PGRST122. PGRST002 and PGRST003 are states of a server that the sandbox is not in.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import ANY

import httpx
import psycopg
import pytest
from postgrest import APIError, AsyncPostgrestClient, CountMethod

from watcher.sandbox import Postgres, Sandbox
from watcher.sandbox.faults import Answer
from watcher.sandbox.keys import Keys

ANN, BEN = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
NEVER = 4102444800
SCHEMA = f"""
create table public.photos (
    id int primary key,
    user_id uuid not null default auth.uid(),
    status text not null default 'new' constraint photos_status_check check (status in ('new', 'old')),
    album int references public.photos,
    made_at timestamptz not null default now()
);
alter table public.photos enable row level security;
create policy own on public.photos for all to authenticated
    using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
grant select, update, delete, insert (id, user_id, status, album) on public.photos to authenticated;
grant all on public.photos to service_role;
insert into public.photos values (1, '{ANN}'), (2, '{ANN}');

create table public.hidden (id int primary key);

create function public.claim(n int, worker text) returns setof public.photos language sql
    as 'select * from public.photos limit n';
create function public.twice(a int) returns int language sql as 'select a';
create function public.twice(a text) returns int language sql as 'select 1';
create function public.writes() returns int language sql
    as 'insert into public.photos (id) values (9) returning id';
create function public.slow() returns void language sql set statement_timeout = '50ms' as 'select pg_sleep(5)';
create function public.says(state text) returns void language plpgsql as
    $$ begin raise exception 'no' using errcode = state, detail = 'why', hint = 'how'; end $$;
create function public.plainly() returns void language plpgsql as $$ begin raise exception 'You may not.'; end $$;
create function public.calls_nothing() returns void language plpgsql as
    $$ begin perform public.no_such_function(); end $$;
create function public.reads_nothing() returns void language plpgsql as
    $$ begin perform from public.no_such_table; end $$;
create function public.dies() returns void language sql as 'select pg_terminate_backend(pg_backend_pid())';
create function public.closed() returns void language sql as '';
create function public.decides() returns void language plpgsql as $$
begin
    raise sqlstate 'PGRST' using
        message = '{{"code": "QUOTA", "message": "Pay first", "details": "12 of 10", "hint": "a card"}}',
        detail = '{{"status": 402, "headers": {{}}}}';
end $$;
grant execute on all functions in schema public to anon, authenticated, service_role;
revoke execute on function public.closed from public, anon, authenticated, service_role;
"""

KEYS, FORGED = Keys(), Keys("another secret that is at least 32 bytes")

Ask = Callable[[AsyncPostgrestClient], Any]


@dataclass(frozen=True)
class Refused:
    """What a caller is told; ANY is what is not known of the real one."""

    status: int
    code: str | None
    message: Any
    details: Any = None
    hint: Any = None


@pytest.fixture(scope="module")
def sandbox(postgres: Postgres) -> Iterator[Sandbox]:
    with Sandbox(postgres=postgres) as sandbox:
        with psycopg.connect(sandbox.db_url) as connection:
            connection.execute(SCHEMA.encode())
        yield sandbox


@asynccontextmanager
async def connected(
    sandbox: Sandbox, token: str | None = None, key: str | None = None
) -> AsyncIterator[AsyncPostgrestClient]:
    """A client as supabase-py makes it, with the secret key if nothing else is said."""
    key = key or (sandbox.keys.publishable if token else sandbox.keys.secret)
    headers = {"apiKey": key, "Authorization": f"Bearer {token or key}"}
    async with httpx.AsyncClient() as http:
        yield AsyncPostgrestClient(f"{sandbox.supabase_url}/rest/v1", headers=headers, http_client=http)


def user(keys: Keys, **claims: object) -> str:
    return keys.sign({"sub": ANN, "role": "authenticated", "exp": NEVER, **claims})


async def refusal(sandbox: Sandbox, query: Any) -> Refused:
    """What the client raises, and the status of the answer, of which it tells nothing."""
    sandbox.faults.reset()
    with pytest.raises(APIError) as caught:
        await query.execute()
    [seen] = sandbox.faults.log()
    assert seen.status is not None
    error = caught.value
    assert type(error) is APIError
    return Refused(seen.status, error.code, error.message, error.details, error.hint)


def photos(client: AsyncPostgrestClient) -> Any:
    return client.from_("photos")


def says(state: str) -> Ask:
    return lambda client: client.rpc("says", {"state": state})


def said(status: int, code: str) -> Refused:
    return Refused(status, code, "no", "why", "how")


BY_A_USER: dict[str, tuple[Ask, Refused]] = {
    "a row that a policy forbids": (
        lambda client: photos(client).insert({"id": 3, "user_id": BEN}),
        Refused(403, "42501", 'new row violates row-level security policy for table "photos"'),
    ),
    "a column without a grant": (
        lambda client: photos(client).insert({"id": 3, "made_at": "2020-01-01"}),
        Refused(403, "42501", "permission denied for table photos"),
    ),
    "a table without a grant": (
        lambda client: client.from_("hidden").select("*"),
        Refused(403, "42501", "permission denied for table hidden"),
    ),
    "a function without a grant": (
        lambda client: client.rpc("closed", {}),
        Refused(403, "42501", "permission denied for function closed"),
    ),
    "a row that a check forbids": (  # its details would show what a policy hides
        lambda client: photos(client).insert({"id": 3, "status": "odd"}),
        Refused(400, "23514", 'new row for relation "photos" violates check constraint "photos_status_check"'),
    ),
    "a row that is there": (
        lambda client: photos(client).insert({"id": 1}),
        Refused(409, "23505", 'duplicate key value violates unique constraint "photos_pkey"'),
    ),
    "a row that is named and is not there": (
        lambda client: photos(client).insert({"id": 3, "album": 99}),
        Refused(
            409,
            "23503",
            'insert or update on table "photos" violates foreign key constraint "photos_album_fkey"',
            'Key is not present in table "photos".',
        ),
    ),
    "a value that is missing": (
        lambda client: photos(client).insert({"id": 3, "status": None}),
        Refused(
            400, "23502", 'null value in column "status" of relation "photos" violates not-null constraint'
        ),
    ),
    "a value of another type": (
        lambda client: photos(client).select("*").eq("user_id", "me"),
        Refused(400, "22P02", 'invalid input syntax for type uuid: "me"'),
    ),
    "None, where the client writes null": (
        lambda client: photos(client).select("*").eq("user_id", None),
        Refused(400, "22P02", 'invalid input syntax for type uuid: "null"'),
    ),
    "a filter on a column that is not there": (
        lambda client: photos(client).select("*").eq("colour", "red"),
        Refused(400, "42703", "column photos.colour does not exist"),
    ),
    "a filter that is none": (
        lambda client: photos(client).select("*").filter("id", "nonsense", "1"),
        Refused(400, "PGRST100", ANY, ANY),
    ),
    "a page beyond the last": (
        lambda client: photos(client).select("*", count=CountMethod.exact).range(10, 20),
        Refused(
            416,
            "PGRST103",
            "Requested range not satisfiable",
            "An offset of 10 was requested, but there are only 2 rows.",
        ),
    ),
    "a schema that is not exposed": (
        lambda client: client.schema("auth").from_("users").select("*"),
        Refused(406, "PGRST106", "Invalid schema: auth", None, ANY),
    ),
    "a form in which there is no answer": (
        lambda client: photos(client).select("*").explain(),
        Refused(406, "PGRST107", ANY),
    ),
    "one row of none": (
        lambda client: photos(client).select("*").eq("id", 99).single(),
        Refused(
            406, "PGRST116", "Cannot coerce the result to a single JSON object", "The result contains 0 rows"
        ),
    ),
    "one row of two": (
        lambda client: client.rpc("claim", {"n": 2, "worker": "w"}).single(),
        Refused(
            406, "PGRST116", "Cannot coerce the result to a single JSON object", "The result contains 2 rows"
        ),
    ),
    "more changes than were allowed": (
        lambda client: photos(client).delete().gt("id", 0).max_affected(1),
        Refused(
            400,
            "PGRST124",
            "Query result exceeds max-affected preference constraint",
            "The query affects 2 rows",
        ),
    ),
    "a function with other arguments": (
        lambda client: client.rpc("claim", {"worker": "w", "m": 2}),
        Refused(
            404,
            "PGRST202",
            "Could not find the function public.claim(m, worker) in the schema cache",
            "Searched for the function public.claim with parameters m, worker or with a single unnamed json/jsonb"
            " parameter, but no matches were found in the schema cache.",
            "Perhaps you meant to call the function public.claim(n, worker)",
        ),
    ),
    "a function that is not there, with one argument": (
        lambda client: client.rpc("zzz", {"a": 1}),
        Refused(
            404,
            "PGRST202",
            "Could not find the function public.zzz(a) in the schema cache",
            "Searched for the function public.zzz with parameter a or with a single unnamed json/jsonb parameter,"
            " but no matches were found in the schema cache.",
        ),
    ),
    "a function of which there are two": (
        lambda client: client.rpc("twice", {"a": 1}),
        Refused(300, "PGRST203", ANY, None, ANY),
    ),
    "a value for a column that is not there": (
        lambda client: photos(client).insert({"id": 3, "colour": "red"}),
        Refused(400, "PGRST204", "Could not find the 'colour' column of 'photos' in the schema cache"),
    ),
    "a table that is not there": (
        lambda client: client.from_("zzz").select("*"),
        Refused(404, "PGRST205", "Could not find the table 'public.zzz' in the schema cache"),
    ),
    "a table that is not there, asked for its count alone": (  # no body: the code is from Proxy-Status
        lambda client: client.from_("zzz").select("*", head=True),
        Refused(404, "PGRST205", "Not Found"),
    ),
    "a change of everything": (
        lambda client: photos(client).update({"status": "old"}),
        Refused(400, "21000", "UPDATE requires a WHERE clause"),
    ),
    "a deletion of everything": (
        lambda client: photos(client).delete(),
        Refused(400, "21000", "DELETE requires a WHERE clause"),
    ),
    "a GET that writes": (
        lambda client: client.rpc("writes", {}, get=True),
        Refused(405, "25006", "cannot execute INSERT in a read-only transaction"),
    ),
    "a statement that takes too long": (
        lambda client: client.rpc("slow", {}),
        Refused(500, "57014", "canceling statement due to statement timeout"),
    ),
    "a function that calls one that is not there": (
        lambda client: client.rpc("calls_nothing", {}),
        Refused(404, "42883", "function public.no_such_function() does not exist", None, ANY),  # by version
    ),
    "a function that reads a table that is not there": (
        lambda client: client.rpc("reads_nothing", {}),
        Refused(404, "42P01", 'relation "public.no_such_table" does not exist'),
    ),
    "a sentence of a function's": (
        lambda client: client.rpc("plainly", {}),
        Refused(400, "P0001", "You may not."),
    ),
    "an answer of a function's": (
        lambda client: client.rpc("decides", {}),
        Refused(402, "QUOTA", "Pay first", "12 of 10", "a card"),
    ),
    **{
        f"state {code}": (says(code), said(status, code))
        for code, status in {
            "P0001": 400, "P0002": 500, "PT409": 409, "40001": 500, "40P01": 500, "55P03": 500, "53300": 503,
            "08006": 503, "57P01": 503, "XX000": 500, "22023": 400,
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("what", BY_A_USER)
async def test_a_user_is_told_why_it_is_refused(sandbox: Sandbox, what: str) -> None:
    ask, wanted = BY_A_USER[what]
    async with connected(sandbox, user(sandbox.keys)) as client:
        assert await refusal(sandbox, ask(client)) == wanted


async def test_who_is_not_signed_in_is_asked_to_sign_in(sandbox: Sandbox) -> None:
    async with connected(sandbox, key=sandbox.keys.publishable) as client:
        denied = Refused(401, "42501", "permission denied for table photos")
        assert await refusal(sandbox, photos(client).select("*")) == denied
        denied = Refused(401, "42501", "permission denied for function closed")
        assert await refusal(sandbox, client.rpc("closed", {})) == denied


async def test_the_service_is_shown_the_row_that_was_refused(sandbox: Sandbox) -> None:
    async with connected(sandbox) as client:
        query = photos(client).insert({"id": 3, "user_id": ANN, "status": "odd"})
        refused = await refusal(sandbox, query)
    assert (refused.status, refused.code) == (400, "23514")
    assert refused.details.startswith(f"Failing row contains (3, {ANN}, odd, null, ")


@pytest.mark.parametrize(
    ("token", "wanted"),
    [
        (user(KEYS, exp=1), Refused(401, "PGRST303", "JWT expired")),
        (user(KEYS, iat=NEVER - 1), Refused(401, "PGRST303", "JWT issued at future")),
        (user(FORGED), Refused(401, "PGRST301", "No suitable key or wrong key type", ANY)),
        ("a.b", Refused(401, "PGRST301", "Expected 3 parts in JWT; got 2")),
        ("a.b.c", Refused(401, "PGRST301", "JWT cryptographic operation failed")),
        (user(KEYS, role="wizard"), Refused(401, "22023", 'role "wizard" does not exist')),
    ],
)
async def test_a_token_that_is_no_good_is_refused(sandbox: Sandbox, token: str, wanted: Refused) -> None:
    async with connected(sandbox, token) as client:
        assert await refusal(sandbox, photos(client).select("*")) == wanted


async def test_a_key_that_is_no_good_is_refused_without_a_code(sandbox: Sandbox) -> None:
    async with connected(sandbox, key="sb_secret_typo") as client:
        assert await refusal(sandbox, photos(client).select("*")) == Refused(
            401, None, "Invalid API key", None, ANY
        )


async def test_an_answer_that_is_not_postgrests_is_told_as_it_is(sandbox: Sandbox) -> None:
    sandbox.faults.add(Answer(502, "<h1>Bad Gateway</h1>"), service="rest")
    async with connected(sandbox) as client:
        refused = await refusal(sandbox, photos(client).select("*"))
    assert refused == Refused(502, "502", "Bad Gateway", "<h1>Bad Gateway</h1>")


async def test_a_postgres_that_is_away_is_told_at_once(sandbox: Sandbox, postgres: Postgres) -> None:
    async with connected(sandbox) as client:
        postgres.halt()
        try:
            refused = await refusal(sandbox, client.rpc("claim", {"n": 1, "worker": "w"}))
        finally:
            postgres.start()
        assert (refused.status, refused.code) == (503, "PGRST000")
        assert len((await client.rpc("claim", {"n": 1, "worker": "w"}).execute()).data) == 1


async def test_a_read_is_tried_again_and_a_call_is_not(sandbox: Sandbox) -> None:
    sandbox.faults.add(Answer(503, {"code": "PGRST002", "message": "later"}), service="rest", times=2)
    async with connected(sandbox) as client:
        later = Refused(503, "PGRST002", "later")
        assert await refusal(sandbox, client.rpc("claim", {"n": 1, "worker": "w"})) == later
        sandbox.faults.reset()
        assert len((await photos(client).select("*").execute()).data) == 2  # a second later
    assert [seen.status for seen in sandbox.faults.log()] == [503, 200]
