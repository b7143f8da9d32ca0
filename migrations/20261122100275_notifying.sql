-- Notifying: the kind of work that tells the operator's own address (WATCHER_NOTIFY_URL) what has failed or was finished,
-- once each and without names. Nothing is kept to be told unless a daemon that tells has asked for it lately.

do $migration$
begin
  perform pg_advisory_xact_lock(hashtextextended('watcher.migrations', 0));
  if exists (select from watcher.migrations where version = '20261122100275') then
    return;
  end if;


  create table watcher.notifying (
    only_row boolean primary key default true check (only_row),
    -- Until then, what happens is kept to be told.
    until timestamptz
  );
  alter table watcher.notifying enable row level security;
  insert into watcher.notifying default values;

  create table watcher.notifications (
    -- By which a receiver knows a repetition.
    id uuid primary key default gen_random_uuid(),
    event text not null,
    -- Of the row or the erasure.
    identity_id uuid not null,
    details jsonb not null default '{}',
    happened_at timestamptz not null default now()
  );
  alter table watcher.notifications enable row level security;

  -- Keeps a notification to be told, if any daemon tells them. The details name nobody.
  create function watcher.notify(p_event text, p_identity_id uuid, p_details jsonb) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    made uuid;
  begin
    if not exists (select from watcher.notifying where until > now()) then
      return;
    end if;
    insert into watcher.notifications (event, identity_id, details)
    values (p_event, p_identity_id, jsonb_strip_nulls(p_details)) returning id into made;
    insert into watcher.work (kind, identity_id, turn_at) values ('notify', made, now());
  end
  $function$;

  -- Erasures that have been due for a day, each told once. What nobody has told for a week is news no more.
  create function watcher.sweep_notifications() returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    overdue uuid;
  begin
    delete from watcher.work w using watcher.notifications n
    where w.kind = 'notify' and w.identity_id = n.id and (w.turn_at is not null or w.next_at is not null)
      and n.happened_at < now() - interval '7 days';
    delete from watcher.notifications n where n.happened_at < now() - interval '7 days'
      and not exists (select from watcher.work w where w.kind = 'notify' and w.identity_id = n.id);
    if not exists (select from watcher.notifying where until > now()) then
      return;
    end if;
    for overdue in
      select o.identity_id from watcher.open_erasures() o join watcher.erasures e on e.identity_id = o.identity_id
      where o.due_since < now() - interval '1 day' and not e.told_overdue limit 100
    loop
      update watcher.erasures set told_overdue = true where identity_id = overdue;
      perform watcher.notify('erasure.overdue', overdue, '{}');
    end loop;
  end
  $function$;


  -- The functions that the engine calls; see 20261122100100_work.sql.

  create function watcher.notify_begin(p_identity_id uuid) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select jsonb_build_object('event', n.event, 'identity_id', n.identity_id, 'details', n.details,
      'happened_at', to_char(n.happened_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
      'last_reason', (select last_reason from watcher.work where kind = 'notify' and identity_id = n.id))
    from watcher.notifications n where n.id = p_identity_id
  $function$;

  create function watcher.notify_progress(p_identity_ids uuid[], p_progress jsonb[]) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$ select $function$;

  create function watcher.notify_put_back(p_identity_id uuid, p_next_at timestamptz) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$ select $function$;

  -- Given up: the receiver has not answered for as long as eight attempts take.
  create function watcher.notify_fail(p_identity_id uuid, p_code text, p_message text, p_details jsonb) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    delete from watcher.notifications where id = p_identity_id
  $function$;

  create function watcher.notify_needs_look(p_identity_id uuid) returns boolean
  language sql immutable set search_path = pg_catalog, pg_temp as $function$ select false $function$;

  -- Called by daemons that tell, and by no other: it also notes that there are some.
  create function watcher.notify_find_unqueued() returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    update watcher.notifying set until = now() + interval '1 day'
    where coalesce(until < now() + interval '23 hours', true);
    insert into watcher.work (kind, identity_id, turn_at)
    select 'notify', n.id, now() from watcher.notifications n
    where not exists (select from watcher.work w where w.identity_id = n.id and w.kind = 'notify')
    on conflict do nothing;
    return found;
  end
  $function$;


  -- Notes that a daemon tells from now on. Called at its start, so that what happens in its first moments is told, too.
  create function public.watcher_notify_from_now() returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    select watcher.notify_find_unqueued()
  $function$;

  -- It was told: the attempt is done. Returns 'done' or 'lost', as every write-back does.
  create function public.watcher_notified(p_attempt bigint) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held or mine.kind <> 'notify' then
      return case when mine.outcome = 'notified' then 'done' else 'lost' end;
    end if;
    perform watcher.end_attempt(p_attempt, 'notified', null, null, true);
    delete from watcher.work where id = mine.work_id;
    delete from watcher.notifications where id = mine.identity_id;
    return 'done';
  end
  $function$;


  perform watcher.close_verbs();

  insert into watcher.migrations (version) values ('20261122100275');
end
$migration$;
