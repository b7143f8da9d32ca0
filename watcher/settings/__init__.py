"""The configuration: its settings and the types of their values."""
