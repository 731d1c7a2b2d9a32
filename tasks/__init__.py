"""WHO DOES IT: the tasks that ship with flowrun, one file a family.

The package's metadata offers them to graphs as entry points of the group `flowrun.tasks`, and verbs
of the command as those of `flowrun.commands`, as any other package may. This module imports none of
them: `import flowrun.tasks` loads no torch, no transformers and no av.
"""
