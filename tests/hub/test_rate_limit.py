"""The pace at which the Hub is asked."""

import time

import structlog

from tests.support.scene import Scene
from watcher.hub.rate_limit import RateLimit
from watcher.hub.repos import Hub
from watcher.hub.threads import in_thread


def told(remaining: int, seconds: int, *, kind: str = "api") -> dict[str, str]:
    return {
        "RateLimit": f'"{kind}";r={remaining};t={seconds}',
        "RateLimit-Policy": f'"fixed window";"{kind}";q=1000;w=300',
    }


def test_nothing_is_slowed_down_while_there_is_plenty_or_nobody_has_said() -> None:
    rate_limit = RateLimit()
    assert rate_limit.pause() == 0
    rate_limit.update(told(900, 200))
    assert (rate_limit.remaining, rate_limit.pause()) == (900, 0)


def test_near_the_end_of_the_rate_limit_the_rest_is_spread_over_the_rest_of_the_window() -> None:
    rate_limit = RateLimit()
    rate_limit.update(told(99, 200))
    assert 1.9 < rate_limit.pause() <= 2


def test_no_pause_is_longer_than_ten_seconds_and_none_outlasts_the_window() -> None:
    rate_limit = RateLimit()
    rate_limit.update(told(0, 250))
    assert rate_limit.pause() == 10
    rate_limit.update(told(0, 0))
    assert rate_limit.pause() == 0


def test_what_is_left_is_known_until_the_window_ends() -> None:
    rate_limit = RateLimit()
    assert rate_limit.requests == {}
    rate_limit.update(told(99, 200))
    assert rate_limit.requests == {"remaining": 99, "limit": 1000}
    rate_limit.update(told(99, 0))
    assert rate_limit.requests == {}, "A new window has begun, and nobody has said what it allows."


def test_what_is_left_for_downloads_is_no_concern_of_ours() -> None:
    rate_limit = RateLimit()
    rate_limit.update(told(5, 200, kind="resolvers"))
    assert rate_limit.remaining is None


async def test_a_hub_that_runs_low_is_asked_more_slowly_and_never_refuses(scene: Scene, hub: Hub) -> None:
    scene.sandbox.hub.knobs.limit_requests(4, window=2)
    began = time.monotonic()
    for _ in range(6):
        await hub.check_token()
    assert time.monotonic() - began > 1
    assert all(seen.status == 200 for seen in scene.seen("GET", "/api/whoami-v2"))


async def test_what_a_thread_logs_has_the_fields_of_its_row() -> None:
    structlog.contextvars.bind_contextvars(identity="one")
    assert await in_thread(structlog.contextvars.get_contextvars) == {"identity": "one"}
