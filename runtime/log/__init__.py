"""A run on disk: a directory of slabs. `writer` makes it, `reader` opens it.

Neither knows how a graph runs.
"""
