"""A Supabase project and a Hugging Face Hub on this machine."""

from watcher.sandbox.faults import Faults
from watcher.sandbox.postgres import Postgres
from watcher.sandbox.programs import PostgresError
from watcher.sandbox.sandbox import Sandbox

__all__ = ["Faults", "Postgres", "PostgresError", "Sandbox"]
