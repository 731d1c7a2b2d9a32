"""Recorded pictures found by a text or a picture.

| file            | what it is                                                               |
|-----------------|--------------------------------------------------------------------------|
| `words.py`      | what of an answer may be searched for, and how well a text fits          |
| `describing.py` | the model: a vector and words for each picture                           |
| `index.py`      | vectors, words and where they are from: SQLite and a file of vectors     |
| `build.py`      | fills an index from runs: what is new, on all cores                      |
| `found.py`      | the pictures that fit best, as text and JSON                             |
| `page.py`       | the same as a page with pictures                                         |

An index is derived from the logs, kept in a hidden folder beside the runs, and can be removed at any
time.
"""
