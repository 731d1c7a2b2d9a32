"""One run over HTTP: its page and its API.

| file           | what it is                                                               |
|----------------|--------------------------------------------------------------------------|
| `serve.py`     | the server: an app on a port or a socket, in a thread of its own         |
| `listening.py` | where it listens                                                         |
| `connections.py` | its connections: how many, and how long each may keep it waiting       |
| `websocket.py` | those of them that are WebSockets                                         |
| `app.py`       | the app: its routes and its page                                         |
| `head.py`      | HEAD, which is GET without the body                                      |
| `bodies.py`    | what replies hold                                                        |
| `requests.py`  | what requests hold                                                       |
| `errors.py`    | a request that cannot be answered, as a reply that says why              |
| `site.py`      | how it is reached from elsewhere: below a proxy's path, by other sites    |
| `guard.py`     | who may ask: host names, origins, the token                              |
| `routes.py`    | routes that describe themselves                                          |
| `machine.py`   | endpoints: what the machine is, and how busy                             |
| `exposition.py` | figures in the text format of Prometheus                                |
| `metrics.py`   | endpoints: figures for Prometheus, and whether the run is well           |
| `fleet_metrics.py` | figures about links, and the other processes of its graph            |
| `control.py`   | endpoints: the run's state and graph, its report, settings, stop         |
| `publish.py`   | the endpoint that publishes a message on a port                          |
| `runs.py`      | endpoints: recorded runs, and the log of the live one                    |
| `turns.py`     | whose turn it is to have a picture of a recorded run decoded             |
| `streaming.py` | endpoints: pictures, answers, events                                     |
| `video.py`     | the endpoint for pictures over a WebSocket                               |
| `packets.py`   | a camera's packets as WebSocket messages                                 |
| `channels.py`  | what the sinks show, by kind and channel, and waiting for the next item  |
| `events.py`    | the stream of everything that happens                                    |
| `feed.py`      | a sink's items, as an event loop waits for them                          |
| `status.py`    | the run's state and report in the words of the API                       |
| `watchable.py` | all that the server asks of a run                                        |
| `page_files.py` | the page's files, and what they may load and run                        |
| `page/`        | the page: modules that a browser loads as they are                       |
"""
