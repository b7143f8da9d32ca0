-- Erasing: the kind of work that takes from the Hub what nobody may have any more. So far: the repos behind abandoned names.

do $migration$
declare
  verb regprocedure;
begin
  perform pg_advisory_xact_lock(hashtextextended('watcher.migrations', 0));
  if exists (select from watcher.migrations where version = '20261122100250') then
    return;
  end if;


  -- Seconds for which a request that was sent may still land: the longest that the Hub works on one.
  create function watcher.late_seconds() returns integer
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$ select 120 $function$;

  -- What has to go, a line a thing. A line goes when its thing is gone for good.
  create table watcher.erase_lines (
    id bigint generated always as identity primary key,
    identity_id uuid not null,
    what text not null constraint what_is_known check (what in ('repo')),
    -- Of a repo: namespace/name.
    name text not null,
    added_at timestamptz not null default now(),
    -- It was seen to be gone, and is looked at once more at this time: a request that was not answered may land until then.
    look_again_at timestamptz,
    gone_at timestamptz,
    constraint one_line_a_thing unique (what, name)
  );
  create index erase_lines_by_identity on watcher.erase_lines (identity_id);
  alter table watcher.erase_lines enable row level security;

  -- Gives a name up: it is never reserved again, and what is behind it is erased. Called under the row's lock.
  create function watcher.abandon_name(p_identity_id uuid, p_name text) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    unanswered timestamptz;
  begin
    if p_name is null then
      return;
    end if;
    insert into watcher.used_names (digest) values (watcher.name_digest(p_name)) on conflict do nothing;
    -- The last moment at which an attempt may still have sent something that nobody saw answered.
    select max(coalesce(a.ended_at, now())) into unanswered from watcher.attempts a
    where a.identity_id = p_identity_id and a.kind = 'publish' and not a.answered
      and coalesce(a.ended_at, now()) > now() - make_interval(secs => watcher.late_seconds());
    insert into watcher.erase_lines (identity_id, what, name, look_again_at)
    values (p_identity_id, 'repo', p_name, unanswered + make_interval(secs => 1.25 * watcher.late_seconds()))
    on conflict do nothing;
    insert into watcher.work (kind, identity_id, turn_at) values ('erase', p_identity_id, now())
    on conflict (identity_id, kind) do update set turn_at = now(), next_at = null
    where work.next_at is not null;
  end
  $function$;


  -- When the first of a row's things is to be looked at; null if nothing is left.
  create function watcher.erase_due(p_identity_id uuid) returns timestamptz
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select min(case when gone_at is null then now() else look_again_at end)
    from watcher.erase_lines where identity_id = p_identity_id
  $function$;


  -- The functions that the engine calls; see 20261122100100_work.sql.

  -- {"lines": [{"id": n, "what": "repo", "name": "namespace/name"}]}
  create function watcher.erase_begin(p_identity_id uuid) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select jsonb_build_object('lines', jsonb_agg(jsonb_build_object(
      'id', l.id, 'what', l.what, 'name', l.name) order by l.id))
    from watcher.erase_lines l
    where l.identity_id = p_identity_id and (l.gone_at is null or l.look_again_at <= now())
    having count(*) > 0
  $function$;

  create function watcher.erase_progress(p_identity_ids uuid[], p_progress jsonb[]) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$ select $function$;

  -- Nobody is shown where an erasure stands.
  create function watcher.erase_put_back(p_identity_id uuid, p_next_at timestamptz) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$ select $function$;

  -- An erasure is never given up: with its budget spent it is tried again, once an hour.
  create function watcher.erase_fail(p_identity_id uuid, p_code text, p_message text, p_details jsonb) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    insert into watcher.work (kind, identity_id, next_at, spent, last_reason)
    values ('erase', p_identity_id, now() + interval '1 hour', watcher.max_attempts() - 1, p_message)
  $function$;

  create function watcher.erase_needs_look(p_identity_id uuid) returns boolean
  language sql immutable set search_path = pg_catalog, pg_temp as $function$ select false $function$;

  -- Lines without work: their work was deleted by hand.
  create function watcher.erase_find_unqueued() returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    insert into watcher.work (kind, identity_id, next_at)
    select 'erase', l.identity_id, watcher.erase_due(l.identity_id) from watcher.erase_lines l
    where not exists (select from watcher.work w where w.identity_id = l.identity_id and w.kind = 'erase')
    group by l.identity_id
    on conflict do nothing;
    return found;
  end
  $function$;


  -- The things of p_gone were seen to be gone, or not to be ours: the attempt is done. A thing that is to be looked at once
  -- more keeps its line and its name until then. Returns 'done' or 'lost', as every write-back does; p_gone that names nothing
  -- of what is due is refused, since the work would be claimed again at once, for ever.
  create function public.watcher_erased(p_attempt bigint, p_gone bigint[], p_answered boolean default false) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
    seen bigint[];
    again timestamptz;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held then
      return case when mine.outcome = 'erased' then 'done' else 'lost' end;
    end if;
    if mine.kind <> 'erase' then
      return 'lost';
    end if;
    select coalesce(array_agg(id), '{}') into seen from watcher.erase_lines
    where identity_id = mine.identity_id and id = any (p_gone) and (gone_at is null or look_again_at <= now());
    if cardinality(seen) = 0 and watcher.erase_due(mine.identity_id) <= now() then
      raise exception using errcode = 'invalid_parameter_value', message = 'An erasure names what is gone.';
    end if;
    perform watcher.end_attempt(p_attempt, 'erased', null, null, p_answered);
    -- A deletion of ours that was not answered may land later, too. It finds nothing: the name is never used again.
    update watcher.erase_lines set gone_at = now() where id = any (seen) and look_again_at > now();
    delete from watcher.names n using watcher.erase_lines l
    where l.id = any (seen) and l.gone_at is distinct from now() and l.what = 'repo' and n.model_id = l.name;
    delete from watcher.erase_lines where id = any (seen) and gone_at is distinct from now();
    again := watcher.erase_due(mine.identity_id);
    if again is null then
      delete from watcher.work where id = mine.work_id;
    else
      -- Something is left, or was added meanwhile.
      update watcher.work set
        next_at = again, turn_at = null, isolated_for = null,
        spent = 0, crashes = 0, shutdowns = 0, unsures = 0, lost_answers = 0
      where id = mine.work_id;
    end if;
    return 'done';
  end
  $function$;


  -- Everybody may execute a new function by default: revoke that in the same transaction.
  for verb in
    select f.oid::regprocedure from pg_catalog.pg_proc f
    where f.pronamespace = 'public'::regnamespace and starts_with(f.proname, 'watcher_')
  loop
    execute format('revoke all on function %s from public, anon, authenticated, service_role', verb);
  end loop;

  insert into watcher.migrations (version) values ('20261122100250');
end
$migration$;
