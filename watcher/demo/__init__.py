"""Plays the frontend, and shows how a row becomes a repo."""
