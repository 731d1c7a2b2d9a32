"""One file of a log: MCAP, written in place through a mapping and valid at every instant.

| file             | what it is                                                        |
|------------------|-------------------------------------------------------------------|
| `FORMAT.md`      | every byte of it, and why                                         |
| `reader.py`      | `SlabReader`: one slab, finished or not, also while it is written |
| `cycles.py`      | its cycles, read and checked, found by number and time            |
| `writer.py`      | a slab that grows                                                 |
| `opening.py`     | opening a slab: preamble, structure, mapping                      |
| `preamble.py`    | what is said before the first chunk: the run, its messages        |
| `structure.py`   | where the chunks are, how the run ended, what is damaged          |
| `summary.py`     | the structure of a finished slab, from its summary                |
| `walk.py`        | the structure of another, record by record                        |
| `ends.py`        | writing its two ends: the preamble and the summary                |
| `index.py`       | the message index of a chunk                                      |
| `pages.py`       | preparing pages before they are written                           |
| `mapping.py`     | a file in memory, without a descriptor                            |
| `faults.py`      | pages of it that cannot be had any more                           |
| `disk.py`        | taking blocks, bringing bytes to the disk                         |
| `records.py`     | records: pack and unpack                                          |
| `bytes.py`       | the bytes of the file, within their bounds                        |
| `format.py`      | opcodes, sizes and names                                          |
"""
