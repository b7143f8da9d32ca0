"""Names that were given up: what is behind them is erased, once more looked at where need be, and nobody gets them again."""

from uuid import UUID

import pytest

from tests.support.database import Database, Row, Worker

pytestmark = pytest.mark.postgres

RETRY = "update public.trained_identities set status = 'pending'"


def abandoned(database: Database, *, answered: bool = True) -> tuple[UUID, str]:
    """A row that failed for good, and the name that it had."""
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    name = worker.reserve(attempt)
    assert worker.fail(attempt, answered=answered) == "done"
    return identity, name


def line(database: Database, name: str) -> Row:
    query = "select *, extract(epoch from look_again_at - now()) as again_in from watcher.erase_lines where name = %s"
    rows = database.run(query, [name])
    return rows[0] if rows else {}


def names(database: Database) -> set[str]:
    return {row["model_id"] for row in database.run("select model_id from watcher.names")}


def test_a_row_that_fails_gives_its_name_up_and_the_repo_is_erased(database: Database) -> None:
    identity, name = abandoned(database)
    assert database.row(identity)["model_id"] is None
    worker = Worker(database)
    [claim] = worker.claim({"publish": 4, "erase": 4})
    [thing] = claim["details"]["lines"]
    assert (claim["kind"], claim["identity_id"]) == ("erase", str(identity))
    assert thing == {
        "id": line(database, name)["id"],
        "what": "repo",
        "name": name,
        "ours": False,
        "kept": False,
    }
    assert worker.erased(claim["attempt"]) == "done"
    assert database.outcomes(identity, "erase") == ["erased"]
    assert database.work(identity, "erase") == line(database, name) == {}
    assert name not in names(database)


def test_a_row_that_fails_without_a_name_leaves_nothing_to_erase(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    worker.fail(worker.claim_one())
    assert worker.claim({"erase": 4}) == []
    assert database.work(identity, "erase") == {}


def test_where_nothing_can_land_late_one_look_suffices(database: Database) -> None:
    _, name = abandoned(database, answered=True)
    assert line(database, name)["look_again_at"] is None


def test_where_something_can_land_late_it_is_looked_at_once_more(database: Database) -> None:
    identity, name = abandoned(database, answered=False)
    worker = Worker(database)
    assert worker.erased(worker.claim_one(kind="erase")) == "done"
    assert name in names(database)
    assert worker.claim({"erase": 1}) == []
    database.pass_time(140)
    assert worker.claim({"erase": 1}) == []
    database.pass_time(10)
    assert worker.erased(worker.claim_one(kind="erase")) == "done"
    assert database.work(identity, "erase") == line(database, name) == {}
    assert name not in names(database)


@pytest.mark.parametrize(
    ("earlier", "ago", "again_in"),
    [("deferred", 100, 50), ("deferred", 121, None), ("released", 0, 150), ("crashed", 60, 90)],
)
def test_the_second_look_comes_when_the_last_request_of_any_attempt_can_land_no_more(
    database: Database, earlier: str, ago: float, again_in: float | None
) -> None:
    database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    name = worker.reserve(attempt)
    match earlier:
        case "deferred":
            worker.defer(attempt, answered=False)
        case "released":
            worker.release(attempt, answered=False)
        case _:
            database.pass_time(21)
    if earlier == "crashed":
        last = worker.claim_one()
        database.pass_time(ago)
    else:
        database.pass_time(ago)
        last = worker.claim_one()
    assert worker.fail(last, answered=True) == "done"
    found = line(database, name)["again_in"]
    assert found is None if again_in is None else again_in - 2 < found <= again_in


def test_a_look_that_comes_late_enough_is_the_only_one(database: Database) -> None:
    identity, name = abandoned(database, answered=False)
    database.pass_time(151)
    worker = Worker(database)
    assert worker.erased(worker.claim_one(kind="erase")) == "done"
    assert database.work(identity, "erase") == line(database, name) == {}


def test_a_name_that_was_given_up_is_never_reserved_again(database: Database) -> None:
    identity, name = abandoned(database)
    worker = Worker(database)
    stem, _, second = name.rpartition("-")
    given_up = [name]
    for erase in (True, False, True):
        if erase:
            worker.erased(worker.claim_one(kind="erase"))
        database.run(RETRY)
        attempt = worker.claim_one()
        given_up.append(worker.reserve(attempt))
        worker.fail(attempt, answered=True)
    assert given_up == [f"{stem}-{int(second) + number}" for number in range(4)]
    # Nor by another row, in whatever case it is written.
    user = database.row(identity)["user_id"]
    other = database.insert(user)
    database.overwrite(
        "update public.trained_identities set created_at = "
        "(select created_at from public.trained_identities where id = %s) where id = %s",
        [identity, other],
    )
    assert worker.reserve(worker.claim_one(), "ACME") == f"ACME/{stem.partition('/')[2]}-{int(second) + 4}"


def test_many_names_that_were_given_up_are_passed_over(database: Database) -> None:
    identity = database.insert(database.user())
    second = int(database.row(identity)["created_at"].timestamp())
    database.run(
        "insert into watcher.used_names (digest) select watcher.name_digest('acme/identity-ada-' || s) "
        "from generate_series(%s::bigint, %s::bigint) s",
        [second, second + 99],
    )
    worker = Worker(database)
    assert worker.reserve(worker.claim_one()) == f"acme/identity-ada-{second + 100}"


def test_a_name_of_another_namespace_is_given_up_when_the_next_is_reserved(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    old = worker.reserve(attempt, "acme")
    worker.reserve(attempt, "acme-inc")
    assert 149 < line(database, old)["again_in"] <= 150, "The attempt that runs may still send something."
    assert database.work(identity, "erase")


def test_what_is_added_while_something_is_erased_comes_next(database: Database) -> None:
    identity, first = abandoned(database)
    worker = Worker(database)
    erasing = worker.claim_one(kind="erase")
    known = [line(database, first)["id"]]
    database.run(RETRY)
    attempt = worker.claim_one(holding=[erasing])
    second = worker.reserve(attempt)
    worker.fail(attempt, answered=True)
    assert worker.claim({"erase": 4}, [erasing]) == []
    assert worker.erased(erasing, known) == worker.erased(erasing, known) == "done"
    [claim] = worker.claim({"erase": 4})
    assert [thing["name"] for thing in claim["details"]["lines"]] == [second]
    assert worker.erased(claim["attempt"]) == "done"
    assert database.work(identity, "erase") == {}


def test_an_erasure_that_erased_nothing_is_not_claimed_again_at_once(database: Database) -> None:
    abandoned(database)
    _, others = abandoned(database)
    worker = Worker(database)
    attempt, other = (claim["attempt"] for claim in worker.claim({"erase": 2}))
    theirs = line(database, others)["id"]
    for lines in ([], [0], [theirs]):
        assert worker.erased(attempt, lines) == "done"
        assert worker.claim({"erase": 2}, [other]) == []
        database.pass_time(2)
        attempt = worker.claim_one([other], kind="erase")
    assert line(database, others)["gone_at"] is None


def test_a_verb_of_one_kind_ends_nothing_of_another(database: Database) -> None:
    identity, _ = abandoned(database)
    database.run(RETRY)
    worker = Worker(database)
    claims = {claim["kind"]: claim["attempt"] for claim in worker.claim({"publish": 1, "erase": 1})}
    assert worker.complete(claims["erase"]) == "lost"
    assert worker.reserve(claims["erase"]) is None
    assert worker.erased(claims["publish"]) == "lost"
    assert sorted(worker.renew(list(claims.values()))["held"]) == sorted(claims.values())
    assert database.status(identity) == "publishing"


def test_an_erasure_is_never_given_up(database: Database) -> None:
    identity, name = abandoned(database)
    worker = Worker(database)
    for number in range(1, 12):
        worker.defer(worker.claim_one(kind="erase"), "The Hub is away.")
        if number >= 8:
            due_in = "select extract(epoch from next_at - now()) from watcher.work where kind = 'erase'"
            assert 3599 < database.value(due_in) <= 3600
        database.pass_time(3600)
    for _ in range(9):  # nor does it matter how its attempts end
        worker.claim_one(kind="erase")
        database.pass_time(21)
        worker.claim({"erase": 1})
        database.pass_time(3600)
    assert database.status(identity) == "failed"
    assert database.row(identity)["error_code"] == "image_missing"
    assert line(database, name)
    attempt = worker.claim_one(kind="erase")
    assert worker.fail(attempt, "hub_refused", "No.") == "done"
    assert database.work(identity, "erase")["last_reason"] == "No."


@pytest.mark.parametrize("meanwhile", [False, True])
def test_an_erasure_outlives_its_row(database: Database, meanwhile: bool) -> None:
    identity, name = abandoned(database)
    worker = Worker(database)
    user = database.row(identity)["user_id"]
    if meanwhile:
        attempt = worker.claim_one(kind="erase")
        database.delete_account(user)
    else:
        database.delete_account(user)
        attempt = worker.claim_one(kind="erase")
    assert worker.renew([attempt])["held"] == [attempt]
    assert worker.erased(attempt) == "done"
    assert line(database, name) == {}


@pytest.mark.parametrize("looked", [False, True])
def test_what_has_lost_its_place_in_the_queue_is_found_when_it_is_due(
    database: Database, looked: bool
) -> None:
    _, name = abandoned(database, answered=False)
    worker = Worker(database)
    if looked:
        worker.erased(worker.claim_one(kind="erase"))
    database.run("delete from watcher.work")
    if looked:
        assert worker.claim({"erase": 1}) == []
        assert 0 < worker.ask({"erase": 1})["next_due_seconds"] <= 150
        database.pass_time(150)
    [claim] = worker.claim({"erase": 1})
    assert [thing["name"] for thing in claim["details"]["lines"]] == [name]
