-- A migration of a version to come, for test_upgrade.py alone: one more kind of work, a status, columns, answers with more
-- in them. It serves the program that is running, as every migration must.

do $migration$
begin
  perform pg_advisory_xact_lock(hashtextextended('watcher.migrations', 0));
  if exists (select from watcher.migrations where version = '29990101000000') then
    return;
  end if;

  -- The kinds that there are, and one more.
  execute format(
    'create or replace function watcher.kinds() returns text[] language sql immutable parallel safe set search_path = %L as %L',
    '', format('select %L::text[]', watcher.kinds() || array['archive']));
  create function watcher.archive_begin(uuid) returns jsonb language sql set search_path = '' as $function$ select '{}'::jsonb $function$;
  create function watcher.archive_find_unqueued() returns boolean language sql set search_path = '' as $function$ select false $function$;
  insert into watcher.work (kind, identity_id, turn_at)
  select 'archive', id, now() from public.trained_identities;

  alter table public.trained_identities add column archive boolean not null default false;
  alter table public.trained_identities drop constraint status_is_known;
  alter table public.trained_identities add constraint status_is_known
    check (status in ('pending', 'publishing', 'published', 'training', 'ready', 'failed', 'archived')) not valid;
  alter table watcher.attempts drop constraint attempts_outcome_check;
  alter table watcher.attempts add constraint attempts_outcome_check
    check (outcome in (
      'published', 'trained', 'erased', 'notified', 'failed', 'deferred', 'released', 'waited', 'crashed', 'revoked', 'archived')) not valid;

  -- Whatever is answered to a claim, a renewal or a question has something in it that nobody knew before.
  alter function public.watcher_claim(text, uuid, jsonb, double precision, bigint[], boolean, text, text[], jsonb) rename to watcher_claim_before;
  create function public.watcher_claim(
    p_instance text, p_run uuid, p_slots jsonb, p_lease_seconds double precision,
    p_holding bigint[] default '{}', p_predecessor_is_dead boolean default false,
    p_machine text default '', p_extra text[] default '{}', p_outages jsonb default '{}'
  ) returns jsonb language plpgsql security definer set search_path = '' as $function$
  declare
    answer jsonb := public.watcher_claim_before(
      p_instance, p_run, p_slots, p_lease_seconds, p_holding, p_predecessor_is_dead, p_machine, p_extra, p_outages);
  begin
    return answer || jsonb_build_object('news', 1, 'claims', (
      select coalesce(jsonb_agg(claim || '{"news": 1}' || jsonb_build_object('details', claim -> 'details' || '{"archive": false}')), '[]')
      from jsonb_array_elements(answer -> 'claims') claim
    ));
  end
  $function$;
  revoke all on function public.watcher_claim(text, uuid, jsonb, double precision, bigint[], boolean, text, text[], jsonb) from public, anon, authenticated;
  grant execute on function public.watcher_claim(text, uuid, jsonb, double precision, bigint[], boolean, text, text[], jsonb) to service_role;

  alter function public.watcher_renew(jsonb, double precision) rename to watcher_renew_before;
  create function public.watcher_renew(p_progress jsonb, p_lease_seconds double precision) returns jsonb
  language sql security definer set search_path = '' as $function$
    select public.watcher_renew_before(p_progress, p_lease_seconds) || '{"news": 1}'
  $function$;
  revoke all on function public.watcher_renew(jsonb, double precision) from public, anon, authenticated;
  grant execute on function public.watcher_renew(jsonb, double precision) to service_role;

  insert into watcher.migrations (version) values ('29990101000000');
  notify pgrst, 'reload schema';
end
$migration$;
