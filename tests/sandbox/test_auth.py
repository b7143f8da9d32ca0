"""Auth: signing up and in, sessions, and what is deleted with an account."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psycopg
import pytest
from supabase import AsyncClient, AsyncClientOptions, acreate_client, create_client
from supabase.lib.client_options import SyncClientOptions
from supabase_auth.errors import AuthApiError, AuthWeakPasswordError

from tests.sandbox.project import FOREIGN, Project

PASSWORD = "correct horse"
SCHEMA = """
create table public.owned (
    id int primary key, user_id uuid not null references auth.users (id) on delete cascade
);
create table public.gone (id int);
create function public.note_deletion() returns trigger language plpgsql security definer set search_path = ''
    as $$ begin insert into public.gone values (old.id); return old; end $$;
create trigger note before delete on public.owned for each row execute function public.note_deletion();

create table public.profiles (id uuid primary key, email text, name text);
create function public.welcome() returns trigger language plpgsql security definer set search_path = '' as $$
begin
    if new.email like 'cursed%' then
        raise exception 'no';
    end if;
    insert into public.profiles values (new.id, new.email, new.raw_user_meta_data ->> 'name');
    return new;
end $$;
create trigger welcome after insert on auth.users for each row execute function public.welcome();
"""


@pytest.fixture(scope="module", autouse=True)
def schema(project: Project) -> None:
    project.sql(SCHEMA)


@pytest.fixture(autouse=True)
def empty(project: Project) -> Iterator[None]:
    yield
    with psycopg.connect(project.sandbox.admin_db_url) as connection:
        connection.execute("truncate auth.users, public.profiles, public.gone cascade")


@pytest.fixture
async def client(project: Project) -> AsyncIterator[AsyncClient]:
    async with httpx.AsyncClient() as http:
        options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False)
        yield await acreate_client(project.url, project.keys.publishable, options)


def sign_up(project: Project, email: str = "anna@example.com") -> dict[str, Any]:
    answer = project.http("auth").post("/signup", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    session: dict[str, Any] = answer.json()
    return session


def sign_in(project: Project) -> dict[str, Any]:
    credentials = {"email": "anna@example.com", "password": PASSWORD}
    session: dict[str, Any] = project.http("auth").post("/token?grant_type=password", json=credentials).json()
    return session


def refresh(project: Project, token: str) -> httpx.Response:
    path = "/token?grant_type=refresh_token"
    return project.http("auth").post(path, json={"refresh_token": token})


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    assert body["code"] == answer.status_code
    return answer.status_code, body["error_code"], body["msg"]


async def test_a_user_signs_up_is_known_by_the_token_and_signs_out(
    client: AsyncClient, project: Project
) -> None:
    signed_up = await client.auth.sign_up(
        {"email": "Anna@Example.com", "password": PASSWORD, "options": {"data": {"name": "Anna"}}}
    )
    assert signed_up.user is not None
    assert signed_up.session is not None
    assert signed_up.user.email == "anna@example.com"
    assert signed_up.user.user_metadata == {"name": "Anna"}
    assert signed_up.user.email_confirmed_at is not None
    assert project.ask("select name from public.profiles") == "Anna"
    claims = project.keys.verify(signed_up.session.access_token)
    assert (claims["sub"], claims["role"], claims["aud"]) == (
        signed_up.user.id,
        "authenticated",
        "authenticated",
    )
    assert claims["exp"] - claims["iat"] == signed_up.session.expires_in == 3600
    current = await client.auth.get_user()
    assert current is not None
    assert current.user.id == signed_up.user.id
    assert current.user.identities is not None
    assert current.user.identities[0].provider == "email"
    await client.auth.sign_out()
    assert project.ask("select count(*) from auth.sessions") == 0


async def test_a_user_signs_in_and_the_session_is_refreshed(client: AsyncClient, project: Project) -> None:
    sign_up(project)
    signed_in = await client.auth.sign_in_with_password({"email": "anna@example.com", "password": PASSWORD})
    assert signed_in.session is not None
    refreshed = await client.auth.refresh_session()
    assert refreshed.session is not None
    assert refreshed.session.refresh_token != signed_in.session.refresh_token
    first, second = (
        project.keys.verify(one.access_token)["session_id"] for one in (signed_in.session, refreshed.session)
    )
    assert first == second


async def test_a_user_changes_password_and_metadata(client: AsyncClient, project: Project) -> None:
    sign_up(project)
    await client.auth.sign_in_with_password({"email": "anna@example.com", "password": PASSWORD})
    changed = await client.auth.update_user({"password": "battery staple", "data": {"name": "A"}})
    assert changed.user.user_metadata == {"name": "A"}
    with pytest.raises(AuthApiError) as caught:
        await client.auth.update_user({"password": "battery staple"})
    assert caught.value.code == "same_password"
    with pytest.raises(AuthApiError) as caught:
        await client.auth.sign_in_with_password({"email": "anna@example.com", "password": PASSWORD})
    assert caught.value.code == "invalid_credentials"
    assert caught.value.message == "Invalid login credentials"


def test_the_admin_creates_lists_and_deletes_users_with_what_refers_to_them(project: Project) -> None:
    with httpx.Client() as http:
        options = SyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        admin = create_client(project.url, project.keys.secret, options).auth.admin
        created = admin.create_user(
            {"email": "a@example.com", "password": PASSWORD, "email_confirm": True}
        ).user
        assert admin.get_user_by_id(created.id).user.email == "a@example.com"
        assert [user.id for user in admin.list_users()] == [created.id]
        with pytest.raises(AuthApiError) as caught:
            admin.create_user({"email": "a@example.com", "password": PASSWORD})
        assert caught.value.code == "email_exists"
        project.sql(f"insert into public.owned values (7, '{created.id}')")
        admin.delete_user(created.id)
        assert project.ask("select count(*) from public.owned") == 0
        assert project.ask("select id from public.gone") == 7
        with pytest.raises(AuthApiError) as caught:
            admin.get_user_by_id(created.id)
        assert caught.value.code == "user_not_found"


def test_a_soft_deletion_leaves_the_user_and_what_refers_to_it_and_the_token_stays_valid(
    project: Project,
) -> None:
    session = sign_up(project)
    user = session["user"]
    project.sql(f"insert into public.owned values (8, '{user['id']}')")
    with httpx.Client() as http:
        options = SyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        admin = create_client(project.url, project.keys.secret, options).auth.admin
        admin.delete_user(user["id"], should_soft_delete=True)
    assert project.ask("select id from public.owned where id = 8") == 8
    found = "select deleted_at is not null and email not like '%@%' from auth.users where id = "
    assert project.ask(f"{found}'{user['id']}'") is True
    signed_in = project.http("auth", token=session["access_token"])
    assert signed_in.get("/user").status_code in {200, 403}
    again = project.http("auth").post(
        "/token?grant_type=password", json={"email": user["email"], "password": PASSWORD}
    )
    assert again.status_code == 400


def test_only_the_secret_key_opens_the_admin_routes(project: Project) -> None:
    session = sign_up(project)
    for client in (project.http("auth"), project.http("auth", token=session["access_token"])):
        assert refusal(client.get("/admin/users")) == (403, "not_admin", "User not allowed")
    legacy = project.http("auth", project.keys.service_role_jwt)
    assert legacy.get("/admin/users").status_code == 200


def test_refusals_have_the_codes_and_messages_of_gotrue(project: Project, client: AsyncClient) -> None:
    sign_up(project)
    post = project.http("auth").post
    again = post("/signup", json={"email": "anna@example.com", "password": PASSWORD})
    assert refusal(again) == (422, "user_already_exists", "User already registered")
    assert refusal(post("/signup", json={"email": "no", "password": PASSWORD}))[:2] == (
        400,
        "validation_failed",
    )
    assert refusal(post("/signup", json={}))[1] == "anonymous_provider_disabled"
    assert refusal(post("/signup", json={"email": "b@example.com"}))[1] == "validation_failed"
    assert refusal(post("/signup", content=b"{"))[1] == "bad_json"
    nobody = post("/token?grant_type=password", json={"email": "x@example.com", "password": "x"})
    assert refusal(nobody) == (400, "invalid_credentials", "Invalid login credentials")
    assert post("/token?grant_type=magic", json={}).json()["error"] == "unsupported_grant_type"
    versioned = post("/signup", json={}, headers={"X-Supabase-Api-Version": "2024-01-01"})
    assert versioned.headers["x-supabase-api-version"] == "2024-01-01"
    assert versioned.json() == {
        "code": "anonymous_provider_disabled",
        "message": "Anonymous sign-ins are disabled",
    }


async def test_a_weak_password_is_refused_with_the_reason(client: AsyncClient) -> None:
    with pytest.raises(AuthWeakPasswordError) as caught:
        await client.auth.sign_up({"email": "a@example.com", "password": "short"})
    assert caught.value.reasons == ["length"]


def test_an_unconfirmed_user_cannot_sign_in(project: Project) -> None:
    credentials = {"email": "a@example.com", "password": PASSWORD}
    assert project.http("auth", project.keys.secret).post("/admin/users", json=credentials).status_code == 200
    answer = project.http("auth").post("/token?grant_type=password", json=credentials)
    assert refusal(answer) == (400, "email_not_confirmed", "Email not confirmed")


def test_the_previous_refresh_token_is_accepted_and_an_older_one_is_not(project: Project) -> None:
    tokens = [sign_up(project)["refresh_token"]]
    for _ in range(2):
        tokens.append(refresh(project, tokens[-1]).json()["refresh_token"])
    with psycopg.connect(project.sandbox.admin_db_url) as connection:
        connection.execute("update auth.refresh_tokens set updated_at = now() - interval '1 minute'")
    assert refresh(project, tokens[1]).json()["refresh_token"] == tokens[2]
    stolen = refresh(project, tokens[0])
    assert refusal(stolen) == (400, "refresh_token_already_used", "Invalid Refresh Token: Already Used")


def test_signing_out_the_others_keeps_this_session(project: Project) -> None:
    here, there = (sign_up(project), sign_in(project))
    client = project.http("auth", token=here["access_token"])
    assert client.post("/logout?scope=others").status_code == 204
    assert client.get("/user").status_code == 200
    gone = project.http("auth", token=there["access_token"]).get("/user")
    assert refusal(gone)[:2] == (403, "session_not_found")
    assert client.post("/logout?scope=local").status_code == 204
    assert refusal(refresh(project, here["refresh_token"]))[1] == "refresh_token_not_found"


def test_tokens_are_checked(project: Project) -> None:
    def look(token: str) -> tuple[int, str, str]:
        return refusal(project.http("auth", token=token).get("/user"))

    user = sign_up(project)["user"]["id"]
    expired = project.keys.sign({"sub": user, "role": "authenticated", "exp": 1000})
    said = "invalid JWT: unable to parse or verify signature, "
    assert look(expired) == (403, "bad_jwt", f"{said}token has invalid claims: token is expired")
    assert look("nonsense")[2].startswith(f"{said}token is malformed")
    assert look(FOREIGN.sign({"sub": user}))[1] == "bad_jwt"
    assert look(project.keys.anon_jwt) == (403, "bad_jwt", "invalid claim: missing sub claim")
    stranger = project.keys.sign({"sub": "00000000-0000-4000-8000-000000000000"})
    assert look(stranger)[1] == "user_not_found"


def test_a_trigger_that_fails_is_a_server_error_without_its_message(project: Project) -> None:
    answer = project.http("auth").post("/signup", json={"email": "cursed@example.com", "password": PASSWORD})
    assert refusal(answer) == (500, "unexpected_failure", "Database error saving new user")
    assert project.ask("select count(*) from auth.users") == 0


def test_passwords_are_stored_as_hashes(project: Project) -> None:
    sign_up(project)
    assert PASSWORD not in json.dumps(project.ask("select to_jsonb(users) from auth.users"))


def test_health_and_settings_are_answered(project: Project) -> None:
    with httpx.Client(base_url=project.url) as anybody:
        assert anybody.get("/auth/v1/health").json()["name"] == "GoTrue"
    assert project.http("auth").get("/settings").json()["mailer_autoconfirm"] is True
