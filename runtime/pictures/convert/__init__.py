"""DECODED PICTURES -> RGB: in integers, the same bytes on every CPU, with a compiled kernel and without.

| file          | what it is                                                           |
|---------------|----------------------------------------------------------------------|
| `pictures.py` | what can be had of a picture: its pixels, its luma, it made smaller   |
| `planes.py`   | how the values of each pixel format lie in memory                    |
| `colors.py`   | what the values mean: matrices and ranges, as integers               |
| `orientation.py` | which way up it is shown                                          |
| `integers.py` | the arithmetic, in NumPy; it says what the kernel computes           |
| `kernel.c`    | the same, compiled when the package is installed, where there is a compiler |
| `kernel.py`   | loads it                                                             |
| `swscale.py`  | the conversion of older logs                                         |
"""

from flowrun.runtime.pictures.convert.orientation import (
    UPRIGHT,
    Noted,
    matrix_of,
    matrix_orientation,
    orientation_of,
    shown_shape,
    swaps_axes,
)
from flowrun.runtime.pictures.convert.pictures import (
    CONVERSION,
    Recipe,
    luma,
    planes420,
    recipe,
    resized,
    rgb,
    to_rgb_at,
)
from flowrun.runtime.pictures.convert.planes import Planes

__all__ = [
    "CONVERSION",
    "UPRIGHT",
    "Noted",
    "Planes",
    "Recipe",
    "luma",
    "matrix_of",
    "matrix_orientation",
    "orientation_of",
    "planes420",
    "recipe",
    "resized",
    "rgb",
    "shown_shape",
    "swaps_axes",
    "to_rgb_at",
]
