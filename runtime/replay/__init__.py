"""A RECORDED RUN AGAIN: the engine's cycles on what the log holds, each message compared.

| file            | what it is                                                             |
|-----------------|------------------------------------------------------------------------|
| `replay.py`     | `Replay`: run all, step through it, seek                               |
| `debugger.py`   | forwards and back through a replay, breakpoints                        |
| `recorder.py`   | the run that a replay writes                                           |
| `report.py`     | all differences, as JSON or on a page                                  |
| `page.py`       | a page of differences, of one file (`page.html`)                       |
| `about.py`      | the picture that a message is about                                    |
| `values.py`     | values of messages as reports show them                                |
| `verify.py`     | finds tasks whose `freeze` forgets something                           |
| `violations.py` | faults that make a task fail, and the fewest of them                    |
| `faults.py`     | messages that do not come, come late or twice                          |
| `cycles.py`     | recorded cycles, each message compared when it is made                 |
| `keyframes.py`  | where in a log a replay can begin                                      |
| `recovery.py`   | what a run that was cut off had remembered at the end of its log        |
| `recorded.py`   | the log as the outside of a graph                                      |
| `background.py` | a background task: its jobs run at once, in the cycle of their inputs  |
| `compare.py`    | a message against the recorded one, with a tolerance                   |
| `hints.py`      | what in a task's code may be why its message differs                   |
| `migrate.py`    | recorded messages made to fit the classes of today                     |
| `graph.py`      | the graph that made the log                                            |
"""
