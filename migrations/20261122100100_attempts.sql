-- Who works on which row, and the verbs: the only door through which the watcher writes.
--
-- Locks: a verb locks the row first, then its attempt; several rows by skipping locked ones. The deletion of an
-- account goes the same way, so the two cannot deadlock. watcher_renew takes attempts alone and never waits.
-- Clocks: everything stored comes from now(); callers send durations in seconds.

do $migration$
declare
  verb regprocedure;
begin
  perform pg_advisory_xact_lock(hashtextextended('watcher.migrations', 0));
  if exists (select from watcher.migrations where version = '20261122100100') then
    return;
  end if;


  -- One line for each row that is pending or publishing: its place in the queue and its budget. It goes when the row
  -- ends, so a retry or a replay begins with a fresh one, and the queue stays small however many rows are done.
  create table watcher.open_rows (
    identity_id uuid primary key references public.trained_identities (id) on delete cascade,
    -- The place in the queue; null while held, and while deferred (then next_attempt_at orders the row).
    turn_at timestamptz,
    -- Attempts that count against the budget.
    spent integer not null default 0 check (spent >= 0),
    -- How many attempts in a row ended without a word, as when the worker was killed.
    silences integer not null default 0,
    last_reason text
  );
  create index open_rows_by_turn on watcher.open_rows (turn_at) where turn_at is not null;
  alter table watcher.open_rows enable row level security;

  -- Lease, fence and history in one. The numbers come from one sequence and are never given out twice.
  create table watcher.attempts (
    number bigint generated always as identity primary key,
    identity_id uuid not null references public.trained_identities (id) on delete cascade,
    instance text not null,
    run_id uuid not null,
    -- Handed out by itself, because the row may be what kills its workers.
    alone boolean not null,
    -- Uncounted: the budget is spent, and all that is left is to look at the Hub and tidy up.
    look_only boolean not null,
    started_at timestamptz not null default now(),
    lease_expires_at timestamptz not null,
    ended_at timestamptz,
    outcome text check (outcome in ('published', 'failed', 'deferred', 'released', 'silent', 'revoked')),
    code text,
    reason text,
    check ((ended_at is null) = (outcome is null))
  );
  create index attempts_by_identity on watcher.attempts (identity_id, number);
  -- A row is held by its one attempt that has not ended.
  create unique index attempts_holding on watcher.attempts (identity_id) where ended_at is null;
  alter table watcher.attempts enable row level security;

  -- Every name that was ever reserved, also when its row is gone: what may exist on the Hub can be found from here.
  create table watcher.names (
    model_id text primary key,
    namespace text not null,
    slug text not null,
    seconds bigint not null,
    identity_id uuid not null,
    reserved_at timestamptz not null default now(),
    unique (namespace, slug, seconds)
  );
  create index names_by_identity on watcher.names (identity_id);
  alter table watcher.names enable row level security;


  create function watcher.max_attempts() returns integer
  language sql immutable parallel safe set search_path = '' as $function$ select 8 $function$;

  -- 5 s, 15 s, 45 s … at most 15 minutes, a quarter more or less; 8 attempts outlast an outage of half an hour.
  -- A service that named a later time is believed, up to an hour.
  create function watcher.backoff(spent integer, retry_after_seconds double precision) returns interval
  language sql volatile set search_path = '' as $function$
    select make_interval(secs => greatest(
      least(5 * power(3, least(greatest(spent, 1), 20) - 1), 900) * (0.75 + 0.5 * random()),
      least(coalesce(retry_after_seconds, 0), 3600)
    ))
  $function$;

  create function watcher.bounded_lease(seconds double precision) returns interval
  language sql immutable parallel safe set search_path = '' as $function$
    select make_interval(secs => least(greatest(coalesce(seconds, 20), 0.1), 600))
  $function$;

  create function watcher.exhausted_in_words(spent integer, last_reason text) returns text
  language sql immutable parallel safe set search_path = '' as $function$
    select format('Gave up after %s attempts. The last one: %s', spent, coalesce(last_reason, 'no reason was given.'))
  $function$;


  -- Keeps watcher.open_rows in step with the status, whoever changes it.
  create function watcher.on_status() returns trigger
  language plpgsql security definer set search_path = '' as $function$
  declare
    turn timestamptz;
  begin
    if new.status = 'pending' then
      if new.next_attempt_at is null then
        turn := now();
        if tg_op = 'INSERT' or old.status = 'failed' then
          -- Fair between users: each further open row of one user queues half a minute later than it came.
          -- Counted to a hundred at most, since a replay may open thousands in one statement.
          turn := turn + (
            select 30 * count(*) from (
              select from public.trained_identities t join watcher.open_rows o on o.identity_id = t.id
              where t.user_id = new.user_id and t.status in ('pending', 'publishing') limit 100
            ) others
          ) * interval '1 second';
        end if;
      end if;
      insert into watcher.open_rows (identity_id, turn_at) values (new.id, turn)
      on conflict (identity_id) do update set turn_at = excluded.turn_at;
    elsif new.status in ('published', 'failed') then
      delete from watcher.open_rows where identity_id = new.id;
    end if;
    if new.status <> 'publishing' then
      -- The verbs have ended the attempt already; this is for changes made by hand.
      update watcher.attempts set ended_at = now(), outcome = 'revoked', reason = 'The status was changed by hand.'
      where identity_id = new.id and ended_at is null;
    end if;
    return null;
  end
  $function$;

  create trigger b_queue_new_row after insert on public.trained_identities
    for each row execute function watcher.on_status();
  create trigger b_queue_changed_row after update of status, next_attempt_at on public.trained_identities
    for each row when (old.status is distinct from new.status or old.next_attempt_at is distinct from new.next_attempt_at)
    execute function watcher.on_status();


  -- Locks the row of an attempt, then the attempt. What it returns is true only if that attempt holds the row.
  create function watcher.lock_attempt(p_attempt bigint, out identity_id uuid, out held boolean, out outcome text)
  language plpgsql security definer set search_path = '' as $function$
  begin
    select a.identity_id into identity_id from watcher.attempts a where a.number = p_attempt;
    perform from public.trained_identities t where t.id = identity_id for update;
    select a.outcome into outcome from watcher.attempts a where a.number = p_attempt for update;
    held := found and outcome is null;
  end
  $function$;

  create function watcher.end_attempt(p_attempt bigint, p_outcome text, p_code text, p_reason text) returns void
  language sql security definer set search_path = '' as $function$
    update watcher.attempts set ended_at = now(), outcome = p_outcome, code = p_code, reason = p_reason
    where number = p_attempt
  $function$;

  create function watcher.fail_row(p_id uuid, p_code text, p_message text) returns void
  language sql security definer set search_path = '' as $function$
    update public.trained_identities
    set status = 'failed', error_code = p_code, error_message = p_message, next_attempt_at = null
    where id = p_id
  $function$;

  -- Rows without a line in open_rows: inserted while triggers were off, as a restore of a backup does.
  create function watcher.queue_strays() returns boolean
  language plpgsql security definer set search_path = '' as $function$
  begin
    insert into watcher.open_rows (identity_id, turn_at)
    select t.id, case when t.next_attempt_at is null then now() end
    from public.trained_identities t
    where t.status in ('pending', 'publishing')
      and not exists (select from watcher.open_rows o where o.identity_id = t.id)
    for update of t skip locked
    on conflict do nothing;
    return found;
  end
  $function$;


  -- Takes up to p_limit due rows for a run: pending ones whose time has come, and publishing ones whose lease ran out.
  --
  -- p_holding: the attempts that the run still works on. What else it holds was lost with the answer to a claim and
  -- is handed out again at once, unspent. p_predecessor_is_dead: the caller has the lock of its instance, so rows
  -- held by an earlier run of that instance are due at once.
  --
  -- Answers {"claims": [...], "more_due": whether to ask again when one of them has ended, "next_due_seconds": s or null}.
  create function public.watcher_claim(
    p_instance text,
    p_run uuid,
    p_limit integer,
    p_lease_seconds double precision,
    p_holding bigint[] default '{}',
    p_predecessor_is_dead boolean default false
  ) returns jsonb
  language plpgsql security definer set search_path = '' as $function$
  declare
    wanted integer := least(greatest(coalesce(p_limit, 0), 0), 64);
    holding constant bigint[] := coalesce(p_holding, '{}');
    claims jsonb := '[]';
    due record;
    line record;
    held record;
    lost_answer boolean;
    silent boolean;
    alone boolean;
    look_only boolean;
    hopeless boolean;
    more_due boolean := false;
    attempt bigint;
    next_due double precision;
  begin
    if p_instance is null or p_run is null then
      raise exception using errcode = 'invalid_parameter_value', message = 'A claim names its instance and its run.';
    end if;
    -- A row that may kill its worker is worked on with nothing beside it.
    if exists (select from watcher.attempts a where a.number = any (holding) and a.alone and a.ended_at is null) then
      wanted := 0;
      more_due := true;
    end if;

    for pass in 1 .. 2 loop
      exit when wanted = 0 or jsonb_array_length(claims) > 0;
      exit when pass = 2 and not watcher.queue_strays();
      for due in
        -- What a dead run or a lost answer left behind comes first; the rest in the order it became due.
        select id, min(since) as since from (
          (select o.identity_id as id, o.turn_at as since, false as at_once from watcher.open_rows o
            where o.turn_at is not null order by o.turn_at limit 4 * wanted + 64)
          union all
          (select t.id, t.next_attempt_at, false from public.trained_identities t
            where t.status = 'pending' and t.next_attempt_at <= now()
            order by t.next_attempt_at limit 4 * wanted + 64)
          union all
          (select t.id, coalesce(a.lease_expires_at, t.updated_at), coalesce(a.lease_expires_at > now(), false)
            from public.trained_identities t
            left join watcher.attempts a on a.identity_id = t.id and a.ended_at is null
            where t.status = 'publishing' and (
              a.number is null
              or (a.lease_expires_at <= now() and a.number <> all (holding))
              or (a.run_id = p_run and a.number <> all (holding))
              or (p_predecessor_is_dead and a.instance = p_instance and a.run_id <> p_run)
            ))
        ) candidates
        group by id
        order by bool_or(at_once) desc, min(since)
      loop
        exit when jsonb_array_length(claims) >= wanted;

        -- The row first; then, in statements of their own, all that is known of it now.
        perform from public.trained_identities t where t.id = due.id for update skip locked;
        continue when not found;
        select a.number, a.run_id, a.instance, a.lease_expires_at, a.look_only into held
        from watcher.attempts a where a.identity_id = due.id and a.ended_at is null for update;
        select t.*, o.spent, o.silences, o.last_reason into line
        from public.trained_identities t join watcher.open_rows o on o.identity_id = t.id where t.id = due.id;
        continue when not found;

        lost_answer := held.run_id = p_run and held.number <> all (holding) and held.lease_expires_at > now();
        silent := held.number is not null and not lost_answer;
        continue when line.status not in ('pending', 'publishing');
        continue when line.status = 'pending' and line.next_attempt_at > now();
        continue when silent and held.number = any (holding);
        continue when silent and held.lease_expires_at > now()
          and not (p_predecessor_is_dead and held.instance = p_instance and held.run_id <> p_run);

        if silent then
          line.silences := line.silences + 1;
          line.last_reason := 'The worker stopped without a word.';
        elsif lost_answer and not held.look_only then
          line.spent := line.spent - 1;
        end if;
        look_only := line.spent >= watcher.max_attempts();
        alone := look_only or line.silences >= 2;
        -- Nobody needs to look where there is no repo, or where the look itself ended in silence; in that case
        -- model_id names what may be left.
        hopeless := look_only and (line.model_id is null or (silent and held.look_only));
        if alone and not hopeless and (cardinality(holding) > 0 or jsonb_array_length(claims) > 0) then
          -- Not beside others. Once it has waited a minute, take nothing more, so that this run comes to be empty.
          more_due := true;
          exit when due.since < now() - interval '1 minute';
          continue;
        end if;

        if held.number is not null then
          perform watcher.end_attempt(held.number, case when silent then 'silent' else 'released' end, null,
            case when silent then line.last_reason else 'The answer to the claim was lost.' end);
        end if;
        if hopeless then
          perform watcher.fail_row(due.id, 'attempts_exhausted',
            watcher.exhausted_in_words(line.spent, line.last_reason));
          continue;
        end if;

        insert into watcher.attempts (identity_id, instance, run_id, alone, look_only, lease_expires_at)
        values (due.id, p_instance, p_run, alone, look_only, now() + watcher.bounded_lease(p_lease_seconds))
        returning number into attempt;
        update watcher.open_rows set
          turn_at = null, silences = line.silences, last_reason = line.last_reason,
          spent = line.spent + case when look_only then 0 else 1 end
        where identity_id = due.id;
        update public.trained_identities set status = 'publishing', images_published = 0, next_attempt_at = null
        where id = due.id and (status <> 'publishing' or images_published <> 0);

        claims := claims || jsonb_build_object(
          'attempt', attempt,
          'id', line.id,
          'user_id', line.user_id,
          'identity_name', line.identity_name,
          'image_paths', to_jsonb(line.image_paths),
          'created_at', to_char(line.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
          'model_id', line.model_id,
          'look_only', look_only,
          'exhausted', case when look_only then watcher.exhausted_in_words(line.spent, line.last_reason) end,
          'never_tried', attempt = (select min(a.number) from watcher.attempts a where a.identity_id = due.id),
          'age_seconds', extract(epoch from now() - line.created_at)
        );
        more_due := more_due or alone or jsonb_array_length(claims) = wanted;
        exit when alone;
      end loop;
    end loop;

    select extract(epoch from min(soonest) - now()) into next_due from (
      select min(t.next_attempt_at) as soonest from public.trained_identities t
      where t.status = 'pending' and t.next_attempt_at > now()
      union all
      select min(a.lease_expires_at) from public.trained_identities t
      join watcher.attempts a on a.identity_id = t.id and a.ended_at is null
      where t.status = 'publishing' and a.run_id <> p_run and a.lease_expires_at > now()
    ) times;
    return jsonb_build_object('claims', claims, 'more_due', more_due, 'next_due_seconds', next_due);
  end
  $function$;


  -- Renews the leases of a daemon's attempts, and shows their progress where it is new. It waits for nobody: a row
  -- that somebody has locked keeps its lease and shows its progress the next time.
  --
  -- Answers {"held": [...], "busy": [...]}: an attempt in neither holds nothing any more; a busy one was being
  -- written to just then, and its lease was not renewed.
  create function public.watcher_renew(p_attempts bigint[], p_images_published integer[], p_lease_seconds double precision)
  returns jsonb
  language plpgsql security definer set search_path = '' as $function$
  declare
    held bigint[];
    busy bigint[];
  begin
    with mine as (
      select number from watcher.attempts
      where number = any (p_attempts) and ended_at is null for update skip locked
    ), renewed as (
      update watcher.attempts a set lease_expires_at = now() + watcher.bounded_lease(p_lease_seconds)
      from mine where a.number = mine.number returning a.number
    )
    select coalesce(array_agg(number), '{}') into held from renewed;
    select coalesce(array_agg(number), '{}') into busy from watcher.attempts
    where number = any (p_attempts) and number <> all (held) and ended_at is null;

    with progress as (
      select t.id, least(news.images, t.num_training_images) as images
      from unnest(p_attempts, p_images_published) as news (number, images)
      join watcher.attempts a on a.number = news.number and a.number = any (held)
      join public.trained_identities t on t.id = a.identity_id
      where t.status = 'publishing' and news.images > t.images_published
      for update of t skip locked
    )
    update public.trained_identities t set images_published = progress.images from progress where t.id = progress.id;
    return jsonb_build_object('held', to_jsonb(held), 'busy', to_jsonb(busy));
  end
  $function$;


  -- The name of the repo, reserved before the Hub hears of it. Reserving again answers the same name, unless
  -- p_refused names it: then the next one. Answers null if the attempt does not hold its row.
  create function public.watcher_reserve(p_attempt bigint, p_namespace text, p_slug text, p_refused text default null)
  returns text
  language plpgsql security definer set search_path = '' as $function$
  declare
    mine record;
    line record;
    first_second bigint;
    free_second bigint;
  begin
    if p_namespace !~ '^[A-Za-z0-9._-]+$' or char_length(p_namespace) > 96
      or p_slug !~ '^[a-z0-9]+(-[a-z0-9]+)*$' or char_length(p_slug) > 75
      or p_namespace is null or p_slug is null
    then
      raise exception using errcode = 'invalid_parameter_value',
        message = format('%L and %L cannot be part of a repo''s name.', p_namespace, p_slug);
    end if;
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held then
      return null;
    end if;
    select t.model_id, t.created_at, n.seconds into line
    from public.trained_identities t left join watcher.names n on n.model_id = t.model_id
    where t.id = mine.identity_id;
    if starts_with(line.model_id, p_namespace || '/') and p_refused is distinct from line.model_id then
      return line.model_id;
    end if;

    -- Whoever wants the same name at the same time looks after us.
    perform pg_advisory_xact_lock(hashtextextended('watcher.names ' || p_namespace || '/' || p_slug, 0));
    first_second := floor(extract(epoch from line.created_at));
    if p_refused = line.model_id then
      first_second := coalesce(line.seconds + 1, first_second);
    end if;
    select min(candidate) into free_second from (
      select first_second as candidate
      union all
      select n.seconds + 1 from watcher.names n
      where n.namespace = p_namespace and n.slug = p_slug and n.seconds >= first_second
    ) candidates
    where not exists (
      select from watcher.names n
      where n.namespace = p_namespace and n.slug = p_slug and n.seconds = candidate
    );
    insert into watcher.names (model_id, namespace, slug, seconds, identity_id)
    values (format('%s/identity-%s-%s', p_namespace, p_slug, free_second), p_namespace, p_slug, free_second, mine.identity_id);
    update public.trained_identities
    set model_id = format('%s/identity-%s-%s', p_namespace, p_slug, free_second)
    where id = mine.identity_id
    returning model_id into line.model_id;
    return line.model_id;
  end
  $function$;


  -- The write-backs. Each answers 'done', also when the same attempt has said the same before, or 'lost': the
  -- attempt holds its row no longer, and nothing was written.

  create function public.watcher_complete(p_attempt bigint, p_url text, p_commit_sha text, p_training_config jsonb)
  returns text
  language plpgsql security definer set search_path = '' as $function$
  declare
    mine record;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held then
      return case when mine.outcome = 'published' then 'done' else 'lost' end;
    end if;
    perform watcher.end_attempt(p_attempt, 'published', null, null);
    update public.trained_identities set
      status = 'published', huggingface_repo_url = p_url, commit_sha = p_commit_sha, published_at = now(),
      training_config = p_training_config, images_published = num_training_images
    where id = mine.identity_id;
    return 'done';
  end
  $function$;

  create function public.watcher_fail(p_attempt bigint, p_code text, p_message text) returns text
  language plpgsql security definer set search_path = '' as $function$
  declare
    mine record;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held then
      return case when mine.outcome = 'failed' then 'done' else 'lost' end;
    end if;
    perform watcher.end_attempt(p_attempt, 'failed', p_code, p_message);
    perform watcher.fail_row(mine.identity_id, p_code, p_message);
    return 'done';
  end
  $function$;

  -- Later, and spent. When the budget is spent with it, the row is handed out once more, only to look.
  create function public.watcher_defer(p_attempt bigint, p_reason text, p_retry_after_seconds double precision default null)
  returns text
  language plpgsql security definer set search_path = '' as $function$
  declare
    mine record;
    line record;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held then
      return case when mine.outcome = 'deferred' then 'done' else 'lost' end;
    end if;
    select t.model_id, a.look_only, o.spent, o.last_reason into line
    from public.trained_identities t
    join watcher.open_rows o on o.identity_id = t.id
    join watcher.attempts a on a.number = p_attempt
    where t.id = mine.identity_id;
    perform watcher.end_attempt(p_attempt, 'deferred', null, p_reason);
    if line.look_only or (line.spent >= watcher.max_attempts() and line.model_id is null) then
      perform watcher.fail_row(mine.identity_id, 'attempts_exhausted', watcher.exhausted_in_words(
        line.spent, case when line.look_only then line.last_reason else p_reason end));
      return 'done';
    end if;
    update watcher.open_rows set silences = 0, last_reason = p_reason where identity_id = mine.identity_id;
    update public.trained_identities set
      status = 'pending',
      next_attempt_at = case when line.spent < watcher.max_attempts()
        then now() + watcher.backoff(line.spent, p_retry_after_seconds) end
    where id = mine.identity_id;
    return 'done';
  end
  $function$;

  -- Now, and unspent.
  create function public.watcher_release(p_attempt bigint, p_reason text) returns text
  language plpgsql security definer set search_path = '' as $function$
  declare
    mine record;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held then
      return case when mine.outcome = 'released' then 'done' else 'lost' end;
    end if;
    perform watcher.end_attempt(p_attempt, 'released', null, p_reason);
    update watcher.open_rows o set spent = o.spent - 1
    from watcher.attempts a
    where o.identity_id = mine.identity_id and a.number = p_attempt and not a.look_only and o.spent > 0;
    update public.trained_identities set status = 'pending' where id = mine.identity_id;
    return 'done';
  end
  $function$;

  -- Sets failed rows back to pending, all of them or those that every given condition fits; running rows are left alone.
  -- Answers how many rows the conditions fit, by what was done, and the codes of those replayed:
  -- {"replayed": n, "codes": {code: n}, "pending": n, "publishing": n, "published": n}.
  create function public.watcher_replay(
    p_ids uuid[] default null,
    p_code text default null,
    p_failed_since timestamptz default null,
    p_user uuid default null,
    p_dry_run boolean default false,
    p_failed_within_seconds double precision default null
  ) returns jsonb
  language plpgsql security definer set search_path = '' as $function$
  declare
    counts jsonb;
    codes jsonb;
  begin
    select coalesce(jsonb_object_agg(status, n), '{}') into counts from (
      select t.status, count(*) as n from public.trained_identities t
      where p_ids is not null and t.id = any (p_ids) and t.status <> 'failed' group by t.status
    ) others;
    with chosen as (
      select t.id, t.error_code from public.trained_identities t
      where t.status = 'failed'
        and (p_ids is null or t.id = any (p_ids))
        and (p_code is null or t.error_code = p_code)
        and (p_failed_since is null or t.updated_at >= p_failed_since)
        and (p_failed_within_seconds is null
          or t.updated_at >= now() - make_interval(secs => least(p_failed_within_seconds, 1e9)))
        and (p_user is null or t.user_id = p_user)
      order by t.id for update skip locked
    ), changed as (
      update public.trained_identities t set status = 'pending'
      from chosen where t.id = chosen.id and not p_dry_run returning t.id
    ), done as (
      select chosen.error_code from chosen where p_dry_run or chosen.id in (select id from changed)
    )
    select coalesce(jsonb_object_agg(error_code, n), '{}') into codes
    from (select error_code, count(*) as n from done group by error_code) by_code;
    return jsonb_build_object(
      'replayed', (select coalesce(sum(value::bigint), 0) from jsonb_each_text(codes)), 'codes', codes,
      'pending', 0, 'publishing', 0, 'published', 0
    ) || counts;
  end
  $function$;

  -- Touches the pulse, so that a subscriber to it can tell whether Realtime delivers. Answers the number of the beat.
  create function public.watcher_beat() returns bigint
  language sql security definer set search_path = '' as $function$
    update public.watcher_pulse set beats = beats + 1, beaten_at = now() returning beats
  $function$;


  -- The reads.

  -- The schema's version, and the lowest version of the program that it serves.
  create function public.watcher_version() returns jsonb
  language sql stable security definer set search_path = '' as $function$
    select jsonb_build_object('schema', max(version), 'serves', '0.1.0') from watcher.migrations
  $function$;

  -- What waits, what runs and by whom, what failed and why, and what was published in the last 24 hours. Of what waits
  -- and what failed the ten that matter first: the oldest, and the last.
  create function public.watcher_status() returns jsonb
  language sql stable security definer set search_path = '' as $function$
    with pending as (
      select t.id, t.identity_name, t.created_at, o.spent, o.last_reason,
        extract(epoch from now() - coalesce(o.turn_at, t.next_attempt_at)) as overdue_seconds,
        extract(epoch from now() - t.created_at) as age_seconds,
        extract(epoch from t.next_attempt_at - now()) as due_in_seconds
      from watcher.open_rows o join public.trained_identities t on t.id = o.identity_id where t.status = 'pending'
    )
    select jsonb_build_object(
      'pending', (select count(*) from pending),
      'deferred', (select count(*) from pending where due_in_seconds > 0),
      'overdue_seconds', (select greatest(max(overdue_seconds), 0) from pending),
      'oldest_pending_seconds', (select max(age_seconds) from pending),
      'waiting', (select coalesce(jsonb_agg(jsonb_build_object(
          'id', id, 'identity_name', identity_name, 'age_seconds', age_seconds, 'spent', spent,
          'due_in_seconds', greatest(due_in_seconds, 0), 'overdue_seconds', greatest(overdue_seconds, 0),
          'last_reason', last_reason) order by age_seconds desc), '[]')
        from (select * from pending order by created_at limit 10) oldest),
      'publishing', (select coalesce(jsonb_agg(jsonb_build_object(
          'id', t.id, 'identity_name', t.identity_name, 'attempt', a.number, 'instance', a.instance,
          'run_id', a.run_id, 'seconds', extract(epoch from now() - a.started_at),
          'images_published', t.images_published, 'num_training_images', t.num_training_images,
          'lease_seconds', extract(epoch from a.lease_expires_at - now())) order by a.started_at), '[]')
        from public.trained_identities t left join watcher.attempts a on a.identity_id = t.id and a.ended_at is null
        where t.status = 'publishing'),
      'failed', (select coalesce(jsonb_object_agg(error_code, n), '{}') from (
        select error_code, count(*) as n from public.trained_identities where status = 'failed' group by error_code) codes),
      'last_failed', (select coalesce(jsonb_agg(jsonb_build_object(
          'id', id, 'identity_name', identity_name, 'error_code', error_code, 'error_message', error_message,
          'failed_seconds_ago', extract(epoch from now() - updated_at)) order by updated_at desc), '[]')
        from (select * from public.trained_identities where status = 'failed' order by updated_at desc limit 10) last),
      'published_24h', (select count(*) from public.trained_identities
        where status = 'published' and published_at > now() - interval '24 hours')
    )
  $function$;

  -- One row and all its attempts; null if there is no such row.
  create function public.watcher_story(p_id uuid) returns jsonb
  language sql stable security definer set search_path = '' as $function$
    select to_jsonb(t) || jsonb_build_object(
      'spent', o.spent,
      'max_attempts', watcher.max_attempts(),
      'last_reason', o.last_reason,
      'age_seconds', extract(epoch from now() - t.created_at),
      'due_in_seconds', case when t.status = 'pending'
        then greatest(extract(epoch from coalesce(t.next_attempt_at, now()) - now()), 0) end,
      'attempts', (select coalesce(jsonb_agg(jsonb_build_object(
          'number', a.number, 'instance', a.instance, 'run_id', a.run_id, 'look_only', a.look_only,
          'started_at', a.started_at, 'ended_at', a.ended_at, 'outcome', a.outcome, 'code', a.code, 'reason', a.reason,
          'seconds', extract(epoch from coalesce(a.ended_at, now()) - a.started_at),
          'started_seconds_ago', extract(epoch from now() - a.started_at),
          'lease_seconds', case when a.ended_at is null then extract(epoch from a.lease_expires_at - now()) end
        ) order by a.number), '[]')
        from watcher.attempts a where a.identity_id = t.id),
      'names', (select coalesce(jsonb_agg(n.model_id order by n.reserved_at, n.seconds), '[]')
        from watcher.names n where n.identity_id = t.id))
    from public.trained_identities t left join watcher.open_rows o on o.identity_id = t.id
    where t.id = p_id
  $function$;

  -- The names ever reserved, in their order, with the row they were for; at most 1000 a call, after p_after.
  create function public.watcher_names(p_after text default '', p_limit integer default 1000)
  returns table (model_id text, identity_id uuid, reserved_at timestamptz, row_exists boolean)
  language sql stable security definer set search_path = '' as $function$
    select n.model_id, n.identity_id, n.reserved_at,
      exists (select from public.trained_identities t where t.id = n.identity_id)
    from watcher.names n where n.model_id > p_after
    order by n.model_id limit least(greatest(p_limit, 0), 1000)
  $function$;


  -- A new function is open to everybody: not for a moment.
  for verb in
    select f.oid::regprocedure from pg_catalog.pg_proc f
    where f.pronamespace = 'public'::regnamespace and starts_with(f.proname, 'watcher_')
  loop
    execute format('revoke all on function %s from public, anon, authenticated, service_role', verb);
  end loop;

  insert into watcher.migrations (version) values ('20261122100100');
end
$migration$;
