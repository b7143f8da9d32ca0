-- The table that a frontend writes to: its columns, its validation and its status transitions.
-- Nobody has access before 20261122100300_access.sql grants it.

do $migration$
begin
  -- If two migrations run at once, the second waits here, then finds the version and changes nothing.
  perform pg_advisory_xact_lock(hashtextextended('watcher.migrations', 0));
  create schema if not exists watcher;
  revoke all on schema watcher from public;
  create table if not exists watcher.migrations (
    version text primary key,
    applied_at timestamptz not null default now()
  );
  if exists (select from watcher.migrations where version = '20261122100000') then
    return;
  end if;

  if to_regclass('public.trained_identities') is not null then
    raise exception using
      errcode = 'duplicate_table',
      message = 'The table public.trained_identities exists already, so nothing was changed: move it aside with '
        '"alter table public.trained_identities rename to trained_identities_before_watcher;", then migrate again.';
  end if;


  -- Validation, with messages for a person. Each function validates its column completely and returns null for a valid
  -- value; the table's check constraints call only these functions. Characters are listed by code point, since btrim and
  -- [[:cntrl:]] miss most.

  create function watcher.name_error(name text) returns text
  language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
  declare
    white_space constant text := '\u0009-\u000D\u0020\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000';
    -- Refused anywhere: controls, line separators, bidi marks and zero-width characters.
    invisible constant text := '\u0001-\u001F\u007F-\u009F\u00AD\u034F\u061C\u180E\u200B\u200E\u200F\u2028-\u202E\u2060-\u206F\uFEFF\uFFF9-\uFFFB';
    -- Refused only at either end: Persian names and some emoji need these two inside.
    joiners constant text := '\u200C\u200D';
    -- Refused only where nothing else is visible: fillers, blanks and variation selectors.
    blank constant text := '\u115F\u1160\u17B4\u17B5\u180B-\u180D\u180F\u2800\u3164\uFE00-\uFE0F\uFFA0\uFFF0-\uFFF8'
      '\U00013430-\U0001343F\U0001BCA0-\U0001BCA3\U0001D159\U0001D173-\U0001D17A\U000E0000-\U000E0FFF';
    found text;
  begin
    if name is null or name = '' then
      return 'The name is empty; please enter one.';
    end if;
    if char_length(name) > 100 then
      return format('The name has %s characters; at most 100 are allowed.', char_length(name));
    end if;
    if name !~ ('[^' || white_space || invisible || joiners || blank || ']') then
      return 'The name has no visible character; please enter a readable name.';
    end if;
    if name ~ ('^[' || white_space || ']|[' || white_space || ']$') then
      return 'The name begins or ends with a space; please remove it.';
    end if;
    found := substring(name from '[' || invisible || ']|^[' || joiners || ']|[' || joiners || ']$');
    if found is not null then
      return format('The name contains an invisible character (U+%s); please type the name again.',
        upper(lpad(to_hex(ascii(found)), 4, '0')));
    end if;
    return null;
  end
  $function$;

  -- "Image 3 (beach.jpg)", for any path: other characters become "?", and at most 80 are shown.
  create function watcher.image_label(number bigint, path text) returns text
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select format('Image %s (%s)', number,
      left(regexp_replace(regexp_replace(right(path, 512), '^.*/', ''), '[^[:alnum:] ._()+@=-]', '?', 'g'), 80))
  $function$;

  create function watcher.paths_error(user_id uuid, paths text[]) returns text
  language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
  declare
    number integer;
    path text;
    first_use integer;
  begin
    if paths is null or cardinality(paths) = 0 then
      return 'No images were given; 3 to 40 are needed.';
    end if;
    if array_ndims(paths) <> 1 or array_lower(paths, 1) <> 1 then
      return 'The images must be given as one plain list of paths.';
    end if;
    if cardinality(paths) not between 3 and 40 then
      return format('%s images were given; 3 to 40 are needed.', cardinality(paths));
    end if;
    -- Nearly always nothing is wrong, and the row's constraint asks with each change of the row: one statement tells.
    if cardinality(paths) = (
      select count(distinct given) filter (where starts_with(given, user_id::text || '/')
        and char_length(given) <= 200 and given ~ '^[A-Za-z0-9 ._()+@=/-]+$' and given !~ '(^|/)([/ .]|$)| (/|$)'
        and cardinality(string_to_array(given, '/')) <= 6)
      from unnest(paths) given
    ) then
      return null;
    end if;
    for number in 1 .. cardinality(paths) loop
      path := paths[number];
      if path is null then
        return format('Image %s has no path.', number);
      end if;
      if starts_with(path, 'identity-images/') then
        return watcher.image_label(number, path)
          || ' has a path that begins with the bucket''s name; leave out "identity-images/".';
      end if;
      if not starts_with(path, user_id::text || '/') then
        return watcher.image_label(number, path) || ' lies outside your own folder; upload it under your user id.';
      end if;
      if char_length(path) > 512 then
        return watcher.image_label(number, path) || ' has a path of more than 512 characters.';
      end if;
      if path !~ '^[A-Za-z0-9 ._()+@=/-]+$' then
        return watcher.image_label(number, path)
          || ' has a path with other characters than A-Z a-z 0-9 space . _ ( ) + @ = and -.';
      end if;
      -- A segment that is empty, begins with a dot or a space, or ends with a space.
      if path ~ '(^|/)([/ .]|$)| (/|$)' then
        return watcher.image_label(number, path)
          || ' has a path with a part that is empty, begins with a dot, or begins or ends with a space.';
      end if;
      -- The real Storage fails on longer file names.
      if path ~ '[^/]{201}' then
        return watcher.image_label(number, path) || ' has a path with a part of more than 200 characters.';
      end if;
      if cardinality(string_to_array(path, '/')) > 6 then
        return watcher.image_label(number, path) || ' lies more than 5 folders deep.';
      end if;
      first_use := array_position(paths, path);
      if first_use < number then
        return format('%s is given twice: it is also image %s.', watcher.image_label(number, path), first_use);
      end if;
    end loop;
    return null;
  end
  $function$;


  -- It becomes a part of prompts: one to four plain words.
  create function watcher.trigger_word_error(word text) returns text
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select case when word !~ '^[A-Za-z0-9]+([ _-][A-Za-z0-9]+){0,3}$' or char_length(word) > 40
      then 'The trigger word must be one to four words of A-Z, a-z and 0-9, 40 characters at most.' end
  $function$;


  -- Names the first image that is not in the bucket; null where all are.
  create function watcher.missing_image_error(paths text[]) returns text
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select watcher.image_label(number, path) || ' has not been uploaded; upload it, then try again.'
    from unnest(paths) with ordinality as given (path, number)
    where not exists (select from storage.objects where bucket_id = 'identity-images' and name = given.path)
    order by number limit 1
  $function$;


  create table public.trained_identities (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null default auth.uid() references auth.users (id) on delete cascade,
    identity_name text not null
      constraint identity_name_is_readable check (watcher.name_error(identity_name) is null),
    image_paths text[] not null,
    -- Kept by triggers, since Realtime's events lack generated columns.
    num_training_images integer not null default 0,
    status text not null default 'pending'
      constraint status_is_known check (
        status in ('pending', 'publishing', 'published', 'training', 'ready', 'failed')
      ),
    model_id text,
    images_published integer not null default 0,
    training_config jsonb,
    next_attempt_at timestamptz,
    huggingface_repo_url text,
    commit_sha text,
    published_at timestamptz,
    error_code text constraint error_code_is_a_word check (error_code ~ '^[a-z_]+$'),
    error_message text,
    error_image integer,
    -- Whether a LoRA is to be trained on the published photos; the end of the training sets it to false.
    train boolean not null default false,
    trigger_word text
      constraint trigger_word_is_plain check (watcher.trigger_word_error(trigger_word) is null),
    training_requested_at timestamptz,
    training_waits_until timestamptz,
    training_url text,
    training_commit_sha text,
    training_seconds integer,
    sample_paths text[],
    training_error_code text constraint training_error_code_is_a_word check (training_error_code ~ '^[a-z_]+$'),
    training_error_message text,
    failed_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint image_paths_are_the_users_own check (watcher.paths_error(user_id, image_paths) is null),
    constraint progress_is_within_bounds check (images_published between 0 and num_training_images),
    constraint only_pending_rows_wait check (next_attempt_at is null or status = 'pending'),
    constraint published_rows_say_where check (
      num_nulls(huggingface_repo_url, commit_sha, published_at) = case when status in ('published', 'training', 'ready') then 0 else 3 end
    ),
    constraint published_rows_are_whole check (
      status not in ('published', 'training', 'ready')
      or (model_id is not null and training_config is not null and images_published = num_training_images)
    ),
    constraint failed_rows_say_why check (
      num_nulls(error_code, error_message) = case status when 'failed' then 0 else 2 end
    ),
    constraint only_failed_rows_blame_an_image check (
      error_image is null or (status = 'failed' and error_image between 1 and num_training_images)
    ),
    constraint requested_trainings_say_since_when check ((training_requested_at is not null) = train),
    constraint only_waiting_trainings_wait check (
      training_waits_until is null or (train and status in ('published', 'ready'))
    ),
    constraint training_rows_are_asked_for check (status <> 'training' or train),
    -- A row that is trained again keeps its weights until there are new ones.
    constraint ready_rows_have_weights check (
      training_commit_sha is not null and status in ('ready', 'training')
      or training_commit_sha is null and status <> 'ready'
    ),
    constraint weights_are_described check (
      (training_seconds is null) = (training_commit_sha is null)
      and (sample_paths is null or training_commit_sha is not null)
    ),
    constraint failed_trainings_say_why check (
      (training_error_code is null) = (training_error_message is null)
      and (training_error_code is null or (not train and status in ('published', 'ready')))
    )
    -- Room for new versions of rows beside the old ones; see the indexes.
  ) with (fillfactor = 60);
  alter table public.trained_identities enable row level security;

  comment on table public.trained_identities is
    'One row per identity: the frontend inserts it as pending, the daemon publishes it.';
  comment on column public.trained_identities.next_attempt_at is 'While pending: the time of the next attempt.';
  comment on column public.trained_identities.train is
    'Whether a LoRA is to be trained: set it at insert, or on a published or ready row; false withdraws it while it waits.';
  comment on column public.trained_identities.training_waits_until is
    'While a training waits for a limit, or was asked for too often: when it is tried next.';
  comment on column public.trained_identities.sample_paths is
    'Where ready: the first pictures, in the bucket identity-samples.';
  comment on column public.trained_identities.error_image is
    'While failed, where one image is at fault: its number, from 1 in the order of image_paths.';

  -- None has images_published or updated_at, not even in its condition: then a write of progress stays within its page and
  -- touches no index (HOT).
  create index trained_identities_by_user on public.trained_identities (user_id, created_at);
  create index trained_identities_open_by_user on public.trained_identities (user_id)
    where status in ('pending', 'publishing');
  create index trained_identities_publishing on public.trained_identities (id) where status = 'publishing';
  create index trained_identities_pending on public.trained_identities (created_at, id) where status = 'pending';
  create index trained_identities_failed on public.trained_identities (failed_at) include (error_code) where status = 'failed';
  create index trained_identities_published on public.trained_identities (published_at)
    where status in ('published', 'training', 'ready');
  create index trained_identities_to_train on public.trained_identities (id)
    where train and status in ('published', 'training', 'ready');


  -- Serializes the changes of one user until the end of the transaction. Locks the account first, as its deletion does,
  -- so that the two cannot deadlock.
  create function watcher.lock_user(owner uuid) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    select from auth.users where id = owner for key share;
    select pg_advisory_xact_lock(hashtextextended('watcher.open_rows ' || owner, 0));
  $function$;

  -- What users can make the daemon do is limited. A limit is for everybody, or for one user; `watcher limits` sets it. What
  -- the operator decides about erasing is set in the same way.

  -- All limits: their defaults, their ranges, and whether they can be set for one user.
  create function watcher.known_limits() returns table (
    place integer, name text, default_value bigint, lowest bigint, highest bigint, per_user boolean, about text
  )
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    values
      (1, 'open_rows', 20::bigint, 0::bigint, 10000::bigint, true,
        'identities of a user that wait or are being published'),
      (2, 'rows_per_day', 100, 0, 1000000, true, 'identities that a user sends within a day'),
      (3, 'retries_per_row_per_hour', 3, 0, 1000, true, 'retries of an identity within an hour before the next one waits'),
      (4, 'retries_per_hour', 60, 0, 100000, true, 'retries of a user within an hour before the next one waits'),
      (5, 'objects', 1000, 0, 10000000, true, 'photos of a user in the bucket'),
      (6, 'erase_repos', 1, 0, 1, false, 'whether the repo of a deleted row is erased: 1 if so, 0 if not'),
      (7, 'erase_photos', 1, 0, 1, false,
        'whether the photos of a deleted row that no other row names are erased: 1 if so, 0 if not'),
      (8, 'erase_after_hours', 0, 0, 8760, false,
        'hours from the deletion of a row to its erasure; the photos of a deleted account do not wait'),
      (9, 'trainings_per_day', 1, 0, 1000, true, 'trainings of a user that start within a day, in UTC')
  $function$;

  create table watcher.limits (
    name text not null,
    -- Null: for everybody who has no value of their own.
    user_id uuid references auth.users (id) on delete cascade,
    value bigint not null,
    constraint one_value unique nulls not distinct (name, user_id)
  );
  create index limits_by_user on watcher.limits (user_id);
  alter table watcher.limits enable row level security;

  create function watcher.limit_of(p_name text, p_user uuid default null) returns bigint
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select coalesce(
      (select l.value from watcher.limits l where l.name = p_name and l.user_id = p_user),
      (select l.value from watcher.limits l where l.name = p_name and l.user_id is null),
      (select k.default_value from watcher.known_limits() k where k.name = p_name)
    )
  $function$;

  -- What each user did in each hour of the last two days. It outlives the rows, so that deleting them gives nothing back.
  create table watcher.usage (
    user_id uuid not null references auth.users (id) on delete cascade,
    hour timestamptz not null,
    rows integer not null default 0,
    retries integer not null default 0,
    trainings integer not null default 0,
    primary key (user_id, hour)
  );
  alter table watcher.usage enable row level security;

  -- The retries of the last hour, and until when each waits.
  create table watcher.retries (
    identity_id uuid not null,
    user_id uuid not null,
    retried_at timestamptz not null default now(),
    waits_until timestamptz
  );
  create index retries_by_identity on watcher.retries (identity_id);
  create index retries_by_user on watcher.retries (user_id, waits_until);
  alter table watcher.retries enable row level security;

  -- Counts rows, retries and trainings of a user. Called under the user's lock.
  create function watcher.count_usage(p_user uuid, p_rows integer, p_retries integer, p_trainings integer default 0)
  returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    delete from watcher.usage where user_id = p_user and hour < now() - interval '2 days';
    insert into watcher.usage as u (user_id, hour, rows, retries, trainings)
    values (p_user, date_trunc('hour', now(), 'UTC'), p_rows, p_retries, p_trainings)
    on conflict (user_id, hour) do update set
      rows = u.rows + excluded.rows, retries = u.retries + excluded.retries, trainings = u.trainings + excluded.trainings;
  $function$;

  -- The rows of the last 24 hours, and what came before in the hour in which those begin: never too few.
  create function watcher.rows_of_the_day(p_user uuid) returns bigint
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select coalesce(sum(rows), 0) from watcher.usage where user_id = p_user and hour > now() - interval '25 hours'
  $function$;

  -- The retries of the last 60 minutes; those of the hour before count by the share of it that is among these.
  create function watcher.retries_of_the_hour(p_user uuid) returns bigint
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select coalesce(ceil(sum(retries * least(1, extract(epoch from hour + interval '2 hours' - now()) / 3600))), 0)::bigint
    from watcher.usage where user_id = p_user and hour > now() - interval '2 hours'
  $function$;

  create function watcher.trainings_of_the_day(p_user uuid) returns bigint
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select coalesce(sum(trainings), 0) from watcher.usage
    where user_id = p_user and hour >= date_trunc('day', now(), 'UTC')
  $function$;

  create function watcher.check_open_rows(owner uuid) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    most constant bigint := watcher.limit_of('open_rows', owner);
  begin
    if most <= (
      select count(*) from public.trained_identities
      where user_id = owner and status in ('pending', 'publishing')
    ) then
      raise exception using errcode = 'check_violation', message = format(
        'You have %s identities waiting or being published, the most allowed at a time; '
        'please try again when one of them is done.', most);
    end if;
  end
  $function$;

  create function watcher.on_insert() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    refusal text;
  begin
    new.num_training_images := coalesce(cardinality(new.image_paths), 0);
    new.training_requested_at := case when new.train then now() end;
    new.failed_at := case when new.status = 'failed' then now() end;
    -- Row-level security, which is checked after this trigger, refuses a forged status or user.
    if new.status is distinct from 'pending'
      or (select auth.jwt()) is not null and new.user_id is distinct from (select auth.uid())
    then
      return new;
    end if;
    refusal := coalesce(
      watcher.name_error(new.identity_name), watcher.paths_error(new.user_id, new.image_paths),
      watcher.trigger_word_error(new.trigger_word)
    );
    if refusal is not null then
      raise exception using errcode = 'check_violation', message = refusal;
    end if;
    perform watcher.lock_user(new.user_id);
    -- The same row sent twice is no second one: the primary key takes care of it, whatever the limits say.
    if exists (select from public.trained_identities where id = new.id and user_id = new.user_id) then
      return new;
    end if;
    refusal := watcher.missing_image_error(new.image_paths);
    if refusal is not null then
      raise exception using errcode = 'check_violation', message = refusal;
    end if;
    perform watcher.check_open_rows(new.user_id);
    return new;
  end
  $function$;

  -- Counts a row once it is in, and refuses it if it is one too many.
  create function watcher.after_insert() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    most constant bigint := watcher.limit_of('rows_per_day', new.user_id);
    free_at timestamptz;
  begin
    perform watcher.count_usage(new.user_id, 1, 0);
    if watcher.rows_of_the_day(new.user_id) <= most then
      return null;
    end if;
    -- When so many hours have passed that those after them leave room.
    select min(hour) + interval '25 hours' into free_at from (
      select hour, coalesce(sum(rows) over (order by hour desc rows between unbounded preceding and 1 preceding), 0) as later
      from watcher.usage where user_id = new.user_id and hour > now() - interval '25 hours'
    ) hours where later < most;
    raise exception using errcode = 'check_violation', message = case
      when free_at is null then 'No identities are accepted from you at present.'
      else format('You have sent %s identities within a day, the most allowed; please try again in %s.', most,
        case when free_at < now() + interval '90 minutes' then 'an hour'
          else ceil(extract(epoch from free_at - now()) / 3600) || ' hours' end)
    end;
  end
  $function$;

  -- Counts a retry of a row. Returns until when it waits; null if it need not. The first ones within an hour are immediate;
  -- then a row waits half a minute, doubled each time, up to an hour, and a user's waiting rows come ten seconds apart.
  create function watcher.count_retry(p_identity uuid, p_user uuid) returns timestamptz
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    apart constant interval := '10 seconds';
    too_many bigint;
    due timestamptz;
    taken timestamptz;
  begin
    delete from watcher.retries
    where user_id = p_user and retried_at < now() - interval '1 hour' and coalesce(waits_until < now(), true);
    select count(*) - watcher.limit_of('retries_per_row_per_hour', p_user) into too_many
    from watcher.retries where identity_id = p_identity and retried_at >= now() - interval '1 hour';
    if too_many >= 0 then
      due := now() + least(30 * power(2, least(too_many, 20)), 3600) * interval '1 second';
    elsif watcher.retries_of_the_hour(p_user) >= watcher.limit_of('retries_per_hour', p_user) then
      due := now() + interval '30 seconds';
    end if;
    loop
      select max(waits_until) into taken from watcher.retries
      where user_id = p_user and waits_until > due - apart and waits_until < due + apart;
      exit when taken is null;
      due := taken + apart;
    end loop;
    insert into watcher.retries (identity_id, user_id, waits_until) values (p_identity, p_user, due);
    perform watcher.count_usage(p_user, 0, 1);
    return due;
  end
  $function$;

  -- Whether a user may upload one more photo. Uploads at the same moment may pass it by their number.
  create function watcher.may_upload(p_user uuid) returns boolean
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select watcher.limit_of('objects', p_user) > (
      select count(*) from (
        select from storage.objects
        -- All names that begin with the folder, by the index on their bytes: '0' comes right after '/'.
        where bucket_id = 'identity-images' and name ~>=~ (p_user || '/') and name ~<~ (p_user || '0')
        limit watcher.limit_of('objects', p_user)
      ) uploaded
    )
  $function$;


  -- How much of a limit a user has used; null where that is not counted.
  create function watcher.used(p_name text, p_user uuid) returns bigint
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select case p_name
      when 'open_rows' then (select count(*) from public.trained_identities
        where user_id = p_user and status in ('pending', 'publishing'))
      when 'rows_per_day' then watcher.rows_of_the_day(p_user)
      when 'retries_per_hour' then watcher.retries_of_the_hour(p_user)
      when 'trainings_per_day' then watcher.trainings_of_the_day(p_user)
      when 'objects' then (select count(*) from storage.objects
        where bucket_id = 'identity-images' and name ~>=~ (p_user || '/') and name ~<~ (p_user || '0'))
    end
  $function$;

  -- Postgres runs the triggers of one event in alphabetical order: hence a_ and b_ in their names.
  create trigger a_validate before insert on public.trained_identities
    for each row execute function watcher.on_insert();
  create trigger a_count after insert on public.trained_identities
    for each row when (new.status = 'pending') execute function watcher.after_insert();


  -- Runs before any row is locked. Otherwise two changes of one user, each with a row that the other needs, could deadlock.
  create function watcher.before_change() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    perform watcher.lock_user((select auth.uid()));
    return null;
  end
  $function$;

  create trigger a_lock_user before update or delete on public.trained_identities
    for each statement execute function watcher.before_change();

  create function watcher.on_update() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    refusal text;
  begin
    new.updated_at := now();
    new.num_training_images := cardinality(new.image_paths);
    -- The policy lets a user name both; said here, since the table's constraints come before the guard of transitions.
    if old.status in ('published', 'ready') and new.status = 'pending' then
      raise exception using errcode = 'check_violation',
        message = format('An identity that is %s cannot become %s.', old.status, new.status);
    end if;
    if new.train and not old.train then
      new.training_requested_at := now();
      new.training_error_code := null;
      new.training_error_message := null;
      if (select auth.uid()) is not null and new.status in ('published', 'ready') then
        new.training_waits_until := watcher.count_retry(new.id, new.user_id);
      end if;
    elsif not new.train then
      new.training_requested_at := null;
      new.training_waits_until := null;
    end if;
    new.failed_at := case when new.status <> 'failed' then null when old.status <> 'failed' then now() else old.failed_at end;
    if old.status = 'failed' and new.status = 'pending' then
      -- Users are bound by the limits and need all images uploaded; the operator's replay is not checked.
      if (select auth.uid()) is not null then
        refusal := watcher.missing_image_error(new.image_paths);
        if refusal is not null then
          raise exception using errcode = 'check_violation', message = refusal;
        end if;
        perform watcher.check_open_rows(new.user_id);
      end if;
      new.error_code := null;
      new.error_message := null;
      new.error_image := null;
      new.images_published := 0;
      new.next_attempt_at := case when (select auth.uid()) is not null then watcher.count_retry(new.id, new.user_id) end;
    end if;
    return new;
  end
  $function$;

  create trigger b_reset_on_retry before update on public.trained_identities
    for each row execute function watcher.on_update();


  -- The allowed transitions, defined here alone. Checked after the update, so that row-level security refuses a forged
  -- status first.
  create function watcher.guard_transition() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    if (old.status, new.status) not in (
      ('pending', 'publishing'),    -- claim
      ('publishing', 'published'),  -- complete
      ('published', 'training'),    -- a training starts
      ('ready', 'training'),
      ('training', 'ready'),        -- trained, or failed where there were weights before
      ('training', 'published'),    -- failed
      ('publishing', 'failed'),     -- fail
      ('publishing', 'pending'),    -- defer, release
      ('pending', 'failed'),        -- the budget is spent and no repo can exist
      ('failed', 'pending')         -- a user's retry, replay
    ) then
      raise exception using errcode = 'check_violation',
        message = format('An identity that is %s cannot become %s.', old.status, new.status);
    end if;
    return null;
  end
  $function$;

  create trigger a_guard_transitions after update on public.trained_identities
    for each row when (old.status <> new.status) execute function watcher.guard_transition();


  -- One row, updated to check that Realtime delivers.
  create table public.watcher_pulse (
    id boolean primary key default true check (id),
    beats bigint not null default 0,
    beaten_at timestamptz not null default now()
  );
  alter table public.watcher_pulse enable row level security;
  comment on table public.watcher_pulse is 'Updated by the daemon to check that Realtime delivers.';
  insert into public.watcher_pulse default values;

  insert into watcher.migrations (version) values ('20261122100000');
end
$migration$;
