-- What a new Supabase project has: roles, schemas, grants, publication.
-- Run once in each database by the superuser supabase_admin, in one transaction. Roles belong to the whole cluster, so
-- they may have been created for another database. With the setting sandbox.auto_expose, default privileges in `public`
-- are those of an older project.

-- Roles ------------------------------------------------------------------------------------------------------------

-- Two databases may be set up at the same time, and concurrent ALTER ROLEs fail instead of waiting.
lock table pg_catalog.pg_authid in share row exclusive mode;

do $roles$
declare
    wanted record;
begin
    for wanted in
        select * from (values
            ('postgres', 'login createdb createrole replication bypassrls'),
            ('anon', 'nologin noinherit'),
            ('authenticated', 'nologin noinherit'),
            ('service_role', 'nologin noinherit bypassrls'),
            ('authenticator', 'login noinherit'),
            ('supabase_auth_admin', 'login noinherit createrole'),
            ('supabase_storage_admin', 'login noinherit createrole'),
            ('supabase_realtime_admin', 'nologin noinherit'),
            ('supabase_replication_admin', 'login replication'),
            ('supabase_read_only_user', 'login bypassrls'),
            ('dashboard_user', 'nologin createdb createrole replication')
        ) as roles (name, options)
    loop
        if not exists (select from pg_catalog.pg_roles where rolname = wanted.name) then
            execute format('create role %I with %s password %L', wanted.name, wanted.options,
                current_setting('sandbox.password'));
        end if;
    end loop;

    if not exists (select from pg_catalog.pg_db_role_setting where setrole = 'authenticator'::regrole) then
        grant anon, authenticated, service_role to authenticator;
        grant authenticator to supabase_storage_admin;
        grant supabase_realtime_admin to postgres;
        grant anon, authenticated, service_role to postgres with admin option;
        grant pg_read_all_data to supabase_read_only_user;
        grant pg_monitor, pg_signal_backend to postgres;
        -- On Supabase, `postgres` can create policies on storage's tables without owning them, which plain Postgres does
        -- not allow. Membership does, and allows more, which the event triggers below forbid again.
        grant supabase_storage_admin to postgres;

        alter role supabase_admin set search_path = public, extensions;
        alter role postgres set search_path = "$user", public, extensions;
        alter role supabase_auth_admin set search_path = auth;
        alter role supabase_auth_admin set idle_in_transaction_session_timeout = 60000;
        alter role supabase_storage_admin set search_path = storage;
        alter role anon set statement_timeout = '3s';
        alter role authenticated set statement_timeout = '8s';
        alter role authenticator set statement_timeout = '8s';
        alter role authenticator set lock_timeout = '8s';
    end if;
end
$roles$;

-- The database and `public` ----------------------------------------------------------------------------------------

do $$ begin execute format('alter database %I owner to postgres', current_database()); end $$;

grant usage on schema public to postgres, anon, authenticated, service_role;

alter default privileges for role postgres in schema public
    grant all on tables to anon, authenticated, service_role;
alter default privileges for role postgres in schema public
    grant all on sequences to anon, authenticated, service_role;
alter default privileges for role postgres in schema public
    grant all on functions to anon, authenticated, service_role;

-- In new projects exactly these are revoked. TRUNCATE, REFERENCES and TRIGGER on tables, UPDATE on sequences, and what
-- PUBLIC has (EXECUTE on every function) remain.
do $defaults$
begin
    if not current_setting('sandbox.auto_expose')::boolean then
        alter default privileges for role postgres in schema public
            revoke select, insert, update, delete on tables from anon, authenticated, service_role;
        alter default privileges for role postgres in schema public
            revoke usage, select on sequences from anon, authenticated, service_role;
        alter default privileges for role postgres in schema public
            revoke execute on functions from anon, authenticated, service_role;
    end if;
end
$defaults$;

create schema extensions authorization postgres;
grant usage on schema extensions to anon, authenticated, service_role;
create schema graphql_public;
grant usage on schema graphql_public to postgres, anon, authenticated, service_role;
create schema realtime authorization supabase_realtime_admin;
grant usage on schema realtime to postgres, anon, authenticated, service_role;

create publication supabase_realtime;
alter publication supabase_realtime owner to postgres;

-- Its policies decide who may join a private channel. Nothing is sent: the sandbox does not imitate broadcast.
set local role supabase_realtime_admin;

create table realtime.messages (
    id uuid not null default gen_random_uuid(),
    topic text not null,
    extension text not null,
    payload jsonb,
    event text,
    private boolean default false,
    updated_at timestamp not null default now(),
    inserted_at timestamp not null default now(),
    primary key (id, inserted_at)
);
alter table realtime.messages enable row level security;
grant select, insert, update on realtime.messages to postgres, anon, authenticated, service_role;

create function realtime.topic() returns text language sql stable as $$
    select nullif(current_setting('realtime.topic', true), '')
$$;

create function realtime.send(payload jsonb, event text, topic text, private boolean default true) returns void
language plpgsql as $$
begin
    raise exception 'The sandbox does not imitate broadcast.' using errcode = 'feature_not_supported';
end
$$;

create function realtime.broadcast_changes(
    topic_name text, event_name text, operation text, table_name text, table_schema text, new record, old record,
    level text default 'ROW'
) returns void language plpgsql as $$
begin
    raise exception 'The sandbox does not imitate broadcast.' using errcode = 'feature_not_supported';
end
$$;

reset role;

-- auth -------------------------------------------------------------------------------------------------------------

create schema auth authorization supabase_auth_admin;
grant usage on schema auth to anon, authenticated, service_role, postgres, dashboard_user;

set local role supabase_auth_admin;

create table auth.users (
    instance_id uuid,
    id uuid primary key,
    aud varchar(255),
    role varchar(255),
    email varchar(255),
    encrypted_password varchar(255),
    email_confirmed_at timestamptz,
    invited_at timestamptz,
    confirmation_token varchar(255),
    confirmation_sent_at timestamptz,
    recovery_token varchar(255),
    recovery_sent_at timestamptz,
    email_change_token_new varchar(255),
    email_change varchar(255),
    email_change_sent_at timestamptz,
    last_sign_in_at timestamptz,
    raw_app_meta_data jsonb,
    raw_user_meta_data jsonb,
    is_super_admin boolean,
    created_at timestamptz,
    updated_at timestamptz,
    phone text unique default null,
    phone_confirmed_at timestamptz,
    phone_change text default '',
    phone_change_token varchar(255) default '',
    phone_change_sent_at timestamptz,
    confirmed_at timestamptz generated always as (least(email_confirmed_at, phone_confirmed_at)) stored,
    email_change_token_current varchar(255) default '',
    email_change_confirm_status smallint default 0 check (email_change_confirm_status between 0 and 2),
    banned_until timestamptz,
    reauthentication_token varchar(255) default '',
    reauthentication_sent_at timestamptz,
    is_sso_user boolean not null default false,
    deleted_at timestamptz,
    is_anonymous boolean not null default false
);
create unique index users_email_partial_key on auth.users (email) where is_sso_user = false;

create table auth.identities (
    provider_id text not null,
    user_id uuid not null references auth.users on delete cascade,
    identity_data jsonb not null,
    provider text not null,
    last_sign_in_at timestamptz,
    created_at timestamptz,
    updated_at timestamptz,
    email text generated always as (lower(identity_data ->> 'email')) stored,
    id uuid primary key default gen_random_uuid(),
    unique (provider_id, provider)
);
create index identities_user_id_idx on auth.identities (user_id);

create table auth.sessions (
    id uuid primary key,
    user_id uuid not null references auth.users on delete cascade,
    created_at timestamptz,
    updated_at timestamptz,
    aal text default 'aal1',
    not_after timestamptz,
    refreshed_at timestamp,
    user_agent text,
    ip inet
);
create index sessions_user_id_idx on auth.sessions (user_id);

create table auth.refresh_tokens (
    instance_id uuid,
    id bigserial primary key,
    token varchar(255) unique,
    user_id varchar(255),
    revoked boolean,
    created_at timestamptz,
    updated_at timestamptz,
    parent varchar(255),
    session_id uuid references auth.sessions on delete cascade
);
create index refresh_tokens_session_id_revoked_idx on auth.refresh_tokens (session_id, revoked);

create function auth.jwt() returns jsonb language sql stable as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')
    )::jsonb
$$;

create function auth.uid() returns uuid language sql stable as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
    )::uuid
$$;

create function auth.role() returns text language sql stable as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim.role', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
    )
$$;

create function auth.email() returns text language sql stable as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim.email', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'
    )
$$;

alter table auth.users enable row level security;
alter table auth.identities enable row level security;
alter table auth.sessions enable row level security;
alter table auth.refresh_tokens enable row level security;

grant all on all tables in schema auth to dashboard_user, postgres;
grant select on all tables in schema auth to postgres with grant option;
grant all on all sequences in schema auth to dashboard_user, postgres;
grant all on all functions in schema auth to dashboard_user, postgres;

reset role;

-- storage ----------------------------------------------------------------------------------------------------------

create schema storage authorization supabase_storage_admin;
grant usage on schema storage to anon, authenticated, service_role;
grant usage on schema storage to postgres with grant option;

set local role supabase_storage_admin;

create type storage.buckettype as enum ('STANDARD', 'ANALYTICS', 'VECTOR');

create table storage.buckets (
    id text primary key,
    name text not null check (length(name) <= 100),
    owner uuid,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    public boolean default false,
    avif_autodetection boolean default false,
    file_size_limit bigint,
    allowed_mime_types text[],
    owner_id text,
    type storage.buckettype not null default 'STANDARD'
);
create unique index bname on storage.buckets (name);

create table storage.objects (
    id uuid primary key default gen_random_uuid(),
    bucket_id text references storage.buckets,
    name text,
    owner uuid,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    last_accessed_at timestamptz default now(),
    metadata jsonb,
    path_tokens text[] generated always as (string_to_array(name, '/')) stored,
    version text,
    owner_id text,
    user_metadata jsonb,
    archived_at timestamptz,
    is_delete_marker boolean not null default false,
    is_versioned boolean not null default false
);
create unique index bucketid_objname on storage.objects (bucket_id, name);
create index name_prefix_search on storage.objects (name text_pattern_ops);

alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;

create function storage.foldername(name text) returns text[] language sql immutable as $$
    select (string_to_array(name, '/'))[1 : cardinality(string_to_array(name, '/')) - 1]
$$;

create function storage.filename(name text) returns text language sql immutable as $$
    select (string_to_array(name, '/'))[cardinality(string_to_array(name, '/'))]
$$;

create function storage.extension(name text) returns text language sql immutable as $$
    select reverse(split_part(reverse(storage.filename(name)), '.', 1))
$$;

create function storage.operation() returns text language sql stable as $$
    select current_setting('storage.operation', true)
$$;

create function storage.touch() returns trigger language plpgsql as $$
begin
    new.updated_at = now();
    return new;
end
$$;
create trigger update_objects_updated_at before update on storage.objects
    for each row execute function storage.touch();

create function storage.protect_delete() returns trigger language plpgsql as $$
begin
    if coalesce(current_setting('storage.allow_delete_query', true), '') <> 'true' then
        raise exception 'Direct deletion from storage tables is not allowed. Use the Storage API instead.'
            using errcode = '42501',
                  hint = 'This prevents accidental data loss from orphaned objects.';
    end if;
    return null;
end
$$;
create trigger protect_buckets_delete before delete on storage.buckets
    for each statement execute function storage.protect_delete();
create trigger protect_objects_delete before delete on storage.objects
    for each statement execute function storage.protect_delete();

grant all on storage.buckets, storage.objects to anon, authenticated, service_role;
grant all on storage.buckets, storage.objects to postgres with grant option;
grant all on all functions in schema storage to anon, authenticated, service_role, postgres;

reset role;

-- What `postgres` may do to storage's tables ------------------------------------------------------------------------

create function extensions.refuse_storage_ddl() returns event_trigger language plpgsql as $$
declare
    touched text;
begin
    if session_user <> 'postgres' then
        return;
    end if;
    if tg_event = 'sql_drop' then
        select object_identity into touched
        from pg_event_trigger_dropped_objects()
        where original and schema_name = 'storage' and object_type <> 'policy';
    else
        select object_identity into touched
        from pg_event_trigger_ddl_commands()
        where schema_name = 'storage' and command_tag not in ('CREATE POLICY', 'ALTER POLICY', 'CREATE TRIGGER');
    end if;
    if touched is not null then
        raise exception 'must be owner of %', touched using errcode = '42501';
    end if;
end
$$;
alter function extensions.refuse_storage_ddl() owner to supabase_admin;
create event trigger refuse_storage_ddl on ddl_command_end execute function extensions.refuse_storage_ddl();
create event trigger refuse_storage_drop on sql_drop execute function extensions.refuse_storage_ddl();
