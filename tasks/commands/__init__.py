"""Verbs of the command `flowrun` that need the tasks, offered as entry points of `flowrun.commands`."""
