"""`VideoCapture`: frames of a file, a camera, a URL or a device.

| file          | what it is                                                                |
|---------------|---------------------------------------------------------------------------|
| `capture.py`  | the task                                                                  |
| `settings.py` | what a graph file may say of a source                                     |
| `address.py`  | what a user writes as an address -> what kind of source it is             |
| `opening.py`  | an address -> an opened container, or an error that says what to do       |
| `connection.py` | opened, lost, opened again after a pause                                |
| `times.py`    | time stamps -> times that never go back and never jump                    |
| `files.py`    | a path -> the film, pipe or pictures that are there                       |
| `pipes.py`    | a named pipe or standard input, as a file                                 |
| `web.py`      | what a web server says of an address                                      |
| `lengths.py`  | how long a film says it is, to notice one that was cut off                |
| `secure.py`   | why no secure connection comes about                                      |
| `listener.py` | who listens at an address, where FFmpeg does not say it                   |
| `devices.py`  | a webcam or a screen -> an opened container                               |
| `stills.py`   | pictures in files, and snapshots of a camera, as a container              |
| `pattern.py`  | the test pattern                                                          |
| `options.py`  | the names of FFmpeg's options                                             |
| `streams.py`  | which stream of a container is the film                                   |
| `reader.py`   | the thread that decodes a few frames ahead                                |
| `numbering.py` | decoded pictures -> frames with numbers and times                      |
| `keeping.py`  | decoded pictures -> the planes that are kept of them                      |
| `incoming.py` | a container's packets -> numbered ones, as the decoder and the log get them |
| `decoding.py` | those -> pictures, as the log will decode them                            |
| `sections.py` | which packets one decoder gets, and when the next one takes over          |
| `codecs.py`   | which codecs the log keeps, and which several threads decode              |
| `policy.py`   | which of the decoded frames a cycle gets, and why others are left out     |
| `asked.py` | packets -> pictures that are decoded when somebody reads them               |
| `key_frames.py` | key frames -> pictures, nothing else decoded                             |
| `preparing.py` | packets that wait while they are decoded on several cores                |
| `ahead.py`    | a section, decoded on several cores: one core's pictures                  |
| `spare.py`    | the decoder of a section that has ended, for the next one                 |
| `by_device.py` | a section, decoded by a device, so that its replay needs none            |
| `hwaccel.py`  | which device there is, and whether it is still used                       |
| `packets.py`  | the compressed packets, kept for the log                                  |
"""
