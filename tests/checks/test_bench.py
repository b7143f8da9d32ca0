"""A short, fixed part of `make bench`: it still measures what is there, and a row keeps to its budget of requests."""

from functools import partial

import pytest

from bench import after_crash, claim, requests
from bench.photos import Kind, photo, upload
from bench.race import race
from tests.checks.figures.scene import scene
from tests.checks.photos.judging import judged

_SIZE = 200_000


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_photo_is_of_its_size_and_another_for_each_number(kind: Kind) -> None:
    photos = [photo(_SIZE, number, kind) for number in range(3)]
    assert len({judged(one)[0] for one in photos} - {None}) == 3
    assert all(abs(len(one) / _SIZE - 1) < 0.02 for one in photos)


def test_a_row_keeps_to_its_budget_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_SIZE": _SIZE, "_IMAGES": (3, 10), "_ROWS_EACH": 1}.items():
        monkeypatch.setattr(requests, name, value)
    found = requests.BENCH.measure()
    assert found.numbers["requests"] == {"3": 2 * 3 + 4, "10": 2 * 10 + 4}
    assert found.numbers["hub_api_calls"] == {"3": 4, "10": 4}
    assert found.numbers["database_calls"] == 3


def test_a_lost_answer_and_a_crash_cost_no_image_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after_crash, "_SIZE", _SIZE)
    found = after_crash.BENCH.measure().numbers["after_crash"]
    assert (found["same_attempt_bytes"], found["restart_bytes_up"], found["half_bytes_up"]) == (0, 0, 0)


@pytest.mark.parametrize("other", ["bench.floor", "bench.alone"])
def test_what_a_row_is_measured_against_publishes_it_too(other: str) -> None:
    with race(other, partial(upload, size=_SIZE, count=3)) as rows:
        [(ours, said)] = rows.in_turn(1)
    assert ours > 0
    assert said == "published" if other == "bench.floor" else len(said.split()) == 2


def test_a_claim_finds_its_rows_among_many() -> None:
    with scene() as here:
        claim.fill(here, open_rows=500, finished=500)
        with claim.session(here) as connection:
            assert claim.claim_in_sql(connection) > 0
