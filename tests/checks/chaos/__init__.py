"""Chaos test: random faults from a seed while rows are published; afterwards an audit that nothing was lost or doubled."""
