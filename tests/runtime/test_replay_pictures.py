"""Replays of pictures: what they write of their own."""

from __future__ import annotations

import helpers
import numpy as np
import pytest
from helpers import record
from pictures import Video, plan_of_video, write_video

from flowrun.msgs import FloatMsg, ImageRgb8Msg
from flowrun.runtime.bind import bind
from flowrun.runtime.graph import parse_graph
from flowrun.runtime.log_reader import Log
from flowrun.runtime.plan import plan_graph
from flowrun.runtime.replay import Replay
from flowrun.runtime.replay_log import ReplayLog
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
