"""Supabase: the only package that imports its clients."""
