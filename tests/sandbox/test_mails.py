"""Confirming an address and setting a new password, by the real client and a browser that opens the mailed links.

The page with the mails is on the control port. How long a session lasts can be set.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import jwt
import psycopg
import pytest
from supabase import AsyncClient, AsyncClientOptions, acreate_client
from supabase_auth.errors import AuthApiError

from tests.sandbox.project import PATIENCE, Project

ANNA = {"email": "anna@example.com", "password": "correct horse"}
APP = "http://localhost:5173/welcome"


@pytest.fixture(autouse=True)
def empty(project: Project) -> Iterator[None]:
    yield
    project.sandbox.auth.knobs.reset()
    with psycopg.connect(project.sandbox.admin_db_url) as connection:
        connection.execute("truncate auth.users cascade")


@pytest.fixture(params=["implicit", "pkce"])
async def client(project: Project, request: pytest.FixtureRequest) -> AsyncIterator[AsyncClient]:
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False, flow_type=request.param)
        yield await acreate_client(project.url, project.keys.publishable, options)


def mails(project: Project) -> list[dict[str, str]]:
    page = httpx.get(f"{project.sandbox.control_url}/mails", headers={"accept": "application/json"})
    found: list[dict[str, str]] = page.json()
    return found


def opened(mail: dict[str, str]) -> str:
    """Open the link of a mail as a browser does, and return where it leads."""
    answer = httpx.get(mail["link"])
    assert answer.status_code == 303
    return answer.headers["location"]


async def landed(client: AsyncClient, project: Project, url: str) -> str:
    """Do what the client in the app's page does, and return the address of the user who is signed in then."""
    code = parse_qs(urlsplit(url).query).get("code")
    if code:
        asked: Any = {"auth_code": code[0]}
        session = (await client.auth.exchange_code_for_session(asked)).session
    else:
        fragment = dict(parse_qsl(urlsplit(url).fragment))
        assert fragment["token_type"] == "bearer"
        session = (await client.auth.set_session(fragment["access_token"], fragment["refresh_token"])).session
    assert session is not None
    return str(session.user.email)


async def test_a_user_signs_in_after_opening_the_link_to_confirm_the_address(
    project: Project, client: AsyncClient
) -> None:
    project.control("auth_confirm_emails")
    made: Any = {**ANNA, "options": {"email_redirect_to": APP, "data": {"name": "Anna"}}}
    answer = await client.auth.sign_up(made)
    assert (answer.session, answer.user and answer.user.email) == (None, ANNA["email"])
    with pytest.raises(AuthApiError, match="Email not confirmed"):
        await client.auth.sign_in_with_password({"email": ANNA["email"], "password": ANNA["password"]})
    mail = mails(project)[0]
    assert (mail["to"], mail["subject"]) == (ANNA["email"], "Confirm your sign-up")
    where = opened(mail)
    assert where.startswith(APP)
    assert await landed(client, project, where) == ANNA["email"]
    assert "error_code=otp_expired" in opened(mail), "a link is good once"
    await client.auth.sign_out()
    await client.auth.sign_in_with_password({"email": ANNA["email"], "password": ANNA["password"]})


async def test_a_forgotten_password_is_replaced_through_the_mailed_link(
    project: Project, client: AsyncClient
) -> None:
    await client.auth.sign_up({"email": ANNA["email"], "password": ANNA["password"]})
    await client.auth.sign_out()
    await client.auth.reset_password_for_email(ANNA["email"], {"redirect_to": f"{APP}?step=password"})
    where = opened(mails(project)[0])
    assert where.startswith(f"{APP}?step=password")
    assert await landed(client, project, where) == ANNA["email"]
    await client.auth.update_user({"password": "battery staple"})
    await client.auth.sign_out()
    with pytest.raises(AuthApiError, match="Invalid login credentials"):
        await client.auth.sign_in_with_password({"email": ANNA["email"], "password": ANNA["password"]})
    await client.auth.sign_in_with_password({"email": ANNA["email"], "password": "battery staple"})


async def test_the_code_of_a_mail_can_be_typed_in_instead(project: Project, client: AsyncClient) -> None:
    project.control("auth_confirm_emails")
    await client.auth.sign_up({"email": ANNA["email"], "password": ANNA["password"]})
    first = mails(project)[0]["code"]
    await client.auth.resend({"type": "signup", "email": ANNA["email"]})
    code = mails(project)[0]["code"]
    assert re.fullmatch(r"\d{6}", code)
    for wrong in ("000000" if code != "000000" else "000001", *([first] if first != code else [])):
        with pytest.raises(AuthApiError, match="Token has expired or is invalid") as refused:
            await client.auth.verify_otp({"type": "email", "email": ANNA["email"], "token": wrong})
        assert (refused.value.status, refused.value.code) == (403, "otp_expired")
    answer = await client.auth.verify_otp({"type": "email", "email": ANNA["email"], "token": code})
    assert answer.session is not None
    claims = jwt.decode(answer.session.access_token, options={"verify_signature": False})
    assert claims["amr"][0]["method"] == "otp"


def test_a_link_expires_after_an_hour_and_leads_back_with_the_reason(project: Project) -> None:
    project.control("auth_confirm_emails")
    auth = project.http("auth")
    assert auth.post("/signup", json=ANNA).json()["confirmation_sent_at"]
    with psycopg.connect(project.sandbox.admin_db_url) as connection:
        connection.execute("update auth.users set confirmation_sent_at = now() - interval '61 minutes'")
    where = urlsplit(opened(mails(project)[0]))
    assert where.netloc == "localhost:3000"
    assert dict(parse_qsl(where.fragment, keep_blank_values=True)) == {
        "error": "access_denied",
        "error_code": "otp_expired",
        "error_description": "Email link is invalid or has expired",
        "sb": "",
    }


def test_signing_up_does_not_tell_whether_a_confirmed_address_is_known(project: Project) -> None:
    auth = project.http("auth")
    known = auth.post("/signup", json=ANNA).json()["user"]
    project.control("auth_confirm_emails")
    before = len(mails(project))
    again = auth.post("/signup", json=ANNA).json()
    new = auth.post("/signup", json={**ANNA, "email": "new@example.com"}).json()
    assert again["id"] not in {known["id"], new["id"]}
    assert (again["email"], again["identities"], again["role"]) == (ANNA["email"], [], "")
    assert "email_confirmed_at" not in again
    assert len(mails(project)) == before + 1
    assert auth.post("/recover", json={"email": "nobody@example.com"}).json() == {}
    assert len(mails(project)) == before + 1


def test_a_code_of_the_pkce_flow_needs_its_verifier_and_is_good_once(project: Project) -> None:
    auth = project.http("auth")
    auth.post("/signup", json=ANNA)
    challenge = {"code_challenge": "v" * 43, "code_challenge_method": "plain"}
    assert auth.post("/recover", json={"email": ANNA["email"], **challenge}).is_success
    [code] = parse_qs(urlsplit(opened(mails(project)[0])).query)["code"]

    def exchange(verifier: str) -> httpx.Response:
        return auth.post("/token?grant_type=pkce", json={"auth_code": code, "code_verifier": verifier})

    assert exchange("w" * 43).json()["error_code"] == "bad_code_verifier"
    assert exchange("v" * 43).json()["user"]["email"] == ANNA["email"]
    assert exchange("v" * 43).json()["error_code"] == "flow_state_not_found"


def test_the_page_shows_mails_newest_first_and_escapes_them(project: Project) -> None:
    auth = project.http("auth")
    for email in ("first@example.com", "o'brien&co@example.com"):
        auth.post("/signup", json={**ANNA, "email": email})
        auth.post("/recover?redirect_to=http://x/<script>", json={"email": email})
    page = httpx.get(f"{project.sandbox.control_url}/mails")
    assert page.headers["content-type"].startswith("text/html")
    assert "o&#x27;brien&amp;co@example.com" in page.text
    assert "<script>" not in page.text
    assert page.text.index("brien") < page.text.index("first@example.com")


@pytest.mark.parametrize("seconds", [1, 90])
def test_a_session_lasts_as_long_as_is_set(project: Project, seconds: int) -> None:
    project.control("auth_set_session_length", seconds=seconds)
    session = project.http("auth").post("/signup", json=ANNA).json()
    claims = jwt.decode(session["access_token"], options={"verify_signature": False})
    assert (session["expires_in"], claims["exp"] - claims["iat"]) == (seconds, seconds)


def test_a_session_cannot_last_no_time(project: Project) -> None:
    action = f"{project.sandbox.control_url}/actions/auth_set_session_length"
    refused = httpx.post(action, json={"seconds": 0})
    assert (refused.status_code, "at least 1" in refused.json()["error"]) == (400, True)


Probe = Callable[[httpx.Client], httpx.Response]
REFUSALS: dict[str, tuple[Probe, int, str]] = {
    "a short challenge": (
        lambda auth: auth.post(
            "/recover", json={"email": "a@b.co", "code_challenge": "x", "code_challenge_method": "plain"}
        ),
        400,
        "code challenge has to be between 43 and 128 characters",
    ),
    "a challenge with a blank": (
        lambda auth: auth.post(
            "/recover",
            json={"email": "a@b.co", "code_challenge": "x " * 22, "code_challenge_method": "plain"},
        ),
        400,
        "code challenge can only contain alphanumeric characters, hyphens, periods, underscores and tildes",
    ),
    "a link without a type": (
        lambda auth: auth.get("/verify?token=x"),
        400,
        "Verify requires a verification type",
    ),
    "a link without a token": (
        lambda auth: auth.get("/verify?type=signup"),
        400,
        "Verify requires a token or a token hash",
    ),
    "a code of an unknown kind": (
        lambda auth: auth.post("/verify", json={"type": "x", "token": "1", "email": "a@b.co"}),
        400,
        "Unsupported verification type",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_gotrue_refuses(project: Project, what: str) -> None:
    probe, status, message = REFUSALS[what]
    answer = probe(project.http("auth"))
    assert (answer.status_code, answer.json()["msg"]) == (status, message)
