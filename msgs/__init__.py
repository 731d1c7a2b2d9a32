"""WHAT FLOWS: message classes and their encoding. Imports NumPy and msgpack only."""

from flowrun.msgs.basic import BoolMsg, BytesMsg, FloatMsg, IntMsg, TextMsg
from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.fields import Measured, MessageTypeError, Shape
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.msgs.text import PromptResponseMsg

__all__ = [
    "BoolMsg",
    "BytesMsg",
    "DetectionsMsg",
    "FloatMsg",
    "ImageRgb8Msg",
    "IntMsg",
    "Measured",
    "Message",
    "MessageTypeError",
    "PromptResponseMsg",
    "Shape",
    "TextMsg",
]
