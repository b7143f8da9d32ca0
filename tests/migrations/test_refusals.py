"""What the table refuses from a user, and in which words; and what it accepts, however odd."""

import sys
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.support.database import Database, Worker, insertion, run
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.postgres

TOO_MANY = (
    "You have 20 identities waiting or being published, the most allowed at a time; "
    "please try again when one of them is done."
)
RETRY = "update public.trained_identities set status = 'pending' where status = 'failed'"


def refusal(database: Database, user: UUID, values: dict[str, Any]) -> str | None:
    """Insert as `user`; the words of the refusal, None if there was none."""
    try:
        database.run(*insertion(values), role="authenticated", user=user)
    except psycopg.errors.CheckViolation as error:
        assert database.value("select count(*) from public.trained_identities") == 0
        return error.diag.message_primary
    return None


def name_refusal(database: Database, name: str | None) -> str | None:
    user = database.user()
    return refusal(database, user, {"identity_name": name, "image_paths": database.upload(user)})


def path_refusal(database: Database, change: Callable[[str, list[str]], Any]) -> str | None:
    """Upload three images, change the list of their paths, store whatever it names, and insert."""
    user = database.user()
    paths = change(str(user), [f"{user}/{name}" for name in ("a.jpg", "beach.jpg", "c.png")])
    if isinstance(paths, list):
        database.store(sorted({path for path in paths if isinstance(path, str)}))
    return refusal(database, user, {"identity_name": "Ada", "image_paths": paths})


# Names.


@pytest.mark.parametrize(
    "name",
    [
        "A",
        "Zoë Müller-O'Neill",
        "李雷",
        "x" * 100,
        "😀" * 100,
        "👩‍👩‍👧‍👦",  # joined by U+200D
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England, in tags
        "❤️",  # with a variation selector
        "می‌خواهم",  # with U+200C
        "क्‍ष",
        "Jose\u0301",  # a combining accent
        "\u0301",
        "two  spaces",
        "1 + 1 = 'two'; drop table",
        "a\u2800b",  # a blank beside something that shows
        "ᠮᠣᠩᠭᠣᠯ\u180bᠠ",
        "\ue000",
        "🄰\U0010fffd",
    ],
)
def test_a_name_that_can_be_read_is_kept_as_it_is(database: Database, name: str) -> None:
    identity = database.insert(database.user(), name=name)
    assert database.row(identity)["identity_name"] == name


@pytest.mark.parametrize("name", [None, ""])
def test_an_empty_name_is_refused(database: Database, name: str | None) -> None:
    assert name_refusal(database, name) == "The name is empty; please enter one."


@pytest.mark.parametrize(("name", "length"), [("x" * 101, 101), ("é" * 5000, 5000), ("👩‍👩‍👧‍👦" * 15, 105)])
def test_a_long_name_is_refused_with_its_length(database: Database, name: str, length: int) -> None:
    assert name_refusal(database, name) == f"The name has {length} characters; at most 100 are allowed."


WHITE = [
    *range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000,
]  # fmt: skip
HIDDEN = [
    *range(0x01, 0x20), *range(0x7F, 0xA0), 0xAD, 0x034F, 0x061C, 0x180E, 0x200B, 0x200E, 0x200F,
    *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFC),
]  # fmt: skip
# What Unicode calls format characters though they show.
SHOWN = {*range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2, 0x110BD, 0x110CD}
JOINERS = [0x200C, 0x200D]
BLANK = [
    0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, *range(0xFE00, 0xFE10), 0xFFA0,
    *range(0xFFF0, 0xFFF9), *range(0x13430, 0x13440), *range(0x1BCA0, 0x1BCA4), 0x1D159, *range(0x1D173, 0x1D17B),
    *range(0xE0000, 0xE1000),
]  # fmt: skip


def judged(database: Database, names: dict[int, str]) -> dict[int, str | None]:
    """Return what the check of the table says of each name, in one question."""
    rows = database.run(
        "select code, watcher.name_error(name) as words from unnest(%s::int[], %s::text[]) as given (code, name)",
        [list(names), list(names.values())],
    )
    return {row["code"]: row["words"] for row in rows}


def test_a_name_of_what_cannot_be_seen_is_refused(database: Database) -> None:
    codes = [*WHITE, *HIDDEN, *JOINERS, *BLANK]
    words = "The name has no visible character; please enter a readable name."
    assert judged(database, {code: chr(code) for code in codes}) == dict.fromkeys(codes, words)
    assert judged(database, {code: f"{chr(code)}\u3164 \u200d" for code in codes}) == dict.fromkeys(
        codes, words
    )
    assert name_refusal(database, "\u3164") == words


def test_no_name_is_made_of_what_unicode_calls_space_control_or_format(database: Database) -> None:
    unseen = {"Cc", "Cf", "Zs", "Zl", "Zp"}
    codes = [code for code in range(1, sys.maxunicode) if unicodedata.category(chr(code)) in unseen]
    words = judged(database, {code: chr(code) for code in codes if code not in SHOWN})
    assert [code for code, word in words.items() if word is None] == []


@pytest.mark.parametrize("shape", ["{}Ada", "Ada{}"])
def test_a_name_with_a_space_at_an_end_is_refused(database: Database, shape: str) -> None:
    words = "The name begins or ends with a space; please remove it."
    assert judged(database, {code: shape.format(chr(code)) for code in WHITE}) == dict.fromkeys(WHITE, words)
    assert name_refusal(database, shape.format(" ")) == words


@pytest.mark.parametrize("shape", ["Ad{}a", "{}Ada", "Ada{}"])
def test_a_name_that_hides_a_character_is_refused_and_the_character_named(
    database: Database, shape: str
) -> None:
    codes = HIDDEN if shape == "Ad{}a" else [code for code in [*HIDDEN, *JOINERS] if code not in WHITE]
    assert judged(database, {code: shape.format(chr(code)) for code in codes}) == {
        code: f"The name contains an invisible character (U+{code:04X}); please type the name again."
        for code in codes
    }
    assert name_refusal(database, shape.format("\u202e")) is not None


def test_a_name_cannot_hold_a_nul(database: Database) -> None:
    with pytest.raises(psycopg.Error):
        name_refusal(database, "A\0da")


def test_every_other_character_is_accepted_in_a_name(database: Database) -> None:
    refused = {*WHITE, *HIDDEN}
    wanted = [code for code in range(1, 0x3400) if code not in refused]
    assert set(judged(database, {code: f"a{chr(code)}a" for code in wanted}).values()) == {None}


# How many images, and in what shape.


@pytest.mark.parametrize("count", [3, 40])
def test_three_to_forty_images_are_accepted(database: Database, count: int) -> None:
    user = database.user()
    identity = database.insert(user, database.upload(user, count))
    assert database.row(identity)["num_training_images"] == count


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "No images were given; 3 to 40 are needed."),
        (1, "1 images were given; 3 to 40 are needed."),
        (2, "2 images were given; 3 to 40 are needed."),
        (41, "41 images were given; 3 to 40 are needed."),
        (20_000, "20000 images were given; 3 to 40 are needed."),
    ],
)
def test_fewer_or_more_images_are_refused(database: Database, count: int, words: str) -> None:
    user = database.user()
    paths = database.upload(user, count)
    assert refusal(database, user, {"identity_name": "Ada", "image_paths": paths}) == words


def test_no_list_of_images_is_refused(database: Database) -> None:
    user = database.user()
    words = "No images were given; 3 to 40 are needed."
    assert refusal(database, user, {"identity_name": "Ada", "image_paths": None}) == words
    assert refusal(database, user, {"identity_name": "Ada"}) == words


@pytest.mark.parametrize(
    "shape",
    [
        "{{{{{0}/a.jpg}},{{{0}/beach.jpg}},{{{0}/c.png}}}}",
        "{{{{{0}/a.jpg,{0}/beach.jpg}},{{{0}/c.png,{0}/d.png}}}}",
        "[0:2]={{{0}/a.jpg,{0}/beach.jpg,{0}/c.png}}",
        "[2:4]={{{0}/a.jpg,{0}/beach.jpg,{0}/c.png}}",
        "[-1:1]={{{0}/a.jpg,{0}/beach.jpg,{0}/c.png}}",
    ],
)
def test_an_odd_array_is_refused(database: Database, shape: str) -> None:
    words = "The images must be given as one plain list of paths."
    assert path_refusal(database, lambda user, paths: shape.format(user)) == words


# Paths.


@pytest.mark.parametrize(
    "name",
    [
        *("x.jpg", "a b.jpg", "A-Z_(1)+@=.png", "x..y.jpg", "x.", "1/2/3/4/x.jpg", "-", "a@b=c"),
        f"{'x' * 200}/{'x' * 200}/{'x' * (512 - 37 - 402)}",
    ],
)
def test_an_odd_path_of_the_users_own_is_accepted(database: Database, name: str) -> None:
    assert path_refusal(database, lambda user, paths: [*paths, f"{user}/{name}"]) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda user, paths: [paths[0], None, paths[2]], "Image 2 has no path."),
        (
            lambda user, paths: [*paths, paths[1]],
            "Image 4 (beach.jpg) is given twice: it is also image 2.",
        ),
        (
            lambda user, paths: [*paths, f"{uuid4()}/beach.jpg"],
            "Image 4 (beach.jpg) lies outside your own folder; upload it under your user id.",
        ),
        (
            lambda user, paths: [f"{user.upper()}/beach.jpg", *paths],
            "Image 1 (beach.jpg) lies outside your own folder; upload it under your user id.",
        ),
        (
            lambda user, paths: [paths[0], f"{user}/1/2/3/4/5/x.jpg", paths[1]],
            "Image 2 (x.jpg) lies more than 5 folders deep.",
        ),
    ],
)
def test_a_refusal_says_which_image_by_number_and_file_name(
    database: Database, change: Callable[[str, list[str]], Any], words: str
) -> None:
    assert path_refusal(database, change) == words


@pytest.mark.parametrize(
    "path",
    [
        "beach.jpg", "", " ", "/", "{u}", "{u}beach.jpg", "/{u}/beach.jpg", " {u}/beach.jpg", "./{u}/beach.jpg",
        "../{u}/beach.jpg", "{h}/beach.jpg", "{{{u}}}/beach.jpg", "{u}\\beach.jpg",
        "{u}%2Fbeach.jpg", "{u}\u2215beach.jpg", "{u}\n/beach.jpg", "\ufeff{u}/beach.jpg", "{w}/beach.jpg",
        "https://elsewhere.example/{u}/beach.jpg", "_" * 36 + "/beach.jpg", "%/beach.jpg",
    ],
)  # fmt: skip
def test_a_path_outside_the_users_folder_is_refused(database: Database, path: str) -> None:
    def change(user: str, paths: list[str]) -> list[str]:
        wide = "".join(chr(ord(letter) + 0xFEE0) if letter.isdigit() else letter for letter in user)
        return [*paths, path.format(u=user, h=user.replace("-", ""), w=wide)]

    words = path_refusal(database, change)
    assert words is not None
    assert words.startswith("Image 4 (")
    assert words.endswith(") lies outside your own folder; upload it under your user id.")


def test_a_path_that_begins_with_the_buckets_name_is_told_as_that(database: Database) -> None:
    words = path_refusal(database, lambda user, paths: [*paths, f"identity-images/{user}/beach.jpg"])
    assert words == (
        'Image 4 (beach.jpg) has a path that begins with the bucket\'s name; leave out "identity-images/".'
    )


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "..", ".", "../x.jpg", "./x.jpg", "a/../x.jpg", "a/./x.jpg", "a/..", "a/.", "a/", "a//x.jpg", "/x.jpg",
        "//x.jpg", ".hidden", "a/.hidden/x.jpg", "...", " x.jpg", "x.jpg ", "a /x.jpg", "a/ x.jpg", "a/ ", " ", " /x",
    ],
)  # fmt: skip
def test_a_path_with_an_odd_part_is_refused(database: Database, name: str) -> None:
    words = path_refusal(database, lambda user, paths: [*paths, f"{user}/{name}"])
    assert words is not None
    assert words.startswith("Image 4 (")
    assert words.endswith(
        ") has a path with a part that is empty, begins with a dot, or begins or ends with a space."
    )


@pytest.mark.parametrize(
    "name",
    [
        "x\\y.jpg", "..\\x.jpg", "%2e%2e/x.jpg", "x%00.jpg", "x\x01.jpg", "x\n.jpg", "x.jpg\n", "x\r.jpg", "x\t.jpg",
        "é.jpg", "e\u0301.jpg", "李.jpg", "x\u202e.jpg", "x\u200b.jpg", "x\u00a0.jpg", "x\u2024\u2024.jpg", "\uff0e\uff0e/x",
        "x\u2044y.jpg", "x#y.jpg", "x?y.jpg", "x&y.jpg", "x;y.jpg", "x:y.jpg", "x*y.jpg", "x'y.jpg", 'x"y.jpg', "x<y.jpg",
        "x>y.jpg", "x|y.jpg", "x,y.jpg", "x[1].jpg", "x{1}.jpg", "x~.jpg", "x!.jpg", "x$y.jpg", "x^y.jpg", "x`y.jpg", "😀",
        "ſ.jpg", "\u212a.jpg", "ı.jpg", "\x7f", "\ud7ff", "\ufffd",
    ],
)  # fmt: skip
def test_a_path_with_another_character_is_refused(database: Database, name: str) -> None:
    words = path_refusal(database, lambda user, paths: [*paths, f"{user}/{name}"])
    assert words is not None
    assert words.startswith("Image 4 (")
    assert words.endswith(") has a path with other characters than A-Z a-z 0-9 space . _ ( ) + @ = and -.")


def test_a_path_cannot_hold_a_nul(database: Database) -> None:
    with pytest.raises(psycopg.Error):
        path_refusal(database, lambda user, paths: [*paths, f"{user}/x\0.jpg"])


def test_a_path_of_more_than_512_characters_is_refused(database: Database) -> None:
    long = "x" * (512 - 37 + 1)
    words = path_refusal(database, lambda user, paths: [*paths, f"{user}/{long}"])
    assert words == f"Image 4 ({'x' * 80}) has a path of more than 512 characters."


@pytest.mark.parametrize("name", ["x" * 201, f"{'x' * 201}/x.jpg"])
def test_a_path_with_a_part_of_more_than_200_characters_is_refused(database: Database, name: str) -> None:
    words = path_refusal(database, lambda user, paths: [*paths, f"{user}/{name}"])
    assert words is not None
    assert words.endswith(") has a path with a part of more than 200 characters.")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux for the processor's time")
def test_a_path_of_many_millions_of_characters_costs_little_more_than_to_read_it(database: Database) -> None:
    connection = database.connect()

    def ticks() -> int:
        """What Postgres has spent of the processor's time on this connection."""
        stat = Path(f"/proc/{connection.info.backend_pid}/stat").read_text()
        return sum(int(ticks) for ticks in stat.rpartition(")")[2].split()[11:13])

    def cost(query: str) -> int:
        before = ticks()
        run(connection, query)
        return ticks() - before

    path = r"repeat(U&'\202e', 20000000)"
    [row] = run(connection, f"select watcher.image_label(4, {path}) as words")
    assert row["words"] == f"Image 4 ({'?' * 80})"
    assert cost(f"select watcher.image_label(4, {path})") < 8 * cost(
        f"select md5({path})"
    )  # it took 8 s once


def test_what_a_refusal_repeats_of_a_path_is_harmless(database: Database) -> None:
    words = path_refusal(database, lambda user, paths: [*paths, f"{user}/<b>\u202egpj.exe\n\n'; drop"])
    assert words is not None
    assert words.isprintable()
    assert not set(words) & set("<>'\u202e\n")


# What has not been uploaded.


def test_an_image_that_was_not_uploaded_is_refused(database: Database) -> None:
    user = database.user()
    paths = [*database.upload(user), f"{user}/portrait.jpg", f"{user}/other.jpg"]
    words = "Image 4 (portrait.jpg) has not been uploaded; upload it, then try again."
    assert refusal(database, user, {"identity_name": "Ada", "image_paths": paths}) == words


def test_a_retry_of_a_row_whose_image_is_gone_is_refused(database: Database) -> None:
    user = database.user()
    paths = database.upload(user)
    identity = database.insert(user, paths)
    worker = Worker(database)
    worker.fail(worker.claim_one(), "image_unreadable", "Image 2 is cut off.")
    database.overwrite("delete from storage.objects where name = any (%s)", [paths[1:]])
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        database.run(RETRY, role="authenticated", user=user)
    words = "Image 2 (photo 2.jpg) has not been uploaded; upload it, then try again."
    assert refused.value.diag.message_primary == words
    assert database.row(identity)["error_code"] == "image_unreadable"
    database.store(paths[1:])
    database.run(RETRY, role="authenticated", user=user)
    assert database.status(identity) == "pending"


def test_the_operators_replay_does_not_ask_for_the_images(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    worker.fail(worker.claim_one())
    database.overwrite("delete from storage.objects")
    assert worker.replay()["replayed"] == 1
    assert database.status(identity) == "pending"


def test_an_upload_to_another_bucket_does_not_count(database: Database) -> None:
    user = database.user()
    paths = [*database.upload(user), f"{user}/portrait.jpg"]
    database.run(
        "insert into storage.buckets (id, name) values ('avatars', 'avatars')", role="supabase_admin"
    )
    database.run(
        "insert into storage.objects (bucket_id, name) values ('avatars', %s)",
        paths[3:],
        role="supabase_admin",
    )
    words = refusal(database, user, {"identity_name": "Ada", "image_paths": paths})
    database.overwrite("delete from storage.objects")
    database.overwrite("delete from storage.buckets where id = 'avatars'")
    assert words == "Image 4 (portrait.jpg) has not been uploaded; upload it, then try again."


def test_the_first_thing_that_is_wrong_is_said(database: Database) -> None:
    user = database.user()
    assert (
        refusal(database, user, {"identity_name": "", "image_paths": []})
        == "The name is empty; please enter one."
    )


def test_nobody_learns_what_others_have_uploaded(database: Database) -> None:
    owner, stranger = database.user(), database.user()
    theirs = database.upload(owner)
    there = {"identity_name": "Ada", "image_paths": theirs}
    absent = {"identity_name": "Ada", "image_paths": [f"{path}x" for path in theirs]}
    for who, forged in ((stranger, {}), (stranger, {"user_id": owner}), (None, {"user_id": owner})):
        said = []
        for values in (there, absent):
            with pytest.raises(psycopg.Error) as error:
                database.run(*insertion({**values, **forged}), role="authenticated", user=who)
            said.append((error.value.sqlstate, str(error.value).replace("jpgx", "jpg")))
        assert said[0] == said[1]


# What a user may not forge.

FORGED_STATUSES = ["publishing", "published", "failed", "training", "", None]


def forged(database: Database, user: UUID, values: dict[str, Any]) -> None:
    """See that Postgres itself refuses the row, whatever else is right or wrong with it."""
    for name, paths in (("Ada", database.upload(user)), ("", []), ("Ada", [f"{user}/not uploaded.jpg"] * 3)):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.run(
                *insertion({"identity_name": name, "image_paths": paths, **values}),
                role="authenticated",
                user=user,
            )
    assert database.value("select count(*) from public.trained_identities") == 0


@pytest.mark.parametrize("status", FORGED_STATUSES)
def test_a_forged_status_is_refused_by_postgres_whatever_else_is_wrong(
    database: Database, status: str | None
) -> None:
    forged(database, database.user(), {"status": status})


@pytest.mark.parametrize("whose", ["another's", "nobody's", None])
def test_a_forged_user_is_refused_by_postgres_whatever_else_is_wrong(
    database: Database, whose: str | None
) -> None:
    forged(
        database,
        database.user(),
        {"user_id": {"another's": database.user(), "nobody's": uuid4(), None: None}[whose]},
    )


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("model_id", "acme/x"), ("images_published", 3), ("training_config", "{}"),
        ("next_attempt_at", "2030-01-01"), ("huggingface_repo_url", "https://x"), ("commit_sha", "c"),
        ("published_at", "2030-01-01"), ("error_code", "x"), ("error_message", "X."), ("created_at", "2030-01-01"),
        ("error_image", 1), ("failed_at", "2030-01-01"), ("updated_at", "2030-01-01"),
    ],
)  # fmt: skip
def test_a_forged_column_is_refused_by_postgres_whatever_else_is_wrong(
    database: Database, column: str, value: object
) -> None:
    forged(database, database.user(), {column: value})
    forged(database, database.user(), {column: None})


def test_the_number_of_images_is_counted_and_not_taken(database: Database) -> None:
    user = database.user()
    forged(database, user, {"num_training_images": 3})
    assert database.row(database.insert(user))["num_training_images"] == 3


def test_a_user_with_twenty_open_rows_is_still_told_of_a_forged_status_by_postgres(
    database: Database,
) -> None:
    user = database.user()
    paths = database.upload(user)
    for _ in range(20):
        database.insert(user, paths)
    for values in ({"status": "published"}, {"user_id": uuid4()}):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.insert(user, paths, **values)


# Twenty open rows.


def fill(database: Database, user: UUID, count: int) -> None:
    paths = database.upload(user)
    for _ in range(count):
        database.insert(user, paths)


def fail_all(database: Database) -> None:
    """Fail whatever is open, as if an operator had."""
    database.run(
        "update public.trained_identities set status = 'failed', error_code = 'x', error_message = 'X.'"
    )


MANY = "insert into public.trained_identities (identity_name, image_paths) select 'Ada', %s from generate_series(1, %s)"


def test_a_twenty_first_open_row_is_refused(database: Database) -> None:
    user = database.user()
    fill(database, user, 20)
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        database.insert(user)
    assert error.value.diag.message_primary == TOO_MANY
    database.insert(database.user())
    worker = Worker(database)
    worker.complete(worker.claim_one())
    database.insert(user)


def test_a_row_that_is_being_published_counts(database: Database) -> None:
    user = database.user()
    fill(database, user, 20)
    Worker(database).claim(20)
    with pytest.raises(psycopg.errors.CheckViolation, match="20 identities"):
        database.insert(user)


@pytest.mark.parametrize(("count", "accepted"), [(20, True), (21, False)])
def test_the_limit_holds_within_one_statement(database: Database, count: int, accepted: bool) -> None:
    user = database.user()
    paths = database.upload(user)
    if accepted:
        database.run(MANY, [paths, count], role="authenticated", user=user)
    else:
        with pytest.raises(psycopg.errors.CheckViolation, match="20 identities"):
            database.run(MANY, [paths, count], role="authenticated", user=user)
    assert database.value("select count(*) from public.trained_identities") == (count if accepted else 0)


def test_the_limit_holds_for_many_at_once(database: Database) -> None:
    user = database.user()
    paths = database.upload(user)

    def insert(_: int) -> bool:
        connection = database.connect("authenticated", user)
        try:
            for _ in range(4):
                connection.execute(MANY.encode(), [paths, 1])
        except psycopg.errors.CheckViolation:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        accepted = list(threads.map(insert, range(8)))
    assert not all(accepted)
    assert database.value("select count(*) from public.trained_identities") == 20


def test_the_second_of_two_at_once_waits_and_counts_the_first(database: Database) -> None:
    user = database.user()
    fill(database, user, 19)
    paths = database.upload(user)
    first, second = (database.connect("authenticated", user) for _ in range(2))
    with ThreadPoolExecutor() as threads:
        with first.transaction():
            first.execute(MANY.encode(), [paths, 1])
            late = threads.submit(second.execute, MANY.encode(), [paths, 1])
            database.wait_until_blocked(second)
        with pytest.raises(psycopg.errors.CheckViolation, match="20 identities"):
            late.result(PATIENCE)


def test_one_users_insert_does_not_wait_for_anothers(database: Database) -> None:
    first, second = database.user(), database.user()
    paths, others = database.upload(first), database.upload(second)
    one, two = database.connect("authenticated", first), database.connect("authenticated", second)
    two.execute("set lock_timeout = '1s'")
    with one.transaction():
        one.execute(MANY.encode(), [paths, 1])
        two.execute(MANY.encode(), [others, 1])


def test_the_limit_holds_for_retries_too(database: Database) -> None:
    user = database.user()
    fill(database, user, 20)
    fail_all(database)
    fill(database, user, 5)
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        database.run(RETRY, role="authenticated", user=user)
    assert error.value.diag.message_primary == TOO_MANY
    assert database.value("select count(*) from public.trained_identities where status = 'failed'") == 20
    fifteen = RETRY + " and id in (select id from public.trained_identities where status = 'failed' limit 15)"
    database.run(fifteen, role="authenticated", user=user)
    assert database.value("select count(*) from public.trained_identities where status = 'pending'") == 20
    with pytest.raises(psycopg.errors.CheckViolation):
        database.run(RETRY, role="authenticated", user=user)


def test_a_retry_and_an_insert_at_once_keep_the_limit(database: Database) -> None:
    user = database.user()
    fill(database, user, 1)
    fail_all(database)
    fill(database, user, 19)
    paths = database.upload(user)
    first, second = (database.connect("authenticated", user) for _ in range(2))
    with ThreadPoolExecutor() as threads:
        with first.transaction():
            first.execute(MANY.encode(), [paths, 1])
            late = threads.submit(second.execute, RETRY.encode())
            database.wait_until_blocked(second)
        with pytest.raises(psycopg.errors.CheckViolation, match="20 identities"):
            late.result(PATIENCE)


def test_the_operators_replay_is_not_bound_by_the_limit(database: Database) -> None:
    user = database.user()
    fill(database, user, 20)
    fail_all(database)
    fill(database, user, 20)
    assert Worker(database).replay()["replayed"] == 20
    assert database.value("select count(*) from public.trained_identities where status = 'pending'") == 40
    with pytest.raises(psycopg.errors.CheckViolation):
        database.insert(user)


# Past the triggers, the checks of the table say the same.


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("identity_name", "'a\u202eb'"),
        ("identity_name", "''"),
        ("image_paths", "image_paths[1:2]"),
        ("image_paths", "image_paths || image_paths[1:1]"),
        ("image_paths", "array_replace(image_paths, image_paths[1], user_id || '/../x')"),
        ("user_id", "(select id from auth.users where id <> user_id)"),
        ("status", "'training'"),
        ("status", "'failed'"),
        ("images_published", "4"),
        ("images_published", "-1"),
        ("error_code", "'x'"),
        ("error_message", "'X.'"),
        ("error_image", "1"),
        ("published_at", "now()"),
        ("huggingface_repo_url", "'https://x'"),
        ("commit_sha", "'c'"),
    ],
)
def test_not_even_the_owner_can_write_what_contradicts_itself(
    database: Database, column: str, value: str
) -> None:
    database.user()
    database.insert(database.user())
    with pytest.raises(psycopg.errors.CheckViolation):
        database.run(f"update public.trained_identities set {column} = {value}")
    with pytest.raises(psycopg.errors.CheckViolation):
        database.overwrite(f"update public.trained_identities set {column} = {value}")


def test_only_a_pending_row_waits(database: Database) -> None:
    database.insert(database.user())
    Worker(database).claim_one()
    with pytest.raises(psycopg.errors.CheckViolation, match="only_pending_rows_wait"):
        database.run("update public.trained_identities set next_attempt_at = now()")
