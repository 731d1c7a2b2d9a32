"""Graphs in Python, for scripts and notebooks: what `import flowrun` gives.

| file            | what it is                                                                |
|-----------------|---------------------------------------------------------------------------|
| `graph.py`      | `Graph`: tasks, connections, their checks; to and from a graph file       |
| `node.py`       | a task of a graph, and its ports                                          |
| `untyped.py`    | what flows through a connection of which no message was given             |
| `naming.py`     | what a graph file calls a class, and whether a replay will find it        |
| `running.py`    | `LiveRun`: a run on a thread of its own                                   |
| `received.py`   | the messages of a run, for iterators and callbacks                        |
| `asynchronous.py` | waits for a run in a coroutine                                          |
| `pipeline.py`   | `pipeline`: frames of a source through a function, or a model             |
"""
