"""WHAT RUNS: a graph, its log and its replay.

| folder or file                                     | what it is                                     |
|----------------------------------------------------|------------------------------------------------|
| `cli/`                                             | the command `flowrun`, one module per verb     |
| `serve/`                                           | many runs: the long-lived server               |
| `front.py`                                         | what `import flowrun` gives                    |
| `api/`                                             | graphs in Python, for scripts and notebooks    |
| `server/`                                          | the page and the HTTP API of a run             |
| `testbench/`                                       | many recorded runs again, and what they give now|
| `replay/`                                          | a recorded run again                           |
| `run/`                                             | one live run                                   |
| `engine/`                                          | cycle after cycle, live and recorded           |
| `graph/`                                           | from a graph file to a plan                    |
| `log/`                                             | a run on disk                                  |
| `export/`                                          | a log for other programs                       |
| `pictures/`                                        | pictures in a log                              |
| `children/`                                        | processes that end with flowrun                |
| `task.py`, `testing.py`, `pytest_plugin.py`        | what authors of tasks use                      |
| `context.py`, `task_config.py`, `health.py`        | what `task.py` gives them: `ctx`, a config     |
| `broadcast.py`, `events.py`                        | what sinks show; what happens besides messages |
| `live_video.py`                                    | a camera's newest packets, for viewers         |
| `clock.py`, `errors.py`                            | the clocks; every error that a user can meet   |
| `mistaken.py`                                      | what a program takes for a run                 |
| `places.py`                                        | where in the user's code an error was raised   |
| `callers.py`                                       | where a program calls flowrun                  |
| `simulated.py`                                     | whether time is moved by hand                  |
| `threads.py`                                       | on which cores a thread runs                   |
| `wakeup.py`                                        | how other threads wake one that waits          |
| `interrupts.py`                                    | which KeyboardInterrupt comes from the user    |
| `descriptor.py`                                    | file descriptors that others may close         |
| `atomic.py`, `extras.py`, `wording.py`             | helpers                                        |
| `printing.py`                                      | what the commands print                        |

`Log` and `Replay` are loaded when they are first asked for: importing the package is free.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowrun.runtime.log.reader import Log
    from flowrun.runtime.replay.replay import Replay

__all__ = ["Log", "Replay"]

_MODULES = {"Log": "log.reader", "Replay": "replay.replay"}

if not TYPE_CHECKING:  # a type checker would think that every name exists

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
