"""GoTrue, as far as a frontend and the daemon use it."""

from watcher.sandbox.auth.service import Auth

__all__ = ["Auth"]
