"""Acts as a frontend, and shows how a row becomes a repo."""
