"""A graph in several processes, and what they recorded, as one.

| module        | what it gives                                                   |
|---------------|-----------------------------------------------------------------|
| `record.py`   | the folder of a fleet: which runs belong together               |
| `local.py`    | all processes on this machine: `flowrun up`                     |
"""
