"""What ends the daemon at its start, and what it waits for, by what the services themselves say."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.scene import Scene
from tests.support.waiting import PATIENCE
from tests.support.watching import Manager
from watcher.engine.health import Health
from watcher.engine.outages import Outages
from watcher.engine.startup import reach_services
from watcher.errors import Misconfigured
from watcher.hub.repos import Hub
from watcher.process.sd_notify import ServiceManager
from watcher.sandbox.faults import Answer, Cut, LoseAnswer
from watcher.supabase.verbs import Verbs

PAUSE = 0.01
"""Seconds between two looks."""
PAGE = "<html><h1>Blocked by the firewall</h1></html>"
HTML = {"content-type": "text/html"}
RESTRICTED = {"message": "Service for this project is restricted: exceed_egress_quota."}
NO_SCHEMA = {"code": "PGRST002", "message": "Could not query the database for the schema cache. Retrying."}
STALE = {
    "code": "PGRST202",
    "message": "Could not find the function public.watcher_version in the schema cache",
}
READ_ONLY = {"code": "25006", "message": "cannot execute UPDATE in a read-only transaction"}

# What one of the services answers, and what the status line says meanwhile.
WAITED_FOR: dict[str, tuple[str, Any, str]] = {
    "a quota": ("rest", Answer(402, RESTRICTED), "Supabase restricts the project: Service for this project"),
    "a quota, as a page": (
        "rest",
        Answer(402, PAGE, HTML),
        "restricts the project: Payment Required (HTTP 402)",
    ),
    "a proxy's 401": ("rest", Answer(401, PAGE, HTML), "Something in front of Supabase, such as a proxy"),
    "a proxy's 403": ("rest", Answer(403, PAGE, HTML), "refused the request: Forbidden (HTTP 403)"),
    "a proxy's 404": ("rest", Answer(404, PAGE, HTML), "Not Found (HTTP 404). Check SUPABASE_URL"),
    "a rate limit": ("rest", Answer(429, {"message": "API rate limit exceeded"}), "API rate limit exceeded"),
    "a paused project": ("rest", Answer(540, {"message": "Project paused"}), "Project paused (HTTP 540)"),
    "a bad gateway": ("rest", Answer(502, PAGE, HTML), "Bad Gateway (HTTP 502)"),
    "a captive portal": ("rest", Answer(200, PAGE, HTML), "response to watcher_version is malformed"),
    "no schema cache yet": (
        "rest",
        Answer(503, NO_SCHEMA),
        "Could not query the database for the schema cache",
    ),
    "a stale schema cache": ("rest", Answer(404, STALE), "run `watcher migrate`"),
    "a standby": ("rest", Answer(405, READ_ONLY), "read-only transaction"),
    "a lost answer": ("rest", LoseAnswer(), "could not be reached"),
    "the Hub's quota": (
        "hub",
        Answer(403, {"error": "Private repository storage limit reached"}),
        "limit reached",
    ),
    "the Hub's plan": ("hub", Answer(402, {"error": "Payment required"}), "Payment required (HTTP 402)"),
    "a proxy's 401 before the Hub": ("hub", Answer(401, PAGE, HTML), "Something in front of the Hub"),
    "a proxy's 403 before the Hub": ("hub", Answer(403, PAGE, HTML), "Something in front of the Hub"),
    "the Hub is down": ("hub", Answer(503, PAGE, HTML), "Service Unavailable (HTTP 503)"),
    "the Hub breaks off": ("hub", Cut(after=0), "The Hub could not be reached"),
}
FINAL: dict[str, tuple[str, Answer, str]] = {
    "an unknown key": (
        "rest",
        Answer(401, {"message": "Invalid API key"}),
        "Supabase refused the key: Invalid",
    ),
    "disabled keys": ("rest", Answer(403, {"message": "Legacy API keys are disabled"}), "keys are disabled"),
    "a key of another project": (
        "rest",
        Answer(401, {"code": "PGRST301", "message": "JWSError JWSInvalidSignature"}),
        "refused the key: JWSError",
    ),
    "a key without the right": (
        "rest",
        Answer(401, {"code": "42501", "message": "permission denied for function watcher_version"}),
        "may not call watcher_version",
    ),
    "an older schema": ("rest", Answer(200, {"schema": "2020", "serves": "0.1.0"}), "run `watcher migrate`"),
    "an unknown token": ("hub", Answer(401, {"error": "Invalid username or password."}), "refused the token"),
    "a disabled account": ("hub", Answer(403, {"error": "Your account is disabled."}), "account is disabled"),
}


Reaching = Callable[..., Awaitable[None]]


@pytest.fixture
async def reaching(verbs: Verbs, hub: Hub, outages: Outages, manager: Manager) -> Reaching:
    """Reach the services, hardly waiting between two looks."""

    async def check() -> None:
        await verbs.check_version()
        await hub.check_token()

    async def reach(check: Callable[[], Awaitable[object]] = check) -> None:
        health = Health(ServiceManager({"NOTIFY_SOCKET": manager.address}), outages, answer_within=60)
        await reach_services(
            check, outages=outages, health=health, sleep=lambda _seconds: asyncio.sleep(PAUSE)
        )

    return reach


@pytest.mark.parametrize("case", WAITED_FOR)
async def test_what_passes_by_itself_is_waited_for_and_the_status_says_what_it_is(
    scene: Scene, reaching: Reaching, outages: Outages, manager: Manager, case: str
) -> None:
    service, trouble, says = WAITED_FOR[case]
    rule = scene.sandbox.faults.add(trouble, service=service, times=2)
    await reaching()
    assert rule.reached == 2
    assert outages.reason is None
    # It is read in the order in which it was sent.
    ServiceManager({"NOTIFY_SOCKET": manager.address}).status("The last one.")
    manager.wait_for("STATUS=The last one.")
    [status] = [line for line in (message.line for message in manager.told("STATUS=")) if says in line]
    assert status.startswith("STATUS=Starting: ")
    assert PAGE[:6] not in status


@pytest.mark.parametrize("case", FINAL)
async def test_what_the_service_itself_refuses_for_good_ends_the_start(
    scene: Scene, reaching: Reaching, case: str
) -> None:
    service, answer, says = FINAL[case]
    rule = scene.sandbox.faults.add(answer, service=service, times=None)
    with pytest.raises(Misconfigured, match=says):
        await reaching()
    assert rule.reached == 1


async def test_a_schema_that_is_still_missing_when_the_cache_must_be_loaded_ends_the_start(
    reaching: Reaching, outages: Outages
) -> None:
    looks = 0

    async def check() -> None:
        nonlocal looks
        looks += 1
        # First longer than the test takes; at the third look, two pauses have passed since the first.
        passes_within = PATIENCE if looks < 3 else PAUSE
        raise Misconfigured("The database lacks our functions.", passes_within=passes_within)

    with pytest.raises(Misconfigured, match="lacks our functions"):
        await reaching(check)
    assert looks == 3
    assert outages.reason == "The database lacks our functions."


async def test_a_first_refusal_that_becomes_silence_is_over_once_the_services_answer(
    scene: Scene, reaching: Reaching, outages: Outages
) -> None:
    scene.sandbox.faults.add(Answer(402, RESTRICTED), service="rest")
    scene.sandbox.faults.add(LoseAnswer(), service="rest")
    scene.sandbox.faults.add(Answer(404, STALE), service="rest")
    await reaching()
    assert outages.kinds == {"refused": False, "unreachable": False}
