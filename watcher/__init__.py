"""Watcher turns a row in Supabase into a private Hugging Face repo."""

__version__ = "0.1.0"
