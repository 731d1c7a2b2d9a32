"""Processes that end when flowrun does, however flowrun ends."""
