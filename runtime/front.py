"""Graphs of cameras and models, with a log from which a run can be had again.

import flowrun
from flowrun.tasks.inference import Inference
from flowrun.tasks.video.capture import VideoCapture

g = flowrun.Graph("inference")
cam = g.add(VideoCapture, source_uri=0)
cap = g.add(Inference, prompt="cap en", background=True)
g.connect(cam, cap)
g.run()

| name                                                    | what it is                                |
|---------------------------------------------------------|-------------------------------------------|
| `Graph`                                                 | tasks and how messages flow between them  |
| `run`, `running`                                        | run a graph or its file; runs that go on  |
| `pipeline`                                              | frames of a source through a function     |
| `task`, `Task`, `TaskConfig`, `Context`, ...            | to write a task                           |
| `Message`, and the messages that ship                   | what flows                                |
| `Log`, `Replay`                                         | a recorded run: to read, to run again     |
| `FlowrunError`, `GraphError`, `TaskError`               | what goes wrong                           |

Each is loaded when it is first asked for: `import flowrun` is free.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowrun.msgs import (
        BoolMsg,
        BytesMsg,
        DetectionsMsg,
        FloatMsg,
        ImageRgb8Msg,
        IntMsg,
        Message,
        PromptResponseMsg,
        TextMsg,
    )
    from flowrun.runtime.api.graph import Graph, run
    from flowrun.runtime.api.pipeline import Pipeline, Result, pipeline
    from flowrun.runtime.api.running import LiveRun, running
    from flowrun.runtime.errors import FlowrunError, GraphError, TaskError
    from flowrun.runtime.log.reader import Log
    from flowrun.runtime.replay.replay import Replay
    from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig, task

__all__ = [
    "BoolMsg",
    "BytesMsg",
    "Context",
    "DetectionsMsg",
    "FloatMsg",
    "FlowrunError",
    "Graph",
    "GraphError",
    "ImageRgb8Msg",
    "Input",
    "IntMsg",
    "Live",
    "LiveRun",
    "Log",
    "Message",
    "Output",
    "Pipeline",
    "PromptResponseMsg",
    "Replay",
    "Result",
    "Task",
    "TaskConfig",
    "TaskError",
    "TextMsg",
    "pipeline",
    "run",
    "running",
    "task",
]

_MODULES = {
    "runtime.api.graph": ("Graph", "run"),
    "runtime.api.pipeline": ("Pipeline", "Result", "pipeline"),
    "runtime.api.running": ("LiveRun", "running"),
    "runtime.errors": ("FlowrunError", "GraphError", "TaskError"),
    "runtime.log.reader": ("Log",),
    "runtime.replay.replay": ("Replay",),
    "runtime.task": ("Context", "Input", "Live", "Output", "Task", "TaskConfig", "task"),
}

if not TYPE_CHECKING:  # a type checker would think that every name exists

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name not in __all__:
            text = f"module 'flowrun' has no attribute {name!r}"
            if name[:1].isupper():
                find = import_module("flowrun.runtime.graph.find")
                for point in find.task_types().get(name, ()):
                    text += f"; write: from {point.module} import {point.attr}"
            raise AttributeError(text)
        module = next((it for it, names in _MODULES.items() if name in names), "msgs")
        found = globals()[name] = getattr(import_module(f"flowrun.{module}"), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
