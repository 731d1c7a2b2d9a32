"""A graph in several processes, and what they recorded, as one.

| module            | what it gives                                                   |
|-------------------|-----------------------------------------------------------------|
| `record.py`       | the folder of a fleet: which runs belong together               |
| `local.py`        | all processes on this machine: `flowrun up`                     |
| `ending.py`       | how they end: senders first, and who is left                    |
| `placement.py`    | where each process runs, and by which addresses they meet       |
| `ray.py`          | placement by Ray: `flowrun up --ray`                            |
| `deliveries.py`   | what each cycle of a receiver took of a sender                  |
| `order.py`        | the order of the cycles of all runs                             |
| `substitutes.py`  | what comes in place of what a run had received, in a what-if    |
| `lane.py`         | one run again, after what its cycles received                   |
| `found.py`        | what that finds                                                 |
| `replay.py`       | all runs again, each compared with its log and the others       |
| `simulation/`     | all processes in one, on a network that fails by a seed         |
"""
