"""What is scarce goes to the user, and to the row, that has the least of it."""

import asyncio
import random
from collections.abc import Sequence

from watcher.engine.fair import FairLimit

Asked = Sequence[tuple[str, str]]


async def order(size: int, asked: Asked) -> list[str]:
    """Who is served in which order, where each serves until the next one is due."""
    limit, served = FairLimit(size), list[str]()

    async def ask(user: str, row: str) -> None:
        async with limit.held(user, row):
            served.append(row)
            await asyncio.sleep(0.001 * len(served))

    async with asyncio.TaskGroup() as group:
        for user, row in asked:
            group.create_task(ask(user, row))
    return served


async def test_a_small_row_does_not_wait_behind_a_large_one(no_waiting: None) -> None:
    served = await order(2, [("eve", "large")] * 10 + [("ada", "small")] * 2)
    assert served[:5] == ["large", "large", "small", "large", "small"]


async def test_a_users_many_rows_have_together_what_anothers_one_row_has(no_waiting: None) -> None:
    many = [("eve", f"row {number}") for number in range(4) for _ in range(3)]
    served = await order(4, [*many, *[("ada", "only")] * 6])
    assert served[4:12].count("only") >= 3


async def test_of_one_user_the_row_that_has_least_is_next_and_else_the_first(no_waiting: None) -> None:
    served = await order(1, [("eve", "a"), ("eve", "a"), ("eve", "b"), ("eve", "a"), ("eve", "b")])
    assert served == ["a", "b", "a", "b", "a"]


async def test_heavy_ones_hold_together_little_more_than_the_limit_and_light_ones_are_many() -> None:
    limit, holding = FairLimit(8, weight=32), list[float]()

    async def hold(weight: float) -> None:
        async with limit.held("ada", "row", weight):
            holding.append(weight)
            await asyncio.Event().wait()

    async def after(*weights: float) -> list[float]:
        holding.clear()
        tasks = [asyncio.create_task(hold(weight)) for weight in weights]
        for _ in range(3):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        held = list(holding)
        await asyncio.gather(*tasks, return_exceptions=True)
        return held

    assert await after(*[20] * 9) == [20, 20]
    assert await after(*[2] * 9) == [2] * 8
    assert await after(*[0] * 9) == [0] * 8
    assert await after(100, 2) == [100], "One alone may weigh anything."
    assert (limit._free, limit._unweighted) == (8, 32)


async def test_who_becomes_lighter_lets_another_begin(no_waiting: None) -> None:
    limit, begun = FairLimit(8, weight=10), asyncio.Event()

    async def follow() -> None:
        async with limit.held("ada", "second"):
            begun.set()

    async with limit.held("ada", "first", 15) as turn, asyncio.TaskGroup() as group:
        group.create_task(follow())
        limit.lighten(turn, 5)
        await asyncio.sleep(0.01)
        assert not begun.is_set()
        limit.lighten(turn, 1)
        await begun.wait()
        limit.lighten(turn, 100)
    assert (limit._free, limit._unweighted) == (8, 10)


async def test_never_more_than_its_size_and_nothing_is_lost_whoever_is_cancelled() -> None:
    rnd, limit, holding, most = random.Random(1), FairLimit(3), 0, 0

    async def hold() -> None:
        nonlocal holding, most
        async with limit.held(rnd.choice("ab"), rnd.choice("123")):
            holding += 1
            most = max(most, holding)
            try:
                await asyncio.sleep(0)
            finally:
                holding -= 1

    tasks: list[asyncio.Task[None]] = []
    for _ in range(2000):
        tasks.append(asyncio.create_task(hold()))
        if rnd.random() < 0.3:
            rnd.choice(tasks[-20:]).cancel()
        if rnd.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (holding, most) == (0, 3)
    assert not any(task.exception() for task in tasks if not task.cancelled())
    assert (limit._free, limit._waiting, limit._served) == (3, [], {})
    assert not limit._of_user | limit._of_row
