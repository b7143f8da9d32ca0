"""Runs the snippet of docs/frontend.md with the real supabase-js, and the migrations with the real Supabase CLI."""
