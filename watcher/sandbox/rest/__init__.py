"""PostgREST 14.5."""

from watcher.sandbox.rest.service import routes

__all__ = ["routes"]
