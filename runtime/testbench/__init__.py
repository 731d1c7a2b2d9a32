"""RECORDED RUNS AS THE TEST BENCH: many runs again, on all cores, and what they give now.

| file          | what it is                                                                |
|---------------|---------------------------------------------------------------------------|
| `folders.py`  | `find_runs`: which recorded runs there are in folders                     |
| `runs.py`     | `run_info`: what a run is, without reading all of it                      |
| `replays.py`  | `replay_runs`: many runs replayed, each on a process; what came of each   |
| `pairs.py`    | `Pair`: a recorded message, what is made in its place, and its picture    |
| `golden.py`   | runs that were right, replayed with the code and graphs of now            |
| `verdict_files.py` | what came of those, as JUnit XML, Markdown and JSON                  |
| `verdict_page.py` | the same, as a page with pictures                                     |
| `bisect.py`   | which commit, or value, changes what a run gives                          |
| `store.py`    | results kept by what they depend on, in one file of the user              |
| `hashes.py`   | hashes of the files that a result depends on                              |
| `spread.py`   | pieces of work on several processes                                       |

`from flowrun.runtime.testbench.replays import Job, replay_runs` is what other packages use; `spread` and
`Store` are for work that is no replay.
"""
