-- Training: the kind of work that has a LoRA trained on a published repo, by a job on the Hub, and the kind that follows all
-- jobs at once. What a training may cost is reserved before its job is started, and settled when that has ended.

do $migration$
begin
  perform pg_advisory_xact_lock(hashtextextended('watcher.migrations', 0));
  if exists (select from watcher.migrations where version = '20261122100225') then
    return;
  end if;


  -- What the operator has decided; `watcher training` sets it.
  create table watcher.training_settings (
    only_row boolean primary key default true check (only_row),
    enabled boolean not null default false,
    -- For all trainings that start within a day, in UTC.
    usd_a_day numeric not null default 0 check (usd_a_day between 0 and 100000),
    -- The Hub's name of the hardware.
    flavor text not null default 'l40sx1' check (flavor ~ '^[a-z0-9][a-z0-9-]{0,39}$'),
    -- The job's time-out.
    minutes integer not null default 60 check (minutes between 5 and 1440),
    base text not null default 'black-forest-labs/FLUX.2-klein-base-4B'
      check (base ~ '^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$' and char_length(base) <= 192),
    -- Null: what training_config.json says.
    learning_rate numeric check (learning_rate > 0 and learning_rate <= 1),
    steps integer check (steps between 1 and 100000),
    -- Of the first pictures; {trigger} stands for the trigger word. Null: the default ones.
    prompts text[] check (cardinality(prompts) between 1 and 8)
  );
  alter table watcher.training_settings enable row level security;
  insert into watcher.training_settings default values;

  -- One line a training that has been started. While it is open its identity has none other. It outlives the row: what was
  -- spent stays counted.
  create table watcher.trainings (
    number bigint generated always as identity primary key,
    -- The job's label on the Hub: the number, and a part that a database restored from a backup does not give out again.
    label text not null unique,
    identity_id uuid not null,
    -- The attempt that started it.
    started_by bigint not null,
    namespace text not null,
    base text not null,
    flavor text not null,
    minutes integer not null,
    usd_per_minute numeric not null check (usd_per_minute >= 0),
    reserved_usd numeric not null,
    -- What it took; null while that is not known.
    spent_usd numeric,
    started_at timestamptz not null default now(),
    -- When the job was last about to be requested. The request may land later.
    intent_at timestamptz not null default now(),
    job text,
    job_known_at timestamptz,
    -- Several jobs had its label: all but the oldest end by themselves.
    doubled boolean not null default false,
    -- What the Hub said of the job last.
    stage text,
    running_since timestamptz,
    -- When its own attempt last looked at the job, or was told to.
    looked_at timestamptz,
    job_ended_at timestamptz,
    -- For which it ran.
    seconds integer,
    ended_at timestamptz,
    outcome text check (outcome in ('ready', 'failed', 'cancelled', 'not_started')),
    code text,
    check ((ended_at is null) = (outcome is null))
  );
  create unique index trainings_open on watcher.trainings (identity_id) where ended_at is null;
  create index trainings_by_identity on watcher.trainings (identity_id, number);
  create index trainings_since on watcher.trainings (started_at);
  -- Few of very many entries: found without reading the others.
  create index work_train on watcher.work (next_at) where kind = 'train';
  alter table watcher.trainings enable row level security;


  -- Money.

  -- In US dollars, of the trainings that started today: what was spent, and what those may take at most of which that is not
  -- known yet.
  create function watcher.training_costs(out spent numeric, out reserved numeric)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select coalesce(sum(spent_usd), 0), coalesce(sum(reserved_usd) filter (where spent_usd is null), 0)
    from watcher.trainings where started_at >= date_trunc('day', now(), 'UTC')
  $function$;

  -- The most that a training can cost: ten minutes go by before its time-out begins and after it.
  create function watcher.training_reserve(p_minutes integer, p_usd_per_minute numeric) returns numeric
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select (p_minutes + 10) * p_usd_per_minute
  $function$;

  create function watcher.tomorrow() returns timestamptz
  language sql stable set search_path = pg_catalog, pg_temp as $function$
    select date_trunc('day', now(), 'UTC') + interval '1 day'
  $function$;

  -- Whether today's money suffices for one more training at that price.
  create function watcher.training_fits(p_usd_per_minute numeric) returns boolean
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select c.spent + c.reserved + watcher.training_reserve(s.minutes, p_usd_per_minute) <= s.usd_a_day
    from watcher.training_settings s, watcher.training_costs() c
  $function$;

  -- Why a training of the user cannot start now: 'off', 'never', 'user' or 'budget'; null if it can. Called under the budget's
  -- lock.
  create function watcher.training_obstacle(p_user uuid, p_usd_per_minute numeric) returns text
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select case
      when not s.enabled then 'off'
      when watcher.limit_of('trainings_per_day', p_user) = 0 then 'never'
      when watcher.trainings_of_the_day(p_user) >= watcher.limit_of('trainings_per_day', p_user) then 'user'
      when not watcher.training_fits(p_usd_per_minute) then 'budget'
    end from watcher.training_settings s
  $function$;

  -- Why a training waits for 'user' or 'budget', or why it does not: 'off'.
  create function watcher.training_waits_for(p_because text) returns text
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select case p_because
      when 'user' then 'The user''s trainings of today are used up.'
      when 'budget' then 'Today''s budget for trainings is used up.'
      when 'off' then 'Trainings are switched off.' end
  $function$;

  -- There is money again, or more of it: of the trainings that wait for that, the one that was asked for first is tried now.
  create function watcher.wake_waiting_training() returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    update watcher.work set turn_at = now(), next_at = null where id = (
      select id from watcher.work
      where kind = 'train' and next_at > now() and last_reason = watcher.training_waits_for('budget')
      order by created_at limit 1 for update skip locked)
  $function$;

  -- A user's day (null: everybody's) has room for another number of trainings: those that wait for that are tried now.
  create function watcher.wake_trainings_of(p_user uuid) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    update watcher.work set turn_at = now(), next_at = null where id in (
      select id from watcher.work
      where kind = 'train' and next_at > now() and last_reason = watcher.training_waits_for('user')
        and owner = coalesce(p_user, owner) for update skip locked)
  $function$;

  -- The cost of a job that took so many seconds, which the Hub bills by the minute; null where that is not known: at most
  -- what has passed since it was requested.
  create function watcher.settle_training(p_number bigint, p_billed_seconds double precision default null) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    update watcher.trainings n set spent_usd = case
      when p_billed_seconds is not null then n.usd_per_minute * ceil(greatest(p_billed_seconds, 0) / 60)
      else least(n.reserved_usd, n.usd_per_minute * ceil(extract(epoch from now() - n.intent_at) / 60)) end
    where n.number = p_number and n.spent_usd is null;
    if found then
      perform watcher.wake_waiting_training();
    end if;
  end
  $function$;

  -- The job of a training that was ended before it is seen to have ended, or never to have been there.
  create function watcher.settle_cancelled(p_label text) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    select watcher.settle_training(number) from watcher.trainings where label = p_label
  $function$;


  -- The queue.

  -- p_next_at: not before; null for now.
  create function watcher.queue_training(p_identity_id uuid, p_owner uuid, p_next_at timestamptz) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    insert into watcher.work (kind, identity_id, owner, turn_at, next_at, last_reason)
    select 'train', p_identity_id, p_owner, case when p_next_at is null then now() end, p_next_at, case
      when p_next_at is not null then 'It was asked for several times within an hour, so it waits.' end
    from watcher.training_settings where enabled
    on conflict (identity_id, kind) do nothing
  $function$;

  -- Ends what is queued or runs of a row's training.
  create function watcher.drop_training(p_identity_id uuid, p_reason text) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    delete from watcher.work where identity_id = p_identity_id and kind = 'train';
    update watcher.attempts set ended_at = now(), outcome = 'revoked', reason = p_reason
    where identity_id = p_identity_id and kind = 'train' and ended_at is null
  $function$;

  -- Cancels a training's job, which may run or land yet, as work of its own.
  create function watcher.cancel_job(p_training watcher.trainings) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    perform watcher.open_erasure(p_training.identity_id, 'name', null);
    perform watcher.list_job(p_training, now());
    perform watcher.queue_erasure(p_training.identity_id);
  end
  $function$;

  -- Keeps the queue in step with what the user asks for. A training that has started is not withdrawn: one deletes the row.
  -- A verb that changes the row has ended the attempt, and the training, before.
  create function watcher.on_train() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    training watcher.trainings;
  begin
    if old.status = 'training' then
      update watcher.trainings set ended_at = now(), outcome = 'cancelled'
      where identity_id = new.id and ended_at is null returning * into training;
      if found then
        perform watcher.drop_training(new.id, 'The status was changed by hand.');
        perform watcher.cancel_job(training);
      end if;
    elsif not new.train then
      perform watcher.drop_training(new.id, 'The training was withdrawn.');
    end if;
    if new.train and new.status in ('published', 'ready') then
      perform watcher.queue_training(new.id, new.user_id, new.training_waits_until);
    end if;
    return null;
  end
  $function$;

  create trigger c_queue_training after update of status, train on public.trained_identities
    for each row when (old.train <> new.train or old.status <> new.status and (
      old.status = 'publishing' and new.train or old.status = 'training'))
    execute function watcher.on_train();


  -- The functions that the engine calls; see 20261122100100_work.sql.

  -- Seconds from the request for a job to the first look at it: what its own checks refuse is known by then.
  create function watcher.first_look_seconds() returns integer
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$ select 10 $function$;

  -- Seconds from an intent after which its job, if there is one, is listed: the Hub works on a request for up to
  -- watcher.late_seconds(), and its lists are behind by watcher.list_lag_seconds().
  create function watcher.settled_after_seconds() returns integer
  language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
  begin
    return watcher.late_seconds() + watcher.list_lag_seconds();
  end
  $function$;

  -- What the training needs, and how far it has come: "training" is null where none has started.
  create function watcher.train_begin(p_identity_id uuid) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select jsonb_build_object(
      'user_id', t.user_id, 'model_id', t.model_id, 'trigger_word', t.trigger_word,
      'commit_sha', t.commit_sha,
      'base', coalesce(n.base, s.base), 'flavor', coalesce(n.flavor, s.flavor), 'minutes', coalesce(n.minutes, s.minutes),
      'learning_rate', s.learning_rate, 'steps', s.steps, 'prompts', to_jsonb(s.prompts),
      'first_look_seconds', watcher.first_look_seconds(), 'settled_after_seconds', watcher.settled_after_seconds(),
      'training', case when n.number is not null then jsonb_build_object(
        'label', n.label, 'job', n.job, 'doubled', n.doubled,
        'age_seconds', extract(epoch from now() - n.started_at),
        'intent_age_seconds', extract(epoch from now() - n.intent_at),
        'job_ended_seconds_ago', extract(epoch from now() - n.job_ended_at)) end)
    from public.trained_identities t
    cross join watcher.training_settings s
    left join watcher.trainings n on n.identity_id = t.id and n.ended_at is null
    where t.id = p_identity_id and t.train and t.status in ('published', 'ready', 'training')
      and (s.enabled or n.number is not null)
  $function$;

  create function watcher.train_progress(p_identity_ids uuid[], p_progress jsonb[]) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$ select $function$;

  -- A training that has started goes on at its next attempt.
  create function watcher.train_put_back(p_identity_id uuid, p_next_at timestamptz) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$ select $function$;

  create function watcher.status_before_training(p_training_commit_sha text) returns text
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select case when p_training_commit_sha is null then 'published' else 'ready' end
  $function$;

  -- Takes a training back out of its user's day, so that one that waits for that is tried now; unless somebody is just
  -- changing that day: the user may not be locked here.
  create function watcher.uncount_training(p_training watcher.trainings) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    update watcher.usage u set trainings = greatest(u.trainings - 1, 0) where (u.user_id, u.hour) in (
      select c.user_id, c.hour from watcher.usage c join public.trained_identities t on t.user_id = c.user_id
      where t.id = p_training.identity_id and c.hour = date_trunc('hour', p_training.started_at, 'UTC')
      for update of c skip locked);
    select watcher.wake_trainings_of(user_id) from public.trained_identities where id = p_training.identity_id
  $function$;

  -- The row is what it was before. A job that may still run is cancelled, as work of its own.
  create function watcher.train_fail(p_identity_id uuid, p_code text, p_message text, p_details jsonb) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    failed_code constant text := case p_code when 'attempts_exhausted' then 'training_failed' else p_code end;
    training watcher.trainings;
  begin
    update watcher.trainings set ended_at = now(), outcome = 'failed', code = failed_code
    where identity_id = p_identity_id and ended_at is null returning * into training;
    if training.number is not null and training.job_ended_at is null then
      perform watcher.cancel_job(training);
    elsif training.number is null then
      perform watcher.wake_waiting_training();
    end if;
    -- What the first checks of a job refuse, within minutes, does not use up the user's day.
    if failed_code in ('training_refused', 'training_base_refused') and coalesce(training.seconds, 0) < 300 then
      perform watcher.uncount_training(training);
    end if;
    update public.trained_identities set
      status = watcher.status_before_training(training_commit_sha),
      train = false, training_error_code = failed_code, training_error_message = p_message
    where id = p_identity_id;
    perform watcher.notify('training.failed', p_identity_id, jsonb_build_object('code', failed_code));
  end
  $function$;

  -- There may be a job.
  create function watcher.train_needs_look(p_identity_id uuid) returns boolean
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select exists (select from watcher.trainings where identity_id = p_identity_id and ended_at is null)
  $function$;

  -- Queues those of the rows that ask for a training and have no work for it; returns whether there were any.
  create function watcher.queue_trainings(p_ids uuid[]) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    insert into watcher.work (kind, identity_id, owner, turn_at)
    select 'train', t.id, t.user_id, now() from public.trained_identities t
    where t.id = any (p_ids) and t.train and t.status in ('published', 'training', 'ready')
      and not exists (select from watcher.work w where w.identity_id = t.id and w.kind = 'train')
    for update of t skip locked
    on conflict do nothing;
    return found;
  end
  $function$;

  -- Those that were asked for before trainings were switched on, or whose work was deleted by hand. A row that somebody has
  -- called training although nothing was started is what it was before.
  create function watcher.train_find_unqueued() returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    search watcher.searches;
    page uuid[];
    any_found boolean;
  begin
    update public.trained_identities set status = watcher.status_before_training(training_commit_sha) where id in (
      select t.id from public.trained_identities t
      where t.train and t.status = 'training'
        and not exists (select from watcher.trainings n where n.identity_id = t.id and n.ended_at is null)
        and not exists (select from watcher.work w where w.identity_id = t.id and w.kind = 'train')
      for update skip locked);
    any_found := watcher.queue_trainings(array(
      select n.identity_id from watcher.trainings n where n.ended_at is null limit watcher.search_page()));
    select * into search from watcher.searches where kind = 'train' for update skip locked;
    if not found or not (select enabled from watcher.training_settings) then
      return any_found;
    end if;
    page := array(
      select t.id from public.trained_identities t
      where t.train and t.status in ('published', 'training', 'ready') and t.id > search.after_id
      order by t.id limit watcher.search_page());
    perform watcher.note_search('train', page, now());
    return watcher.queue_trainings(page) or any_found;
  end
  $function$;


  -- The write-backs of a training. Each returns 'done' or 'lost', as every write-back does, or says more.

  -- Locks the account and the user whose row an attempt is at, which has to come before the row.
  create function watcher.lock_owner(p_attempt bigint) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    select watcher.lock_user(t.user_id)
    from watcher.attempts a join public.trained_identities t on t.id = a.identity_id where a.number = p_attempt
  $function$;

  -- Starts a training: reserves what it may cost, and writes down that its job is about to be requested. Returns
  -- {"result": "started", "label": text}, also when the same attempt repeats it; {"result": "lost"}; or why it cannot start
  -- now: {"result": "off", "never", "user" or "budget"}.
  create function public.watcher_training_start(p_attempt bigint, p_namespace text, p_usd_per_minute numeric) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
    owner uuid;
    obstacle text;
    training watcher.trainings;
  begin
    if coalesce(p_usd_per_minute, -1) not between 0 and 100 or p_namespace is null then
      raise exception using errcode = 'invalid_parameter_value',
        message = format('A training needs a namespace, and a price from 0 to 100 dollars a minute, not %s.', p_usd_per_minute);
    end if;
    perform watcher.lock_owner(p_attempt);
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held or mine.kind <> 'train' then
      return jsonb_build_object('result', 'lost');
    end if;
    select * into training from watcher.trainings where identity_id = mine.identity_id and ended_at is null;
    if found then
      return jsonb_build_object('result', case when training.started_by = p_attempt then 'started' else 'lost' end,
        'label', training.label);
    end if;
    select user_id into strict owner from public.trained_identities where id = mine.identity_id;
    perform pg_advisory_xact_lock(hashtextextended('watcher.training_budget', 0));
    obstacle := watcher.training_obstacle(owner, p_usd_per_minute);
    if obstacle is not null then
      return jsonb_build_object('result', obstacle);
    end if;
    insert into watcher.trainings
      (label, identity_id, started_by, namespace, base, flavor, minutes, usd_per_minute, reserved_usd)
    select gen_random_uuid()::text, mine.identity_id, p_attempt, p_namespace, s.base, s.flavor, s.minutes, p_usd_per_minute,
      watcher.training_reserve(s.minutes, p_usd_per_minute)
    from watcher.training_settings s
    returning * into training;
    update watcher.trainings set label = format('%s-%s', number, left(label, 8)) where number = training.number
    returning * into training;
    perform watcher.count_usage(owner, 0, 0, 1);
    -- The deadline of an earlier training, which was undone, is none of this one's.
    update watcher.work set wait_until = null, wait_spent = null where id = mine.work_id;
    update public.trained_identities set status = 'training', training_waits_until = null, training_url = null
    where id = mine.identity_id;
    perform watcher.wake_waiting_training();
    return jsonb_build_object('result', 'started', 'label', training.label);
  end
  $function$;

  -- The training cannot start now, because of 'user' or 'budget' until tomorrow, or because it is 'off': the attempt is done,
  -- and does not count.
  create function public.watcher_training_postpone(p_attempt bigint, p_because text) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
    reason constant text := watcher.training_waits_for(p_because);
  begin
    if reason is null then
      raise exception using errcode = 'invalid_parameter_value',
        message = format('A training waits because of user, budget or off, not %L.', p_because);
    end if;
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held or mine.kind <> 'train' then
      return case when mine.outcome = 'waited' then 'done' else 'lost' end;
    end if;
    if exists (select from watcher.trainings where identity_id = mine.identity_id and ended_at is null) then
      return 'lost';
    end if;
    perform watcher.end_attempt(p_attempt, 'waited', null, reason, true);
    -- It may have been called training by hand.
    update public.trained_identities set status = watcher.status_before_training(training_commit_sha),
      training_waits_until = case when p_because <> 'off' then watcher.tomorrow() end
    where id = mine.identity_id;
    if p_because = 'off' then
      delete from watcher.work where id = mine.work_id;
      return 'done';
    end if;
    -- All wake at the same time: within a minute.
    update watcher.work set
      turn_at = null, next_at = watcher.tomorrow() + random() * interval '1 minute', isolated_for = null,
      spent = greatest(spent - 1, 0), last_reason = reason
    where id = mine.work_id;
    if p_because = 'user' then
      -- What money there is may be for another one.
      perform watcher.wake_waiting_training();
    end if;
    return 'done';
  end
  $function$;

  -- The job is about to be requested again: it was found that no earlier request has landed.
  create function public.watcher_training_intend(p_attempt bigint) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held or mine.kind <> 'train' then
      return 'lost';
    end if;
    update watcher.trainings set intent_at = now() where identity_id = mine.identity_id and ended_at is null;
    return case when found then 'done' else 'lost' end;
  end
  $function$;

  -- The Hub did not take the job, and says so for everybody: the training has not started, and costs and counts nothing.
  create function public.watcher_training_undo(p_attempt bigint) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
    training watcher.trainings;
  begin
    perform watcher.lock_owner(p_attempt);
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held or mine.kind <> 'train' then
      return 'lost';
    end if;
    update watcher.trainings set ended_at = now(), outcome = 'not_started', spent_usd = 0
    where identity_id = mine.identity_id and ended_at is null and job is null returning * into training;
    if not found then
      return 'done';
    end if;
    perform watcher.uncount_training(training);
    update public.trained_identities set status = watcher.status_before_training(training_commit_sha)
    where id = mine.identity_id and status = 'training';
    return 'done';
  end
  $function$;

  -- The job that trains, and what the Hub said of it. p_doubled: it is not the only one with the training's label.
  create function public.watcher_training_job(
    p_attempt bigint, p_job text, p_url text, p_stage text, p_doubled boolean default false
  ) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held or mine.kind <> 'train' then
      return 'lost';
    end if;
    update watcher.trainings set
      job = p_job, job_known_at = case when job is distinct from p_job then now() else job_known_at end,
      -- Where it gave way to an older one with its label, it is that one's end and cost that count.
      job_ended_at = case when job = p_job then job_ended_at end, spent_usd = case when job = p_job then spent_usd end,
      stage = p_stage, doubled = doubled or p_doubled, looked_at = now(),
      running_since = case when p_stage = 'SCHEDULING' then null else coalesce(running_since, now()) end
    where identity_id = mine.identity_id and ended_at is null;
    if not found then
      return 'lost';
    end if;
    update public.trained_identities set training_url = p_url
    where id = mine.identity_id and training_url is distinct from p_url;
    perform watcher.queue_following();
    return 'done';
  end
  $function$;

  -- The job has ended, after having been billed for so many seconds and having run for so many.
  create function public.watcher_training_ended(
    p_attempt bigint, p_stage text, p_billed_seconds double precision, p_running_seconds double precision
  ) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
    training watcher.trainings;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held or mine.kind <> 'train' then
      return 'lost';
    end if;
    update watcher.trainings set
      stage = p_stage, job_ended_at = coalesce(job_ended_at, now()), looked_at = now(),
      seconds = least(greatest(p_running_seconds, 0), 1e6)
    where identity_id = mine.identity_id and ended_at is null returning * into training;
    if not found then
      return 'lost';
    end if;
    perform watcher.settle_training(training.number, p_billed_seconds);
    return 'done';
  end
  $function$;

  -- training → ready: the repo holds the weights, in that commit, and the first pictures lie in the bucket.
  create function public.watcher_trained(
    p_attempt bigint, p_commit_sha text, p_sample_paths text[] default '{}', p_answered boolean default false
  ) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
    training watcher.trainings;
    identity public.trained_identities;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held or mine.kind <> 'train' then
      return case when mine.outcome = 'trained' then 'done' else 'lost' end;
    end if;
    update watcher.trainings set ended_at = now(), outcome = 'ready'
    where identity_id = mine.identity_id and ended_at is null returning * into training;
    if not found then
      return 'lost';
    end if;
    perform watcher.end_attempt(p_attempt, 'trained', null, null, p_answered);
    delete from watcher.work where id = mine.work_id;
    perform watcher.settle_training(training.number);
    update public.trained_identities set
      status = 'ready', train = false, training_commit_sha = p_commit_sha,
      training_seconds = coalesce(training.seconds, 0), sample_paths = p_sample_paths
    where id = mine.identity_id returning * into identity;
    perform watcher.notify('training.ready', identity.id, jsonb_build_object('seconds', training.seconds));
    -- Pictures of an earlier training.
    if exists (select from watcher.samples_of(identity) o where o.name <> all (p_sample_paths)) then
      perform watcher.open_erasure(identity.id, 'name', identity.user_id);
      perform watcher.list_samples(identity, p_sample_paths, now());
      perform watcher.queue_erasure(identity.id);
    end if;
    return 'done';
  end
  $function$;


  -- What a training leaves; see 20261122100250_erasing.sql.

  -- Lists a training's job. Where that may have been requested, and land yet, or is too new for the Hub's lists, it is looked
  -- for once more.
  create function watcher.list_job(p_training watcher.trainings, p_due_at timestamptz) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    insert into watcher.erase_lines (identity_id, what, name, due_at, look_again_at)
    values (p_training.identity_id, 'job', p_training.namespace || '/' || p_training.label, p_due_at,
      case when p_training.job is null or p_training.job_known_at > now() - make_interval(secs => watcher.list_lag_seconds())
        then greatest(now(), p_training.intent_at) + make_interval(secs => watcher.settled_after_seconds()) end)
    on conflict on constraint one_line_a_thing do nothing;
  end
  $function$;

  create function watcher.samples_of(p_row public.trained_identities) returns setof storage.objects
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select * from storage.objects o
    where o.bucket_id = 'identity-samples'
      and o.name ~>=~ (p_row.user_id || '/' || p_row.id || '/') and o.name ~<~ (p_row.user_id || '/' || p_row.id || '0')
  $function$;

  -- Lists the row's pictures in the bucket but those that are to stay.
  create function watcher.list_samples(p_row public.trained_identities, p_but text[], p_due_at timestamptz) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    insert into watcher.erase_lines (identity_id, what, name, object_id, due_at)
    select p_row.id, 'sample', o.name, o.id, p_due_at from watcher.samples_of(p_row) o where o.name <> all (p_but)
    on conflict on constraint one_line_a_thing do update set due_at = least(erase_lines.due_at, excluded.due_at);
  end
  $function$;

  -- Lists what a deleted row's training has left: the job, which is cancelled at once, and the pictures.
  create function watcher.list_training(p_row public.trained_identities, p_due_at timestamptz) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    training watcher.trainings;
  begin
    update watcher.trainings set ended_at = now(), outcome = 'cancelled'
    where identity_id = p_row.id and ended_at is null returning * into training;
    if found and training.job_ended_at is null then
      perform watcher.list_job(training, now());
    end if;
    perform watcher.list_samples(p_row, '{}', p_due_at);
  end
  $function$;

  -- Trainings whose row is gone although no deletion has listed them; trainings are kept for 90 days.
  create function watcher.sweep_trainings() returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    gone watcher.trainings;
  begin
    delete from watcher.trainings where number in (
      select number from watcher.trainings where ended_at < now() - interval '90 days' and spent_usd is not null limit 1000);
    for gone in
      update watcher.trainings set ended_at = now(), outcome = 'cancelled' where number in (
        select n.number from watcher.trainings n
        where n.ended_at is null and not exists (select from public.trained_identities t where t.id = n.identity_id)
        limit 100 for update skip locked)
      returning *
    loop
      if gone.job_ended_at is null then
        perform watcher.cancel_job(gone);
      end if;
    end loop;
    -- One that was put off just as money became free again, or that stood behind one that was woken and then withdrawn.
    -- At the price of the last one.
    if (select watcher.training_fits(usd_per_minute) from watcher.trainings order by number desc limit 1) then
      perform watcher.wake_waiting_training();
    end if;
    -- Likewise one that was put off just as its user's day had room again.
    perform watcher.wake_trainings_of(owner)
    from (
      select distinct owner from watcher.work
      where kind = 'train' and next_at > now() and last_reason = watcher.training_waits_for('user')
    ) waiting
    where watcher.trainings_of_the_day(owner) < watcher.limit_of('trainings_per_day', owner);
  end
  $function$;

  -- Pictures whose row is gone, of an upload that landed late. Those of many users at once look as if the rows were missing:
  -- where they are more than were confirmed, they are left alone, and their number is returned.
  create function watcher.sweep_samples(p_confirmed integer) returns integer
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    at_once constant integer := 100;
    late record;
    erasure uuid;
  begin
    for late in
      select owner, array_agg(object) as objects, count(*) over () as owners from (
        select watcher.folder_user(split_part(o.name, '/', 1)) as owner, o.id as object from storage.objects o
        where o.bucket_id = 'identity-samples'
          and o.created_at < now() - make_interval(secs => 2.5 * watcher.late_seconds())
          and not exists (select from public.trained_identities t
            where t.id = watcher.folder_user(split_part(o.name, '/', 2)) and t.user_id::text = split_part(o.name, '/', 1))
          and not exists (select from watcher.erase_lines l where l.object_id = o.id)
      ) samples
      where owner is not null group by owner limit at_once
    loop
      if late.owners > p_confirmed and watcher.looks_like_a_restore(late.owners, (select count(*) from auth.users)) then
        return late.owners;
      end if;
      erasure := gen_random_uuid();
      perform watcher.open_erasure(erasure, 'folder', late.owner);
      insert into watcher.erase_lines (identity_id, what, name, object_id)
      select erasure, 'sample', o.name, o.id from storage.objects o where o.id = any (late.objects);
      perform watcher.queue_erasure(erasure);
    end loop;
    return null;
  end
  $function$;


  -- Following: a kind of work with one fixed entry, which is there while a job may run. One list of the Hub's serves all of
  -- them, so that no training's own attempt has to look before something has happened.

  create function watcher.follow_id() returns uuid
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select '00000000-0000-0000-0000-000000000001'::uuid
  $function$;

  -- Seconds between two lists, and for how long a new job may be missing from one.
  create function watcher.follow_seconds() returns integer
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$ select 15 $function$;
  create function watcher.list_lag_seconds() returns integer
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$ select 30 $function$;

  create function watcher.queue_following() returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    if not exists (select from watcher.trainings where ended_at is null and job is not null and job_ended_at is null)
      or exists (select from watcher.work where kind = 'follow')
    then
      return false;
    end if;
    insert into watcher.work (kind, identity_id, next_at)
    values ('follow', watcher.follow_id(), now() + make_interval(secs => watcher.follow_seconds()))
    on conflict do nothing;
    return found;
  end
  $function$;

  -- It crashes no worker: see watcher.sweep_begin.
  create function watcher.follow_begin(p_identity_id uuid) returns jsonb
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    update watcher.work set crashes = 0 where kind = 'follow' and crashes > 0;
    select jsonb_build_object('jobs', n.jobs, 'last_reason', (select last_reason from watcher.work where kind = 'follow'))
    from (
      select count(*) as jobs from watcher.trainings where ended_at is null and job is not null and job_ended_at is null
    ) n
    where n.jobs > 0
  $function$;

  create function watcher.follow_progress(p_identity_ids uuid[], p_progress jsonb[]) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$ select $function$;

  create function watcher.follow_put_back(p_identity_id uuid, p_next_at timestamptz) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$ select $function$;

  create function watcher.follow_fail(p_identity_id uuid, p_code text, p_message text, p_details jsonb) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    insert into watcher.work (kind, identity_id, next_at, spent, last_reason)
    values ('follow', p_identity_id, now() + interval '1 minute', watcher.max_attempts() - 1, p_message)
  $function$;

  create function watcher.follow_needs_look(p_identity_id uuid) returns boolean
  language sql immutable set search_path = pg_catalog, pg_temp as $function$ select false $function$;

  create function watcher.follow_find_unqueued() returns boolean
  language sql security definer set search_path = pg_catalog, pg_temp as $function$ select watcher.queue_following() $function$;

  -- Ends the attempt; the next list is due in watcher.follow_seconds() as long as there is a job. It leaves no entry in the
  -- history. p_running has the project's jobs that have not ended, the oldest first: [{"label": text, "job": text, "stage": text}].
  -- A training whose job is not among them looks at it itself.
  --
  -- Returns {"result": "done" or "lost", "cancel": the jobs that belong to no open training, or came after its own}. One that
  -- is older than its own goes on: the younger one gives way by itself.
  create function public.watcher_followed(p_attempt bigint, p_running jsonb) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
  begin
    if jsonb_typeof(p_running) is distinct from 'array' then
      raise exception using errcode = 'invalid_parameter_value', message = 'The jobs that run must be given as a list.';
    end if;
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held or mine.kind <> 'follow' then
      return jsonb_build_object('cancel', '[]'::jsonb, 'result', case when exists (
        select from watcher.work w where w.kind = 'follow' and w.waited = p_attempt) then 'done' else 'lost' end);
    end if;
    -- What is locked is passed over, since the trainings' own attempts lock in another order: the next list has it.
    with told as (
      select n.number, r.stage from jsonb_to_recordset(p_running) r (job text, stage text)
      join watcher.trainings n on n.job = r.job and n.ended_at is null and n.stage is distinct from r.stage
      for update of n skip locked
    )
    update watcher.trainings n set
      stage = t.stage, running_since = case when t.stage <> 'SCHEDULING' then coalesce(n.running_since, now()) end
    from told t where n.number = t.number;
    -- Those that wait, and not those that back off after a failed look.
    with missing as (
      select n.number, w.id from watcher.trainings n
      join watcher.work w on w.kind = 'train' and w.identity_id = n.identity_id
      where n.ended_at is null and n.job is not null and n.job_ended_at is null
        and not exists (select from jsonb_to_recordset(p_running) r (job text) where r.job = n.job)
        and n.job_known_at < now() - make_interval(secs => case when n.running_since is null
          then watcher.list_lag_seconds() else 0 end)
        and n.looked_at <= now() - make_interval(secs => watcher.follow_seconds())
        and w.next_at is not null and w.spent = w.wait_spent
      for update of n, w skip locked
    ), woken as (
      update watcher.work w set turn_at = now(), next_at = null from missing m where w.id = m.id
    )
    update watcher.trainings n set looked_at = now() from missing m where n.number = m.number;
    delete from watcher.attempts where number = p_attempt;
    update watcher.work set
      turn_at = null, next_at = now() + make_interval(secs => watcher.follow_seconds()), isolated_for = null,
      waited = p_attempt, spent = 0, crashes = 0, shutdowns = 0, unsures = 0, lost_answers = 0, last_reason = null
    where id = mine.work_id;
    return jsonb_build_object('result', 'done', 'cancel', (
      select coalesce(jsonb_agg(r.job), '[]')
      from rows from (jsonb_to_recordset(p_running) as (label text, job text)) with ordinality r (label, job, place)
      left join watcher.trainings n on n.label = r.label and n.ended_at is null
      left join rows from (jsonb_to_recordset(p_running) as (job text)) with ordinality known (job, place) on known.job = n.job
      where n.number is null or r.place > known.place));
  end
  $function$;


  -- For the operator.

  -- Trainings for `watcher status`: "overdue" have gone on for longer than they can; "due_seconds" is for how long the one
  -- that has waited longest for a daemon has been due.
  create function watcher.training_summary() returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select jsonb_build_object(
      'enabled', s.enabled, 'usd_a_day', s.usd_a_day, 'spent_usd', c.spent, 'reserved_usd', c.reserved,
      'running', (select count(*) from watcher.trainings where ended_at is null),
      'waiting', (select count(*) from public.trained_identities where train and status in ('published', 'ready')),
      'waits_for_budget', exists (select from watcher.work
        where kind = 'train' and last_reason = watcher.training_waits_for('budget') and next_at > now()),
      'overdue', (select count(*) from watcher.trainings
        where ended_at is null and started_at < now() - make_interval(mins => minutes + 7 * 60)),
      'doubled', (select count(*) from watcher.trainings where doubled and started_at > now() - interval '1 day'),
      'failed_24h', (select count(*) from watcher.trainings
        where outcome = 'failed' and ended_at > now() - interval '1 day'),
      'ready_24h', (select count(*) from watcher.trainings
        where outcome = 'ready' and ended_at > now() - interval '1 day'),
      'due_seconds', (select greatest(extract(epoch from max(now() - coalesce(turn_at, next_at))), 0)
        from watcher.work where kind = 'train')
    ) from watcher.training_settings s, watcher.training_costs() c
  $function$;

  -- A row's trainings for `watcher show`: the last one that was started, null if there is none of the last 90 days, and its
  -- place in the queue, null if none waits or runs.
  create function watcher.training_story(p_id uuid) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select jsonb_build_object(
      'last', (select jsonb_build_object(
          'label', n.label, 'namespace', n.namespace, 'job', n.job, 'stage', n.stage, 'base', n.base, 'flavor', n.flavor,
          'outcome', n.outcome, 'code', n.code, 'doubled', n.doubled,
          'reserved_usd', n.reserved_usd, 'spent_usd', n.spent_usd,
          'started_seconds_ago', extract(epoch from now() - n.started_at),
          'running_seconds', coalesce(n.seconds, extract(epoch from coalesce(n.job_ended_at, now()) - n.running_since)))
        from watcher.trainings n where n.identity_id = p_id order by n.number desc limit 1),
      'queued', (select jsonb_build_object(
          'spent', w.spent, 'last_reason', w.last_reason,
          'due_in_seconds', greatest(extract(epoch from coalesce(w.turn_at, w.next_at) - now()), 0))
        from watcher.work w where w.identity_id = p_id and w.kind = 'train'))
  $function$;

  -- The settings, and trainings in full: those that run, and the last that ended.
  create function public.watcher_training() returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select watcher.training_summary() || jsonb_build_object(
      'flavor', s.flavor, 'minutes', s.minutes, 'base', s.base, 'learning_rate', s.learning_rate, 'steps', s.steps,
      'prompts', to_jsonb(s.prompts), 'trainings_per_day', watcher.limit_of('trainings_per_day'),
      'now_running', (select coalesce(jsonb_agg(jsonb_build_object(
          'id', n.identity_id, 'label', n.label, 'job', n.job, 'stage', n.stage, 'reserved_usd', n.reserved_usd,
          'seconds', extract(epoch from now() - n.started_at),
          'running_seconds', extract(epoch from now() - n.running_since)) order by n.number), '[]')
        from (select * from watcher.trainings where ended_at is null order by number limit 100) n),
      'last', (select coalesce(jsonb_agg(jsonb_build_object(
          'id', n.identity_id, 'label', n.label, 'job', n.job, 'outcome', n.outcome, 'code', n.code, 'spent_usd', n.spent_usd,
          'seconds', n.seconds, 'ended_seconds_ago', extract(epoch from now() - n.ended_at)) order by n.ended_at desc), '[]')
        from (select * from watcher.trainings where ended_at is not null order by ended_at desc limit 10) n)
    ) from watcher.training_settings s
  $function$;

  -- Changes the settings that are given, and leaves the others. A null of learning_rate, steps or prompts stands for what
  -- training_config.json or the program says.
  create function public.watcher_set_training(p_settings jsonb) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    unknown text;
    changed watcher.training_settings;
  begin
    select string_agg(key, ', ') into unknown from jsonb_object_keys(p_settings) key
    where key not in ('enabled', 'usd_a_day', 'flavor', 'minutes', 'base', 'learning_rate', 'steps', 'prompts');
    if unknown is not null then
      raise exception using errcode = 'invalid_parameter_value', message = format('Unknown settings: %s.', unknown);
    end if;
    select * into strict changed from watcher.training_settings for update;
    changed := jsonb_populate_record(changed, p_settings);
    update watcher.training_settings set
      enabled = changed.enabled, usd_a_day = changed.usd_a_day, flavor = changed.flavor, minutes = changed.minutes,
      base = changed.base, learning_rate = changed.learning_rate, steps = changed.steps, prompts = changed.prompts;
    if changed.enabled then
      perform watcher.queue_trainings(array(
        select t.id from public.trained_identities t where t.train and t.status in ('published', 'ready')));
      perform watcher.wake_waiting_training();
    else
      -- What has started goes on.
      update public.trained_identities set training_waits_until = null where id in (
        select id from public.trained_identities
        where train and status in ('published', 'ready') and training_waits_until is not null
        order by id for update skip locked);
      delete from watcher.work where id in (
        select w.id from watcher.work w
        where w.kind = 'train' and (w.turn_at is not null or w.next_at is not null)
          and not exists (select from watcher.trainings n where n.identity_id = w.identity_id and n.ended_at is null)
        for update skip locked);
    end if;
    return public.watcher_training();
  end
  $function$;

  -- Asks again for the trainings that failed, those that match every given condition, at most p_limit per call. Called again
  -- with p_after = "last" until that is null, it reaches all. Returns {"replayed": n, "codes": {code: n}, "last": id or null}.
  create function public.watcher_replay_trainings(
    p_ids uuid[] default null, p_code text default null, p_user uuid default null, p_dry_run boolean default false,
    p_limit integer default 1000, p_after uuid default null
  ) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    wanted constant integer := least(greatest(coalesce(p_limit, 1000), 1), 5000);
    batch uuid[];
    last uuid;
    codes jsonb;
  begin
    batch := array(
      select t.id from public.trained_identities t
      where t.training_error_code is not null
        and (p_ids is null or t.id = any (p_ids)) and (p_code is null or t.training_error_code = p_code)
        and (p_user is null or t.user_id = p_user) and (p_after is null or t.id > p_after)
      order by t.id limit case when not p_dry_run then wanted end
    );
    if not p_dry_run and cardinality(batch) = wanted then
      last := batch[wanted];
    end if;
    if not p_dry_run then
      batch := array(
        select t.id from public.trained_identities t
        where t.id = any (batch) and t.training_error_code is not null order by t.id for update skip locked
      );
    end if;
    select coalesce(jsonb_object_agg(code, n), '{}') into codes from (
      select t.training_error_code as code, count(*) as n from public.trained_identities t where t.id = any (batch) group by 1
    ) by_code;
    if not p_dry_run then
      update public.trained_identities set train = true where id = any (batch);
    end if;
    return jsonb_build_object('replayed', cardinality(batch), 'codes', codes, 'last', last);
  end
  $function$;


  perform watcher.close_verbs();

  insert into watcher.migrations (version) values ('20261122100225');
end
$migration$;
