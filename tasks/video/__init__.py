"""`VideoCapture`: frames of a file, a camera, a URL or a device.

| file          | what it is                                                                |
|---------------|---------------------------------------------------------------------------|
| `capture.py`  | the task                                                                  |
| `settings.py` | what a graph file may say of a source                                     |
| `opening.py`  | an address -> an opened container, or an error that says what to do       |
| `connection.py` | opened, lost, opened again after a pause                                |
| `times.py`    | time stamps -> times that never go back and never jump                    |
| `reader.py`   | the thread that decodes a few frames ahead                                |
| `decoding.py` | packets -> pictures, as the log will decode them                          |
| `policy.py`   | which of the decoded frames a cycle gets, and why others are left out     |
| `thinning.py` | which frames `max_fps` keeps                                              |
| `ahead.py`    | the same pictures, decoded on several cores                               |
| `packets.py`  | the compressed packets, kept for the log                                  |
"""
