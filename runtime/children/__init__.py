"""Processes that end when flowrun does, however flowrun ends.

`process.py` starts, watches and ends one. `warden.py`, a program of its own, runs the command, and ends
it when flowrun is gone. `endings.py` says why one has ended.
"""
