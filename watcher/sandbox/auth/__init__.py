"""GoTrue, as a frontend and the daemon meet it."""

from watcher.sandbox.auth.service import routes

__all__ = ["routes"]
