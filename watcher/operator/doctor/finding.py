"""The result of one check, as data."""

from dataclasses import dataclass
from typing import Literal

from watcher.errors import WatcherError
from watcher.supabase.rpc import NoFunction, NotGranted, ReadOnly

State = Literal["ok", "warning", "error", "skipped"]

KEY_REMEDY = (
    "Copy the secret key (sb_secret_…) from the project's settings, API keys, into SUPABASE_SECRET_KEY."
)

_READ_ONLY = (
    "Free space or enlarge the disk: https://supabase.com/dashboard, project settings, Compute and Disk. It becomes "
    "writable again by itself, or with: alter database postgres set default_transaction_read_only = off"
)
REPAIR = "SUPABASE_DB_URL='postgresql://postgres:…' watcher migrate --repair"


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence, and for a problem its remedy: a command, SQL, or where to click."""

    check: str
    state: State
    sentence: str
    remedy: str = ""


def unanswered(check: str, verb: str, error: WatcherError) -> Finding:
    """Return the finding for a function of the database that could not be called."""
    if isinstance(error, NotGranted):
        return Finding(
            check, "error", str(error), f"grant execute on function public.{verb} to service_role;"
        )
    if isinstance(error, NoFunction):
        return Finding(check, "error", str(error), REPAIR)
    if isinstance(error, ReadOnly):
        return Finding("database", "error", str(error), _READ_ONLY)
    return Finding(check, "error", str(error), "Try again in a minute; see https://status.supabase.com.")


def skipped(what: str) -> Finding:
    """Return the finding for checks that make no sense before something else is fixed."""
    return Finding(what, "skipped", f"Not checked: {what}.")
