"""WHAT IS PASSED ON: other sizes of pictures, fewer messages, messages that belong together.

| file             | what it is                                                                |
|------------------|---------------------------------------------------------------------------|
| `crop.py`        | `Crop`: a part of each picture, fixed or around what was found            |
| `resize.py`      | `Resize`: another size                                                    |
| `mosaic.py`      | `Mosaic`: several cameras in one picture                                  |
| `fitting.py`     | how a picture is put into another size                                    |
| `throttle.py`    | `Throttle`: fewer messages                                                |
| `join.py`        | `Join`: messages of several tasks that belong to one time                 |
| `callables.py`   | `PythonCallable`: a function that knows nothing of flowrun, called on each picture |
"""
