-- What Realtime asks of Postgres for each change. These live as long as the session that polls the slot.

-- A value as JSON, from the text of its type.
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

-- Does a value pass a filter? Null if it cannot be told.
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

-- The columns of a row that `reader` may see, of those chosen (null: all) and the key; of a row that is too large only
-- what is short.
create function pg_temp.seen(
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

-- A change as those of one role see it who chose the same columns; and whether row-level security has a say.
create function pg_temp.told(
    entity oid, action text, committed timestamptz, reader text, chosen text[], too_large boolean,
    names text[], texts text[], old_names text[], old_texts text[], out data jsonb, out secured boolean, out key text[]
) language plpgsql as $$
declare
    rights boolean[];
    problem text;
    shown jsonb;
begin
    select relrowsecurity into strict secured from pg_class where oid = entity;
    select array_agg(attname order by attnum), array_agg(has_column_privilege(reader, entity, attnum, 'select'))
    into key, rights
    from pg_index join pg_attribute on attrelid = indrelid and attnum = any (indkey)
    where indrelid = entity and indisprimary;

    select jsonb_build_object('schema', nspname, 'table', relname, 'type', action) into data
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace where pg_class.oid = entity;

    if action <> 'DELETE' and key is null then
        problem = 'Error 400: Bad Request, no primary key';
    elsif action <> 'DELETE' and not true = all (rights) then
        problem = 'Error 401: Unauthorized';
    end if;
    if problem is not null then
        data = data || jsonb_build_object(
            'record', '{}'::jsonb, 'columns', '[]'::jsonb, 'commit_timestamp', null, 'errors', array[problem]);
        if action = 'UPDATE' then
            data = data || '{"old_record": {}}';
        end if;
        key = null;
        return;
    end if;

    select coalesce(jsonb_agg(jsonb_build_object('name', attname, 'type', typname) order by attnum), '[]') into shown
    from pg_attribute join pg_type on pg_type.oid = atttypid
    where attrelid = entity and attnum > 0 and not attisdropped
      and has_column_privilege(reader, entity, attnum, 'select')
      and (chosen is null or attname = any (chosen) or attname = any (key));
    data = data || jsonb_build_object(
        'columns', shown,
        'commit_timestamp', to_char(committed at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'errors', case when too_large then array['Error 413: Payload Too Large'] end);
    if action <> 'DELETE' then
        shown = pg_temp.seen(entity, names, texts, reader, chosen, false, too_large);
        data = data || jsonb_build_object('record', shown);
    end if;
    if action <> 'INSERT' then
        shown = pg_temp.seen(
            entity, old_names, old_texts, reader, chosen, action = 'DELETE' and secured, too_large);
        data = data || jsonb_build_object('old_record', shown);
    end if;
end
$$;
