"""The Hugging Face Hub: the only package that imports its client."""
