"""Many runs: the server that starts and stops the graphs of a folder.

| file                 | what it is                                                       |
|----------------------|------------------------------------------------------------------|
| `graphs.py`          | the graphs of a folder, by name                                  |
| `pipeline.py`        | one graph as a child process: its states, its restarts           |
| `pipelines.py`       | all of them                                                      |
| `proxy.py`           | requests for a pipeline, passed on to its own server             |
| `proxy_websocket.py` | the same of WebSockets                                           |
| `app.py`             | the paths of the server                                          |
| `others.py`          | requests that the servers of pipelines answer                    |
| `metrics.py`         | `/health` and `/metrics` of all of them                          |
| `bodies.py`          | what its replies hold                                            |
"""
