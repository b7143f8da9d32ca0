"""The Hugging Face Hub: the only rooms that import its client."""
