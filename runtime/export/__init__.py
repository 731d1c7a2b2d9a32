"""A LOG FOR OTHER PROGRAMS: what `flowrun log export` writes.

| file                                  | what it is                                            |
|---------------------------------------|-------------------------------------------------------|
| `text.py`                             | JSON lines, CSV, Parquet                              |
| `mp4.py`, `film.py`                   | a film of a topic's pictures, encoded or copied       |
| `film_writer.py`                      | films that grow while a run goes on                   |
| `live.py`                             | messages of a run that goes on, for viewers           |
| `cases.py`                            | what a run keeps of an alert: a film, a picture, messages |
| `trace.py`                            | when each task ran, for Perfetto                      |
| `otlp.py`                             | the same as OpenTelemetry spans                       |
| `mcap.py`                             | all in one compressed MCAP file                       |
| `foxglove.py`, `foxglove_messages.py` | an MCAP file with Foxglove's own schemas              |
| `rerun.py`, `rerun_view.py`           | a recording of Rerun, and how its viewer opens it     |
| `foxglove_server.py`, `rerun_server.py` | the same, while a viewer is connected                 |
| `going_on.py`                         | the log of a run that goes on, for them               |
| `pictures.py`                         | pictures as viewers take them                         |
| `unseen.py`                           | the packets of which a run decoded no picture         |
| `sources.py`                          | which pictures boxes are about                        |
| `selection.py`                        | what to write, and what came of it                    |
"""
