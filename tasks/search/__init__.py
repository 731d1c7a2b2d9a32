"""Recorded pictures found by a text or a picture.

| file            | what it is                                                               |
|-----------------|--------------------------------------------------------------------------|
| `words.py`      | what of an answer may be searched for, and how well a text fits          |
| `describing.py` | the model: a vector and words for each picture                           |
| `pictures.py`   | where a picture is, what was said of it, how well it fits                |
| `texts.py`      | what was said, and which of it has the words that are asked for          |
| `vectors.py`    | a file of vectors                                                        |
| `index.py`      | all of these: SQLite and a file of vectors, also after a killed process  |
| `build.py`      | fills an index from runs: what is new, on all cores                      |
| `origins.py`    | which pictures of several processes are the same one                     |
| `elsewhere.py`  | which cameras of a run are another process's, whose run is searched too  |
| `found.py`      | the pictures that fit best, as text and JSON                             |
| `page.py`       | the same as a page with pictures                                         |

An index is derived from the logs, kept in a hidden folder beside the runs, and can be removed at any
time.
"""
