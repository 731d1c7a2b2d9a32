"""All processes of a graph in one, with a clock moved by hand and a network that fails by a seed.

Nothing waits and nothing happens by itself: the same seed gives the same cycles, the same messages and
the same bytes of the logs.

| module         |                                                                                  |
|----------------|----------------------------------------------------------------------------------|
| `graphs`       | what of a graph is simulated, and what cannot be                                  |
| `mischief`     | what goes wrong, and when                                                         |
| `process`      | one process of a partition: its runs, its background tasks, its end               |
| `fleet`        | all of them on one network                                                        |
| `sequences`    | what was sent and what came, over all runs of sender and receiver                 |
| `invariants`   | what holds whatever happened                                                      |
| `shrinking`    | the fewest mishaps with which a seed still fails                                  |
"""
