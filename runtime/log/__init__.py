"""A RUN ON DISK: a directory of slabs. Nothing here knows how a graph runs.

| file                                     | what it is                                            |
|------------------------------------------|-------------------------------------------------------|
| `reader.py`                              | `Log`: cycles, messages, pictures, tables             |
| `writer.py`                              | `LogWriter`: one commit per cycle                     |
| `check.py`, `diff.py`, `recover.py`      | `flowrun log check`, `diff` and `recover`             |
| `shadows.py`                             | what shadows said, next to their tasks                |
| `clip.py`                                | a part of a run as one file                           |
| `message.py`, `table.py`, `values.py`    | a message, a topic as columns, how fields are decoded |
| `topic.py`                               | the messages of one topic, for notebooks              |
| `files.py`                               | the slabs of a run                                    |
| `committed.py`                           | newest cycles as the writer left them, not read again |
| `directory.py`, `retention.py`           | making a run's directory; removing the oldest runs    |
| `mend.py`                                | finishing one slab that was cut off                   |
| `scan.py`                                | going over the cycles of a run, slab after slab       |
| `bound.py`, `channels.py`, `lines.py`    | what a writer writes: messages, topics, log lines     |
| `rolling.py`, `lock.py`                  | one slab after another; one writer per run            |
| `upkeep.py`, `spare.py`                  | a writer's threads; file descriptors of its own       |
| `slab/`                                  | one file: its bytes, written and read                 |
"""
