"""Benchmarks: what a row costs and how long it takes, compared with alternatives."""
