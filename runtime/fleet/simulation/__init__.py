"""All processes of a graph in one, with a clock moved by hand and a network that fails by a seed.

Nothing waits and nothing happens by itself: the same seed gives the same cycles, the same messages and
the same bytes of the logs.

| module          | what it gives                                                           |
|-----------------|-------------------------------------------------------------------------|
| `graphs.py`     | what of a graph is simulated, and what cannot be                        |
| `mischief.py`   | what goes wrong, and when                                               |
| `process.py`    | one process of a partition: its runs, its background tasks, its end     |
| `machine.py`    | what it has of its machine: its clock, a log before which it may die    |
| `promises.py`   | what holds of one process while it runs                                 |
| `fleet.py`      | all of them on one network                                              |
| `sequences.py`  | what was sent and what came, over all runs of sender and receiver       |
| `invariants.py` | what holds whatever happened                                            |
| `shrinking.py`  | the fewest mishaps with which a seed still fails                        |
"""
