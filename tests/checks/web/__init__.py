"""Plays users of examples/web in a real browser, against a sandbox and a daemon."""
