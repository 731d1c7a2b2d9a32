"""FROM A GRAPH FILE TO A PLAN: read it, bind it to task classes, order its steps.

| file                                | what it is                                                 |
|-------------------------------------|------------------------------------------------------------|
| `file.py`, `values.py`              | YAML nodes and values, each with its place; `${NAME}`      |
| `spec.py`                           | what a graph file says: `GraphSpec`                        |
| `keys.py`, `sentences.py`           | what each key of a graph file, and of a config, is for     |
| `includes.py`, `missions.py`        | several files as one; the tasks of one mission             |
| `constants.py`, `settings.py`       | `{{NAME}}` in values; `task.key=value` of a command line   |
| `resolved.py`                       | what was put together so, as one file                      |
| `read.py`, `masking.py`             | a file -> `GraphSpec`; which values are secret             |
| `writing.py`, `declared.py`         | a graph that a program declares -> the text of a file      |
| `find.py`, `ports.py`, `config.py`  | task classes by name, their ports, their configs           |
| `functions.py`                      | a function -> a task class                                 |
| `overridden.py`                     | methods of a task that cannot be called as they must be    |
| `scripts.py`                        | a script that runs a graph, imported for its classes       |
| `stale.py`                          | modules of the user that have changed load again           |
| `several.py`                        | one task of a file -> one for each of its sources          |
| `sections.py`                       | the values of a section's keys, by the tables of `keys`     |
| `partitions.py`                     | `partitions` and `network`: what they say                  |
| `addresses.py`                      | where partitions listen and connect                        |
| `partition_problems.py`             | what is wrong with partitions, as far as the file says it  |
| `stream_problems.py`                | what is wrong with the streams between them                |
| `parts.py`, `boundary.py`           | the graph of one process; what crosses to another one      |
| `shadows.py`                        | a task with a shadow -> two tasks                          |
| `channels.py`                       | the numbers by which clients ask for what tasks show       |
| `bind.py`                           | `GraphSpec` -> `BoundGraph`, or every mistake              |
| `plan.py`                           | `BoundGraph` -> `Plan`: the order, and a slot per output   |
| `drawing.py`                        | a plan as Mermaid or SVG                                   |
| `catalog.py`                        | which tasks and messages there are                         |
| `described.py`, `example.py`        | one of them as data: what it does, a graph with it         |
| `privacy.py`                        | where pictures get out that a task is there to conceal     |
| `unlogged.py`                       | which tasks a replay cannot run                            |
| `schema.py`, `reference.py`         | the JSON Schema, and docs/graph.md, docs/task-config.md    |
"""
