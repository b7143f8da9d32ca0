-- The engine: a queue for work of any kind, the attempts at it, and the verbs with which the daemon claims and ends them.
--
-- A kind of work, for example publish, is a set of functions that the engine calls by name. Each gets the identity's id:
--   watcher.publish_begin(id)                  on a claim: returns what the worker needs, null if there is nothing to do
--   watcher.publish_progress(ids, progress)    on a renewal: stores the progress, which is JSON in the kind's own format
--   watcher.publish_put_back(id, next_at)      an attempt was deferred until next_at, or released (null)
--   watcher.publish_fail(id, code, message, details)  the work has failed permanently; the details are the kind's own JSON
--   watcher.publish_needs_look(id)             whether, with the budget spent, one more attempt must look at what is left
--   watcher.publish_find_unqueued()            queues work that lacks an entry in the queue; returns whether it found any. An
--                                              idle claim calls it, so it looks at watcher.search_page() rows at most, where
--                                              there can be many
-- A verb of the kind's own, watcher_complete for publish, ends an attempt as done. See docs/architecture.md.
--
-- Lock order: account, user (watcher.lock_user), row, queue entry, attempt. A claim skips what is locked. watcher_renew
-- locks attempts only and never waits for one.
-- Clocks: everything stored comes from now(); callers send durations in seconds.

do $migration$
begin
  perform pg_advisory_xact_lock(hashtextextended('watcher.migrations', 0));
  if exists (select from watcher.migrations where version = '20261122100100') then
    return;
  end if;


  -- All kinds of work.
  create function watcher.kinds() returns text[]
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$ select array['publish', 'erase', 'sweep', 'train', 'follow', 'notify'] $function$;

  -- The queue: one entry per open piece of work, with its position and its budget. It is deleted when the work ends, so
  -- that a retry or a replay starts with a fresh budget and the queue stays small. No foreign key: work may outlive its row.
  create table watcher.work (
    id bigint generated always as identity primary key,
    kind text not null constraint kind_is_known check (kind = any (watcher.kinds())),
    identity_id uuid not null,
    -- The user whose row it is, for fairness between users; null for work that is nobody's.
    owner uuid,
    created_at timestamptz not null default now(),
    -- Due now, in ascending order; null while an attempt holds the work and while it is deferred.
    turn_at timestamptz,
    -- Deferred until then.
    next_at timestamptz,
    -- Attempts that count against the budget.
    spent integer not null default 0 check (spent >= 0),
    -- Consecutive attempts whose lease expired, as when the worker is killed.
    crashes integer not null default 0 check (crashes >= 0),
    last_reason text,
    -- Consecutive attempts that did not count, by cause: every third of one cause counts. None resets another.
    shutdowns integer not null default 0,
    unsures integer not null default 0,
    lost_answers integer not null default 0,
    -- The deadline of a wait, set when it begins.
    wait_until timestamptz,
    -- `spent` as of the last wait, and the attempt that asked for it.
    wait_spent integer,
    waited bigint,
    -- The run that claims nothing else until it can take this work alone.
    isolated_for uuid,
    constraint one_entry_per_kind unique (identity_id, kind),
    constraint due_or_deferred check (turn_at is null or next_at is null)
  ) with (fillfactor = 80);
  create index work_due on watcher.work (kind, turn_at) where turn_at is not null;
  create index work_deferred on watcher.work (kind, next_at) where next_at is not null;
  create index work_held on watcher.work (kind) where turn_at is null and next_at is null;
  create index work_by_owner on watcher.work (owner, kind) where owner is not null;
  create index work_isolated on watcher.work (isolated_for) where isolated_for is not null;
  alter table watcher.work enable row level security;

  -- An attempt is the lease, the fencing token (its number, never reused) and, once ended, the history.
  create table watcher.attempts (
    number bigint generated always as identity primary key,
    work_id bigint not null,
    kind text not null,
    identity_id uuid not null,
    instance text not null,
    machine text not null default '',
    run_id uuid not null,
    -- Claimed by a run that held nothing else, because this work may crash its worker.
    alone boolean not null,
    -- Not counted: the budget is spent, so this attempt only looks at what earlier ones left, and cleans up.
    look_only boolean not null,
    started_at timestamptz not null default now(),
    lease_expires_at timestamptz not null,
    ended_at timestamptz,
    -- published, erased, trained, notified: the kind's word for done. waited: only time can help. crashed: the lease expired. revoked: the row
    -- was deleted, or changed by hand.
    outcome text check (outcome in
      ('published', 'erased', 'trained', 'notified', 'failed', 'deferred', 'released', 'waited', 'crashed', 'revoked')),
    code text,
    reason text,
    -- Whether each of its requests that change something on the Hub was answered; what was not can land late.
    answered boolean not null default false,
    -- It was counted, and is not any more: an outage was the cause.
    given_back boolean not null default false,
    check ((ended_at is null) = (outcome is null))
  ) with (fillfactor = 80);
  create index attempts_by_identity on watcher.attempts (identity_id, number);
  create index attempts_ended on watcher.attempts (ended_at) where ended_at is not null;
  -- Work is held by its attempt that has not ended; there is at most one.
  create unique index attempts_holding on watcher.attempts (work_id) where ended_at is null;
  alter table watcher.attempts enable row level security;


  -- Which run goes by which name, on which machine, and when it was last heard: two machines with one name are told apart.
  create table watcher.instances (
    name text primary key,
    run_id uuid not null,
    machine text not null,
    seen_at timestamptz not null default now(),
    outages jsonb not null default '{}'
  );
  alter table watcher.instances enable row level security;
  comment on column watcher.instances.outages is 'Why the run claims nothing of some kinds of work: a sentence for each kind; "every" for all kinds.';

  -- The kinds of work of which the operator lets nothing be claimed, until when (null: until `watcher resume`), and why.
  create table watcher.pauses (
    kind text primary key,
    since timestamptz not null default now(),
    until timestamptz,
    why text
  );
  alter table watcher.pauses enable row level security;

  create function watcher.paused_kinds() returns text[]
  language sql stable set search_path = pg_catalog, pg_temp as $function$
    select coalesce(array_agg(p.kind order by p.kind), '{}') from watcher.pauses p
    where p.until is null or p.until > now()
  $function$;

  -- How far the search for work without an entry in the queue has come: the next one goes on behind this row.
  create table watcher.searches (
    kind text primary key constraint kind_is_known check (kind = any (watcher.kinds())),
    after_at timestamptz not null default 'epoch',
    after_id uuid not null default '00000000-0000-0000-0000-000000000000'
  );
  alter table watcher.searches enable row level security;
  insert into watcher.searches (kind) values ('publish'), ('erase'), ('train');

  -- Rows that one search looks at. Idle claims come every 2 to 15 s, so ten thousand are seen within ten minutes.
  create function watcher.search_page() returns integer
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$ select 250 $function$;

  -- Notes how far a search came: to the last of a full page, which has this time, else to the end, and begins again.
  create function watcher.note_search(p_kind text, p_page uuid[], p_at timestamptz) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    if cardinality(p_page) = watcher.search_page() then
      update watcher.searches set after_at = p_at, after_id = p_page[cardinality(p_page)] where kind = p_kind;
    else
      update watcher.searches set after_at = default, after_id = default
      where kind = p_kind and after_at > 'epoch';
    end if;
  end
  $function$;

  -- Seconds after which a run that was not heard counts as gone.
  create function watcher.silence_seconds() returns integer
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$ select 30 $function$;

  create function watcher.max_attempts() returns integer
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$ select 8 $function$;

  -- Exponential back-off: 5 s, 15 s, 45 s … at most 15 min, with 25 % of jitter either way, so that 8 attempts outlast an
  -- outage of half an hour. A longer Retry-After is respected, up to an hour.
  create function watcher.backoff(spent integer, retry_after_seconds double precision) returns interval
  language sql volatile set search_path = pg_catalog, pg_temp as $function$
    select make_interval(secs => greatest(
      least(5 * power(3, least(greatest(spent, 1), 20) - 1), 900) * (0.75 + 0.5 * random()),
      least(coalesce(retry_after_seconds, 0), 3600)
    ))
  $function$;

  -- Where work queues after an outage that it met: behind what is due, so that other rows show whether it lasts.
  create function watcher.behind_others(cause text) returns interval
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select make_interval(secs => case when cause = 'shutdown' then 0 else 60 end)
  $function$;

  create function watcher.bounded_lease(seconds double precision) returns interval
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select make_interval(secs => least(greatest(coalesce(seconds, 20), 0.1), 600))
  $function$;

  create function watcher.exhausted_message(spent integer, last_reason text) returns text
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select format('Gave up after %s attempts. The last one: %s', spent, coalesce(last_reason, 'no reason was given.'))
  $function$;


  -- A message for the row's user, as the history keeps it: images by number, and no file or repo by name.
  create function watcher.without_files(message text) returns text
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select regexp_replace(regexp_replace(message, '(Image \d+) \([A-Za-z0-9 ._()+@=?-]{1,80}\)', '\1', 'g'),
      '([A-Za-z0-9._-]+/)?identity-[a-z0-9-]+-\d{9,11}', '[repo]', 'g')
  $function$;


  -- Calls of the kind's functions.

  create function watcher.begin_work(p_kind text, p_identity_id uuid) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    details jsonb;
  begin
    execute format('select watcher.%I($1)', p_kind || '_begin') into details using p_identity_id;
    return details;
  end
  $function$;

  create function watcher.put_back(p_kind text, p_identity_id uuid, p_next_at timestamptz) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    execute format('select watcher.%I($1, $2)', p_kind || '_put_back') using p_identity_id, p_next_at;
  end
  $function$;

  create function watcher.needs_look(p_kind text, p_identity_id uuid) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    needed boolean;
  begin
    execute format('select watcher.%I($1)', p_kind || '_needs_look') into needed using p_identity_id;
    return needed;
  end
  $function$;

  -- Fails the work permanently and deletes its queue entry.
  create function watcher.fail_work(
    p_kind text, p_identity_id uuid, p_code text, p_message text, p_details jsonb default null
  ) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    delete from watcher.work where kind = p_kind and identity_id = p_identity_id;
    execute format('select watcher.%I($1, $2, $3, $4)', p_kind || '_fail')
      using p_identity_id, p_code, p_message, p_details;
  end
  $function$;

  create function watcher.find_unqueued(p_kinds text[]) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    kind text;
    found_here boolean;
    any_found boolean := false;
  begin
    foreach kind in array p_kinds loop
      execute format('select watcher.%I()', kind || '_find_unqueued') into found_here;
      any_found := any_found or found_here;
    end loop;
    return any_found;
  end
  $function$;


  -- Deleting a row deletes its open work and its history, and revokes a running attempt. An account must always go: where
  -- the deletion comes through it, an error here is no reason to refuse it. A claim drops work whose row is gone.
  create function watcher.on_delete() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $function$
  begin
    -- But for erasing, which is how a row's things go.
    delete from watcher.work where identity_id = old.id and kind <> 'erase';
    update watcher.attempts set ended_at = now(), outcome = 'revoked', reason = 'The row was deleted.'
    where identity_id = old.id and kind <> 'erase' and ended_at is null;
    delete from watcher.attempts where identity_id = old.id and kind <> 'erase' and ended_at < now();
    delete from watcher.rejections where identity_id = old.id;
    delete from watcher.retries where identity_id = old.id;
    return old;
  exception when others then
    if pg_trigger_depth() = 1 then
      raise;
    end if;
    return old;
  end
  $function$;

  create trigger b_drop_work before delete on public.trained_identities
    for each row execute function watcher.on_delete();


  -- Locks an attempt's row, its queue entry, then the attempt; `held` says whether the attempt still holds the work.
  create function watcher.lock_attempt(
    p_attempt bigint, out work_id bigint, out kind text, out identity_id uuid, out held boolean, out outcome text
  )
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    select a.work_id, a.kind, a.identity_id into work_id, kind, identity_id
    from watcher.attempts a where a.number = p_attempt;
    perform from public.trained_identities t where t.id = lock_attempt.identity_id for update;
    perform from watcher.work w where w.id = lock_attempt.work_id for update;
    select a.outcome into outcome from watcher.attempts a where a.number = p_attempt for update;
    held := found and outcome is null;
  end
  $function$;

  create function watcher.end_attempt(
    p_attempt bigint, p_outcome text, p_code text, p_reason text, p_answered boolean default false
  ) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    update watcher.attempts
    set ended_at = now(), outcome = p_outcome, code = p_code, reason = p_reason, answered = coalesce(p_answered, false)
    where number = p_attempt
  $function$;

  -- Records an outcome that counts: the work is due later, or at once for a last look, or failed. The attempt has ended.
  -- p_last_reason is what the row fails with, where it does.
  create function watcher.put_off(
    p_line watcher.work, p_look_only boolean, p_reason text, p_last_reason text, p_retry_after_seconds double precision
  ) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    exhausted constant boolean := p_line.spent >= watcher.max_attempts();
    later timestamptz;
  begin
    if p_look_only or (exhausted and not watcher.needs_look(p_line.kind, p_line.identity_id)) then
      perform watcher.fail_work(p_line.kind, p_line.identity_id, 'attempts_exhausted',
        watcher.exhausted_message(p_line.spent, p_last_reason));
      return;
    end if;
    later := case when not exhausted then now() + watcher.backoff(p_line.spent, p_retry_after_seconds) end;
    -- A wait's deadline stays: it bounds the work whatever happens between two looks.
    update watcher.work set
      spent = p_line.spent, crashes = 0, shutdowns = 0, unsures = 0, lost_answers = 0, last_reason = p_reason,
      next_at = later, turn_at = case when later is null then now() end, isolated_for = null
    where id = p_line.id;
    perform watcher.put_back(p_line.kind, p_line.identity_id, later);
  end
  $function$;


  -- Claims due work for a run: of each kind in p_slots at most so many pieces, for example {"publish": 3}. Work is due when
  -- it is queued (turn_at), when its time has come (next_at), or when the lease of the attempt that holds it has expired.
  --
  -- p_holding: the attempts that the run works on. Any other attempt of the run was in an answer that it never received:
  -- its work is claimed again at once, unspent. p_predecessor_is_dead: the caller holds the lock of its instance, so what
  -- earlier runs of that instance hold is due at once.
  --
  -- Users of whom nothing is running go first. p_extra: the kinds of which one more piece may be taken than p_slots says, if
  -- it is such a user's.
  --
  -- p_machine: the machine that the run is on. While another machine uses the same instance name, nothing is claimed, and
  -- "name_taken" has {"machine": m, "seconds": s until that one counts as gone}.
  -- p_outages: why the run claims nothing of some kinds, a sentence for each, or for "every". Without slots, it only lets
  -- this be known.
  --
  -- Returns {"claims": [...], "next_due_seconds": s or null}, and in "paused" the kinds that are paused, if any.
  create function public.watcher_claim(
    p_instance text,
    p_run uuid,
    p_slots jsonb,
    p_lease_seconds double precision,
    p_holding bigint[] default '{}',
    p_predecessor_is_dead boolean default false,
    p_machine text default '',
    p_extra text[] default '{}',
    p_outages jsonb default '{}'
  ) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    kinds text[] := array(select jsonb_object_keys(p_slots));
    paused constant text[] := watcher.paused_kinds();
    answer jsonb := case when paused = '{}' then '{}' else jsonb_build_object('paused', paused) end;
    holding constant bigint[] := coalesce(p_holding, '{}');
    this_machine constant text := coalesce(p_machine, '');
    told constant jsonb := coalesce(
      (select jsonb_object_agg(left(key, 20), left(value, 500)) from jsonb_each_text(p_outages)), '{}');
    answers_lost constant text := 'The answers to three claims in a row were lost.';
    claims jsonb := '[]';
    known record;
    isolated record;
    wanted integer;
    extra integer;
    taken integer;
    busy_owners uuid[];
    asked record;
    due record;
    entry watcher.work;
    held record;
    lost_answer boolean;
    crashed boolean;
    alone boolean;
    look_only boolean;
    give_up boolean;
    draining boolean := false;
    attempt bigint;
    details jsonb;
    next_due double precision;
  begin
    if p_instance is null or p_run is null or p_slots is null then
      raise exception using errcode = 'invalid_parameter_value',
        message = 'A claim needs an instance, a run and slots.';
    end if;
    if not kinds <@ watcher.kinds() then
      raise exception using errcode = 'invalid_parameter_value',
        message = format('Unknown kind of work in %s: this database knows %s.', kinds, watcher.kinds());
    end if;

    select i.machine, watcher.silence_seconds() - extract(epoch from now() - i.seen_at) as left_seconds into known
    from watcher.instances i where i.name = p_instance;
    if known.machine <> this_machine and known.left_seconds > 0 then
      return jsonb_build_object('claims', claims, 'next_due_seconds', null,
        'name_taken', jsonb_build_object('machine', known.machine, 'seconds', known.left_seconds));
    end if;
    if known.machine is null then
      insert into watcher.instances (name, run_id, machine, outages)
      values (p_instance, p_run, this_machine, told) on conflict do nothing;
    else
      update watcher.instances set run_id = p_run, machine = this_machine, seen_at = now(), outages = told
      where name = (select i.name from watcher.instances i where i.name = p_instance for update skip locked);
    end if;

    -- What is paused may not keep this run from other work, nor what it cannot take now from another run.
    update watcher.work set isolated_for = null where isolated_for = p_run and (kinds = '{}' or kind = any (paused));
    kinds := array(select unnest(kinds) except select unnest(paused));
    if kinds = '{}' then
      return answer || jsonb_build_object('claims', claims, 'next_due_seconds', null);
    end if;

    -- Work that may crash its worker runs alone; the run that is to take it claims nothing else until then, of any kind.
    select w.kind into isolated from watcher.work w where w.isolated_for = p_run limit 1;
    if isolated.kind is not null and cardinality(holding) > 0
      or exists (select from watcher.attempts a where a.number = any (holding) and a.alone and a.ended_at is null)
    then
      draining := true;
    end if;

    for pass in 1 .. 2 loop
      exit when draining or jsonb_array_length(claims) > 0;
      exit when pass = 2 and not watcher.find_unqueued(kinds);
      for asked in
        select key as kind, least(greatest(coalesce(value::integer, 0), 0), 64) as slots
        from jsonb_each_text(p_slots) where key = any (kinds) order by key is distinct from isolated.kind, key
      loop
        wanted := asked.slots;
        extra := (asked.kind = any (coalesce(p_extra, '{}')))::integer;
        taken := 0;
        exit when draining;
        continue when wanted + extra = 0;
        select coalesce(array_agg(distinct w.owner), '{}') into busy_owners
        from watcher.attempts a join watcher.work w on w.id = a.work_id
        where a.ended_at is null and a.lease_expires_at > now() and a.kind = asked.kind and w.owner is not null;
        for due in
          -- First what a dead run or a lost answer left behind, then the rest in the order in which it became due, one of
          -- each user who has none running before all others.
          select id, identity_id, since, owner is not null and not second as may_be_extra from (
            select c.*, c.owner is not null and (
              c.owner = any (busy_owners) or row_number() over (partition by c.owner order by at_once desc, since) > 1
            ) as second
            from (
              (select w.id, w.identity_id, w.owner, w.turn_at as since, w.isolated_for, false as at_once from (
                  -- A replay may have queued any number of one user's.
                  select * from watcher.work
                  where kind = asked.kind and turn_at is not null and isolated_for is distinct from p_run
                  order by turn_at limit 1000
                ) w
                order by coalesce(w.owner = any (busy_owners), false), w.turn_at limit 4 * wanted + 64)
              union all
              (select w.id, w.identity_id, w.owner, w.next_at, w.isolated_for, false from watcher.work w
                where w.kind = asked.kind and w.next_at <= now() and w.isolated_for is distinct from p_run
                order by w.next_at limit 4 * wanted + 64)
              union all
              (select w.id, w.identity_id, w.owner, coalesce(w.turn_at, w.next_at), w.isolated_for, false from watcher.work w
                where w.isolated_for = p_run and w.kind = asked.kind and (w.turn_at is not null or w.next_at <= now()))
              union all
              (select w.id, w.identity_id, w.owner, coalesce(a.lease_expires_at, w.created_at), w.isolated_for,
                  coalesce(a.lease_expires_at > now(), false)
                from watcher.work w
                left join watcher.attempts a on a.work_id = w.id and a.ended_at is null
                where w.kind = asked.kind and w.turn_at is null and w.next_at is null and (
                  a.number is null
                  or (a.lease_expires_at <= now() and a.number <> all (holding))
                  or (a.run_id = p_run and a.number <> all (holding))
                  or (p_predecessor_is_dead and a.instance = p_instance and a.machine = this_machine
                    and a.run_id <> p_run)
                ))
            ) c
          ) candidates
          order by isolated_for = p_run desc nulls last, at_once desc, second, since
        loop
          exit when taken >= wanted + extra;
          continue when taken >= wanted and not due.may_be_extra;

          -- Lock the row, if there is one, then the entry, and skip either if it is locked. Both may have changed since the
          -- query above, so they are read again by statements of their own.
          perform from public.trained_identities t where t.id = due.identity_id for update skip locked;
          continue when not found and exists (select from public.trained_identities t where t.id = due.identity_id);
          select w.* into entry from watcher.work w where w.id = due.id for update skip locked;
          continue when not found;
          select a.number, a.run_id, a.instance, a.machine, a.lease_expires_at, a.look_only into held
          from watcher.attempts a where a.work_id = due.id and a.ended_at is null for update;

          lost_answer := held.run_id = p_run and held.number <> all (holding) and held.lease_expires_at > now();
          crashed := held.number is not null and not lost_answer;
          continue when entry.next_at > now();
          continue when crashed and held.number = any (holding);
          continue when crashed and held.lease_expires_at > now() and not (p_predecessor_is_dead
            and held.instance = p_instance and held.machine = this_machine and held.run_id <> p_run);

          if crashed then
            entry.crashes := entry.crashes + 1;
            entry.last_reason := 'The lease expired: the worker crashed or lost contact.';
            entry.shutdowns := 0;
            entry.unsures := 0;
            entry.lost_answers := 0;
          elsif lost_answer then
            entry.lost_answers := entry.lost_answers + 1;
            if entry.lost_answers >= 3 then
              -- It counts, and is deferred.
              perform watcher.end_attempt(held.number, 'deferred', null, answers_lost);
              perform watcher.put_off(entry, held.look_only, answers_lost,
                case when held.look_only then entry.last_reason else answers_lost end, null);
              continue;
            elsif not held.look_only then
              entry.spent := entry.spent - 1;
            end if;
          end if;
          look_only := entry.spent >= watcher.max_attempts();
          alone := look_only or entry.crashes >= 2;
          -- No last look if nothing was left to look at, or if that look itself crashed.
          give_up := look_only
            and (crashed and held.look_only or not watcher.needs_look(entry.kind, entry.identity_id));
          if alone and not give_up and (cardinality(holding) > 0 or jsonb_array_length(claims) > 0) then
            -- It must run alone. Once it has waited a minute, one run claims nothing more, so that it becomes free for it.
            if due.since < now() - interval '1 minute' and (entry.isolated_for is null or not exists (
              select from watcher.instances i where i.run_id = entry.isolated_for
                and i.seen_at > now() - make_interval(secs => watcher.silence_seconds())
            )) then
              update watcher.work set isolated_for = p_run where id = due.id;
              draining := true;
            end if;
            exit when draining;
            continue;
          end if;

          if held.number is not null then
            perform watcher.end_attempt(held.number, case when crashed then 'crashed' else 'released' end, null,
              case when crashed then entry.last_reason else 'The answer to the claim was lost.' end);
          end if;
          if give_up then
            perform watcher.fail_work(entry.kind, entry.identity_id, 'attempts_exhausted',
              watcher.exhausted_message(entry.spent, entry.last_reason));
            continue;
          end if;
          update watcher.work set
            turn_at = null, next_at = null, isolated_for = null, last_reason = entry.last_reason,
            crashes = entry.crashes, shutdowns = entry.shutdowns, unsures = entry.unsures, lost_answers = entry.lost_answers,
            spent = entry.spent + case when look_only then 0 else 1 end
          where id = due.id;
          details := watcher.begin_work(entry.kind, entry.identity_id);
          if details is null then
            delete from watcher.work where id = due.id;
            continue;
          end if;

          insert into watcher.attempts
            (work_id, kind, identity_id, instance, machine, run_id, alone, look_only, lease_expires_at)
          values (due.id, entry.kind, entry.identity_id, p_instance, this_machine, p_run, alone, look_only,
            now() + watcher.bounded_lease(p_lease_seconds))
          returning number into attempt;

          claims := claims || jsonb_build_object(
            'attempt', attempt,
            'kind', entry.kind,
            'identity_id', entry.identity_id,
            'details', details,
            'look_only', look_only,
            'exhausted', case when look_only then watcher.exhausted_message(entry.spent, entry.last_reason) end,
            'never_tried', not exists (select from watcher.attempts a
              where a.identity_id = entry.identity_id and a.kind = entry.kind and a.number < attempt
                and a.outcome <> 'revoked'),
            'age_seconds', extract(epoch from now() - entry.created_at)
          );
          taken := taken + 1;
          draining := alone;
          exit when draining;
        end loop;
      end loop;
    end loop;

    select extract(epoch from min(soonest) - now()) into next_due from (
      -- Kind by kind, each by one look into the index.
      select (
        select w.next_at from watcher.work w where w.kind = known_kind and w.next_at > now() order by w.next_at limit 1
      ) as soonest from unnest(kinds) known_kind
      union all
      select min(a.lease_expires_at) from watcher.attempts a
      where a.ended_at is null and a.kind = any (kinds) and a.run_id <> p_run and a.lease_expires_at > now()
    ) times;
    return answer || jsonb_build_object('claims', claims, 'next_due_seconds', next_due);
  end
  $function$;

  -- What is paused now: [{"kind": k, "for_seconds": s, "left_seconds": s or null, "why": w or null}, ...].
  create function watcher.pauses_now() returns jsonb
  language sql stable set search_path = pg_catalog, pg_temp as $function$
    select coalesce(jsonb_agg(jsonb_build_object(
      'kind', p.kind, 'for_seconds', extract(epoch from now() - p.since),
      'left_seconds', extract(epoch from p.until - now()), 'why', p.why) order by p.kind), '[]')
    from watcher.pauses p where p.kind = any (watcher.paused_kinds())
  $function$;

  -- Lets no daemon claim work of a kind (null: of any kind) for so many seconds (null: until it is resumed). What runs
  -- goes on. Returns what is paused now.
  create function public.watcher_pause(
    p_kind text default null, p_seconds double precision default null, p_why text default null
  ) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    if p_kind <> all (watcher.kinds()) or not coalesce(p_seconds between 1 and 366 * 86400, true) then
      raise exception using errcode = 'invalid_parameter_value',
        message = format('Pause one of %s, for a second to a year.', array_to_string(watcher.kinds(), ', '));
    end if;
    insert into watcher.pauses (kind, until, why)
    select k, now() + make_interval(secs => p_seconds), left(p_why, 500)
    from unnest(watcher.kinds()) k where k = coalesce(p_kind, k)
    on conflict (kind) do update set since = now(), until = excluded.until, why = excluded.why;
    return watcher.pauses_now();
  end
  $function$;

  -- Ends the pause of a kind (null: of every kind). Returns what is paused still.
  create function public.watcher_resume(p_kind text default null) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    if p_kind <> all (watcher.kinds()) then
      raise exception using errcode = 'invalid_parameter_value',
        message = format('Resume one of %s.', array_to_string(watcher.kinds(), ', '));
    end if;
    delete from watcher.pauses p where p.kind = coalesce(p_kind, p.kind);
    return watcher.pauses_now();
  end
  $function$;


  -- Renews the leases of a daemon's attempts and stores their progress: {"12": {...}, "13": {}}. Never waits for a lock: an
  -- attempt that is locked is renewed by the next call.
  --
  -- Returns {"held": [...], "busy": [...]}: a busy attempt was locked, so its lease was not renewed; an attempt in neither
  -- list has ended.
  create function public.watcher_renew(p_progress jsonb, p_lease_seconds double precision) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    asked constant bigint[] := array(select jsonb_object_keys(coalesce(p_progress, '{}'))::bigint);
    held bigint[];
    busy bigint[];
    reported record;
  begin
    with mine as (
      select number from watcher.attempts
      where number = any (asked) and ended_at is null for update skip locked
    ), renewed as (
      update watcher.attempts a set lease_expires_at = now() + watcher.bounded_lease(p_lease_seconds)
      from mine where a.number = mine.number returning a.number
    )
    select coalesce(array_agg(number), '{}') into held from renewed;
    select coalesce(array_agg(number), '{}') into busy from watcher.attempts
    where number = any (asked) and number <> all (held) and ended_at is null;

    for reported in
      select a.kind, array_agg(a.identity_id) as ids, array_agg(p_progress -> a.number::text) as progress
      from watcher.attempts a
      where a.number = any (held) and p_progress -> a.number::text <> '{}' group by a.kind
    loop
      execute format('select watcher.%I($1, $2)', reported.kind || '_progress') using reported.ids, reported.progress;
    end loop;

    update watcher.instances set seen_at = now() where name in (
      select i.name from watcher.instances i
      where i.run_id in (select a.run_id from watcher.attempts a where a.number = any (held)) for update skip locked
    );
    return jsonb_build_object('held', to_jsonb(held), 'busy', to_jsonb(busy));
  end
  $function$;


  -- The write-backs. Each returns 'done', also when the same attempt repeats it, or 'lost': the attempt no longer holds
  -- its work, and nothing was written.

  -- p_answered, in all of them: whether each request of the attempt that changes something on the Hub was answered.

  create function public.watcher_fail(
    p_attempt bigint, p_code text, p_message text, p_answered boolean default false, p_details jsonb default null
  )
  returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held then
      return case when mine.outcome = 'failed' then 'done' else 'lost' end;
    end if;
    perform watcher.end_attempt(p_attempt, 'failed', p_code, watcher.without_files(p_message), p_answered);
    perform watcher.fail_work(mine.kind, mine.identity_id, p_code, p_message, p_details);
    return 'done';
  end
  $function$;

  -- Try again later; the attempt counts. If it spends the budget, the work is claimed once more, only to look.
  create function public.watcher_defer(
    p_attempt bigint, p_reason text, p_retry_after_seconds double precision default null, p_answered boolean default false
  ) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
    entry watcher.work;
    look_only boolean;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held then
      return case when mine.outcome = 'deferred' then 'done' else 'lost' end;
    end if;
    perform watcher.end_attempt(p_attempt, 'deferred', null, p_reason, p_answered);
    select * into entry from watcher.work w where w.id = mine.work_id;
    select a.look_only into look_only from watcher.attempts a where a.number = p_attempt;
    perform watcher.put_off(entry, look_only, p_reason, case when look_only then entry.last_reason else p_reason end,
      p_retry_after_seconds);
    return 'done';
  end
  $function$;

  -- Try again now; the attempt does not count before the third in a row of one cause: shutdown, or unsure. An outage, which
  -- a request has shown that concerns no row, never counts.
  create function public.watcher_release(
    p_attempt bigint, p_reason text, p_cause text default 'unsure', p_answered boolean default false
  ) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
    entry watcher.work;
    look_only boolean;
    counts boolean;
  begin
    if p_cause is null or p_cause not in ('shutdown', 'outage', 'unsure') then
      raise exception using errcode = 'invalid_parameter_value',
        message = format('A release has the cause shutdown, outage or unsure, not %L.', p_cause);
    end if;
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held then
      return case when mine.outcome = 'released' then 'done' else 'lost' end;
    end if;
    perform watcher.end_attempt(p_attempt, 'released', null, p_reason, p_answered);
    select * into entry from watcher.work w where w.id = mine.work_id;
    select a.look_only into look_only from watcher.attempts a where a.number = p_attempt;
    entry.shutdowns := entry.shutdowns + (p_cause = 'shutdown')::integer;
    entry.unsures := entry.unsures + (p_cause = 'unsure')::integer;
    counts := p_cause = 'shutdown' and entry.shutdowns >= 3 or p_cause = 'unsure' and entry.unsures >= 3;
    if counts and look_only then
      perform watcher.put_off(entry, true, p_reason, entry.last_reason, null);
      return 'done';
    end if;
    -- First, since it queues the work again.
    perform watcher.put_back(mine.kind, mine.identity_id, null);
    update watcher.work w set
      turn_at = now() + watcher.behind_others(p_cause), next_at = null, isolated_for = null,
      last_reason = case when counts then p_reason else w.last_reason end,
      spent = greatest(w.spent - case when counts or look_only then 0 else 1 end, 0),
      shutdowns = case when p_cause = 'shutdown' and counts then 0 else entry.shutdowns end,
      unsures = case when p_cause = 'unsure' and counts then 0 else entry.unsures end
    where w.id = mine.work_id;
    return 'done';
  end
  $function$;

  -- An outage has turned out to be the cause of these attempts, which were deferred: they do not count, if their work is
  -- still open. Each is given back once. Returns how many.
  create function public.watcher_give_back(p_attempts bigint[]) returns integer
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    given integer := 0;
    deferred record;
  begin
    for deferred in
      select a.number, w.id as work_id from watcher.attempts a join watcher.work w on w.id = a.work_id
      where a.number = any (p_attempts) and a.outcome = 'deferred' and not a.look_only and not a.given_back and w.spent > 0
      order by w.id, a.number for update of a, w skip locked limit 1000
    loop
      update watcher.attempts set given_back = true where number = deferred.number;
      update watcher.work set spent = greatest(spent - 1, 0) where id = deferred.work_id;
      given := given + 1;
    end loop;
    return given;
  end
  $function$;

  -- In p_seconds, and unspent: only time can end what is waited for. The first wait sets the deadline, p_within_seconds from
  -- then; past it the work fails with p_code and p_message, or is deferred where no code is given. What was spent since the
  -- last wait is given back. A wait that says the same as the one before leaves no entry in the history.
  -- Returns what became of the attempt, 'waited', 'failed' or 'deferred', also when the same attempt repeats it; or 'lost'.
  create function public.watcher_wait(
    p_attempt bigint, p_seconds double precision, p_within_seconds double precision, p_reason text,
    p_code text default null, p_message text default null, p_answered boolean default false,
    p_details jsonb default null
  ) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
    entry watcher.work;
    look_only boolean;
    deadline timestamptz;
    later timestamptz;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held then
      return case
        when mine.outcome in ('waited', 'failed', 'deferred') then mine.outcome
        when exists (select from watcher.work w where w.waited = p_attempt) then 'waited'
        else 'lost' end;
    end if;
    select * into entry from watcher.work w where w.id = mine.work_id;
    select a.look_only into look_only from watcher.attempts a where a.number = p_attempt;
    deadline := coalesce(entry.wait_until,
      now() + make_interval(secs => least(greatest(coalesce(p_within_seconds, 0), 0), 604800)));
    if now() >= deadline then
      if p_code is not null then
        perform watcher.end_attempt(p_attempt, 'failed', p_code, watcher.without_files(p_message), p_answered);
        perform watcher.fail_work(mine.kind, mine.identity_id, p_code, p_message, p_details);
        return 'failed';
      end if;
      perform watcher.end_attempt(p_attempt, 'deferred', null, p_reason, p_answered);
      update watcher.work set wait_until = null, wait_spent = null where id = entry.id;
      perform watcher.put_off(entry, look_only, p_reason, case when look_only then entry.last_reason else p_reason end, null);
      return 'deferred';
    end if;
    if entry.waited is not null and entry.last_reason = p_reason and p_answered then
      delete from watcher.attempts where number = p_attempt;
    else
      perform watcher.end_attempt(p_attempt, 'waited', null, p_reason, p_answered);
    end if;
    later := least(now() + make_interval(secs => least(greatest(coalesce(p_seconds, 0), 0.1), 3600)), deadline);
    entry.spent := coalesce(entry.wait_spent, entry.spent - case when look_only then 0 else 1 end);
    update watcher.work set
      turn_at = null, next_at = later, isolated_for = null, spent = entry.spent, wait_spent = entry.spent,
      wait_until = deadline, waited = p_attempt, last_reason = p_reason
    where id = entry.id;
    perform watcher.put_back(mine.kind, mine.identity_id, later);
    return 'waited';
  end
  $function$;

  -- Updates the pulse, so that a subscriber can tell whether Realtime delivers. Returns the number of updates so far.
  create function public.watcher_beat() returns bigint
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    update public.watcher_pulse set beats = beats + 1, beaten_at = now() returning beats
  $function$;

  -- The schema's version, and the lowest version of the program that it serves.
  create function public.watcher_version() returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select jsonb_build_object('schema', max(version), 'serves', '0.2.0') from watcher.migrations
  $function$;


  -- Everybody may execute a new function by default: each migration revokes that in its own transaction.
  create function watcher.close_verbs() returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    verb regprocedure;
  begin
    for verb in
      select f.oid::regprocedure from pg_catalog.pg_proc f
      where f.pronamespace = 'public'::regnamespace and starts_with(f.proname, 'watcher_')
    loop
      execute format('revoke all on function %s from public, anon, authenticated, service_role', verb);
    end loop;
  end
  $function$;

  perform watcher.close_verbs();

  insert into watcher.migrations (version) values ('20261122100100');
end
$migration$;
