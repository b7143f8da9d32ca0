"""Applies the migrations with the real Supabase CLI."""
