"""Storage's own faults: objects that are missing though their rows exist. Safe from any thread.

The faults of any service (answer 503, delay, lose an answer) are in `watcher.sandbox.faults`.
"""

import threading
from collections import Counter

import psycopg

from watcher.sandbox.storage.bytes import Bytes


class Knobs:
    """Settings for Storage's own faults; at first there are none."""

    def __init__(self, dsn: str, folder: Bytes) -> None:
        """Take the superuser's URL of the database, and the objects' bytes."""
        self._dsn = dsn
        self._bytes = folder
        self._lock = threading.Lock()
        self._hidden: Counter[tuple[str, str]] = Counter()

    def hide(self, bucket: str, key: str, times: int = 1) -> None:
        """Answer so many downloads, HEADs and infos of an object as if it did not exist; 0 ends that."""
        with self._lock:
            self._hidden[bucket, key] = times

    def lose_bytes(self, bucket: str, key: str) -> None:
        """Delete the bytes of an object and keep its row. Raises LookupError if there is no such object."""
        with psycopg.connect(self._dsn) as connection:
            row = connection.execute(
                "select version from storage.objects where bucket_id = %s and name = %s", [bucket, key]
            ).fetchone()
        if row is None:
            raise LookupError(f"there is no object {key!r} in bucket {bucket!r}")
        self._bytes.delete(row)

    def hidden(self, bucket: str, key: str) -> bool:
        """Return whether the object is hidden from this request, and count it."""
        with self._lock:
            if not self._hidden[bucket, key]:
                return False
            self._hidden[bucket, key] -= 1
            return True
