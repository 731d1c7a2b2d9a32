"""One file of a log: MCAP, written in place through a mapping and valid at every instant.

| file         | what it is                                                                 |
|--------------|----------------------------------------------------------------------------|
| `FORMAT.md`  | every byte of it, and why                                                  |
| `reader.py`  | the cycles of a slab, read and checked, found by number and time           |
| `writer.py`  | a slab that grows                                                          |
| `opening.py` | a slab, opened: what its preamble and summary say, where its chunks are    |
| `ends.py`    | its two ends: the preamble and the summary                                 |
| `index.py`   | the message index of a chunk                                               |
| `pages.py`   | preparing pages before they are written                                    |
| `records.py` | records: pack and unpack                                                   |
| `format.py`  | opcodes, sizes and names                                                   |
"""
