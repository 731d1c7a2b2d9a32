"""WHAT FLOWS: message classes and their encoding. Imports NumPy and msgpack only.

| file                                               | what it is                                       |
|----------------------------------------------------|--------------------------------------------------|
| `basic.py`, `image.py`, `text.py`                  | the messages that ship                           |
| `detections.py`, `regions.py`, `alert.py`          | the same                                         |
| `message.py`                                       | `Message`, the base class of all messages        |
| `declare.py`                                       | what a message class declares                    |
| `fields.py`                                        | types of fields, and how they are checked        |
| `publish.py`                                       | `publish` as compiled for a class of scalars     |
| `values.py`, `arrays.py`                           | what publishing makes of values and arrays       |
| `envelope.py`, `view.py`                           | what others see of a message; what inputs refuse |
| `schema.py`, `protobuf.py`                         | a message's JSON Schema; protobuf for viewers    |
| `scaling.py`                                       | the luma of pixels, and pixels of another size   |
| `display.py`                                       | what a notebook shows                            |
| `difference.py`                                    | where two messages differ                        |
"""

from flowrun.msgs.alert import AlertMsg
from flowrun.msgs.basic import BoolMsg, BytesMsg, FloatMsg, IntMsg, TextMsg, ValuesMsg
from flowrun.msgs.detections import DetectionsMsg, TracksMsg
from flowrun.msgs.fields import LatePublishError, Measured, MessageTypeError, Shape
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.msgs.regions import LinesMsg, ZonesMsg
from flowrun.msgs.text import PromptResponseMsg

__all__ = [
    "AlertMsg",
    "BoolMsg",
    "BytesMsg",
    "DetectionsMsg",
    "FloatMsg",
    "ImageRgb8Msg",
    "IntMsg",
    "LatePublishError",
    "LinesMsg",
    "Measured",
    "Message",
    "MessageTypeError",
    "PromptResponseMsg",
    "Shape",
    "TextMsg",
    "TracksMsg",
    "ValuesMsg",
    "ZonesMsg",
]
