"""Supabase: the only rooms that import its clients."""
