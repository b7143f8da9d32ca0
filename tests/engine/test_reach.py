"""How far a refusal reaches: what others passed lately, what a question answered, and how often it is asked."""

import asyncio
from dataclasses import dataclass, field

import pytest

from watcher.engine.reach import Checks, Reach
from watcher.errors import Misconfigured, Outage, Refused, Transient, WatcherError

pytestmark = pytest.mark.usefixtures("no_waiting")


@dataclass
class Service:
    """Answers as it is told, and counts the questions."""

    key: WatcherError | None = None
    others: WatcherError | None = None
    has_others: bool = True
    takes: float = 0
    """Seconds."""
    asked: list[str] = field(default_factory=list)

    async def ask_key(self) -> None:
        self.asked.append("key")
        await asyncio.sleep(self.takes)
        if self.key:
            raise self.key

    async def ask_others(self, row: str) -> bool:
        self.asked.append(f"others than {row}")
        await asyncio.sleep(self.takes)
        if self.others:
            raise self.others
        return self.has_others


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def reach(service: Service) -> Reach:
    return Reach({"hub": Checks(service.ask_key, service.ask_others)})


def refused(*, now: bool = False, step: str = "commit") -> Refused:
    refusal = Refused("This row's.", everybody="Everybody's.", service="hub", now=now)
    refusal.step = step
    return refusal


async def judge(reach: Reach, row: str, attempt: int = 1, *, now: bool = False) -> Outage | None:
    try:
        await reach.judge(refused(now=now), row, attempt)
    except Outage as outage:
        return outage
    return None


async def test_who_has_just_passed_settles_it_and_one_question_serves_many(
    reach: Reach, service: Service
) -> None:
    reach.passed("a", "commit")
    for _ in range(3):
        assert await judge(reach, "b") is None
        reach.passed("a", "commit")
    assert service.asked == ["key"]
    await asyncio.sleep(31)
    reach.passed("a", "commit")
    assert await judge(reach, "b") is None
    await asyncio.sleep(2)
    reach.passed("a", "commit")
    assert await judge(reach, "b", now=True) is None
    assert service.asked == ["key"] * 3, "A key that is in doubt is asked about anew."


@pytest.mark.parametrize("passed", [("b", "commit"), ("a", "look"), None])
async def test_what_says_nothing_is_no_evidence(
    reach: Reach, service: Service, passed: tuple[str, str] | None
) -> None:
    if passed:
        reach.passed(*passed)
    else:
        reach.passed("a", "commit")
        await asyncio.sleep(61)
    assert await judge(reach, "b") is None
    assert service.asked == ["key", "others than b"]


async def test_the_right_to_write_is_asked_for_once_a_minute(reach: Reach, service: Service) -> None:
    for _ in range(3):
        assert await judge(reach, "b") is None
        await asyncio.sleep(20)
    assert service.asked.count("others than b") == 1
    await asyncio.sleep(20)
    assert await judge(reach, "b") is None
    assert service.asked.count("others than b") == 2


@pytest.mark.parametrize("error", [Outage("No."), Misconfigured("No.")])
async def test_a_key_that_is_good_for_nothing_is_everybodys(
    reach: Reach, service: Service, error: WatcherError
) -> None:
    reach.passed("a", "commit")
    service.key = error
    outage = await judge(reach, "b")
    assert outage is not None
    assert (str(outage), outage.certain, outage.of_kind) == ("No.", True, False)


async def test_who_may_not_write_to_other_rows_repos_asks_that_again_to_see_whether_it_is_over(
    reach: Reach, service: Service
) -> None:
    service.others = Outage("No.")
    outage = await judge(reach, "b", 7)
    assert outage is not None
    assert (outage.certain, outage.of_kind, list(outage.spent_by)) == (True, True, [])
    assert outage.probe is not None
    with pytest.raises(Outage):
        await outage.probe()
    service.others = None
    await outage.probe()


async def test_with_nobody_to_ask_the_second_row_decides(reach: Reach, service: Service) -> None:
    service.has_others = False
    outage = await judge(reach, "b")
    assert outage is not None
    assert (str(outage), outage.certain, outage.of_kind) == ("Everybody's.", False, True)
    reach.passed("a", "commit")
    assert await judge(reach, "b") is None


async def test_two_refused_rows_without_one_that_passed_are_an_outage_and_get_back_what_they_spent(
    reach: Reach,
) -> None:
    assert await judge(reach, "b", 1) is None
    assert await judge(reach, "b", 2) is None
    outage = await judge(reach, "c", 3)
    assert outage is not None
    assert (outage.certain, list(outage.spent_by)) == (False, [1, 2])
    again = await judge(reach, "c", 4)
    assert again is not None
    assert list(again.spent_by) == [], "Once."


async def test_two_refused_rows_beside_others_that_pass_are_two_rows(reach: Reach, service: Service) -> None:
    reach.passed("a", "commit")
    for number, row in enumerate("bcbcbc"):
        assert await judge(reach, row, number) is None
    assert service.asked == ["key", "others than c"]


async def test_many_rows_that_are_refused_at_once_ask_once(reach: Reach, service: Service) -> None:
    reach.passed("a", "commit")
    await asyncio.gather(*(judge(reach, row) for row in "bcdefg"))
    assert service.asked.count("key") == 1
    assert sum(question.startswith("others") for question in service.asked) == 1


async def test_what_a_row_spent_while_nobody_answered_is_given_back_once_the_key_is_refused(
    reach: Reach, service: Service
) -> None:
    service.key = Transient("HTTP 503.")
    with pytest.raises(Transient):
        await judge(reach, "b", 1)
    service.key = Outage("No.")
    outage = await judge(reach, "b", 2)
    assert outage is not None
    assert list(outage.spent_by) == [1]


@pytest.mark.parametrize("error", [Outage("No."), Misconfigured("No.")])
async def test_many_rows_that_meet_a_refused_key_ask_once_so_that_none_waits_for_the_others(
    reach: Reach, service: Service, error: WatcherError
) -> None:
    assert await judge(reach, "a", 1) is None, "It spends an attempt."
    service.asked.clear()
    await asyncio.sleep(2)
    service.key, service.takes = error, 4
    async with asyncio.timeout(5):
        met = await asyncio.gather(*(judge(reach, row, 2, now=True) for row in "bcdefg"))
    assert service.asked == ["key"]
    outages = [outage for outage in met if outage is not None]
    assert [(str(one), one.certain, one.of_kind) for one in outages] == [("No.", True, False)] * 6
    assert [number for one in outages for number in one.spent_by].count(1) == 1, "Given back once."


async def test_many_rows_that_meet_a_token_without_the_right_to_write_ask_once(
    reach: Reach, service: Service
) -> None:
    service.others, service.takes = Outage("No."), 4
    met = await asyncio.gather(*(judge(reach, row) for row in "bcdefg"))
    assert [question for question in service.asked if question != "key"] == ["others than b"]
    assert all(outage is not None and outage.of_kind and outage.probe is not None for outage in met)


async def test_a_refusal_is_no_answer_for_a_row_that_is_refused_later(reach: Reach, service: Service) -> None:
    service.key = Outage("No.")
    assert await judge(reach, "b", now=True) is not None
    await asyncio.sleep(0.1)
    service.key = None
    reach.passed("a", "commit")
    assert await judge(reach, "b", now=True) is None
    assert service.asked == ["key", "key"]
