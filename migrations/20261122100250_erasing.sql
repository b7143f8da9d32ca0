-- Erasing: the kind of work that takes away what nobody may have any more, from the Hub and from the bucket: what a deleted
-- row has left, and the repos behind abandoned names.

do $migration$
begin
  perform pg_advisory_xact_lock(hashtextextended('watcher.migrations', 0));
  if exists (select from watcher.migrations where version = '20261122100250') then
    return;
  end if;


  -- Seconds for which a request that was sent may still land: the longest that the Hub works on one.
  create function watcher.late_seconds() returns integer
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$ select 120 $function$;

  -- Whether the 'repos' or 'photos' of a deleted row are erased; set with `watcher limits`.
  create function watcher.erases(p_what text) returns boolean
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select watcher.limit_of('erase_' || p_what) = 1
  $function$;

  -- An erasure: open while finished_at is null; then a receipt, which names no person. Its id is the row's; where no row is
  -- the cause, it is an id of its own.
  create table watcher.erasures (
    identity_id uuid primary key,
    -- row: it was deleted. name: a row gave it up, and may exist. folder: what the sweep found without a row. forget.
    cause text not null constraint cause_is_known check (cause in ('row', 'name', 'folder', 'forget')),
    -- The folder in the bucket, while that is needed.
    owner_id uuid,
    account_gone boolean not null default false,
    requested_at timestamptz not null default now(),
    finished_at timestamptz,
    repos integer not null default 0,
    photos integer not null default 0,
    -- Of the row, when it was deleted.
    attempts integer not null default 0,
    -- Closed by the operator although something is left.
    closed_because text,
    -- The operator was told that it is overdue.
    told_overdue boolean not null default false,
    constraint receipts_name_nobody check (finished_at is null or owner_id is null)
  );
  create index erasures_open on watcher.erasures (requested_at, identity_id) where finished_at is null;
  create index erasures_finished on watcher.erasures (finished_at) where finished_at is not null;
  create index erasures_by_owner on watcher.erasures (owner_id) where owner_id is not null;
  alter table watcher.erasures enable row level security;

  -- What has to go, a line a thing. A line goes when its thing is gone for good.
  create table watcher.erase_lines (
    id bigint generated always as identity primary key,
    identity_id uuid not null references watcher.erasures on delete cascade,
    what text not null constraint what_is_known check (what in ('repo', 'photo', 'sample', 'job')),
    -- Of a repo: namespace/name. Of a photo, or of a picture made by a training, a sample: its key in the bucket. Of a job:
    -- namespace/label.
    name text not null,
    -- Of a photo or sample: the object that goes. Another one under the same key stays.
    object_id uuid,
    added_at timestamptz not null default now(),
    -- Not to be touched before: an attempt may still write, or the settings say later.
    due_at timestamptz not null default now(),
    -- A look has shown that the repo is ours to delete; what is left of it needs no second proof.
    ours boolean not null default false,
    -- It was seen to be gone, and is looked at once more at this time: a request that was not answered may land until then.
    look_again_at timestamptz,
    gone_at timestamptz,
    constraint one_line_a_thing unique nulls not distinct (identity_id, what, name, object_id),
    constraint pictures_are_objects check ((what in ('photo', 'sample')) = (object_id is not null))
  );
  create index erase_lines_by_name on watcher.erase_lines (name);
  create index erase_lines_by_object on watcher.erase_lines (object_id) where object_id is not null;
  alter table watcher.erase_lines enable row level security;

  -- SHA-256 of the ids of users whose account was seen to go. They may upload until their last token expires.
  create table watcher.departures (
    digest bytea primary key,
    departed_at timestamptz not null default now()
  );
  alter table watcher.departures enable row level security;


  -- When the first of an erasure's things is to be looked at; null if nothing is left.
  create function watcher.erase_due(p_identity_id uuid) returns timestamptz
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select min(case when gone_at is null then due_at else look_again_at end)
    from watcher.erase_lines where identity_id = p_identity_id
  $function$;

  -- The open erasures, each with the time since when, or from when on, something of it is due.
  create function watcher.open_erasures() returns table (identity_id uuid, due_since timestamptz)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select e.identity_id,
      coalesce(min(case when l.gone_at is null then l.due_at else l.look_again_at end), e.requested_at)
    from watcher.erasures e left join watcher.erase_lines l on l.identity_id = e.identity_id
    where e.finished_at is null group by e.identity_id
  $function$;

  -- What waits only because the settings say so, of a user's open erasures.
  create function watcher.postponed_lines(p_user uuid) returns setof watcher.erase_lines
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select l.* from watcher.erasures e join watcher.erase_lines l on l.identity_id = e.identity_id
    where e.owner_id = p_user and l.gone_at is null and l.due_at > now() + interval '10 minutes'
  $function$;


  -- Listing.

  -- Opens an erasure, or adds to the open one. A receipt is opened again: what was restored from a backup goes again.
  create function watcher.open_erasure(p_identity_id uuid, p_cause text, p_owner uuid, p_account_gone boolean default false)
  returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    insert into watcher.erasures as e (identity_id, cause, owner_id, account_gone)
    values (p_identity_id, p_cause, p_owner, p_account_gone)
    on conflict (identity_id) do update set
      cause = case when excluded.cause = 'name' then e.cause else excluded.cause end,
      owner_id = coalesce(excluded.owner_id, e.owner_id), account_gone = e.account_gone or excluded.account_gone,
      requested_at = case when e.finished_at is null then e.requested_at else now() end,
      finished_at = null, closed_because = null, told_overdue = e.told_overdue and e.finished_at is null
  $function$;

  -- Queues an erasure for when the first of its things is due.
  create function watcher.queue_erasure(p_identity_id uuid) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    insert into watcher.work as w (kind, identity_id, turn_at, next_at)
    select 'erase', p_identity_id, case when due <= now() then now() end, case when due > now() then due end
    from (select coalesce(watcher.erase_due(p_identity_id), now()) as due) first
    on conflict (identity_id, kind) do update set turn_at = excluded.turn_at, next_at = excluded.next_at
    where w.next_at is not null and (excluded.turn_at is not null or excluded.next_at < w.next_at)
  $function$;

  -- Until when a request of an earlier attempt of this kind may land that nobody saw answered; null if there is none.
  create function watcher.may_land_until(p_identity_id uuid, p_kind text) returns timestamptz
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select max(coalesce(a.ended_at, now())) + make_interval(secs => 1.25 * watcher.late_seconds()) from watcher.attempts a
    where a.identity_id = p_identity_id and a.kind = p_kind and not a.answered
      and coalesce(a.ended_at, now()) > now() - make_interval(secs => watcher.late_seconds())
  $function$;

  -- Lists a repo. Its name is never reserved again. It is not touched before the attempt that runs can write no more, and
  -- looked at once more if that or another one may have sent something that nobody saw answered.
  create function watcher.list_repo(p_identity_id uuid, p_name text, p_due_at timestamptz, p_unless_running boolean)
  returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    writing timestamptz;
  begin
    insert into watcher.used_names (digest) values (watcher.name_digest(p_name)) on conflict do nothing;
    if p_unless_running then
      select max(a.lease_expires_at) into writing from watcher.attempts a
      where a.identity_id = p_identity_id and a.kind = 'publish' and a.ended_at is null and a.lease_expires_at > now();
    end if;
    insert into watcher.erase_lines (identity_id, what, name, due_at, look_again_at)
    values (p_identity_id, 'repo', p_name, greatest(p_due_at, writing),
      greatest(watcher.may_land_until(p_identity_id, 'publish'),
        writing + make_interval(secs => 1.25 * watcher.late_seconds())))
    on conflict on constraint one_line_a_thing do update set
      due_at = least(erase_lines.due_at, excluded.due_at),
      look_again_at = greatest(erase_lines.look_again_at, excluded.look_again_at);
  end
  $function$;

  -- Lists photos: those of the given keys that are in the bucket. Whether another row names one is asked when it is its turn.
  create function watcher.list_photos(p_identity_id uuid, p_keys text[], p_due_at timestamptz) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    insert into watcher.erase_lines (identity_id, what, name, object_id, due_at)
    select p_identity_id, 'photo', o.name, o.id, p_due_at from storage.objects o
    where o.bucket_id = 'identity-images' and o.name = any (p_keys)
    on conflict on constraint one_line_a_thing do update set due_at = least(erase_lines.due_at, excluded.due_at)
  $function$;

  -- Gives a name up: it is never reserved again, and what is behind it is erased. Called under the row's lock.
  create function watcher.abandon_name(p_identity_id uuid, p_name text) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    if p_name is null then
      return;
    end if;
    perform watcher.open_erasure(p_identity_id, 'name', null);
    perform watcher.list_repo(p_identity_id, p_name, now(), false);
    perform watcher.queue_erasure(p_identity_id);
  end
  $function$;

  -- Lists all that a row has left anywhere, as the settings say, or all of it at once where it is to be forgotten.
  create function watcher.list_row(p_row public.trained_identities, p_forget boolean default false) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    due timestamptz;
  begin
    -- A deleted account goes at once.
    due := now() + case when p_forget or watcher.departed_error(p_row.user_id) is not null then 0
      else watcher.limit_of('erase_after_hours') end * interval '1 hour';
    perform watcher.open_erasure(p_row.id, 'row', p_row.user_id,
      not exists (select from auth.users u where u.id = p_row.user_id));
    update watcher.erasures set attempts = (select count(*) from watcher.attempts where identity_id = p_row.id)
    where identity_id = p_row.id;
    if p_forget or watcher.erases('repos') then
      perform watcher.list_repo(p_row.id, n.model_id, due, true)
      from (
        select model_id from watcher.names where identity_id = p_row.id
        union
        select p_row.model_id where p_row.model_id is not null
      ) n;
    else
      update watcher.names set owner_digest = watcher.user_digest(p_row.user_id) where identity_id = p_row.id;
    end if;
    if p_forget or watcher.erases('photos') then
      perform watcher.list_photos(p_row.id, p_row.image_paths, due);
    end if;
    perform watcher.list_training(p_row, due);
    perform watcher.queue_erasure(p_row.id);
  end
  $function$;

  create function watcher.user_digest(p_user uuid) returns bytea
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select sha256(convert_to(p_user::text, 'UTF8'))
  $function$;

  -- What of a user's is to go later by the settings goes now, a repo once no attempt can write to it. Returns the erasures.
  create function watcher.hasten_erasures(p_user uuid) returns uuid[]
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    ids uuid[];
  begin
    with hastened as (
      update watcher.erase_lines l set due_at = case l.what when 'repo' then now() + interval '10 minutes' else now() end
      where l.id in (select id from watcher.postponed_lines(p_user)) returning l.identity_id
    )
    select coalesce(array_agg(distinct identity_id), '{}') into ids from hastened;
    perform watcher.queue_erasure(id) from unnest(ids) id;
    return ids;
  end
  $function$;

  -- An account must always go: where the deletion comes through it, an error here leaves the rest to the sweep. A user's
  -- own deletion of a row is refused instead.
  create function watcher.on_row_deleted() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $function$
  begin
    perform watcher.list_row(old);
    if not exists (select from auth.users u where u.id = old.user_id) then
      insert into watcher.departures (digest) values (watcher.user_digest(old.user_id)) on conflict do nothing;
      if found then
        perform watcher.hasten_erasures(old.user_id);
        if watcher.erases('photos') then
          -- The first of the user's rows: the whole folder goes with it, found by the index; see watcher.may_upload.
          perform watcher.list_photos(old.id, array_agg(o.name), now()) from storage.objects o
          where o.bucket_id = 'identity-images' and o.name ~>=~ (old.user_id || '/') and o.name ~<~ (old.user_id || '0');
          perform watcher.queue_erasure(old.id);
        end if;
      end if;
    end if;
    return old;
  exception when others then
    if pg_trigger_depth() = 1 then
      raise exception using errcode = sqlstate, detail = sqlerrm,
        message = 'This identity could not be deleted just now; please try again in a minute.';
    end if;
    return old;
  end
  $function$;

  -- Before b_drop_work, which drops the attempts that this looks at.
  create trigger a_list_to_erase before delete on public.trained_identities
    for each row execute function watcher.on_row_deleted();


  -- Refusals.

  create function watcher.erased_id_error(p_id uuid) returns text
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select 'This identity was deleted; send it under a new id.'
    where exists (select from watcher.erasures where identity_id = p_id and cause <> 'name')
  $function$;

  -- Names the first image that is being erased; null where none is. One that another row names stays.
  create function watcher.erased_image_error(p_user uuid, p_paths text[]) returns text
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select watcher.image_label(number, path) || ' is being deleted; upload it under another name.'
    from unnest(p_paths) with ordinality as given (path, number)
    where exists (select from watcher.erase_lines l where l.name = given.path and l.what = 'photo')
      and not exists (
        select from public.trained_identities t where t.user_id = p_user and given.path = any (t.image_paths)
      )
    order by number limit 1
  $function$;

  create function watcher.departed_error(p_user uuid) returns text
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select 'Your account was deleted.' where not exists (
      select from auth.users where id = p_user and deleted_at is null)
  $function$;

  create function watcher.refuse_erased() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    refusal text;
  begin
    -- Operators may, and row-level security refuses a forged user.
    if (select auth.uid()) is null or new.user_id is distinct from (select auth.uid()) then
      return new;
    end if;
    if tg_when = 'BEFORE' then
      perform watcher.lock_user(new.user_id);
      refusal := coalesce(
        watcher.departed_error(new.user_id), watcher.erased_image_error(new.user_id, new.image_paths));
    end if;
    refusal := coalesce(watcher.erased_id_error(new.id), refusal);
    if refusal is not null then
      raise exception using errcode = 'check_violation', message = refusal;
    end if;
    return new;
  end
  $function$;

  -- The id is looked at before, so that this is what a user reads, and after: a deletion that was not yet committed then is
  -- what the insert waited for.
  create trigger a_refuse_erased before insert on public.trained_identities
    for each row execute function watcher.refuse_erased();
  create trigger a_refuse_erased_meanwhile after insert on public.trained_identities
    for each row execute function watcher.refuse_erased();


  -- Photos whose object is gone are refused for as long as a deletion of ours may land: Storage deletes whatever is under the
  -- key by then.
  create function watcher.keep_gone_photos(p_identity_id uuid) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    update watcher.erase_lines l set gone_at = coalesce(l.gone_at, now()), look_again_at = u.until
    from (select watcher.may_land_until(p_identity_id, 'erase') as until) u
    where l.identity_id = p_identity_id and l.what = 'photo' and u.until is not null
      and not exists (select from storage.objects o where o.id = l.object_id and o.name = l.name)
  $function$;

  -- Photos that some row names by now, and whose object is not there any more, are nothing to erase.
  create function watcher.drop_needless_photos(p_identity_id uuid) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    -- By hashing: a user may have thousands of rows.
    with named as materialized (
      select l.name from watcher.erase_lines l where l.identity_id = p_identity_id and l.what = 'photo'
      intersect
      select unnest(t.image_paths) from watcher.erasures e join public.trained_identities t on t.user_id = e.owner_id
      where e.identity_id = p_identity_id
    ), dropped as (
      delete from watcher.erase_lines l
      where l.identity_id = p_identity_id and l.what = 'photo' and (l.gone_at is null or l.look_again_at <= now()) and (
        not exists (select from storage.objects o where o.id = l.object_id and o.name = l.name)
        or l.name in (select name from named))
      returning not exists (select from storage.objects o where o.id = l.object_id and o.name = l.name) as gone
    )
    update watcher.erasures set photos = photos + (select count(*) from dropped where gone)
    where identity_id = p_identity_id and exists (select from dropped where gone)
  $function$;


  -- The functions that the engine calls; see 20261122100100_work.sql.

  -- {"lines": [{"id": n, "what": "repo", "photo", "sample" or "job", "name": its name or key, "ours": boolean, "kept": whether a row is there
  -- whose repo it is, because something has cancelled the row's deletion}], "last_reason": why it was put off}; at most 1000
  -- lines, which is what Storage deletes in one request. Photos are left out while their user changes
  -- something: what that names must not go.
  create function watcher.erase_begin(p_identity_id uuid) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    erasure watcher.erasures;
    photos boolean;
  begin
    select * into erasure from watcher.erasures where identity_id = p_identity_id and finished_at is null;
    if not found then
      return null;
    end if;
    photos := erasure.owner_id is null
      or pg_try_advisory_xact_lock(hashtextextended('watcher.open_rows ' || erasure.owner_id, 0));
    if photos then
      perform watcher.keep_gone_photos(p_identity_id);
      perform watcher.drop_needless_photos(p_identity_id);
    end if;
    return jsonb_build_object('lines', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'id', l.id, 'what', l.what, 'name', l.name, 'ours', l.ours, 'kept', l.what = 'repo' and exists (
          select from public.trained_identities t where t.id = p_identity_id and t.model_id = l.name)) order by l.id), '[]')
      from (
        select * from watcher.erase_lines
        where identity_id = p_identity_id and (photos or what <> 'photo')
          and (gone_at is null and due_at <= now() or look_again_at <= now())
        order by id limit 1000
      ) l
    ), 'last_reason', (select last_reason from watcher.work where identity_id = p_identity_id and kind = 'erase'));
  end
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

  -- Erasures without work: their work was deleted by hand.
  create function watcher.erase_find_unqueued() returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    search watcher.searches;
    page uuid[];
  begin
    select * into search from watcher.searches where kind = 'erase' for update skip locked;
    if not found then
      return false;
    end if;
    page := array(
      select e.identity_id from watcher.erasures e
      where e.finished_at is null and (e.requested_at, e.identity_id) > (search.after_at, search.after_id)
      order by e.requested_at, e.identity_id limit watcher.search_page()
    );
    perform watcher.note_search('erase', page,
      (select e.requested_at from watcher.erasures e where e.identity_id = page[cardinality(page)]));
    perform watcher.queue_erasure(open_id) from unnest(page) open_id
    where (select w.id from watcher.work w where w.identity_id = open_id and w.kind = 'erase') is null;
    return found;
  end
  $function$;


  -- The number of photos and samples among these lines of the attempt's that are still in the bucket.
  create function public.watcher_erase_left(p_attempt bigint, p_lines bigint[]) returns integer
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select count(*)::integer from watcher.attempts a
    join watcher.erase_lines l on l.identity_id = a.identity_id and l.id = any (p_lines)
    join storage.objects o on o.id = l.object_id and o.name = l.name
    where a.number = p_attempt and a.kind = 'erase'
  $function$;

  -- Writes down that a repo was found to be ours, before anything of it is deleted: afterwards nothing may show it any more.
  -- Returns 'done' or 'lost'.
  create function public.watcher_settle_repo(p_attempt bigint, p_line bigint) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held or mine.kind <> 'erase' then
      return 'lost';
    end if;
    update watcher.erase_lines set ours = true where id = p_line and identity_id = mine.identity_id and what = 'repo';
    return 'done';
  end
  $function$;

  -- The things of p_gone were seen to be gone, or, those of p_foreign, not to be ours: the attempt is done. A repo that is to
  -- be looked at once more keeps its line and its name until then; a photo keeps its line while it is in the bucket, and the
  -- attempt counts as deferred. When nothing is left, a receipt stays. Returns 'done' or 'lost', as every write-back does.
  create function public.watcher_erased(
    p_attempt bigint, p_gone bigint[], p_answered boolean default false, p_foreign bigint[] default '{}'
  ) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
    entry watcher.work;
    seen bigint[];
    photos_left integer;
    again timestamptz;
    photo_left constant text := 'Supabase Storage still has photos that it said it had deleted.';
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    if not mine.held then
      return case when mine.outcome = 'erased' or exists (
        select from watcher.attempts a where a.number = p_attempt and a.outcome = 'deferred' and a.reason = photo_left)
        then 'done' else 'lost' end;
    end if;
    if mine.kind <> 'erase' then
      return 'lost';
    end if;
    select * into entry from watcher.work w where w.id = mine.work_id;
    select count(*) into photos_left from watcher.erase_lines l
    join storage.objects o on o.id = l.object_id and o.name = l.name
    where l.identity_id = mine.identity_id and l.id = any (p_gone);
    select coalesce(array_agg(l.id), '{}') into seen from watcher.erase_lines l
    where l.identity_id = mine.identity_id and l.id = any (p_gone)
      and (l.gone_at is null and l.due_at <= now() or l.look_again_at <= now())
      and not exists (select from storage.objects o where o.id = l.object_id and o.name = l.name);
    perform watcher.end_attempt(p_attempt, case when photos_left > 0 then 'deferred' else 'erased' end, null,
      case when photos_left > 0 then photo_left end, p_answered);

    perform watcher.keep_gone_photos(mine.identity_id);
    -- A deletion of a repo that was not answered may land later, too. It finds nothing: the name is never used again.
    update watcher.erase_lines set gone_at = now(), ours = false where id = any (seen) and look_again_at > now();
    delete from watcher.names n using watcher.erase_lines l
    where l.id = any (seen) and l.gone_at is distinct from now() and l.what = 'repo' and n.model_id = l.name;
    perform watcher.settle_cancelled(split_part(l.name, '/', 2)) from watcher.erase_lines l
    where l.id = any (seen) and l.gone_at is distinct from now() and l.what = 'job';
    with gone as (
      delete from watcher.erase_lines where id = any (seen) and gone_at is distinct from now() returning id, what
    )
    update watcher.erasures e set
      repos = e.repos + counts.repos, photos = e.photos + counts.photos
    from (
      select count(*) filter (where what = 'repo' and id <> all (p_foreign)) as repos,
        count(*) filter (where what in ('photo', 'sample')) as photos
      from gone
    ) counts
    where e.identity_id = mine.identity_id;

    again := watcher.erase_due(mine.identity_id);
    if again is null then
      perform watcher.finish_erasure(mine.identity_id, p_attempt, null);
    elsif photos_left > 0 then
      perform watcher.put_off(entry, false, photo_left, photo_left, null);
    else
      -- Something is left, or was added meanwhile.
      update watcher.work set
        next_at = greatest(again, case when cardinality(seen) = 0 then now() + interval '2 seconds' end),
        turn_at = null, isolated_for = null,
        spent = 0, crashes = 0, shutdowns = 0, unsures = 0, lost_answers = 0
      where id = mine.work_id;
    end if;
    return 'done';
  end
  $function$;

  -- Leaves a receipt of an erasure, without anything that names a person, and of the row's attempts their number. The one
  -- that is just ending stays for a repeated call.
  create function watcher.finish_erasure(p_identity_id uuid, p_attempt bigint, p_because text) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    delete from watcher.work where identity_id = p_identity_id and kind = 'erase';
    delete from watcher.erase_lines where identity_id = p_identity_id;
    delete from watcher.erasures where identity_id = p_identity_id and cause = 'name';
    if found then
      return;
    end if;
    if not exists (select from public.trained_identities where id = p_identity_id) then
      delete from watcher.attempts where identity_id = p_identity_id and number is distinct from p_attempt;
    end if;
    update watcher.erasures set
      finished_at = now(), owner_id = null, closed_because = p_because
    where identity_id = p_identity_id;
  end
  $function$;


  -- The sweep: a kind of work with one fixed entry, so that one daemon at a time carries it out. It finds what no deletion
  -- of a row has listed, and drops what was kept for long enough. What looks gone only because something is missing, as in
  -- the middle of a restore, is left alone where it is much at once, until the operator confirms it.

  create table watcher.sweep (
    only_row boolean primary key default true check (only_row),
    -- Users and names that look gone, and users of whose uploads no row is left, left alone until they are confirmed; null
    -- where nothing is held back.
    held_users integer,
    held_names integer,
    held_uploads integer,
    held_since timestamptz,
    -- So many are confirmed, and not yet erased.
    confirmed_users integer not null default 0,
    confirmed_names integer not null default 0,
    confirmed_uploads integer not null default 0,
    -- Users of whom the last sweep could not erase everything, and why the last of them.
    failed integer not null default 0,
    failed_because text,
    -- Up to where the bucket was looked through for uploads that no row names.
    after_object text not null default '',
    -- The next look through all folders and names, which takes long where there are many.
    next_scan_at timestamptz not null default now(),
    swept_at timestamptz
  );
  alter table watcher.sweep enable row level security;
  insert into watcher.sweep default values;

  -- Uploads that no row names, since when.
  create table watcher.unnamed_objects (
    object_id uuid primary key,
    seen_at timestamptz not null default now()
  );
  create index unnamed_objects_since on watcher.unnamed_objects (seen_at);
  alter table watcher.unnamed_objects enable row level security;

  create function watcher.sweep_id() returns uuid
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select '00000000-0000-0000-0000-000000000000'::uuid
  $function$;

  -- Seconds between two sweeps.
  create function watcher.sweep_seconds() returns integer
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$ select 30 $function$;

  insert into watcher.work (kind, identity_id, turn_at) values ('sweep', watcher.sweep_id(), now());

  -- A sweep crashes no worker, since the database does all of it: however often its lease has expired, as after a time-out,
  -- no daemon has to become free of other work for it.
  create function watcher.sweep_begin(p_identity_id uuid) returns jsonb
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    update watcher.work set crashes = 0 where kind = 'sweep' and crashes > 0;
    select '{}'::jsonb
  $function$;

  create function watcher.sweep_progress(p_identity_ids uuid[], p_progress jsonb[]) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$ select $function$;

  create function watcher.sweep_put_back(p_identity_id uuid, p_next_at timestamptz) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$ select $function$;

  create function watcher.sweep_fail(p_identity_id uuid, p_code text, p_message text, p_details jsonb) returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    insert into watcher.work (kind, identity_id, next_at, spent, last_reason)
    values ('sweep', p_identity_id, now() + interval '5 minutes', watcher.max_attempts() - 1, p_message)
  $function$;

  create function watcher.sweep_needs_look(p_identity_id uuid) returns boolean
  language sql immutable set search_path = pg_catalog, pg_temp as $function$ select false $function$;

  create function watcher.sweep_find_unqueued() returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    insert into watcher.work (kind, identity_id, turn_at) values ('sweep', watcher.sweep_id(), now())
    on conflict do nothing;
    return found;
  end
  $function$;


  -- More than 20 at once, or more than one and 5 %, or all of them, look like a restore and not like people who left.
  create function watcher.looks_like_a_restore(p_gone bigint, p_there bigint) returns boolean
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select p_gone > 0 and (p_there = 0 or p_gone > 20 or p_gone > 1 and p_gone > 0.05 * (p_gone + p_there))
  $function$;

  -- The user of a folder in the bucket; null for a folder that is nobody's.
  create function watcher.folder_user(p_folder text) returns uuid
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $function$
    select case when p_folder ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then p_folder::uuid end
  $function$;

  -- The names of repos of a user's deleted rows that the settings keep.
  create function watcher.kept_names(p_user uuid) returns setof watcher.names
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select * from watcher.names n where n.owner_digest = watcher.user_digest(p_user)
      and not exists (select from watcher.erase_lines l where l.name = n.model_id and l.what = 'repo')
  $function$;

  -- Deletes a user's rows, which lists what they have left, and lists what else is in the user's folder. With p_forget, also
  -- what the settings would keep. Takes the user's lock before the rows, as the user's own changes do. Returns the number
  -- of rows and of photos that were listed, and the erasures.
  create function watcher.erase_user(p_user uuid, p_cause text, p_forget boolean) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    deleted public.trained_identities;
    rows integer := 0;
    objects text[];
    erasure uuid;
    opened uuid[] := '{}';
  begin
    perform watcher.lock_user(p_user);
    if p_forget then
      select coalesce(array_agg(distinct identity_id), '{}') into opened from watcher.kept_names(p_user);
      perform watcher.open_erasure(n.identity_id, 'row', p_user),
        watcher.list_repo(n.identity_id, n.model_id, now(), true), watcher.queue_erasure(n.identity_id)
      from watcher.kept_names(p_user) n;
    end if;
    for deleted in
      select * from public.trained_identities where user_id = p_user order by id for update
    loop
      if p_forget then
        perform watcher.list_row(deleted, true);
      end if;
      delete from public.trained_identities where id = deleted.id;
      rows := rows + 1;
      opened := opened || deleted.id;
    end loop;
    if p_forget or watcher.departed_error(p_user) is not null then
      opened := opened || watcher.hasten_erasures(p_user);
    end if;
    if p_forget or watcher.erases('photos') then
      select array_agg(name) into objects from (
        select o.name from storage.objects o
        where o.bucket_id = 'identity-images' and o.name ~>=~ (p_user || '/') and o.name ~<~ (p_user || '0')
          and not exists (select from watcher.erase_lines l where l.object_id = o.id)
        limit 10000
      ) left_over;
    end if;
    if objects is not null then
      erasure := gen_random_uuid();
      perform watcher.open_erasure(erasure, p_cause, p_user, not exists (select from auth.users where id = p_user));
      perform watcher.list_photos(erasure, objects, now());
      perform watcher.queue_erasure(erasure);
      opened := opened || erasure;
    end if;
    return jsonb_build_object('rows', rows, 'photos', coalesce(cardinality(objects), 0), 'erasures', to_jsonb(opened));
  end
  $function$;

  -- Erases what is left of a user, or one row. What fails must not stop the rest, as where a table of the app still refers to
  -- a row: it is counted, and tried again. So is what is met after 3 s: a request of the API is stopped after 8. Returns
  -- whether it is listed.
  create function watcher.sweep_one(p_user uuid, p_row uuid default null) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $function$
  begin
    if clock_timestamp() > now() + interval '3 seconds' then
      return false;
    end if;
    if p_row is null then
      perform watcher.erase_user(p_user, 'folder', false);
    else
      perform watcher.lock_user(p_user);
      delete from public.trained_identities where id = p_row;
    end if;
    return true;
  exception when others then
    update watcher.sweep set failed = failed + 1, failed_because = watcher.without_files(sqlerrm);
    return false;
  end
  $function$;

  -- At random, here and below: those that fail each time hold up none of the others.
  create function watcher.sweep_soft_deleted() returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    photos constant boolean := watcher.erases('photos');
    gone uuid;
  begin
    for gone in
      select u.id from auth.users u
      where u.deleted_at is not null and (
        exists (select from public.trained_identities t where t.user_id = u.id)
        or photos and exists (
          select from storage.objects o
          where o.bucket_id = 'identity-images' and o.name ~>=~ (u.id || '/') and o.name ~<~ (u.id || '0')
            and not exists (select from watcher.erase_lines l where l.object_id = o.id)))
      order by random() limit 50
    loop
      perform watcher.sweep_one(gone);
    end loop;
  end
  $function$;

  -- Users who have a folder or a row, but no account; folders only where they are to go. Those whose account was seen to go
  -- may upload for a while; where nobody saw it go, they only look gone, and are held back where they are many.
  create function watcher.sweep_missing_users(inout p_state watcher.sweep)
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    photos constant boolean := watcher.erases('photos');
    departed uuid[];
    missing uuid[];
    gone uuid;
    erased integer := 0;
  begin
    select coalesce(array_agg(owner) filter (where d.digest is not null), '{}'),
      coalesce(array_agg(owner) filter (where d.digest is null), '{}')
    into departed, missing
    from (
      select watcher.folder_user(folder) as owner from (
        select distinct split_part(o.name, '/', 1) as folder from storage.objects o
        where photos and o.bucket_id = 'identity-images'
          and not exists (select from watcher.erase_lines l where l.object_id = o.id)
      ) folders
      union
      select user_id from public.trained_identities
    ) owners
    left join watcher.departures d on d.digest = watcher.user_digest(owner)
    where owner is not null and not exists (select from auth.users u where u.id = owner);
    p_state.held_users := null;
    if cardinality(missing) > p_state.confirmed_users
      and watcher.looks_like_a_restore(cardinality(missing), (select count(*) from auth.users))
    then
      p_state.held_users := cardinality(missing);
      missing := '{}';
    end if;
    for gone in select id from unnest(departed || missing) id order by random() limit 50 loop
      if watcher.sweep_one(gone) and gone = any (missing) then
        erased := erased + 1;
      end if;
    end loop;
    if p_state.held_users is null then
      p_state.confirmed_users := least(p_state.confirmed_users, cardinality(missing)) - erased;
      p_state.confirmed_users := greatest(p_state.confirmed_users, 0);
    end if;
  end
  $function$;

  -- Reserved names whose row is gone, though nothing has listed it.
  create function watcher.sweep_missing_rows(inout p_state watcher.sweep)
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    at_once constant integer := 1000;
    missing text[];
  begin
    p_state.held_names := null;
    if not watcher.erases('repos') then
      p_state.confirmed_names := 0;
      return;
    end if;
    select coalesce(array_agg(n.model_id), '{}') into missing from watcher.names n
    where not exists (select from public.trained_identities t where t.id = n.identity_id)
      and not exists (select from watcher.erase_lines l where l.name = n.model_id and l.what = 'repo')
      and not exists (select from watcher.erasures e where e.identity_id = n.identity_id and e.closed_because is not null);
    if cardinality(missing) > p_state.confirmed_names and watcher.looks_like_a_restore(
      cardinality(missing), (select count(*) from watcher.names) - cardinality(missing))
    then
      p_state.held_names := cardinality(missing);
      return;
    end if;
    perform watcher.open_erasure(n.identity_id, 'row', null),
      watcher.list_repo(n.identity_id, n.model_id, now(), true), watcher.queue_erasure(n.identity_id)
    from watcher.names n where n.model_id = any (missing[1:at_once]);
    p_state.confirmed_names := greatest(least(p_state.confirmed_names, cardinality(missing)) - at_once, 0);
  end
  $function$;

  -- Notes uploads that no row names, in a part of the bucket each time. Folders that are nobody's are not ours. Returns up to
  -- where.
  create function watcher.note_unnamed(p_after text) returns text
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    -- By hashing: a user may have thousands of rows.
    with part as (
      select o.id, o.name, watcher.folder_user(split_part(o.name, '/', 1)) as owner from storage.objects o
      where o.bucket_id = 'identity-images' and o.name > p_after order by o.name limit 1000
    ), nameless as materialized (
      select name from part where owner is not null
      except
      select unnest(t.image_paths) from public.trained_identities t where t.user_id in (select owner from part)
    ), unnamed as (
      select part.id from part
      where part.name in (select name from nameless)
        and not exists (select from watcher.erase_lines l where l.object_id = part.id)
    ), named_again as (
      delete from watcher.unnamed_objects where object_id in (select id from part except select id from unnamed)
    ), noticed as (
      insert into watcher.unnamed_objects (object_id) select id from unnamed on conflict do nothing
    )
    select case when count(*) = 1000 then max(name) else '' end from part
  $function$;

  -- Uploads that no row has named for a week. Those of many users at once look as if the rows were missing.
  create function watcher.sweep_unnamed(inout p_state watcher.sweep)
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    at_once constant integer := 100;
    owners uuid[];
    late record;
    erasure uuid;
  begin
    delete from watcher.unnamed_objects u
    where u.seen_at < now() - interval '8 days' and not exists (select from storage.objects o where o.id = u.object_id);
    p_state.held_uploads := null;
    if not watcher.erases('photos') then
      p_state.confirmed_uploads := 0;
      return;
    end if;
    select coalesce(array_agg(distinct watcher.folder_user(split_part(o.name, '/', 1))), '{}') into owners
    from watcher.unnamed_objects u join storage.objects o on o.id = u.object_id
    where u.seen_at < now() - interval '7 days'
      and not exists (select from watcher.erase_lines l where l.object_id = o.id);
    if cardinality(owners) > p_state.confirmed_uploads
      and watcher.looks_like_a_restore(cardinality(owners), (select count(*) from auth.users))
    then
      p_state.held_uploads := cardinality(owners);
      return;
    end if;
    for late in
      select owner, array_agg(name) as names
      from (
        select watcher.folder_user(split_part(o.name, '/', 1)) as owner, o.name
        from watcher.unnamed_objects u join storage.objects o on o.id = u.object_id
        where u.seen_at < now() - interval '7 days'
          and not exists (select from watcher.erase_lines l where l.object_id = o.id)
      ) uploads
      where owner = any (owners[1:at_once]) group by owner
    loop
      erasure := gen_random_uuid();
      perform watcher.open_erasure(erasure, 'folder', late.owner);
      perform watcher.list_photos(erasure, late.names, now());
      perform watcher.queue_erasure(erasure);
    end loop;
    p_state.confirmed_uploads := greatest(least(p_state.confirmed_uploads, cardinality(owners)) - at_once, 0);
  end
  $function$;

  -- Rows that are older than their receipt were restored from a backup: they are erased again.
  create function watcher.sweep_restored() returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    select watcher.sweep_one(user_id, id) from (
      select t.user_id, t.id from watcher.erasures e join public.trained_identities t on t.id = e.identity_id
      where e.cause = 'row' and e.finished_at is not null and t.created_at < e.requested_at order by random() limit 100
    ) restored
  $function$;

  -- What was kept for long enough: ended attempts for 90 days; receipts and digests for 400.
  create function watcher.sweep_history() returns void
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    delete from watcher.attempts where number in (
      select a.number from watcher.attempts a
      where a.ended_at < now() - interval '90 days' limit 1000);
    delete from watcher.erasures where identity_id in (
      select identity_id from watcher.erasures where finished_at < now() - interval '400 days' limit 1000);
    delete from watcher.departures where digest in (
      select digest from watcher.departures where departed_at < now() - interval '400 days' limit 1000);
    delete from watcher.used_names u where u.digest in (
        select digest from watcher.used_names where used_at < now() - interval '400 days' limit 1000)
      and not exists (select from watcher.names n where watcher.name_digest(n.model_id) = u.digest);
  $function$;

  create function watcher.swept(p_result text) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select jsonb_build_object('result', p_result, 'held_users', held_users, 'held_names', held_names,
      'held_uploads', held_uploads, 'failed', failed) from watcher.sweep
  $function$;

  -- Sweeps once and ends the attempt; the next one is due in watcher.sweep_seconds(). It leaves no entry in the history.
  -- Returns {"result": "done" or "lost", "held_users": n or null, "held_names": n or null, "held_uploads": n or null,
  -- "failed": n}.
  create function public.watcher_sweep(p_attempt bigint) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    mine record;
    state watcher.sweep;
    confirmed_uploads integer;
    began timestamptz;
  begin
    select * into mine from watcher.lock_attempt(p_attempt);
    insert into watcher.sweep default values on conflict do nothing;  -- if somebody has emptied the table
    select * into strict state from watcher.sweep for update;
    if not mine.held or mine.kind <> 'sweep' then
      return watcher.swept(case when exists (
        select from watcher.work w where w.kind = 'sweep' and w.waited = p_attempt) then 'done' else 'lost' end);
    end if;
    update watcher.sweep set failed = 0, failed_because = null;
    perform watcher.sweep_restored();
    perform watcher.sweep_soft_deleted();
    state.after_object := watcher.note_unnamed(state.after_object);
    if state.next_scan_at <= now() then
      began := clock_timestamp();
      state := watcher.sweep_missing_users(state);
      state := watcher.sweep_missing_rows(state);
      confirmed_uploads := state.confirmed_uploads;
      state := watcher.sweep_unnamed(state);
      state.held_uploads := greatest(state.held_uploads, watcher.sweep_samples(confirmed_uploads));
      state.held_since := case when coalesce(state.held_users, state.held_names, state.held_uploads) is not null
        then coalesce(state.held_since, now()) end;
      -- At most a hundredth of the time is spent on it.
      state.next_scan_at := now() + 100 * (clock_timestamp() - began);
    end if;
    perform watcher.sweep_history();
    if coalesce(state.held_users, state.held_names, state.held_uploads) is null then
      perform watcher.sweep_trainings();
    end if;
    perform watcher.sweep_notifications();
    update watcher.sweep set
      held_users = state.held_users, held_names = state.held_names, held_uploads = state.held_uploads,
      held_since = state.held_since, confirmed_users = state.confirmed_users, confirmed_names = state.confirmed_names,
      confirmed_uploads = state.confirmed_uploads, after_object = state.after_object, next_scan_at = state.next_scan_at,
      swept_at = now();
    delete from watcher.attempts where number = p_attempt;
    update watcher.work set
      turn_at = null, next_at = now() + make_interval(secs => watcher.sweep_seconds()), isolated_for = null, waited = p_attempt,
      spent = 0, crashes = 0, shutdowns = 0, unsures = 0, lost_answers = 0, last_reason = null
    where id = mine.work_id;
    return watcher.swept('done');
  end
  $function$;


  -- For the operator.

  -- Erases all that is known of a user, whether the account is still there or not, and whatever the settings keep. A dry run
  -- only counts. Returns {"rows": n, "repos": n, "photos": n, "limits": n, "open": n, "account": boolean, "erasures": [...]}:
  -- "repos" has those that are to go later, too, "limits" what is kept of the user's limits and their use.
  create function public.watcher_forget(p_user uuid, p_dry_run boolean default false) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    found jsonb;
  begin
    select jsonb_build_object(
      'rows', (select count(*) from public.trained_identities where user_id = p_user),
      'repos', (select count(*) from watcher.names n
          join public.trained_identities t on t.id = n.identity_id where t.user_id = p_user)
        + (select count(*) from watcher.kept_names(p_user))
        + (select count(*) from watcher.postponed_lines(p_user) where what = 'repo'),
      'photos', (select count(*) from storage.objects o
        where o.bucket_id = 'identity-images' and o.name ~>=~ (p_user || '/') and o.name ~<~ (p_user || '0')),
      'limits', (select count(*) from watcher.limits where user_id = p_user)
        + (select count(*) from watcher.usage where user_id = p_user)
        + (select count(*) from watcher.retries where user_id = p_user),
      'open', (select count(*) from watcher.erasures where owner_id = p_user),
      'account', exists (select from auth.users where id = p_user and deleted_at is null),
      'erasures', '[]'::jsonb
    ) into found;
    if not p_dry_run then
      found := found || jsonb_build_object('erasures', watcher.erase_user(p_user, 'forget', true) -> 'erasures');
      -- Only a deletion of the account that is not soft takes these along.
      delete from watcher.limits where user_id = p_user;
      delete from watcher.usage where user_id = p_user;
      delete from watcher.retries where user_id = p_user;
      if not exists (select from auth.users where id = p_user) then
        insert into watcher.departures (digest) values (watcher.user_digest(p_user)) on conflict do nothing;
      end if;
    end if;
    return found;
  end
  $function$;

  -- "overdue_seconds": for how long something has been due to be erased; 0 if nothing is.
  create function watcher.erasing_summary() returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select jsonb_build_object(
      'open', o.number, 'overdue_seconds', o.overdue_seconds,
      'held_users', s.held_users, 'held_names', s.held_names, 'held_uploads', s.held_uploads,
      'failed', s.failed, 'failed_because', s.failed_because,
      'swept_seconds_ago', extract(epoch from now() - s.swept_at)
    )
    from watcher.sweep s, (
      select count(*) as number, greatest(extract(epoch from now() - min(due_since)), 0) as overdue_seconds
      from watcher.open_erasures()
    ) o
  $function$;

  -- The open erasures, the longest due first, with why they wait; the last receipts; what the sweep holds back; the settings.
  create function public.watcher_erasures(p_limit integer default 100) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    with shown as (
      select e.*, o.due_since, w.spent, w.last_reason, extract(epoch from now() - e.requested_at) as age_seconds,
        greatest(extract(epoch from w.next_at - now()), 0) as due_in_seconds,
        (select count(*) from watcher.erase_lines l
          where l.identity_id = e.identity_id and l.what = 'repo' and l.gone_at is null) as repos_left,
        (select count(*) from watcher.erase_lines l
          where l.identity_id = e.identity_id and l.what in ('photo', 'sample') and l.gone_at is null) as photos_left,
        (select count(*) from watcher.erase_lines l
          where l.identity_id = e.identity_id and l.what = 'job' and l.gone_at is null) as jobs_left,
        (select count(*) from watcher.erase_lines l
          where l.identity_id = e.identity_id and l.gone_at is not null) as to_look_again
      from watcher.open_erasures() o join watcher.erasures e on e.identity_id = o.identity_id
      left join watcher.work w on w.identity_id = e.identity_id and w.kind = 'erase'
      order by o.due_since limit least(greatest(p_limit, 0), 1000)
    )
    select jsonb_build_object(
      'open', (select coalesce(jsonb_agg(jsonb_build_object(
          'id', s.identity_id, 'cause', s.cause, 'age_seconds', s.age_seconds, 'repos_left', s.repos_left,
          'photos_left', s.photos_left, 'jobs_left', s.jobs_left, 'to_look_again', s.to_look_again, 'spent', s.spent, 'last_reason', s.last_reason,
          'due_in_seconds', s.due_in_seconds) order by s.due_since), '[]') from shown s),
      'receipts', (select coalesce(jsonb_agg(jsonb_build_object(
          'id', r.identity_id, 'cause', r.cause, 'requested_at', r.requested_at, 'finished_at', r.finished_at,
          'seconds', extract(epoch from r.finished_at - r.requested_at), 'repos', r.repos, 'photos', r.photos,
          'attempts', r.attempts, 'closed_because', r.closed_because) order by r.finished_at desc), '[]')
        from (select * from watcher.erasures where finished_at is not null
          order by finished_at desc limit least(greatest(p_limit, 0), 100000)) r),
      'summary', watcher.erasing_summary(),
      'settings', jsonb_build_object('repos', watcher.erases('repos'), 'photos', watcher.erases('photos'),
        'after_seconds', 3600 * watcher.limit_of('erase_after_hours')),
      'namespaces', (select coalesce(jsonb_agg(distinct split_part(l.name, '/', 1)), '[]')
        from watcher.erase_lines l where l.what = 'repo'),
      'versioning', (select to_jsonb(b) ->> 'versioning_status' from storage.buckets b where b.id = 'identity-images'),
      'accounts_gone', exists (select from watcher.erasures where account_gone)
    )
  $function$;

  -- Closes an erasure of which something cannot be reached. Returns whether it was open.
  create function public.watcher_close_erasure(p_id uuid, p_because text) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  begin
    if coalesce(btrim(p_because), '') = '' then
      raise exception using errcode = 'invalid_parameter_value', message = 'An erasure is closed with a reason.';
    end if;
    perform from public.trained_identities where id = p_id for update;
    perform from watcher.work where identity_id = p_id and kind = 'erase' for update;
    perform from watcher.erasures where identity_id = p_id and finished_at is null;
    if not found then
      return false;
    end if;
    update watcher.attempts set ended_at = now(), outcome = 'revoked', reason = 'The erasure was closed by the operator.'
    where identity_id = p_id and kind = 'erase' and ended_at is null;
    delete from watcher.names n using watcher.erase_lines l
    where l.identity_id = p_id and l.what = 'repo' and n.model_id = l.name;
    -- A job that was not seen to have ended may cost all that was reserved for it.
    update watcher.trainings n set spent_usd = n.reserved_usd from watcher.erase_lines l
    where l.identity_id = p_id and l.what = 'job' and n.label = split_part(l.name, '/', 2) and n.spent_usd is null;
    perform watcher.finish_erasure(p_id, null, p_because);
    return true;
  end
  $function$;

  -- Lets the next sweeps erase what is held back. Returns what that is: {"users": n, "names": n, "uploads": n}.
  create function public.watcher_confirm_sweep() returns jsonb
  language sql security definer set search_path = pg_catalog, pg_temp as $function$
    update watcher.sweep set
      confirmed_users = coalesce(held_users, confirmed_users), confirmed_names = coalesce(held_names, confirmed_names),
      confirmed_uploads = coalesce(held_uploads, confirmed_uploads), next_scan_at = now()
    returning jsonb_build_object('users', coalesce(held_users, 0), 'names', coalesce(held_names, 0),
      'uploads', coalesce(held_uploads, 0))
  $function$;

  -- Adds receipts that a restored backup has lost: rows under these ids that are older than now are erased again.
  create function public.watcher_restore_receipts(p_ids uuid[]) returns integer
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
  declare
    added integer;
  begin
    insert into watcher.erasures (identity_id, cause, finished_at)
    select distinct id, 'row', now() from unnest(p_ids) id where id is not null
    on conflict (identity_id) do nothing;
    get diagnostics added = row_count;
    return added;
  end
  $function$;

  -- What is known of a user, but for attempts at rows that were deleted.
  create function public.watcher_export(p_user uuid) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select jsonb_build_object(
      'user_id', p_user,
      'account_exists', exists (select from auth.users where id = p_user),
      'rows', (select coalesce(jsonb_agg(to_jsonb(t) order by t.created_at), '[]')
        from public.trained_identities t where t.user_id = p_user),
      'attempts', (select coalesce(jsonb_agg(to_jsonb(a) order by a.number), '[]')
        from watcher.attempts a join public.trained_identities t on t.id = a.identity_id where t.user_id = p_user),
      'repos', (select coalesce(jsonb_agg(jsonb_build_object(
          'name', n.model_id, 'identity_id', n.identity_id, 'reserved_at', n.reserved_at) order by n.reserved_at), '[]')
        from watcher.names n where n.identity_id in (
          select id from public.trained_identities where user_id = p_user
          union select identity_id from watcher.erasures where owner_id = p_user)
          or n.owner_digest = watcher.user_digest(p_user)),
      'trainings', (select coalesce(jsonb_agg(to_jsonb(n) order by n.number), '[]')
        from watcher.trainings n join public.trained_identities t on t.id = n.identity_id where t.user_id = p_user),
      'objects', (select coalesce(jsonb_agg(jsonb_build_object(
          'bucket', o.bucket_id, 'name', o.name, 'created_at', o.created_at, 'metadata', o.metadata)
          order by o.bucket_id, o.name), '[]')
        from storage.objects o
        where o.bucket_id in ('identity-images', 'identity-samples') and o.name ~>=~ (p_user || '/') and o.name ~<~ (p_user || '0')),
      'open_erasures', (select coalesce(jsonb_agg(jsonb_build_object(
          'id', e.identity_id, 'cause', e.cause, 'requested_at', e.requested_at,
          'lines', (select coalesce(jsonb_agg(jsonb_build_object('what', l.what, 'name', l.name) order by l.id), '[]')
            from watcher.erase_lines l where l.identity_id = e.identity_id)) order by e.requested_at), '[]')
        from watcher.erasures e where e.owner_id = p_user),
      'limits', (select coalesce(jsonb_object_agg(l.name, l.value), '{}') from watcher.limits l where l.user_id = p_user),
      'usage', (select coalesce(jsonb_agg(jsonb_build_object(
          'hour', u.hour, 'rows', u.rows, 'retries', u.retries, 'trainings', u.trainings) order by u.hour), '[]')
        from watcher.usage u where u.user_id = p_user),
      'retries', (select coalesce(jsonb_agg(jsonb_build_object(
          'identity_id', r.identity_id, 'retried_at', r.retried_at, 'waits_until', r.waits_until) order by r.retried_at), '[]')
        from watcher.retries r where r.user_id = p_user)
    )
  $function$;

  -- What `watcher status` shows; see watcher.publish_status. p_failed: how many failed rows to list, 10,000 at most.
  create function public.watcher_status(
    p_user uuid default null,
    p_since timestamptz default null,
    p_within_seconds double precision default null,
    p_failed integer default 10
  ) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select watcher.publish_status(p_user,
        coalesce(p_since, now() - make_interval(secs => p_within_seconds)),
        least(greatest(coalesce(p_failed, 10), 0), 10000))
      || jsonb_build_object(
        'erasing', watcher.erasing_summary(), 'training', watcher.training_summary(), 'paused', watcher.pauses_now())
  $function$;

  -- What `watcher show` shows, or null if there is no such row; see watcher.publish_story and watcher.training_story.
  create function public.watcher_story(p_id uuid) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select watcher.publish_story(p_id) || jsonb_build_object('training', watcher.training_story(p_id))
  $function$;


  perform watcher.close_verbs();

  insert into watcher.migrations (version) values ('20261122100250');
end
$migration$;
