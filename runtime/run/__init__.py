"""One live run of a graph.

| file            | what it is                                                              |
|-----------------|-------------------------------------------------------------------------|
| `live.py`       | the run: plan, executor, log and what watches it, put together          |
| `recording.py`  | its log, from the first byte to the last                                |
| `clips.py`      | what it keeps of alerts: films, pictures, what was said                 |
| `shadows.py`    | how often shadows disagree with their tasks                             |
| `observed.py`   | what its cycles have brought, for those who watch                       |
| `report.py`     | how it is doing: for the terminal, the page and the API                 |
| `disk_use.py`   | whose pictures take most of its log, and how they would take less       |
| `log_lines.py`  | log lines: for people on the console, as messages in the log            |
| `captured.py`   | Python's `logging` and warnings of tasks, and what their threads died of |
| `provenance.py` | what it was made with: versions, code, commit                           |
| `trust.py`      | whose it is: the signature that a replay looks for                      |
"""
