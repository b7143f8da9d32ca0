"""Erasing: what nobody may have any more is taken from the Hub and from the bucket."""
