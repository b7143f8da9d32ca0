"""Who may join a private channel: whom a policy on realtime.messages lets read a message of its topic, as on Realtime."""

import json

import psycopg

from watcher.sandbox.database import Database
from watcher.sandbox.keys import Caller

_ENTER = """
select set_config('role', %(role)s, true), set_config('realtime.topic', %(topic)s, true),
       set_config('request.jwt.claims', %(claims)s, true)
"""


async def may_read(database: Database, caller: Caller, topic: str) -> bool:
    """Return whether a message that nobody sent would be visible to the caller; it is rolled back."""
    asked = {"role": caller.role, "topic": topic, "claims": json.dumps(caller.claims)}
    try:
        async with database.admin() as cursor, cursor.connection.transaction(force_rollback=True):
            await cursor.execute(
                "insert into realtime.messages (topic, extension) values (%s, 'broadcast') returning id",
                [topic],
            )
            row = await cursor.fetchone()
            await cursor.execute(_ENTER, asked)
            await cursor.execute("select from realtime.messages where id = %s", row)
            return cursor.rowcount == 1
    except psycopg.DatabaseError:
        return False  # a policy that fails, or a role that there is not
