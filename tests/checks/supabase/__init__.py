"""The snippet in docs/frontend.md in the real supabase-js, and the migrations in the hands of the real Supabase CLI."""
