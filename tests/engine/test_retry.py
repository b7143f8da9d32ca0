"""Trying again now: only what is worth it, as often as said, no sooner than asked for."""

import asyncio

import pytest

from watcher.engine.retry import Retry
from watcher.errors import LeaseLost, Misconfigured, Outage, Permanent, Transient

pytestmark = pytest.mark.usefixtures("no_waiting")

QUICK = Retry(tries=3, first=0.01, longest=0.02, max_retry_after=0.5)


class Flaky:
    """An operation that fails with each of `errors` in turn, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.at: list[float] = []

    async def __call__(self, answer: str) -> str:
        self.at.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)
        return answer


async def test_what_fails_now_and_then_succeeds() -> None:
    flaky = Flaky(Transient("one"), Transient("two"))
    assert await QUICK(flaky, answer="done") == "done"
    assert len(flaky.at) == 3


async def test_whatever_gives_an_awaitable_may_be_tried() -> None:
    flaky = Flaky(Transient("one"))
    assert await QUICK(lambda: flaky("done")) == "done"
    assert len(flaky.at) == 2


async def test_the_last_of_its_tries_raises_what_it_met() -> None:
    flaky = Flaky(*(Transient(str(number)) for number in range(9)))
    with pytest.raises(Transient, match=r"^2$"):
        await QUICK(flaky, "never")
    assert len(flaky.at) == 3


@pytest.mark.parametrize(
    "error",
    [
        Permanent("hub_refused", "no"),
        Outage("no"),
        Misconfigured("no"),
        LeaseLost("no"),
        TimeoutError("not ours"),
        ValueError("not ours"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_nothing_but_a_transient_error_is_tried_again(error: Exception) -> None:
    flaky = Flaky(error)
    with pytest.raises(type(error)):
        await QUICK(flaky, "never")
    assert len(flaky.at) == 1


async def test_a_service_that_names_a_time_is_believed() -> None:
    flaky = Flaky(Transient("later", retry_after=0.2))
    assert await QUICK(flaky, "done") == "done"
    assert flaky.at[1] - flaky.at[0] == pytest.approx(0.2)


async def test_a_time_beyond_the_limit_is_left_to_the_database() -> None:
    flaky = Flaky(Transient("much later", retry_after=0.6))
    with pytest.raises(Transient) as caught:
        await QUICK(flaky, "never")
    assert caught.value.retry_after == 0.6
    assert len(flaky.at) == 1


async def test_waits_grow_and_are_bounded() -> None:
    flaky = Flaky(*(Transient("again") for _ in range(4)))
    assert await Retry(tries=5, first=0.02, longest=0.05)(flaky, "done") == "done"
    waits = [later - earlier for earlier, later in zip(flaky.at, flaky.at[1:], strict=False)]
    for wait, least in zip(waits, (0.02, 0.04, 0.05, 0.05), strict=True):
        assert 0.999 * least <= wait <= 2.001 * least


async def test_a_wait_ends_when_the_caller_is_cancelled() -> None:
    flaky = Flaky(Transient("later", retry_after=10))
    task = asyncio.create_task(Retry()(flaky, "never"))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(flaky.at) == 1
