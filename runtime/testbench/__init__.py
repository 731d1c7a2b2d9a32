"""RECORDED RUNS AS THE TEST BENCH: many runs again, on all cores, and what they give now.

| file          | what it is                                                                |
|---------------|---------------------------------------------------------------------------|
| `runs.py`     | the recorded runs of folders: what each is, without reading all of it     |
| `replays.py`  | `replay_runs`: many runs replayed, each on a process; what came of each   |
| `pairs.py`    | `Pair`: a recorded message, what is made in its place, and its picture    |
| `store.py`    | results kept by what they depend on, in one file of the user              |
| `spread.py`   | pieces of work on several processes                                       |

`from flowrun.runtime.testbench.replays import Job, replay_runs` is what other packages use; `spread` and
`Store` are for work that is no replay.
"""
