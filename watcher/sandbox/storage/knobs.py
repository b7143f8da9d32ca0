"""How Storage can misbehave in ways of its own: objects that are not as their rows say. Safe from any thread.

What any service can do (answer 503, be slow, lose an answer) is asked of the faults in front of it.
"""

import threading
from collections import Counter

import psycopg

from watcher.sandbox.storage.bytes import Bytes


class Knobs:
    """At first all at rest: every object is there as soon as it is uploaded, and stays."""

    def __init__(self, dsn: str, folder: Bytes) -> None:
        """Take the superuser's way into the database, and where the bytes are."""
        self._dsn = dsn
        self._bytes = folder
        self._lock = threading.Lock()
        self._hidden: Counter[tuple[str, str]] = Counter()

    def hide(self, bucket: str, key: str, times: int = 1) -> None:
        """Answer so many downloads, HEADs and infos of an object as if it were not there yet; 0 shows it."""
        with self._lock:
            self._hidden[bucket, key] = times

    def lose_bytes(self, bucket: str, key: str) -> None:
        """Delete the bytes of an object and leave its row. Raises LookupError if there is no such object."""
        with psycopg.connect(self._dsn) as connection:
            row = connection.execute(
                "select version from storage.objects where bucket_id = %s and name = %s", [bucket, key]
            ).fetchone()
        if row is None:
            raise LookupError(f"there is no object {key!r} in bucket {bucket!r}")
        self._bytes.delete(row)

    def hidden(self, bucket: str, key: str) -> bool:
        """Whether this look at the object must miss it."""
        with self._lock:
            if not self._hidden[bucket, key]:
                return False
            self._hidden[bucket, key] -= 1
            return True
