"""A RECORDED RUN TO LOOK AT: every moment of a log, also while it is written. Nothing in it is run.

| file          | what it is                                                               |
|---------------|--------------------------------------------------------------------------|
| `runs.py`     | the runs that are shown, by id                                           |
| `run.py`      | one run: its summary, and who reads it when                              |
| `stretches.py`| a live run whose recording was stopped and begun again, as one run       |
| `moment.py`   | everything of one moment: answers, settings, errors, pictures            |
| `graph.py`    | the graph, as the log says it                                            |
| `lanes.py`    | what happened when, counted by the parts of a span of time               |
| `shadows.py`  | what shadows said, next to the tasks whose shadows they are              |
| `latencies.py`| how long things took, by the parts of a span of time                    |
| `stats.py`    | figures of the whole run: times of tasks and paths, bandwidth, memory    |
| `regions.py`  | zones and lines of a picture, and what is counted there                  |
| `lines.py`    | the lines of the log up to a moment                                      |
| `controls.py` | errors, settings, drops and states of sources, by cycle                  |
| `places.py`   | where the messages of each topic are, without reading them               |
| `damage.py`   | damage of the log, as those who look at the run are told of it           |
| `film.py`     | the packets of a camera from a key frame on, for browsers that decode    |
| `frames.py`   | a picture of the log as a JPEG                                           |
| `clip.py`     | a part of a run as a run of its own, and the test that replays it        |
| `fleet.py`    | all runs of a fleet as one: when each process ran, how its links did     |
| `received.py` | what a run took of other processes: when, how late, what never came      |
| `what_if.py`  | other config values for a part of a run: a replay, and what it changed   |
| `labels.py`   | moments that somebody marked, in a file of the run                       |
"""
