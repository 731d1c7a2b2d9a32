"""HOW A GRAPH RUNS: one cycle after another, live and recorded.

| file             | what it is                                                             |
|------------------|------------------------------------------------------------------------|
| `executor.py`    | a live run: one cycle after another until its sources end              |
| `alone.py`       | one task run by itself: `run_task`, `flowrun ask`                      |
| `watchdog.py`    | names a task that hangs                                                |
| `whereabouts.py` | which task's code a thread is in                                       |
| `watch.py`       | names a task that changes a message or keeps an input                  |
| `waiting.py`     | how a live run waits, for its sources and for the graph's pace         |
| `pairing.py`     | when a cycle waits for more live sources, so that they share it        |
| `cycle.py`       | what a cycle is: begin, step, commit                                   |
| `compiled.py`    | a cycle as one function, for live runs                                 |
| `parallel.py`    | `executor: parallel`: independent steps of a cycle at once             |
| `outside.py`     | where time, live values and results come from; the live one            |
| `injection.py`   | a message that somebody publishes from outside on a port               |
| `beginning.py`   | what a run goes on with that an earlier one, cut off, had remembered   |
| `keyframes.py`   | what tasks remember, so that a replay can begin there                  |
| `published.py`   | which tasks have run, and which source is silent                       |
| `background.py`  | `background: true`: jobs, and the worker that runs them                |
| `policy.py`      | `on_error`                                                             |
| `restarts.py`    | sources that are restarted, while the cycles go on                     |
| `rates.py`       | `every` and `rate_hz`                                                  |
| `instances.py`   | the tasks as objects: made, started, changed, stopped                  |
| `record.py`      | the ring of cycle records: messages and calls, bound once              |
"""
