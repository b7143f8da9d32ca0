"""What one check found."""

from dataclasses import dataclass
from typing import Literal

from watcher.errors import WatcherError
from watcher.supabase.rpc import NoFunction, NotGranted

State = Literal["ok", "warning", "error", "skipped"]

KEYS = "Copy the secret key (sb_secret_…) from the project's settings, API keys, into SUPABASE_SECRET_KEY."


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence, and what mends it where it is not well: a command, SQL, or where to click."""

    check: str
    state: State
    sentence: str
    remedy: str = ""


def unanswered(check: str, verb: str, error: WatcherError) -> Finding:
    """Say why the database would not answer a question."""
    if isinstance(error, NotGranted):
        return Finding(
            check, "error", str(error), f"grant execute on function public.{verb} to service_role;"
        )
    if isinstance(error, NoFunction):
        return Finding(check, "error", str(error), "notify pgrst, 'reload schema';")
    return Finding(check, "error", str(error), "Wait, then: watcher doctor")


def skipped(what: str) -> Finding:
    """Say what cannot be looked at before something else is mended."""
    return Finding(what, "skipped", f"Not looked at: {what}.")
