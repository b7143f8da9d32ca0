"""Measures what is promised about crashes, freezes and outages: `make figures`.

Each figure is measured in its own process with its own sandbox, real daemons at their default settings unless the module
says otherwise, and a Realtime with the delays of the real one. Times are read from the database's clock.
"""
