"""The README's snippet in the real supabase-js, and the migrations in the hands of the real Supabase CLI."""
