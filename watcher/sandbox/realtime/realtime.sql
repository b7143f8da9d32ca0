-- Functions that Realtime calls for each change. They last as long as the session that polls the slot.

-- Convert a value in text form to JSON.
create function pg_temp.json_of(value text, type regtype) returns jsonb language plpgsql as $$
declare
    result jsonb;
begin
    if value is null then
        return 'null';
    elsif type = 'bytea'::regtype then
        return to_jsonb(substr(value, 3));
    end if;
    execute format('select to_jsonb(%L::%s)', value, type) into result;
    return result;
end
$$;

-- Return whether a value passes a filter; null if the value is null.
create function pg_temp.passes(op text, type regtype, value text, operand text, negated boolean)
returns boolean language plpgsql as $$
declare
    result boolean;
begin
    execute case op
        when 'is' then format('select %L::%s is %s', value, type, operand)
        when 'isdistinct' then format('select %L::%s is distinct from %L::%2$s', value, type, operand)
        when 'in' then format('select %L::%s = any (%L::%2$s[])', value, type, operand)
        else format(
            'select %L::%s %s %L::%2$s', value, type,
            case op
                when 'eq' then '=' when 'neq' then '<>' when 'lt' then '<' when 'lte' then '<='
                when 'gt' then '>' when 'gte' then '>=' when 'like' then 'like' when 'ilike' then 'ilike'
                when 'match' then '~' when 'imatch' then '~*'
            end,
            operand)
        end into result;
    return result <> negated;
end
$$;

-- Execute a statement, and return its error, if any. An error that reached the session would end its temporary slot.
create function pg_temp.problem(statement text, out state text, out message text) language plpgsql as $$
begin
    execute statement;
exception when others then
    state = sqlstate;
    message = sqlerrm;
end
$$;

-- Return the size of a change as wal2json writes it for the real server, which trims a change above a limit.
create function pg_temp.size(
    entity oid, action text, names text[], texts text[], old_names text[], old_texts text[]
) returns int language sql as $$
    with given (part, name, value) as (
        select 'columns', * from unnest(names, texts)
        union all
        select 'identity', * from unnest(old_names, old_texts) where action <> 'INSERT'
    ), parts (part, columns) as (
        select part, jsonb_agg(jsonb_build_object(
            'name', name, 'type', format_type(atttypid, atttypmod), 'typeoid', atttypid::bigint,
            'value', case
                when typcategory in ('N', 'B') or atttypid = 'bytea'::regtype then pg_temp.json_of(value, atttypid)
                else to_jsonb(value)
            end))
        from given join pg_attribute on attrelid = entity and attname = name join pg_type on pg_type.oid = atttypid
        group by part
    ), keys (key) as (
        select jsonb_agg(jsonb_build_object('name', attname, 'type', format_type(atttypid, atttypmod),
            'typeoid', atttypid::bigint))
        from pg_index join pg_attribute on attrelid = indrelid and attnum = any (indkey)
        where indrelid = entity and indisprimary
    )
    select octet_length(((select jsonb_object_agg(part, columns) from parts) || jsonb_build_object(
        'action', left(action, 1), 'schema', nspname, 'table', relname, 'pk', key,
        'timestamp', '2026-11-22 14:45:28.106000+00'))::text)
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace, keys where pg_class.oid = entity
$$;

-- Return the selected columns of a row (null: all) and the key, as far as `reader` may see them; of a row that is too
-- large only the short values.
create function pg_temp.visible_columns(
    entity oid, names text[], texts text[], reader text, chosen text[], key_only boolean, short_only boolean
) returns jsonb language sql as $$
    select coalesce(jsonb_object_agg(attname, value), '{}')
    from unnest(names, texts) as given (name, text)
    join pg_attribute on attrelid = entity and attname = given.name
    left join pg_index on indrelid = entity and indisprimary,
    pg_temp.json_of(given.text, atttypid) as value,
    coalesce(attnum = any (indkey), false) as in_key
    where has_column_privilege(reader, entity, attnum, 'select')
      and (chosen is null or attname = any (chosen) or in_key)
      and (in_key or not key_only)
      and (not short_only or octet_length(value::text) <= 64)
$$;

-- Return the event of a change for subscribers of one role that selected the same columns, and whether row-level security
-- applies. The spaces in the text are those of the real server, since clients limit the length of a frame.
create function pg_temp.event(
    entity oid, action text, committed timestamptz, reader text, chosen text[],
    names text[], texts text[], old_names text[], old_texts text[], out data text, out rls boolean, out key text[]
) language plpgsql as $$
declare
    rights boolean[];
    problem text;
    stamp text = 'null';
    too_large boolean = pg_temp.size(entity, action, names, texts, old_names, old_texts) > 1024 * 1024;
    shown jsonb = '[]';
    new_row jsonb;
    old_row jsonb;
begin
    select relrowsecurity into strict rls from pg_class where oid = entity;
    select array_agg(attname order by attnum), array_agg(has_column_privilege(reader, entity, attnum, 'select'))
    into key, rights
    from pg_index join pg_attribute on attrelid = indrelid and attnum = any (indkey)
    where indrelid = entity and indisprimary;

    if action <> 'DELETE' and key is null then
        problem = 'Error 400: Bad Request, no primary key';
    elsif action <> 'DELETE' and not true = all (rights) then
        problem = 'Error 401: Unauthorized';
    end if;
    if problem is not null then
        key = null;
        new_row = '{}';
        old_row = case action when 'UPDATE' then '{}' end;
    else
        stamp = to_json(to_char(committed at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'));
        select coalesce(jsonb_agg(jsonb_build_object('name', attname, 'type', typname) order by attnum), '[]') into shown
        from pg_attribute join pg_type on pg_type.oid = atttypid
        where attrelid = entity and attnum > 0 and not attisdropped
          and has_column_privilege(reader, entity, attnum, 'select')
          and (chosen is null or attname = any (chosen) or attname = any (key));
        if action <> 'DELETE' then
            new_row = pg_temp.visible_columns(entity, names, texts, reader, chosen, false, too_large);
        end if;
        if action <> 'INSERT' then
            old_row = pg_temp.visible_columns(
                entity, old_names, old_texts, reader, chosen, action = 'DELETE' and rls, too_large);
        end if;
        problem = case when too_large then 'Error 413: Payload Too Large' end;
    end if;

    select concat(
        '{"table":', to_json(relname), ',"type":', to_json(action), ',"record":' || new_row::text, ',"columns":', shown,
        ',"errors":', case when problem is null then 'null' else to_json(array[problem])::text end, ',"schema":', to_json(nspname),
        ',"commit_timestamp":', stamp, ',"old_record":' || old_row::text, '}')
    into data
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace where pg_class.oid = entity;
end
$$;
