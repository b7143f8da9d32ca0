"""Ways to break a project in the SQL editor: doctor names each first, and what it says or `--repair` mends it.

Each is mended twice: with the remedy that doctor shows, and by `watcher migrate --repair`. What services, settings and the
host can do to a project is in test_doctor.py and tests/settings/test_surroundings.py.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import psycopg
import pytest

from tests.support.scene import Scene
from watcher.operator.doctor import drift, examine
from watcher.operator.doctor.finding import REPAIR, Finding
from watcher.operator.repair import repair
from watcher.settings import settings

ROWS = "public.trained_identities"
OBJECTS = "storage.objects"
PUBLICATION = "alter publication supabase_realtime"


def changed(function: str, setting: str) -> tuple[str, str]:
    return f"alter function {function} {setting}", f"The function {function} was changed"


POLICIES = {
    "a policy is dropped": (f'drop policy "Users see their own identities" on {ROWS}', "is missing"),
    "a policy is loosened": (
        f'alter policy "Users see their own identities" on {ROWS} using (true)',
        "was changed",
    ),
    "a policy is for others": (
        f'alter policy "Users delete their own identities" on {ROWS} to public',
        "was changed",
    ),
    "a policy of the bucket is dropped": (
        f'drop policy "Users upload their own identity images" on {OBJECTS}',
        "is missing",
    ),
    "photos in use may be deleted": (
        f'alter policy "Users delete their own identity images unless in use" on {OBJECTS} using (true)',
        "was changed",
    ),
    "a policy opens every bucket": (
        f"create policy everything on {OBJECTS} for select to anon using (true)",
        "additional policy grants access",
    ),
    "a policy lets photos be replaced": (
        f"create policy again on {OBJECTS} for update to authenticated using (bucket_id = 'identity-images')",
        "additional policy grants access",
    ),
    "a policy opens the table": (
        f"create policy everything on {ROWS} to authenticated using (true)",
        "additional policy grants access",
    ),
    "the pulse's policy is dropped": (
        'drop policy "The watcher reads its pulse" on public.watcher_pulse',
        "is missing",
    ),
    "row-level security is off": (
        f"alter table {ROWS} disable row level security",
        f"Row-level security is off on {ROWS}: users can see each other's rows",
    ),
    "row-level security is off for the pulse": (
        "alter table public.watcher_pulse disable row level security",
        "Row-level security is off on public.watcher_pulse",
    ),
    "row-level security is off for the queue": (
        "alter table watcher.work disable row level security",
        "The row security of watcher.work is off, not on",
    ),
    "row-level security is forced": (
        f"alter table {ROWS} force row level security",
        f"Row-level security binds also the functions that own {ROWS}",
    ),
    "row-level security is forced on the queue": (
        "alter table watcher.work force row level security",
        "binds also the functions that own watcher.work",
    ),
}
GRANTS = {
    "a function may not be called": (
        "revoke execute on function public.watcher_claim from service_role",
        "A grant is missing: service_role EXECUTE on watcher_claim",
    ),
    "no function may be called": (
        "revoke execute on all functions in schema public from service_role",
        "may not call watcher_version",
    ),
    "a helper may not be called": (
        "revoke execute on function watcher.name_error(text) from authenticated",
        "A grant is missing: authenticated EXECUTE on watcher.name_error(text)",
    ),
    "a function is opened to all": (
        "grant execute on function public.watcher_status to anon",
        "Unexpected grant: anon EXECUTE on watcher_status",
    ),
    "the table is opened to all": (
        f"grant update on {ROWS} to authenticated",
        f"Unexpected grant: authenticated UPDATE on {ROWS}",
    ),
    "a column is opened": (
        f"grant update (model_id) on {ROWS} to authenticated",
        "Unexpected grant: authenticated UPDATE (model_id)",
    ),
    "a column cannot be written": (
        f"revoke insert (image_paths) on {ROWS} from authenticated",
        "A grant is missing: authenticated INSERT (image_paths)",
    ),
    "users cannot read": (
        f"revoke select on {ROWS} from authenticated",
        f"A grant is missing: authenticated SELECT on {ROWS}",
    ),
    "Realtime cannot read": (
        f"revoke select on {ROWS} from service_role",
        f"A grant is missing: service_role SELECT on {ROWS}",
    ),
    "the private schema is opened": (
        "grant usage on schema watcher to anon",
        "Unexpected grant: anon USAGE on schema watcher",
    ),
    "a private table is opened": (
        "grant select on watcher.attempts to authenticated",
        "Unexpected grant: authenticated SELECT on watcher.attempts",
    ),
    "the version cannot be asked for": (
        "revoke execute on function public.watcher_version from service_role",
        "may not call watcher_version",
    ),
    "the catalogue cannot be asked for": (
        "revoke execute on function public.watcher_catalogue from service_role",
        "may not call watcher_catalogue",
    ),
    "users may not use the schema": (
        "revoke usage on schema public from public, authenticated",
        "A privilege is missing: authenticated USAGE on schema public",
    ),
    "new functions are opened to all": (
        "alter default privileges in schema public grant execute on functions to anon; drop function public.watcher_beat",
        "The function public.watcher_beat() is missing",
    ),
}
TABLES = {
    "a column is dropped": (
        f"alter table {ROWS} drop column training_config",
        f"The column training_config of {ROWS} is missing",
    ),
    "a column is renamed": (
        f"alter table {ROWS} rename column error_image to blamed",
        f"The column error_image of {ROWS} is missing",
    ),
    "a column has another type": (
        "alter table watcher.attempts alter column reason type varchar(20)",
        "The column reason of watcher.attempts was changed",
    ),
    "a column lost its default": (
        f"alter table {ROWS} alter column status drop default",
        f"The column status of {ROWS} was changed",
    ),
    "a column needs no value": (
        f"alter table {ROWS} alter column identity_name drop not null",
        f"The column identity_name of {ROWS} was changed",
    ),
    "a number is not given": (
        "alter table watcher.attempts alter column number drop identity",
        "The column number of watcher.attempts was changed",
    ),
    "a column of the app's own needs a value": (
        f"alter table {ROWS} add column colour text not null",
        f"The additional column colour of {ROWS} needs a value, so no row can be inserted",
    ),
    "a constraint is dropped": (
        f"alter table {ROWS} drop constraint failed_rows_say_why",
        f"The constraint failed_rows_say_why of {ROWS} is missing",
    ),
    "a constraint is another": (
        (
            "alter table watcher.work drop constraint work_spent_check; "
            "alter table watcher.work add constraint work_spent_check check (spent >= 1)"
        ),
        "The constraint work_spent_check of watcher.work was changed",
    ),
    "rows outlive their account": (
        f"alter table {ROWS} drop constraint trained_identities_user_id_fkey",
        "The constraint trained_identities_user_id_fkey",
    ),
    "a key is dropped": (
        "alter table public.watcher_pulse drop constraint watcher_pulse_pkey",
        "The constraint watcher_pulse_pkey of public.watcher_pulse is missing",
    ),
    "an index is dropped": ("drop index watcher.work_due", "The index watcher.work_due is missing"),
    "the index that lets one attempt hold is dropped": (
        "drop index watcher.attempts_holding",
        "The index watcher.attempts_holding is missing",
    ),
    "an index is another": (
        "drop index watcher.work_held; create index work_held on watcher.work (kind)",
        "The index watcher.work_held was changed",
    ),
    "a private table is dropped": (
        "drop table watcher.rejections",
        "The table watcher.rejections is missing",
    ),
    "a private table is emptied by each crash": (
        "alter table watcher.work set unlogged",
        "The table watcher.work is unlogged",
    ),
    "a rule swallows what is written": (
        f"create rule nothing as on update to {ROWS} do instead nothing",
        f"There is an additional rule nothing on {ROWS}",
    ),
    "no row can be changed": (
        f"alter table {ROWS} replica identity nothing",
        f"The replica identity of {ROWS} is nothing, not default: no change of it can be written",
    ),
    "whole rows are published": (
        f"alter table {ROWS} replica identity full",
        f"The replica identity of {ROWS} is full, not default",
    ),
    "a table has another owner": (
        "alter table watcher.limits owner to service_role",
        "The table watcher.limits belongs to service_role",
    ),
    "the schema has another owner": (
        "alter schema watcher owner to service_role",
        "The schema watcher belongs to service_role",
    ),
}
FUNCTIONS = {
    "a function is dropped": (
        "drop function public.watcher_renew",
        "The function public.watcher_renew(jsonb,double precision) is missing",
    ),
    "several functions are dropped": (
        "drop function public.watcher_claim, public.watcher_fail, watcher.backoff",
        "The function ",
    ),
    "a private function is dropped with what uses it": (
        "drop function watcher.name_error(text) cascade",
        "The function watcher.name_error(text) is missing",
    ),
    "the doctor's own function is dropped": (
        "drop function public.watcher_catalogue",
        "The database has no function watcher_catalogue",
    ),
    "the doctor's own function says nothing": (
        "create or replace function public.watcher_catalogue() returns jsonb language sql as 'select ''{}''::jsonb'",
        "The function watcher_catalogue was changed: its answer has no bucket",
    ),
    "the function behind it is dropped": (
        "drop function watcher.definitions",
        "watcher.definitions() does not exist",
    ),
    "the version's function is dropped": (
        "drop function public.watcher_version",
        "The database lacks Watcher's tables and functions",
    ),
    "a function does something else": (
        "create or replace function watcher.max_attempts() returns integer language sql immutable as 'select 80'",
        "The function watcher.max_attempts() was changed",
    ),
    "a function looks for names elsewhere": changed("public.watcher_beat()", "set search_path = public"),
    "a function runs as its caller": changed("public.watcher_beat()", "security invoker"),
    "a function lost its search_path": changed("watcher.max_attempts()", "reset all"),
    "a function ends too soon": changed("public.watcher_beat()", "set statement_timeout = '1ms'"),
    "a function has another owner": (
        (
            "grant create on schema public to service_role; alter function public.watcher_beat() owner to service_role; "
            "revoke create on schema public from service_role"
        ),
        "The function public.watcher_beat() belongs to service_role",
    ),
    "a function is renamed": (
        "alter function public.watcher_complete rename to watcher_done",
        "The function public.watcher_complete(bigint,text,text,jsonb,boolean) is missing",
    ),
    "a function has a second form": (
        "create function public.watcher_beat(p_more integer) returns bigint language sql as 'select 1'",
        "There is an additional function public.watcher_beat(integer)",
    ),
    "a trigger is off": (
        f"alter table {ROWS} disable trigger b_queue_new_row",
        f"The trigger b_queue_new_row on {ROWS} is disabled",
    ),
    "all triggers are off": (f"alter table {ROWS} disable trigger user", f"on {ROWS} is disabled"),
    "a trigger is dropped": (
        f"drop trigger b_queue_changed_row on {ROWS}",
        f"The trigger b_queue_changed_row on {ROWS} is missing",
    ),
    "deleted rows are not erased": (
        f"drop trigger a_list_to_erase on {ROWS}",
        f"The trigger a_list_to_erase on {ROWS} is missing",
    ),
    "a trigger is another": (
        (
            f"drop trigger a_count on {ROWS}; create trigger a_count before insert on {ROWS} "
            "for each row execute function watcher.after_insert()"
        ),
        f"The trigger a_count on {ROWS} was changed",
    ),
    "a trigger is there twice": (
        f"create trigger z_count after insert on {ROWS} for each row execute function watcher.after_insert()",
        f"There is an additional trigger z_count on {ROWS}",
    ),
}
SERVICES = {
    "the table is not published": (
        f"{PUBLICATION} drop table {ROWS}",
        f"{ROWS} is not in the Realtime publication",
    ),
    "the pulse is not published": (
        f"{PUBLICATION} drop table public.watcher_pulse",
        "public.watcher_pulse is not in the Realtime publication",
    ),
    "the publication is dropped": ("drop publication supabase_realtime", "supabase_realtime is missing"),
    "inserts are not published": (
        f"{PUBLICATION} set (publish = 'update')",
        "omits inserts, updates or deletions",
    ),
    "deletions are not published": (
        f"{PUBLICATION} set (publish = 'insert, update')",
        "omits inserts, updates or deletions",
    ),
    "only some columns are published": (
        f"{PUBLICATION} drop table {ROWS}; {PUBLICATION} add table {ROWS} (id, status)",
        f"has only a part of {ROWS}: id, status",
    ),
    "only some rows are published": (
        f"{PUBLICATION} drop table {ROWS}; {PUBLICATION} add table {ROWS} where (status = 'failed')",
        f"has only a part of {ROWS}: where",
    ),
    "the bucket is gone": (
        "set storage.allow_delete_query = 'true'; delete from storage.buckets where id = 'identity-images'",
        "The bucket identity-images is missing",
    ),
    "the bucket is public": (
        "update storage.buckets set public = true where id = 'identity-images'",
        "is public",
    ),
    "the bucket of samples is public": (
        "update storage.buckets set public = true where id = 'identity-samples'",
        "identity-samples is public",
    ),
    "the policy on samples is dropped": (
        f'drop policy "Users see their own samples" on {OBJECTS}',
        "is missing",
    ),
    "the bucket's limit is lowered": (
        "update storage.buckets set file_size_limit = 1048576 where id = 'identity-images'",
        "accepts files of 1 MiB, not 20 MiB",
    ),
    "the bucket takes anything": (
        "update storage.buckets set allowed_mime_types = null where id = 'identity-images'",
        "accepts files of any type, not image/jpeg, image/png",
    ),
}
BREAKAGES = POLICIES | GRANTS | TABLES | FUNCTIONS | SERVICES
# As the services' own roles do it, who own what is broken; mended by them, too.
OTHERS = {
    "users may not use Storage's schema": (
        "revoke usage on schema storage from authenticated",
        "A privilege is missing: authenticated USAGE on schema storage",
    ),
    "users may not upload": (
        f"revoke insert on {OBJECTS} from authenticated",
        f"A privilege is missing: authenticated INSERT on {OBJECTS}",
    ),
    "users may not ask who they are": (
        "revoke execute on function auth.uid() from public, authenticated",
        "A privilege is missing: authenticated EXECUTE on auth.uid()",
    ),
    "the watcher may not use the schema": (
        "revoke usage on schema public from public, service_role",
        "permission denied for schema public",
    ),
    "Storage's objects are open": (
        f"alter table {OBJECTS} disable row level security",
        "Row-level security is off on storage.objects: users can see all files",
    ),
    "the watcher's role sees no bucket": (
        "alter role service_role nobypassrls",
        "Storage hides the bucket identity-images from the secret key, although it exists",
    ),
}

First = Callable[[], Finding | None]


@pytest.fixture
def first(scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> First:
    """The first error that doctor tells; it is stopped there, since most of its time goes into what it checks later."""
    given = {"WATCHER_SPOOL": str(tmp_path / "spool"), "WATCHER_INSTANCE": "attic"}
    for name, value in (scene.sandbox.settings() | given).items():
        monkeypatch.setenv(name, value)

    async def look() -> Finding | None:
        async with aclosing(examine(settings.load())) as findings:
            async for finding in findings:
                if finding.state in {"warning", "error"}:
                    return finding
        return None

    return lambda: asyncio.run(look())


def sql(scene: Scene, statements: str, role: str = "postgres") -> None:
    """As somebody does who has the SQL editor open."""
    with psycopg.connect(scene.database.dsn(role), autocommit=True) as connection:
        connection.execute(statements.encode())


def restore(scene: Scene) -> None:
    repair(scene.sandbox.db_url, confirm=bool)


def mend(scene: Scene, finding: Finding, role: str = "postgres") -> None:
    """Do what the remedy says."""
    if finding.remedy == REPAIR:
        restore(scene)
    else:
        sql(scene, finding.remedy, role)


def is_as_migrated(scene: Scene) -> bool:
    try:
        catalogue = scene.database.value("select public.watcher_catalogue()")
    except psycopg.errors.UndefinedFunction:
        return False
    return bool(catalogue == drift.load_expected())


@pytest.mark.parametrize(("harm", "sentence"), BREAKAGES.values(), ids=BREAKAGES)
def test_the_cause_comes_first_and_both_remedies_mend_it(
    scene: Scene, first: First, harm: str, sentence: str
) -> None:
    by = "supabase_admin" if " owner to " in harm or "storage.buckets" in harm else "postgres"
    sql(scene, harm, by)
    try:
        found = first()
        assert found is not None
        assert (found.state, sentence in found.sentence) == ("error", True), found
        while True:  # what is restored can show more: a function that is created anew lacks its grants
            mend(scene, found)
            again = None if is_as_migrated(scene) else first()
            if again is None or again == found:
                break
            found = again
        tidy(scene)
        assert is_as_migrated(scene)
        if found.remedy != REPAIR:
            sql(scene, harm, by)
    finally:
        restore(scene)
        tidy(scene)
    assert is_as_migrated(scene)


def tidy(scene: Scene) -> None:
    """Take away what is the app's own as far as doctor knows, and leaves alone."""
    sql(
        scene,
        f"alter table {ROWS} drop column if exists colour, drop column if exists blamed; "
        "drop function if exists public.watcher_done; "
        "alter default privileges in schema public revoke execute on functions from anon",
    )


@pytest.mark.parametrize(("harm", "sentence"), OTHERS.values(), ids=OTHERS)
def test_what_a_service_owns_is_named_first_and_mended_by_its_owner(
    scene: Scene, first: First, harm: str, sentence: str
) -> None:
    sql(scene, harm, "supabase_admin")
    found = first()
    try:
        assert found is not None
        assert (found.state, sentence in found.sentence) == ("error", True), found
    finally:
        sql(scene, found.remedy.replace("current_user", "postgres") if found else "", "supabase_admin")
    assert is_as_migrated(scene)


def test_doctor_is_green_after_all_of_it(first: First) -> None:
    assert first() is None
