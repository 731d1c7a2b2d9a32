"""Tasks that hand what passes to something outside the run: a file, a receiver on the network, a window.

| module             | what it holds                                                            |
|--------------------|--------------------------------------------------------------------------|
| `as_json.py`       | a message as JSON: what all sinks that send text send                    |
| `outbox.py`        | a thread that delivers what cycles hand over, so that no cycle waits     |
| `places.py`        | where files go: names with `{run}`, `{start}` and `{task}`               |
| `settings.py`      | hosts, ports and URLs in their configs                                   |
| `mqtt.py`          | `MqttSink`: to a broker                                                  |
| `text_files.py`    | `JsonlWriter`, `CsvWriter`                                               |
| `udp.py`           | `UdpSink`: a datagram a message                                          |
| `video_writer.py`  | `VideoWriter`: films                                                     |
| `viewers.py`       | `RerunSink`, `FoxgloveSink`                                              |
| `webhook.py`       | `Webhook`: posts                                                         |
| `window.py`        | `Window`: pictures on the screen                                         |
| `window_process.py`| the program that draws it                                                |

All of them declare `acts_outside`: a replay sends and writes nothing.
"""
