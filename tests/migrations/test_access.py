"""Who may do what, door by door, in SQL: each role against each table, column, function and image.

What the migrations make and this page does not name makes a test fail.
"""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.migrations.catalogue import FILE, of
from tests.support.database import Connection, Database, Worker, run, sign_in

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.parametrize("auto_expose", [False, True], ids=["new project", "old project"]),
]

API = ("anon", "authenticated", "service_role")

# Every column, and what authenticated may do with it beside SELECT.
COLUMNS = {
    "id": {"INSERT"},
    "user_id": {"INSERT"},
    "identity_name": {"INSERT"},
    "image_paths": {"INSERT"},
    "num_training_images": set[str](),
    "status": {"INSERT", "UPDATE"},
    "model_id": set[str](),
    "images_published": set[str](),
    "training_config": set[str](),
    "next_attempt_at": set[str](),
    "huggingface_repo_url": set[str](),
    "commit_sha": set[str](),
    "published_at": set[str](),
    "error_code": set[str](),
    "error_message": set[str](),
    "error_image": set[str](),
    "train": {"INSERT", "UPDATE"},
    "trigger_word": {"INSERT"},
    "training_requested_at": set[str](),
    "training_waits_until": set[str](),
    "training_url": set[str](),
    "training_commit_sha": set[str](),
    "training_seconds": set[str](),
    "sample_paths": set[str](),
    "training_error_code": set[str](),
    "training_error_message": set[str](),
    "failed_at": set[str](),
    "created_at": set[str](),
    "updated_at": set[str](),
}
PULSE = ("id", "beats", "beaten_at")
PRIVATE_TABLES = {"migrations", "work", "attempts", "instances", "searches", "names", "used_names"}
PRIVATE_TABLES |= {"rejections", "limits", "usage", "retries", "pauses"}
PRIVATE_TABLES |= {"erase_lines", "erasures", "departures", "sweep", "unnamed_objects"}
PRIVATE_TABLES |= {"trainings", "training_settings", "notifications", "notifying"}

# Every verb with a call of it.
VERBS = {
    "watcher_claim": "public.watcher_claim('host', gen_random_uuid(), '{}', 20)",
    "watcher_renew": "public.watcher_renew('{}', 20)",
    "watcher_reserve": "public.watcher_reserve(1, 'acme', 'ada')",
    "watcher_complete": "public.watcher_complete(1, 'u', 'c', '{}')",
    "watcher_fail": "public.watcher_fail(1, 'x', 'X.')",
    "watcher_defer": "public.watcher_defer(1, 'Later.')",
    "watcher_release": "public.watcher_release(1, 'Stopping.')",
    "watcher_reject": "public.watcher_reject(1, 'x', 'X.', 'X.')",
    "watcher_give_back": "public.watcher_give_back('{1}')",
    "watcher_newest_repos": "public.watcher_newest_repos('acme', gen_random_uuid())",
    "watcher_limits": "public.watcher_limits()",
    "watcher_set_limit": "public.watcher_set_limit('open_rows', 20)",
    "watcher_wait": "public.watcher_wait(1, 2, 15, 'Not yet.')",
    "watcher_erased": "public.watcher_erased(1, '{}')",
    "watcher_erase_left": "public.watcher_erase_left(1, '{}')",
    "watcher_settle_repo": "public.watcher_settle_repo(1, 1)",
    "watcher_sweep": "public.watcher_sweep(1)",
    "watcher_training_start": "public.watcher_training_start(1, 'acme', 0.03)",
    "watcher_training_postpone": "public.watcher_training_postpone(1, 'off')",
    "watcher_training_intend": "public.watcher_training_intend(1)",
    "watcher_training_undo": "public.watcher_training_undo(1)",
    "watcher_training_job": "public.watcher_training_job(1, 'j', 'u', 'RUNNING')",
    "watcher_training_ended": "public.watcher_training_ended(1, 'COMPLETED', 1, 1)",
    "watcher_trained": "public.watcher_trained(1, 'c')",
    "watcher_followed": "public.watcher_followed(1, '[]')",
    "watcher_training": "public.watcher_training()",
    "watcher_set_training": "public.watcher_set_training('{}')",
    "watcher_replay_trainings": "public.watcher_replay_trainings()",
    "watcher_notify_from_now": "public.watcher_notify_from_now()",
    "watcher_notified": "public.watcher_notified(1)",
    "watcher_forget": "public.watcher_forget(gen_random_uuid())",
    "watcher_export": "public.watcher_export(gen_random_uuid())",
    "watcher_erasures": "public.watcher_erasures()",
    "watcher_close_erasure": "public.watcher_close_erasure(gen_random_uuid(), 'x')",
    "watcher_confirm_sweep": "public.watcher_confirm_sweep()",
    "watcher_restore_receipts": "public.watcher_restore_receipts('{}')",
    "watcher_replay": "public.watcher_replay()",
    "watcher_beat": "public.watcher_beat()",
    "watcher_pause": "public.watcher_pause()",
    "watcher_resume": "public.watcher_resume()",
    "watcher_version": "public.watcher_version()",
    "watcher_status": "public.watcher_status(gen_random_uuid(), now(), 60, 10)",
    "watcher_story": "public.watcher_story(gen_random_uuid())",
    "watcher_names": "public.watcher_names()",
    "watcher_catalogue": "public.watcher_catalogue()",
}
# The checks of the table run as whoever inserts; without the right to use the schema nobody can call them.
CHECKS = {
    "watcher.name_error(text)",
    "watcher.paths_error(uuid,text[])",
    "watcher.image_label(bigint,text)",
    "watcher.trigger_word_error(text)",
    "watcher.may_upload(uuid)",
}


def refused(
    database: Database, query: str, parameters: Any = (), *, role: str, user: UUID | None = None
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.run(query, parameters, role=role, user=user)


# The catalogue, whole.


def test_each_role_has_the_table_privileges_named_here_and_no_other(database: Database) -> None:
    rights = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]
    if database.value("select current_setting('server_version_num')::int") >= 170000:
        rights.append("MAINTAIN")
    granted = database.run(
        """
        select role, c.oid::regclass::text as name, privilege
        from unnest(%s::text[]) role, unnest(%s::text[]) privilege, pg_class c
        where c.relnamespace in ('public'::regnamespace, 'watcher'::regnamespace) and c.relkind in ('r', 'v', 'm', 'f', 'p')
          and has_table_privilege(role, c.oid, privilege)
        """,
        [list(API), rights],
    )
    assert {(row["role"], row["name"], row["privilege"]) for row in granted} == {
        ("authenticated", "trained_identities", "SELECT"),
        ("authenticated", "trained_identities", "DELETE"),
        ("service_role", "trained_identities", "SELECT"),
        ("service_role", "watcher_pulse", "SELECT"),
    }


def test_each_role_has_the_column_privileges_named_here_and_no_other(database: Database) -> None:
    granted = database.run(
        """
        select role, c.oid::regclass::text as name, a.attname, privilege
        from unnest(%s::text[]) role, unnest('{SELECT,INSERT,UPDATE,REFERENCES}'::text[]) privilege,
          pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace in ('public'::regnamespace, 'watcher'::regnamespace) and c.relkind in ('r', 'v', 'm', 'f', 'p')
          and has_column_privilege(role, c.oid, a.attnum, privilege)
        """,
        [list(API)],
    )
    expected = {("service_role", "watcher_pulse", column, "SELECT") for column in PULSE}
    for column, rights in COLUMNS.items():
        expected |= {
            (role, "trained_identities", column, "SELECT") for role in ("authenticated", "service_role")
        }
        expected |= {("authenticated", "trained_identities", column, right) for right in rights}
    assert {(row["role"], row["name"], row["attname"], row["privilege"]) for row in granted} == expected


def test_every_column_is_named_here(database: Database) -> None:
    columns = database.run(
        "select table_name, column_name from information_schema.columns where table_schema = 'public'"
    )
    assert {(row["table_name"], row["column_name"]) for row in columns} == {
        *(("trained_identities", column) for column in COLUMNS),
        *(("watcher_pulse", column) for column in PULSE),
    }


def test_every_function_is_named_here_and_open_to_whom_it_is_for(database: Database) -> None:
    granted = database.run(
        """
        select f.oid::regprocedure::text as name, coalesce(array_agg(role) filter (where
          has_function_privilege(role, f.oid, 'execute')), '{}') as roles
        from pg_proc f, unnest(%s::text[]) role
        where f.pronamespace in ('public'::regnamespace, 'watcher'::regnamespace)
        group by f.oid
        """,
        [list(API)],
    )
    verbs = {
        row["name"].split("(")[0]: row["roles"] for row in granted if not row["name"].startswith("watcher.")
    }
    assert verbs == {verb: ["service_role"] for verb in VERBS}
    inner = {row["name"]: row["roles"] for row in granted if row["name"].startswith("watcher.")}
    assert {name for name, roles in inner.items() if roles} == CHECKS
    assert all(inner[name] == ["authenticated"] for name in CHECKS)


def test_every_function_has_one_signature(database: Database) -> None:
    twice = "select proname from pg_proc where pronamespace = 'public'::regnamespace group by 1 having count(*) > 1"
    assert database.run(twice) == []


def test_every_function_finds_its_names_whatever_the_caller_has_set(database: Database) -> None:
    loose = database.run(
        """
        select oid::regprocedure from pg_proc
        where pronamespace in ('public'::regnamespace, 'watcher'::regnamespace)
          and (proowner <> 'postgres'::regrole
            or not coalesce(proconfig, '{}') @> array['search_path=pg_catalog, pg_temp'])
        """
    )
    assert loose == []


def test_nobody_runs_code_as_the_owner_through_names_of_their_own(database: Database) -> None:
    """For a user with SQL: with an empty search_path, types are looked for among the session's own first."""
    user = database.user()
    kept, deleted = database.upload(user), database.upload(user)
    identity, other = database.insert(user, kept), database.insert(user, deleted)
    worker = Worker(database)
    for claim in worker.claim():
        worker.fail(claim["attempt"])
    mine = database.connect("authenticated", user)
    mine.execute("create temp table caught (who text)")
    mine.execute("grant all on caught to public")
    mine.execute(
        "create function pg_temp.spy(anyelement) returns boolean language plpgsql as "
        "'begin insert into pg_temp.caught values (current_user); return true; end'"
    )
    for name in ("text", "uuid", "jsonb", "timestamptz", "bytea", "int4", "int8", "bool", "interval"):
        mine.execute(
            f"create domain pg_temp.{name} as pg_catalog.{name} "
            f"check (pg_temp.spy(value::pg_catalog.{name}))".encode()
        )
    for name in ("uid", "jwt", "format", "count", "lower", "name_error", "paths_error", "array_position"):
        mine.execute(
            f"create function pg_temp.{name}(anyelement) returns anyelement language plpgsql as "
            "'begin insert into pg_temp.caught values (current_user); return $1; end'".encode()
        )
    for name in ("unnest", "given", "trained_identities", "objects", "users", "work"):
        mine.execute(f"create temp view {name} as select pg_temp.spy(1)".encode())
    mine.execute(
        "insert into public.trained_identities (identity_name, image_paths) values ('Ada', %s)", [kept]
    )
    mine.execute("update public.trained_identities set status = 'pending' where id = %s", [identity])
    mine.execute("delete from public.trained_identities where id = %s", [other])
    assert run(mine, "select distinct who from pg_temp.caught where who <> 'authenticated'") == []


def test_everybody_has_row_security_and_the_policies_named_here(database: Database) -> None:
    guarded = database.run(
        "select relname from pg_class where relkind = 'r' and relrowsecurity and relnamespace = 'public'::regnamespace"
    )
    assert {row["relname"] for row in guarded} == {"trained_identities", "watcher_pulse"}
    policies = database.run("select tablename, cmd, roles::text[] from pg_policies order by 1, 2")
    assert [(row["tablename"], row["cmd"], row["roles"]) for row in policies] == [
        ("objects", "DELETE", ["authenticated"]),
        ("objects", "INSERT", ["authenticated"]),
        ("objects", "SELECT", ["authenticated"]),
        ("objects", "SELECT", ["authenticated"]),
        ("trained_identities", "DELETE", ["authenticated"]),
        ("trained_identities", "INSERT", ["authenticated"]),
        ("trained_identities", "SELECT", ["authenticated"]),
        ("trained_identities", "UPDATE", ["authenticated"]),
        ("watcher_pulse", "SELECT", ["service_role"]),
    ]


# The private schema.


@pytest.mark.parametrize("role", API)
def test_nobody_sees_the_private_schema(database: Database, role: str) -> None:
    assert {
        row["relname"]
        for row in database.run(
            "select relname from pg_class where relnamespace = 'watcher'::regnamespace and relkind = 'r'"
        )
    } == PRIVATE_TABLES
    for table in PRIVATE_TABLES:
        refused(database, f"select * from watcher.{table}", role=role)
        refused(database, f"delete from watcher.{table}", role=role)
    for call in ("watcher.name_error('x')", "watcher.check_open_rows(null)", "watcher.find_unqueued()"):
        refused(database, f"select {call}", role=role)
    refused(database, "select nextval('watcher.attempts_number_seq')", role=role)
    refused(database, "create table watcher.mine (id int)", role=role)


# The verbs.


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_for_the_watcher_alone(database: Database, verb: str) -> None:
    user = database.user()
    database.insert(user)
    before = (
        database.run("select * from public.trained_identities"),
        database.run("select * from watcher.attempts"),
    )
    refused(database, f"select {VERBS[verb]}", role="anon")
    refused(database, f"select {VERBS[verb]}", role="authenticated", user=user)
    after = (
        database.run("select * from public.trained_identities"),
        database.run("select * from watcher.attempts"),
    )
    assert after == before
    database.run(f"select {VERBS[verb]}", role="service_role")


# Rows.


def test_a_user_sees_their_own_rows_whole_and_nobody_elses(database: Database) -> None:
    owner, stranger = database.user(), database.user()
    identity = database.insert(owner)
    assert database.run("select * from public.trained_identities", role="authenticated", user=owner) == [
        database.row(identity)
    ]
    for someone in (stranger, None):
        look = "select * from public.trained_identities"
        assert database.run(look, role="authenticated", user=someone) == []
        assert database.run(f"{look} where id = %s", [identity], role="authenticated", user=someone) == []
    refused(database, "select id from public.trained_identities", role="anon")


def test_the_service_role_sees_every_row_and_writes_none(database: Database) -> None:
    identity = database.insert(database.user())
    [row] = database.run("select * from public.trained_identities", role="service_role")
    assert row == database.row(identity)
    refused(database, "delete from public.trained_identities", role="service_role")
    refused(database, "update public.trained_identities set status = 'failed'", role="service_role")
    refused(database, "insert into public.trained_identities default values", role="service_role")
    refused(database, "truncate public.trained_identities cascade", role="service_role")


def test_the_pulse_is_for_the_watcher_alone(database: Database) -> None:
    assert len(database.run("select * from public.watcher_pulse", role="service_role")) == 1
    refused(database, "update public.watcher_pulse set beats = 0", role="service_role")
    refused(database, "select * from public.watcher_pulse", role="anon")
    refused(database, "select * from public.watcher_pulse", role="authenticated", user=database.user())


@pytest.mark.parametrize("column", COLUMNS)
def test_a_user_changes_no_column_but_the_status_and_whether_to_train(
    database: Database, column: str
) -> None:
    user = database.user()
    database.insert(user)
    worker = Worker(database)
    worker.fail(worker.claim_one())
    value = {"status": "'pending'", "train": "true, status = 'pending'"}.get(column, "default")
    query = f"update public.trained_identities set {column} = {value} returning id"
    if column in {"status", "train"}:
        assert len(database.run(query, role="authenticated", user=user)) == 1
    else:
        refused(database, query, role="authenticated", user=user)
    refused(database, query, role="anon")


def test_nobody_inserts_without_signing_in(database: Database) -> None:
    user = database.user()
    values = "(user_id, identity_name, image_paths) values (%s, 'Ada', %s)"
    query = f"insert into public.trained_identities {values}"
    refused(database, query, [user, database.upload(user)], role="anon")
    refused(database, query, [user, database.upload(user)], role="authenticated")


def test_an_upsert_changes_nobodys_row(database: Database) -> None:
    owner, stranger = database.user(), database.user()
    identity = database.insert(owner)
    worker = Worker(database)
    worker.fail(worker.claim_one())
    before = database.row(identity)
    paths = database.upload(stranger)
    insert = "insert into public.trained_identities (id, identity_name, image_paths) values (%s, 'Eve', %s) on conflict (id)"
    for change in (
        "identity_name = excluded.identity_name",
        "image_paths = excluded.image_paths",
        "status = 'pending'",
    ):
        refused(
            database,
            f"{insert} do update set {change}",
            [identity, paths],
            role="authenticated",
            user=stranger,
        )
    assert (
        database.run(
            f"{insert} do nothing returning *", [identity, paths], role="authenticated", user=stranger
        )
        == []
    )
    assert database.row(identity) == before


def test_a_token_without_a_user_can_do_nothing(database: Database) -> None:
    user = database.user()
    identity = database.insert(user)
    worker = Worker(database)
    worker.fail(worker.claim_one())
    for query in (
        "select id from public.trained_identities",
        "update public.trained_identities set status = 'pending' returning id",
        "delete from public.trained_identities returning id",
    ):
        assert database.run(query, role="authenticated") == []
    assert database.status(identity) == "failed"


def test_a_deleted_id_is_nobodys_again(database: Database) -> None:
    owner, stranger = database.user(), database.user()
    identity = database.insert(owner)
    database.run("delete from public.trained_identities", role="authenticated", user=owner)
    for user in (owner, stranger):
        with pytest.raises(psycopg.errors.CheckViolation, match="was deleted; send it under a new id"):
            database.insert(user, id=identity)


# Images, as Storage asks for them: under the caller's role.

FIND = "select name from storage.objects where bucket_id = 'identity-images'"
STORE = "insert into storage.objects (bucket_id, name, owner_id) values (%s, %s, %s)"


def remove(database: Database, user: UUID, names: list[str]) -> set[str]:
    """Delete objects as Storage does for a user; those that went."""
    connection = database.connect("authenticated", user)
    connection.execute("select set_config('storage.allow_delete_query', 'true', false)")
    gone = run(connection, "delete from storage.objects where name = any (%s) returning name", [names])
    return {row["name"] for row in gone}


def test_a_user_finds_their_own_images_and_nobody_elses(database: Database) -> None:
    owner, stranger = database.user(), database.user()
    paths = database.upload(owner)
    assert {row["name"] for row in database.run(FIND, role="authenticated", user=owner)} == set(paths)
    assert database.run(FIND, role="authenticated", user=stranger) == []
    assert database.run(FIND, role="authenticated") == []
    assert database.run(FIND, role="anon") == []


def test_a_user_uploads_to_their_own_folder_only(database: Database) -> None:
    user, other = database.user(), database.user()
    database.run(STORE, ["identity-images", f"{user}/a.jpg", user], role="authenticated", user=user)
    for name in (
        "a.jpg",
        f"{other}/a.jpg",
        f"{str(user).upper()}/a.jpg",
        f"/{user}/a.jpg",
        f"x/{user}/a.jpg",
        f"{user}",
    ):
        refused(database, STORE, ["identity-images", name, user], role="authenticated", user=user)
    refused(database, STORE, ["identity-images", f"{user}/b.jpg", user], role="anon")
    refused(database, STORE, ["identity-images", f"{user}/b.jpg", user], role="authenticated")
    database.run(
        "insert into storage.buckets (id, name) values ('avatars', 'avatars')", role="supabase_admin"
    )
    refused(database, STORE, ["avatars", f"{user}/a.jpg", user], role="authenticated", user=user)
    database.overwrite("delete from storage.buckets where id = 'avatars'")


def test_an_image_is_neither_replaced_nor_moved(database: Database) -> None:
    user = database.user()
    [path, *_] = database.upload(user)
    for change in (
        "metadata = '{}'",
        f"name = '{user}/b.jpg'",
        "version = 'x'",
        "bucket_id = 'identity-images'",
    ):
        changed = f"update storage.objects set {change} where name = %s returning name"
        assert database.run(changed, [path], role="authenticated", user=user) == []
    upsert = STORE + " on conflict (bucket_id, name) do update set metadata = '{}'"
    refused(database, upsert, ["identity-images", path, user], role="authenticated", user=user)


@pytest.mark.parametrize(
    ("end", "kept"),
    [
        (None, True),
        (Worker.renew, True),
        (Worker.defer, True),
        (Worker.release, True),
        (Worker.wait, True),
        (Worker.complete, False),
        (Worker.fail, False),
    ],
)
def test_an_image_can_be_deleted_unless_its_row_is_open(
    database: Database, end: Callable[..., Any] | None, kept: bool
) -> None:
    user = database.user()
    used, unused = database.upload(user), database.upload(user)
    database.insert(user, used)
    if end is not None:
        worker = Worker(database)
        attempt = worker.claim_one()
        end(worker, [attempt] if end is Worker.renew else attempt)
    assert remove(database, user, [*used, *unused]) == set(unused if kept else [*used, *unused])


def test_an_image_of_two_rows_stays_while_one_of_them_is_open(database: Database) -> None:
    user = database.user()
    paths = database.upload(user)
    database.insert(user, paths)
    worker = Worker(database)
    worker.complete(worker.claim_one())
    database.insert(user, paths)
    assert remove(database, user, paths) == set()


def test_nobody_deletes_anothers_images_and_nobodys_row_protects_them(database: Database) -> None:
    owner, stranger = database.user(), database.user()
    paths = database.upload(owner)
    assert remove(database, stranger, paths) == set()
    assert remove(database, owner, paths) == set(paths)


# What doctor is told.


def catalogue(connection: Connection) -> Any:
    connection.execute("set local role service_role")
    [row] = run(connection, "select public.watcher_catalogue() as answer")
    connection.execute("reset role")
    return row["answer"]


def test_what_doctor_compares_with_is_what_the_migrations_make(database: Database) -> None:
    """Where they differ: python -m tests.migrations.catalogue."""
    assert json.loads(FILE.read_text()) == of(database)


def test_doctor_is_told_of_everything_that_matters(database: Database) -> None:
    connection = database.connect()
    with connection.transaction():
        answer = catalogue(connection)
    assert answer["published_events"] == {"insert": True, "update": True, "delete": True}
    assert "trigger b_queue_new_row on public.trained_identities" in answer["definitions"]
    assert "function watcher.max_attempts()" in answer["definitions"]
    assert answer["row_security"] == {"trained_identities": True, "watcher_pulse": True, "objects": True}
    assert answer["published_tables"] == ["trained_identities", "watcher_pulse"]
    assert len(answer["policies"]) == 9
    assert answer["bucket"] == {
        "public": False,
        "file_size_limit": 20971520,
        "allowed_mime_types": ["image/jpeg", "image/png", "image/jpg", "image/pjpeg"],
    }
    expected = {f"service_role EXECUTE on {verb}" for verb in VERBS}
    expected |= {
        f"service_role SELECT on public.{table}" for table in ("trained_identities", "watcher_pulse")
    }
    expected |= {f"authenticated {right} on public.trained_identities" for right in ("SELECT", "DELETE")}
    for column, rights in COLUMNS.items():
        expected |= {f"authenticated {right} ({column}) on public.trained_identities" for right in rights}
    assert answer["samples_bucket"] == {
        "public": False,
        "file_size_limit": 10485760,
        "allowed_mime_types": ["image/jpeg", "image/png"],
    }
    expected |= {f"authenticated EXECUTE on {helper}" for helper in CHECKS}
    assert set(answer["grants"]) == expected


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("grant select on public.trained_identities to public", "public SELECT on public.trained_identities"),
        (
            "grant insert (model_id) on public.trained_identities to public",
            "public INSERT (model_id) on public.trained_identities",
        ),
        ("grant update on public.watcher_pulse to anon", "anon UPDATE on public.watcher_pulse"),
        (
            "grant select (beats) on public.watcher_pulse to anon",
            "anon SELECT (beats) on public.watcher_pulse",
        ),
        ("grant execute on function public.watcher_beat() to public", "public EXECUTE on watcher_beat"),
        (
            "create function public.watcher_new() returns int language sql return 1",
            "public EXECUTE on watcher_new",
        ),
    ],
)
def test_doctor_is_told_of_a_door_that_somebody_opened(database: Database, change: str, line: str) -> None:
    connection = database.connect()
    with connection.transaction(force_rollback=True):
        before: list[str] = catalogue(connection)["grants"]
        connection.execute(change.encode())
        assert line not in before
        assert line in catalogue(connection)["grants"]


def test_a_malformed_user_in_a_token_is_an_error_and_opens_nothing(database: Database) -> None:
    database.insert(database.user())
    connection = database.connect("authenticated", uuid4())
    sign_in(connection, "authenticated", None, sub="not a uuid")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        run(connection, "select * from public.trained_identities")
