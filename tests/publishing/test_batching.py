"""Images in batches: every image once, few enough requests, and no waiting for what need not be waited for."""

import asyncio
from itertools import chain
from pathlib import Path

import pytest

from watcher.identity import Image
from watcher.publishing.batching import ENOUGH_BYTES, Batches

pytestmark = pytest.mark.usefixtures("no_waiting")

SMALL, LARGE = 2_000_000, 20_000_000


def image(number: int, size: int) -> Image:
    return Image(number, f"u/{number}.jpg", Path(f"image_{number:03}"), "jpg", size, "0" * 64)


async def taken(batches: Batches) -> list[int] | None:
    """The numbers in the next batch, or None where it has to be waited for."""
    try:
        async with asyncio.timeout(0.02):
            return [one.number for one in await batches.take()]
    except TimeoutError:
        return None


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("count", range(3, 41))
async def test_every_image_comes_once_in_few_batches_however_they_trickle_in(count: int, size: int) -> None:
    batches = Batches(count)
    found: list[list[Image]] = []

    async def carry() -> None:
        while batch := await batches.take():
            found.append(batch)

    carriers = [asyncio.create_task(carry()) for _ in range(2)]
    for number in range(count):
        await batches.put(image(number, size))
        await asyncio.sleep(0)
    await asyncio.gather(*carriers)
    assert sorted(one.number for one in chain(*found)) == list(range(count))
    assert len(found) <= 1 + count * size // ENOUGH_BYTES
    for batch in found:
        assert sum(one.size for one in batch[:-1]) < ENOUGH_BYTES


async def test_large_images_do_not_wait_for_others() -> None:
    batches = Batches(40)
    await batches.put(image(0, LARGE))
    assert await taken(batches) is None
    for number in range(1, 5):
        await batches.put(image(number, LARGE))
    assert [await taken(batches) for _ in range(3)] == [[0, 1], [2, 3], None]


async def test_small_images_go_up_together() -> None:
    batches = Batches(10)
    for number in range(9):
        await batches.put(image(number, SMALL))
    assert await taken(batches) is None
    await batches.put(image(9, SMALL))
    assert await taken(batches) == list(range(10))
    assert await taken(batches) == []


async def test_who_waits_hears_that_nothing_is_left() -> None:
    batches = Batches(3)
    waiting = asyncio.create_task(taken(batches))
    for number in range(3):
        await batches.put(image(number, SMALL))
    assert sorted([await waiting or [], await taken(batches) or []]) == [[], [0, 1, 2]]
