"""Verbs of the command `flowrun` that need the tasks; `flowrun.runtime.cli` finds them by name."""
