-- Publishing: the kind of work that keeps its queue in step with public.trained_identities, the names of the repos, and
-- the operator's functions.

do $migration$
begin
  perform pg_advisory_xact_lock(hashtextextended('watcher.migrations', 0));
  if exists (select from watcher.migrations where version = '20261122100200') then
    return;
  end if;


  -- The open rows of which the Hub did not accept what was sent, and at which attempts that was counted.
  create table watcher.rejections (
    identity_id uuid primary key,
    first_at timestamptz not null default now(),
    last_at timestamptz not null default now(),
    spent_by bigint[] not null default '{}'
  );
  alter table watcher.rejections enable row level security;

  -- Keeps the queue in step with the status, whoever changes it.
  create function watcher.on_status() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    due timestamptz;
  begin
    if new.status = 'pending' then
      if new.next_attempt_at is null then
        due := now();
        if tg_op = 'INSERT' or old.status = 'failed' then
          -- Fairness between users: for each other open row of its user, a row queues half a minute later than it came.
          -- Counts at most a hundred of them, since a replay may open thousands in one statement. From the queue alone:
          -- a session keeps its plan, and with a join one that was made for an empty queue takes minutes later.
          due := due + (
            select 30 * count(*) from (
              select from watcher.work w where w.owner = new.user_id and w.kind = 'publish' limit 100
            ) others
          ) * interval '1 second';
        end if;
      end if;
      insert into watcher.work as w (kind, identity_id, owner, turn_at, next_at, last_reason)
      values ('publish', new.id, new.user_id, due, new.next_attempt_at, case
        when tg_op = 'UPDATE' and old.status = 'failed' and new.next_attempt_at is not null
        then 'It was tried again several times within an hour, so it waits.' end)
      on conflict (identity_id, kind) do update set turn_at = excluded.turn_at, next_at = excluded.next_at
      where (w.turn_at, w.next_at) is distinct from (excluded.turn_at, excluded.next_at);
    elsif new.status <> 'publishing' then
      delete from watcher.work where identity_id = new.id and kind = 'publish';
      delete from watcher.rejections where identity_id = new.id;
    elsif old.next_attempt_at is not null then
      -- A deferred row, set to publishing by hand: due now. A claim has already cleared the entry.
      update watcher.work set turn_at = now(), next_at = null
      where identity_id = new.id and kind = 'publish' and next_at is not null;
    end if;
    if new.status <> 'publishing' then
      -- Only for changes by hand: the verbs have already ended the attempt.
      update watcher.attempts set ended_at = now(), outcome = 'revoked', reason = 'The status was changed by hand.'
      where identity_id = new.id and kind = 'publish' and ended_at is null;
    end if;
    return null;
  end
  $function$;

  create trigger b_queue_new_row after insert on public.trained_identities
    for each row execute function watcher.on_status();
  create trigger b_queue_changed_row after update of status, next_attempt_at on public.trained_identities
    for each row when (old.status is distinct from new.status or old.next_attempt_at is distinct from new.next_attempt_at)
    execute function watcher.on_status();


  -- The functions that the engine calls; see 20261122100100_work.sql.

  create function watcher.publish_begin(p_identity_id uuid) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    details jsonb;
  begin
    update public.trained_identities set status = 'publishing', images_published = 0, next_attempt_at = null
    where id = p_identity_id
      and (status = 'pending' or status = 'publishing' and images_published <> 0);
    select jsonb_build_object(
      'user_id', t.user_id,
      'identity_name', t.identity_name,
      'image_paths', to_jsonb(t.image_paths),
      'created_at', to_char(t.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
      'model_id', t.model_id,
      -- Size, ETag and version of what is stored under each path, so that the worker knows a cache's old bytes from the
      -- right ones. Arrays, since a claim of 8 rows names 320 objects.
      'objects', (
        select jsonb_agg(jsonb_build_array(o.metadata -> 'size', o.metadata -> 'eTag', o.version) order by image.number)
        from unnest(t.image_paths) with ordinality as image (path, number)
        left join storage.objects o on o.bucket_id = 'identity-images' and o.name = image.path
      ),
      'failed_by_image', (
        select starts_with(a.code, 'image_') from watcher.attempts a
        where a.identity_id = t.id and a.outcome = 'failed' order by a.number desc limit 1
      )
    ) into details
    from public.trained_identities t where t.id = p_identity_id and t.status = 'publishing';
    return details;
  end
  $function$;

  -- Progress is {"images_published": n}; it is written where it has grown.
  create function watcher.publish_progress(p_identity_ids uuid[], p_progress jsonb[]) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    with progress as (
      select t.id, least((reported.progress ->> 'images_published')::integer, t.num_training_images) as images
      from unnest(p_identity_ids, p_progress) as reported (id, progress)
      join public.trained_identities t on t.id = reported.id
      where t.status = 'publishing' and (reported.progress ->> 'images_published')::integer > t.images_published
      for update of t skip locked
    )
    update public.trained_identities t set images_published = progress.images from progress where t.id = progress.id
  $function$;

  create function watcher.publish_put_back(p_identity_id uuid, p_next_at timestamptz) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    update public.trained_identities set status = 'pending', next_attempt_at = p_next_at where id = p_identity_id
  $function$;

  -- The name goes back with the row: what is behind it on the Hub is erased as work of its own, and nobody gets it again.
  -- The details are {"image": n}, where an image is at fault.
  create function watcher.publish_fail(p_identity_id uuid, p_code text, p_message text, p_details jsonb) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    abandoned text;
  begin
    select model_id into abandoned from public.trained_identities where id = p_identity_id;
    update public.trained_identities
    set status = 'failed', error_code = p_code, error_message = p_message,
      error_image = (p_details ->> 'image')::integer, next_attempt_at = null, model_id = null
    where id = p_identity_id;
    perform watcher.abandon_name(p_identity_id, abandoned);
    perform watcher.notify('row.failed', p_identity_id, jsonb_build_object('code', p_code, 'image', p_details -> 'image'));
  end
  $function$;

  -- Once a name is reserved, there may be a repo.
  create function watcher.publish_needs_look(p_identity_id uuid) returns boolean
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select coalesce((select model_id is not null from public.trained_identities where id = p_identity_id), false)
  $function$;

  -- Rows that were inserted while triggers were disabled, as when a backup is restored.
  create function watcher.publish_find_unqueued() returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    search watcher.searches;
    page uuid[];
    unqueued uuid[];
  begin
    select * into search from watcher.searches where kind = 'publish' for update skip locked;
    if not found then
      return false;
    end if;
    page := array(
      select t.id from public.trained_identities t
      where t.status = 'pending' and (t.created_at, t.id) > (search.after_at, search.after_id)
      order by t.created_at, t.id limit watcher.search_page()
    );
    perform watcher.note_search('publish', page,
      (select t.created_at from public.trained_identities t where t.id = page[cardinality(page)]));
    unqueued := array(
      select candidate from unnest(page || array(
        select t.id from public.trained_identities t where t.status = 'publishing' limit watcher.search_page()
      )) candidate
      -- A subquery, since a join would be planned to read the whole queue.
      where (select w.id from watcher.work w where w.identity_id = candidate and w.kind = 'publish') is null
    );
    insert into watcher.work (kind, identity_id, owner, turn_at, next_at)
    select 'publish', t.id, t.user_id, case when t.next_attempt_at is null then now() end, t.next_attempt_at
    from public.trained_identities t
    where t.id = any (unqueued) and t.status in ('pending', 'publishing')
    for update of t skip locked
    on conflict do nothing;
    return found;
  end
  $function$;


  -- Every reserved name whose repo is not known to be gone, also of deleted rows: all repos that may exist on the Hub.
  create table watcher.names (
    model_id text primary key,
    namespace text not null,
    slug text not null,
    seconds bigint not null,
    identity_id uuid not null,
    reserved_at timestamptz not null default now(),
    -- SHA-256 of the user's id, where the row was deleted and the settings keep its repo: the user may ask to be forgotten.
    owner_digest bytea,
    unique (namespace, slug, seconds)
  );
  create index names_by_identity on watcher.names (identity_id);
  alter table watcher.names enable row level security;

  -- SHA-256 of every name, in lower case, that was ever abandoned or erased: a request sent for it may still land.
  create table watcher.used_names (
    digest bytea primary key,
    used_at timestamptz not null default now()
  );
  create index used_names_since on watcher.used_names (used_at);
  alter table watcher.used_names enable row level security;

  create function watcher.name_digest(p_name text) returns bytea
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select sha256(convert_to(lower(p_name), 'UTF8'))
  $function$;

  -- Whether a name is reserved, or was ever abandoned or erased.
  create function watcher.name_is_taken(p_namespace text, p_slug text, p_second bigint) returns boolean
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select exists (
      select from watcher.names n where n.namespace = p_namespace and n.slug = p_slug and n.seconds = p_second
    ) or exists (
      select from watcher.used_names u
      where u.digest = watcher.name_digest(format('%s/identity-%s-%s', p_namespace, p_slug, p_second))
    )
  $function$;

  -- The first second from p_from on whose name is free, if it is among the next 16. Behind a longer run of taken ones it is
  -- the end of a run, found by steps that double and then halve: 50 looks behind a hundred thousand names.
  create function watcher.free_second(p_namespace text, p_slug text, p_from bigint) returns bigint
  language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    taken bigint := p_from - 1;
    free bigint := p_from;
    looks integer := 0;
    between_them bigint;
  begin
    while watcher.name_is_taken(p_namespace, p_slug, free) loop
      looks := looks + 1;
      taken := free;
      free := free + (1::bigint << greatest(looks - 15, 0));
    end loop;
    while free - taken > 1 loop
      between_them := (free + taken) / 2;
      if watcher.name_is_taken(p_namespace, p_slug, between_them) then
        taken := between_them;
      else
        free := between_them;
      end if;
    end loop;
    return free;
  end
  $function$;

  -- Reserves the name of the repo before it is created on the Hub. Reserving again returns the same name, or the next one
  -- if p_refused is that name. Returns null if the attempt no longer holds its row.
  create function public.watcher_reserve(p_attempt bigint, p_namespace text, p_slug text, p_refused text default null)
  returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
    repo record;
    free_second bigint;
  begin
    if p_namespace !~ '^[A-Za-z0-9._-]+$' or char_length(p_namespace) > 96
      or p_slug !~ '^[a-z0-9]+(-[a-z0-9]+)*$' or char_length(p_slug) > 75
      or p_namespace is null or p_slug is null
    then
      raise exception using errcode = 'invalid_parameter_value',
        message = format('%L and %L do not make a valid repo name.', p_namespace, p_slug);
    end if;
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held or mine.kind <> 'publish' then
      return null;
    end if;
    select t.model_id, t.created_at, n.seconds into repo
    from public.trained_identities t left join watcher.names n on n.model_id = t.model_id
    where t.id = mine.identity_id;
    if repo.model_id is not null and not starts_with(repo.model_id, p_namespace || '/') then
      -- The settings name another namespace now.
      perform watcher.abandon_name(mine.identity_id, repo.model_id);
    end if;
    if starts_with(repo.model_id, p_namespace || '/') and p_refused is distinct from repo.model_id then
      return repo.model_id;
    end if;

    -- Concurrent reservations of the same name wait here.
    perform pg_advisory_xact_lock(hashtextextended('watcher.names ' || p_namespace || '/' || p_slug, 0));
    free_second := watcher.free_second(p_namespace, p_slug, case
      when p_refused = repo.model_id then coalesce(repo.seconds + 1, floor(extract(epoch from repo.created_at))::bigint)
      else floor(extract(epoch from repo.created_at))::bigint end);
    insert into watcher.names (model_id, namespace, slug, seconds, identity_id)
    values (format('%s/identity-%s-%s', p_namespace, p_slug, free_second), p_namespace, p_slug, free_second, mine.identity_id);
    update public.trained_identities
    set model_id = format('%s/identity-%s-%s', p_namespace, p_slug, free_second)
    where id = mine.identity_id
    returning model_id into repo.model_id;
    return repo.model_id;
  end
  $function$;

  -- publishing → published: the attempt is done. Returns 'done' or 'lost', as every write-back does.
  create function public.watcher_complete(
    p_attempt bigint, p_url text, p_commit_sha text, p_training_config jsonb, p_answered boolean default false
  ) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held then
      return case when mine.outcome = 'published' then 'done' else 'lost' end;
    end if;
    if mine.kind <> 'publish' then
      return 'lost';
    end if;
    perform watcher.end_attempt(p_attempt, 'published', null, null, p_answered);
    delete from watcher.work where id = mine.work_id;
    update public.trained_identities set
      status = 'published', huggingface_repo_url = p_url, commit_sha = p_commit_sha, published_at = now(),
      training_config = p_training_config, images_published = num_training_images
    where id = mine.identity_id;
    return 'done';
  end
  $function$;


  -- The Hub did not accept what was sent for a row. It fails the row if another one was published since it was first
  -- rejected. Until then it is deferred, and counts; but once three rows were rejected and none was published meanwhile, the
  -- fault is not theirs: it is an outage, the row is due again, unspent, and what all of them spent in it is given back. For
  -- other kinds than publish it is as watcher_fail. p_message is for the row's user, p_reason for the history.
  --
  -- Returns 'failed', 'deferred' or 'outage', also when the same attempt repeats it; or 'lost'.
  create function public.watcher_reject(
    p_attempt bigint, p_code text, p_message text, p_reason text, p_answered boolean default false
  ) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
    entry watcher.work;
    this_one_only_looks boolean;
    since timestamptz;
    last_published timestamptz;
    attempts bigint[];
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held then
      return case when mine.outcome in ('failed', 'deferred') then mine.outcome when mine.outcome = 'released' then 'outage'
        else 'lost' end;
    end if;
    if mine.kind <> 'publish' then
      perform watcher.end_attempt(p_attempt, 'failed', p_code, p_reason, p_answered);
      perform watcher.fail_work(mine.kind, mine.identity_id, p_code, p_message);
      return 'failed';
    end if;
    -- One at a time, so that the third sees the other two.
    perform pg_advisory_xact_lock(hashtextextended('watcher.rejections', 0));
    select max(published_at) into last_published from public.trained_identities
    where status in ('published', 'training', 'ready');
    insert into watcher.rejections as r (identity_id) values (mine.identity_id)
    on conflict (identity_id) do update set last_at = now()
    returning r.first_at into since;
    if last_published > since then
      perform watcher.end_attempt(p_attempt, 'failed', p_code, p_reason, p_answered);
      perform watcher.fail_work(mine.kind, mine.identity_id, p_code, p_message);
      return 'failed';
    end if;

    select * into entry from watcher.work w where w.id = mine.work_id;
    select a.look_only into this_one_only_looks from watcher.attempts a where a.number = p_attempt;
    if this_one_only_looks or 3 > (
      select count(*) from watcher.rejections r where r.last_at > coalesce(last_published, '-infinity')
    ) then
      perform watcher.end_attempt(p_attempt, 'deferred', p_code, p_reason, p_answered);
      update watcher.rejections set spent_by = spent_by || p_attempt where identity_id = mine.identity_id;
      perform watcher.put_off(entry, this_one_only_looks, p_reason,
        case when this_one_only_looks then entry.last_reason else p_reason end, null);
      return 'deferred';
    end if;
    perform watcher.end_attempt(p_attempt, 'released', p_code, p_reason, p_answered);
    perform watcher.put_back(mine.kind, mine.identity_id, null);
    update watcher.work w set
      turn_at = now() + watcher.behind_others('outage'), next_at = null, isolated_for = null,
      spent = greatest(w.spent - 1, 0), last_reason = p_reason
    where w.id = mine.work_id;
    select array_agg(number) into attempts from watcher.rejections r, unnest(r.spent_by) as number
    where r.last_at > coalesce(last_published, '-infinity');
    perform public.watcher_give_back(attempts);
    return 'outage';
  end
  $function$;

  -- Two of the repos that were published last in a namespace, without that row's: each user's newest first, that of the
  -- row's own user last, since all of one user's repos may be disabled.
  create function public.watcher_newest_repos(p_namespace text, p_other_than uuid) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    with newest as (
      select t.model_id, t.user_id, t.published_at from public.trained_identities t
      where t.status in ('published', 'training', 'ready') and t.id <> p_other_than and starts_with(t.model_id, p_namespace || '/')
      order by t.published_at desc limit 1000
    ),
    places as (
      select n.*, row_number() over (partition by n.user_id order by n.published_at desc) as place,
        n.user_id = (select t.user_id from public.trained_identities t where t.id = p_other_than) as own
      from newest n
    ),
    chosen as (
      select row_number() over (order by p.place, p.own nulls first, p.published_at desc) as number, p.model_id from places p
    )
    select coalesce(jsonb_agg(c.model_id order by c.number), '[]') from chosen c where c.number <= 2
  $function$;


  -- For the operator.

  -- Sets failed rows back to pending, those that match every given condition, at most p_limit per call and in the order of
  -- their ids. Other rows are left alone. Called again with p_after = "last" until that is null, it reaches all of them.
  -- Returns the number of rows replayed and their codes, and of the rows in p_ids that were not failed:
  -- {"replayed": n, "codes": {code: n}, "pending": n, "publishing": n, "published": n, "last": id or null}.
  -- A dry run counts all of them in one call.
  create function public.watcher_replay(
    p_ids uuid[] default null,
    p_code text default null,
    p_failed_since timestamptz default null,
    p_user uuid default null,
    p_dry_run boolean default false,
    p_failed_within_seconds double precision default null,
    p_limit integer default 1000,
    p_after uuid default null
  ) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    wanted constant integer := least(greatest(coalesce(p_limit, 1000), 1), 5000);
    counts jsonb := '{}';
    codes jsonb;
    batch uuid[];
    last uuid;
  begin
    if p_after is null then
      select coalesce(jsonb_object_agg(status, n), '{}') into counts from (
        select t.status, count(*) as n from public.trained_identities t
        where p_ids is not null and t.id = any (p_ids) and t.status <> 'failed' group by t.status
      ) others;
    end if;
    -- One small statement after the other, each by id: joins of these rows are planned as if there were one, as long as the
    -- table has no statistics, and take longer than a statement may.
    batch := array(
      select t.id from public.trained_identities t
      where t.status = 'failed'
        and (p_ids is null or t.id = any (p_ids))
        and (p_code is null or t.error_code = p_code)
        and (p_failed_since is null or t.failed_at >= p_failed_since)
        and (p_failed_within_seconds is null
          or t.failed_at >= now() - make_interval(secs => least(p_failed_within_seconds, 1e9)))
        and (p_user is null or t.user_id = p_user)
        and (p_after is null or t.id > p_after)
      order by t.id limit case when not p_dry_run then wanted end
    );
    if not p_dry_run and cardinality(batch) = wanted then
      last := batch[wanted];
    end if;
    if not p_dry_run then
      batch := array(
        select t.id from public.trained_identities t
        where t.id = any (batch) and t.status = 'failed' order by t.id for update skip locked
      );
    end if;
    select coalesce(jsonb_object_agg(error_code, n), '{}') into codes from (
      select t.error_code, count(*) as n from public.trained_identities t where t.id = any (batch) group by t.error_code
    ) by_code;
    if not p_dry_run then
      update public.trained_identities set status = 'pending' where id = any (batch);
    end if;
    return jsonb_build_object(
      'replayed', (select coalesce(sum(value::bigint), 0) from jsonb_each_text(codes)), 'codes', codes,
      'pending', 0, 'publishing', 0, 'published', 0, 'training', 0, 'ready', 0, 'last', last
    ) || case when p_dry_run then jsonb_build_object('ids', batch[1:1000]) else '{}' end || counts;
  end
  $function$;

  -- The pending rows (the oldest ten), the running ones with their attempts, the failed ones (the last p_failed of them)
  -- with their reasons, the number published in the last 24 hours, and the daemons that were heard lately, by name. Of one
  -- user, if given. With p_since, only what failed from then on, and also the number published from then on.
  create function watcher.publish_status(p_user uuid, p_since timestamptz, p_failed integer) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    -- All rows are counted by indexes alone, those of a user by reading theirs.
    with counted as (
      select count(*) as pending, count(*) filter (where next_at > now()) as deferred
      from watcher.work where p_user is null and kind = 'publish' and (turn_at is not null or next_at is not null)
      having p_user is null
      union all
      select count(*), count(*) filter (where next_at > now())
      from watcher.work where p_user is not null and owner = p_user and kind = 'publish'
        and (turn_at is not null or next_at is not null)
      having p_user is not null
    ),
    soonest as (
      select
        (select w.turn_at from watcher.work w where w.kind = 'publish' and w.turn_at is not null order by w.turn_at limit 1)
          as turn_at,
        (select w.next_at from watcher.work w where w.kind = 'publish' and w.next_at is not null order by w.next_at limit 1)
          as next_at
      where p_user is null
      union all
      select min(w.turn_at), min(w.next_at) from watcher.work w
      where p_user is not null and w.owner = p_user and w.kind = 'publish'
      having p_user is not null
    ),
    oldest_ids as (
      (select t.id from public.trained_identities t
        where p_user is null and t.status = 'pending' order by t.created_at, t.id limit 10)
      union all
      (select t.id from public.trained_identities t
        where p_user is not null and t.user_id = p_user and t.status = 'pending' order by t.created_at, t.id limit 10)
    ),
    oldest as (
      select t.id, t.identity_name, w.spent, w.last_reason,
        extract(epoch from now() - coalesce(w.turn_at, w.next_at)) as overdue_seconds,
        extract(epoch from now() - t.created_at) as age_seconds,
        extract(epoch from t.next_attempt_at - now()) as due_in_seconds
      from oldest_ids o join public.trained_identities t on t.id = o.id
      join watcher.work w on w.identity_id = t.id and w.kind = 'publish'
    ), failed as not materialized (
      select t.id, t.identity_name, t.error_code, t.error_message, t.failed_at from public.trained_identities t
      where t.status = 'failed' and (p_user is null or t.user_id = p_user) and (p_since is null or t.failed_at >= p_since)
    )
    select jsonb_build_object(
      'pending', counted.pending,
      'deferred', counted.deferred,
      'overdue_seconds', (select greatest(extract(epoch from now() - least(turn_at, next_at)), 0) from soonest),
      'oldest_pending_seconds', (select max(age_seconds) from oldest),
      'waiting', (select coalesce(jsonb_agg(jsonb_build_object(
          'id', id, 'identity_name', identity_name, 'age_seconds', age_seconds, 'spent', spent,
          'due_in_seconds', greatest(due_in_seconds, 0), 'overdue_seconds', greatest(overdue_seconds, 0),
          'last_reason', last_reason) order by age_seconds desc), '[]')
        from oldest),
      'publishing', (select coalesce(jsonb_agg(jsonb_build_object(
          'id', t.id, 'identity_name', t.identity_name, 'attempt', a.number, 'instance', a.instance,
          'run_id', a.run_id, 'seconds', extract(epoch from now() - a.started_at),
          'images_published', t.images_published, 'num_training_images', t.num_training_images,
          'lease_seconds', extract(epoch from a.lease_expires_at - now())) order by a.started_at), '[]')
        from public.trained_identities t left join watcher.attempts a
          on a.identity_id = t.id and a.kind = 'publish' and a.ended_at is null
        where t.status = 'publishing' and (p_user is null or t.user_id = p_user)),
      'failed', (select coalesce(jsonb_object_agg(error_code, n), '{}') from (
        select error_code, count(*) as n from public.trained_identities
        where status = 'failed' and p_user is null and p_since is null group by error_code
        union all
        select error_code, count(*) from failed where num_nulls(p_user, p_since) < 2 group by error_code) codes),
      'last_failed', (select coalesce(jsonb_agg(jsonb_build_object(
          'id', id, 'identity_name', identity_name, 'error_code', error_code, 'error_message', error_message,
          'failed_seconds_ago', extract(epoch from now() - failed_at)) order by failed_at desc), '[]')
        from (select * from failed order by failed_at desc limit p_failed) last),
      'published_24h', (select count(*) from public.trained_identities t where t.status in ('published', 'training', 'ready')
        and t.published_at > now() - interval '24 hours' and (p_user is null or t.user_id = p_user)),
      'published_since', case when p_since is not null then (select count(*) from public.trained_identities t
        where t.status in ('published', 'training', 'ready') and t.published_at >= p_since
          and (p_user is null or t.user_id = p_user)) end,
      'since', p_since,
      'instances', (select coalesce(jsonb_object_agg(i.name, jsonb_build_object(
          'machine', i.machine, 'heard_seconds_ago', extract(epoch from now() - i.seen_at), 'outages', i.outages)), '{}')
        from watcher.instances i where i.seen_at > now() - make_interval(secs => watcher.silence_seconds()))
    ) from counted
  $function$;

  -- All limits, for everybody or one user, in order: [{"name", "value", "set_for": "user", "everybody" or null for the
  -- default, "default", "lowest", "highest", "per_user", "about", "used": of a user, "users": how many have their own}].
  create function public.watcher_limits(p_user uuid default null) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select jsonb_agg(jsonb_build_object(
      'name', k.name, 'value', watcher.limit_of(k.name, p_user), 'default', k.default_value,
      'lowest', k.lowest, 'highest', k.highest, 'per_user', k.per_user, 'about', k.about,
      'set_for', (select case when l.user_id is null then 'everybody' else 'user' end from watcher.limits l
        where l.name = k.name and (l.user_id = p_user or l.user_id is null) order by l.user_id nulls last limit 1),
      'used', case when p_user is not null then watcher.used(k.name, p_user) end,
      'users', (select count(*) from watcher.limits l where l.name = k.name and l.user_id is not null)
    ) order by k.place) from watcher.known_limits() k
  $function$;

  -- Sets a limit for everybody, or for one user; null removes it, so that what was before applies again.
  create function public.watcher_set_limit(p_name text, p_value bigint, p_user uuid default null) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    known record;
  begin
    select * into known from watcher.known_limits() k where k.name = p_name;
    if known.name is null then
      raise exception using errcode = 'invalid_parameter_value', message = format('There is no limit %L.', p_name);
    end if;
    if p_value not between known.lowest and known.highest then
      raise exception using errcode = 'invalid_parameter_value',
        message = format('%s must be from %s to %s.', known.name, known.lowest, known.highest);
    end if;
    if p_user is not null and not known.per_user then
      raise exception using errcode = 'invalid_parameter_value',
        message = format('%s is for everybody: it cannot be set for one user.', known.name);
    end if;
    perform from auth.users where id = p_user for key share;
    if not found and p_user is not null then
      raise exception using errcode = 'invalid_parameter_value', message = format('There is no user %s.', p_user);
    end if;
    if p_value is null then
      delete from watcher.limits where name = p_name and user_id is not distinct from p_user;
    else
      insert into watcher.limits (name, user_id, value) values (p_name, p_user, p_value)
      on conflict (name, user_id) do update set value = excluded.value;
    end if;
    if p_name = 'trainings_per_day' then
      perform watcher.wake_trainings_of(p_user);
    end if;
    return public.watcher_limits(p_user);
  end
  $function$;

  -- One row with all its attempts and names, or null if there is no such row.
  create function watcher.publish_story(p_id uuid) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select to_jsonb(t) || jsonb_build_object(
      'spent', w.spent,
      'max_attempts', watcher.max_attempts(),
      'last_reason', w.last_reason,
      'age_seconds', extract(epoch from now() - t.created_at),
      'due_in_seconds', case when t.status = 'pending'
        then greatest(extract(epoch from coalesce(t.next_attempt_at, now()) - now()), 0) end,
      'attempts', (select coalesce(jsonb_agg(jsonb_build_object(
          'number', a.number, 'kind', a.kind, 'instance', a.instance, 'run_id', a.run_id, 'look_only', a.look_only,
          'started_at', a.started_at, 'ended_at', a.ended_at, 'outcome', a.outcome, 'code', a.code, 'reason', a.reason,
          'seconds', extract(epoch from coalesce(a.ended_at, now()) - a.started_at),
          'started_seconds_ago', extract(epoch from now() - a.started_at),
          'lease_seconds', case when a.ended_at is null then extract(epoch from a.lease_expires_at - now()) end
        ) order by a.number), '[]')
        from watcher.attempts a where a.identity_id = t.id),
      'names', (select coalesce(jsonb_agg(n.model_id order by n.reserved_at, n.seconds), '[]')
        from watcher.names n where n.identity_id = t.id))
    from public.trained_identities t left join watcher.work w on w.identity_id = t.id and w.kind = 'publish'
    where t.id = p_id
  $function$;

  -- The reserved names, in alphabetical order after p_after, with their rows; at most 1000 per call.
  create function public.watcher_names(p_after text default '', p_limit integer default 1000)
  returns table (model_id text, identity_id uuid, reserved_at timestamptz, row_exists boolean)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select n.model_id, n.identity_id, n.reserved_at,
      exists (select from public.trained_identities t where t.id = n.identity_id)
    from watcher.names n where n.model_id > p_after
    order by n.model_id limit least(greatest(p_limit, 0), 1000)
  $function$;


  perform watcher.close_verbs();

  insert into watcher.migrations (version) values ('20261122100200');
end
$migration$;
