-- Permissions: grants per column and function, row-level security, the bucket, and the Realtime publication.
-- Revokes everything before granting, since projects differ in their default privileges.

do $migration$
declare
  verb regprocedure;
begin
  perform pg_advisory_xact_lock(hashtextextended('watcher.migrations', 0));
  if exists (select from watcher.migrations where version = '20261122100300') then
    return;
  end if;


  -- Current grants, policies, triggers, bucket and publication, as Postgres reports them. `watcher doctor` compares them
  -- with those that the migrations create, and needs no database password for that.
  create function public.watcher_catalogue() returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $function$
    select jsonb_build_object(
      'row_security', (select jsonb_object_agg(c.relname, c.relrowsecurity) from pg_catalog.pg_class c
        where c.oid in ('public.trained_identities'::regclass, 'public.watcher_pulse'::regclass, 'storage.objects'::regclass)),
      'published_tables', (select coalesce(jsonb_agg(p.tablename order by p.tablename), '[]')
        from pg_catalog.pg_publication_tables p
        where p.pubname = 'supabase_realtime' and p.schemaname = 'public'
          and p.tablename in ('trained_identities', 'watcher_pulse')),
      'published_events', (select jsonb_build_object('insert', p.pubinsert, 'update', p.pubupdate)
        from pg_catalog.pg_publication p where p.pubname = 'supabase_realtime'),
      'triggers', (select coalesce(jsonb_agg(t.tgname order by t.tgname), '[]') from pg_catalog.pg_trigger t
        where t.tgrelid = 'public.trained_identities'::regclass and not t.tgisinternal and t.tgenabled <> 'D'),
      'policies', (select coalesce(jsonb_agg(jsonb_build_object(
          'table', p.schemaname || '.' || p.tablename, 'name', p.policyname, 'command', p.cmd,
          'permissive', p.permissive = 'PERMISSIVE', 'roles', to_jsonb(p.roles), 'using', p.qual, 'check', p.with_check) order by p.tablename, p.policyname), '[]')
        from pg_catalog.pg_policies p
        where (p.schemaname = 'public' and p.tablename in ('trained_identities', 'watcher_pulse'))
          or (p.schemaname = 'storage' and p.tablename = 'objects')),
      'grants', (select coalesce(jsonb_agg(g.line order by g.line), '[]') from (
        select format('%s %s on %s', case a.grantee when 0 then 'public' else a.grantee::regrole::text end, a.privilege, a.object)
        from (
          select x.grantee, x.privilege_type as privilege, c.oid::regclass::text as object, c.relowner as owner
          from pg_catalog.pg_class c, aclexplode(c.relacl) x
          where c.oid in ('public.trained_identities'::regclass, 'public.watcher_pulse'::regclass)
          union all
          select x.grantee, format('%s (%s)', x.privilege_type, a.attname), c.oid::regclass::text, c.relowner
          from pg_catalog.pg_class c join pg_catalog.pg_attribute a on a.attrelid = c.oid, aclexplode(a.attacl) x
          where c.oid in ('public.trained_identities'::regclass, 'public.watcher_pulse'::regclass)
          union all
          select x.grantee, x.privilege_type, f.proname, f.proowner
          from pg_catalog.pg_proc f, aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) x
          where f.pronamespace = 'public'::regnamespace and starts_with(f.proname, 'watcher_')
        ) a
        where a.grantee <> a.owner
      ) g (line)),
      'bucket', (select jsonb_build_object('public', b.public, 'file_size_limit', b.file_size_limit,
          'allowed_mime_types', to_jsonb(b.allowed_mime_types))
        from storage.buckets b where b.id = 'identity-images'),
      'samples_bucket', (select jsonb_build_object('public', b.public, 'file_size_limit', b.file_size_limit,
          'allowed_mime_types', to_jsonb(b.allowed_mime_types))
        from storage.buckets b where b.id = 'identity-samples')
    )
  $function$;


  -- The private schema is for its owner alone, except the functions in the table's checks, which run as the inserting role.
  revoke all on schema watcher from public, anon, authenticated, service_role;
  revoke all on all tables in schema watcher from public, anon, authenticated, service_role;
  revoke all on all sequences in schema watcher from public, anon, authenticated, service_role;
  revoke all on all functions in schema watcher from public, anon, authenticated, service_role;
  grant execute on function watcher.name_error(text) to authenticated;
  grant execute on function watcher.paths_error(uuid, text[]) to authenticated;
  grant execute on function watcher.image_label(bigint, text) to authenticated;
  grant execute on function watcher.trigger_word_error(text) to authenticated;
  grant execute on function watcher.may_upload(uuid) to authenticated;

  -- The verbs are for the daemon alone.
  for verb in
    select f.oid::regprocedure from pg_catalog.pg_proc f
    where f.pronamespace = 'public'::regnamespace and starts_with(f.proname, 'watcher_')
  loop
    execute format('revoke all on function %s from public, anon, authenticated, service_role', verb);
    execute format('grant execute on function %s to service_role', verb);
  end loop;

  -- Realtime delivers a change to service_role only if that may SELECT the table. All writes go through the verbs.
  revoke all on table public.trained_identities from public, anon, authenticated, service_role;
  revoke all on table public.watcher_pulse from public, anon, authenticated, service_role;
  grant select on table public.trained_identities to service_role;
  grant select on table public.watcher_pulse to service_role;

  grant select, delete on table public.trained_identities to authenticated;
  grant insert (id, user_id, identity_name, image_paths, status, train, trigger_word)
    on table public.trained_identities to authenticated;
  grant update (status, train) on table public.trained_identities to authenticated;


  create policy "Users see their own identities" on public.trained_identities
    for select to authenticated using (user_id = (select auth.uid()));
  create policy "Users ask for an identity of their own" on public.trained_identities
    for insert to authenticated with check (user_id = (select auth.uid()) and status = 'pending');
  -- One policy: the parts of several would be joined with OR, each with each. The guard of transitions leaves of the pairs
  -- only that from failed to pending.
  create policy "Users try their own identities again or have them trained" on public.trained_identities
    for update to authenticated
    using (user_id = (select auth.uid()) and status in ('failed', 'published', 'ready'))
    with check (user_id = (select auth.uid()) and status in ('pending', 'published', 'ready'));
  create policy "Users delete their own identities" on public.trained_identities
    for delete to authenticated using (user_id = (select auth.uid()));
  create policy "The watcher reads its pulse" on public.watcher_pulse
    for select to service_role using (true);


  -- The bucket. No policy for update, so that the images of a row cannot be replaced.
  insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
  values ('identity-images', 'identity-images', false, 20971520, '{image/jpeg,image/png,image/jpg,image/pjpeg}')
  on conflict (id) do update set
    public = excluded.public, file_size_limit = excluded.file_size_limit,
    allowed_mime_types = excluded.allowed_mime_types;

  create policy "Users read their own identity images" on storage.objects
    for select to authenticated
    using (bucket_id = 'identity-images' and (storage.foldername(name))[1] = (select auth.uid())::text);
  create policy "Users upload their own identity images" on storage.objects
    for insert to authenticated
    with check (
      bucket_id = 'identity-images' and (storage.foldername(name))[1] = (select auth.uid())::text
      and watcher.may_upload((select auth.uid()))
    );
  create policy "Users delete their own identity images unless in use" on storage.objects
    for delete to authenticated
    using (
      bucket_id = 'identity-images' and (storage.foldername(name))[1] = (select auth.uid())::text
      and not exists (
        select from public.trained_identities t
        where t.user_id = (select auth.uid()) and t.status in ('pending', 'publishing')
          and objects.name = any (t.image_paths)
      )
    );


  -- The first pictures of a training: the user reads them, the daemon alone writes them.
  insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
  values ('identity-samples', 'identity-samples', false, 10485760, '{image/jpeg,image/png}')
  on conflict (id) do update set
    public = excluded.public, file_size_limit = excluded.file_size_limit,
    allowed_mime_types = excluded.allowed_mime_types;

  create policy "Users see their own samples" on storage.objects
    for select to authenticated
    using (bucket_id = 'identity-samples' and (storage.foldername(name))[1] = (select auth.uid())::text);


  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
  if not (select puballtables from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    alter publication supabase_realtime add table public.trained_identities, public.watcher_pulse;
  end if;

  notify pgrst, 'reload schema';
  insert into watcher.migrations (version) values ('20261122100300');
end
$migration$;
