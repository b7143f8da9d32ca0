"""What is promised of crashes, freezes and outages, in figures: `make figures` measures each and says what it found.

Each figure has a sandbox in a process of its own, real daemons at their default settings unless its room says
otherwise, and Realtime as slow as the real one. Moments are those of the database, which is nobody's own clock.
"""
