"""Realtime 2.129.8."""

from watcher.sandbox.realtime.service import Realtime

__all__ = ["Realtime"]
