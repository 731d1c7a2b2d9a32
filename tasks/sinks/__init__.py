"""Tasks that hand what passes to something outside the run: a file, a receiver on the network, a window.

| module             | what it holds                                                            |
|--------------------|--------------------------------------------------------------------------|
| `as_json.py`       | a message as JSON: what all sinks that send text send                    |
| `outbox.py`        | a thread that delivers what cycles hand over, so that no cycle waits     |
| `places.py`        | where files go: names with `{run}`, `{start}` and `{task}`               |
| `text_files.py`    | `JsonlWriter`, `CsvWriter`                                               |
| `udp.py`           | `UdpSink`: a datagram a message                                          |

All of them declare `acts_outside`: a replay sends and writes nothing.
"""
