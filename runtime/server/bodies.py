"""What replies hold, as the API's description says it; and how they become JSON."""

# No `from __future__ import annotations`: FastAPI reads the annotations.

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from flowrun.runtime.broadcast import Shows
from flowrun.runtime.links.status import LinkStatus, PartStatus
from flowrun.runtime.run.report import LogReport, Progress, TaskReport
from flowrun.runtime.task import ShownState

__all__ = [
    "ChannelAnswerReply",
    "ChannelPictureReply",
    "DetectionsReply",
    "Health",
    "Json",
    "MessageReply",
    "NewestAnswerReply",
    "PictureReply",
    "Pipeline",
    "Report",
    "SetReply",
    "SwitchReply",
    "SysInfo",
    "WhoAmI",
    "refusals",
]


class Json(JSONResponse):
    """A reply in JSON, whatever text it holds: half a surrogate pair becomes its JSON escape."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


# -- errors -------------------------------------------------------------------------------------


_ERROR = {
    "title": "Error",
    "description": "Why a request was not answered.",
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
    "additionalProperties": False,
}
_WRAPPED = {
    "title": "WrappedError",
    "description": 'The same where success is `{"Success": ...}`.',
    "type": "object",
    "properties": {"Error": _ERROR},
    "required": ["Error"],
    "additionalProperties": False,
}


def refusals(
    plain: Mapping[int, str], wrapped: Mapping[int, str] = MappingProxyType({})
) -> dict[int | str, dict[str, Any]]:
    """The replies with an error that a path may give, besides those of every path.

    plain: status -> what it means, where the body is `{"error": text}`.
    wrapped: the same where it is `{"Error": {"error": text}}`.
    """
    common = {
        401: "The token is missing or wrong.",
        403: "Another host's name, or another site's page.",
        429: "Too many wrong tokens from this address.",
    }
    # As schemas, not as models: FastAPI makes a field of each model for each path, which would take half
    # of a server's start.
    replies: dict[int | str, dict[str, Any]] = {}
    for schema, meanings in ((_ERROR, common), (_ERROR, plain), (_WRAPPED, wrapped)):
        for status, meaning in meanings.items():
            content = {"application/json": {"schema": schema}}
            replies[status] = {"description": meaning, "content": content}
    return replies


# -- pictures -----------------------------------------------------------------------------------


class _Image(_Body):
    data: list[int] = Field(description="The bytes of a JPEG file.")
    encoding: Literal["jpeg"]


class _Picture(_Body):
    timestamp_nanos: int
    image: _Image


class PictureReply(_Body):
    """A picture; its time is when its frame was taken."""

    Success: _Picture


class _ChannelPicture(_Image):
    stamp_ns: int
    channel_id: int


class ChannelPictureReply(_Body):
    """A picture of one channel."""

    Success: _ChannelPicture


# -- answers ------------------------------------------------------------------------------------


class _Answer(_Body):
    prompt: str
    response: str
    truncated: bool
    reasoning: str
    latency_ms: float
    backend: str
    cycle: int


class _NewestAnswer(_Answer):
    timestamp_nanos: int


class NewestAnswerReply(_Body):
    """An answer; its time is when its frame was taken."""

    Success: _NewestAnswer


class _ChannelAnswer(_Answer):
    stamp_ns: int
    channel_id: int


class ChannelAnswerReply(_Body):
    """An answer of one channel."""

    Success: _ChannelAnswer


# -- detections ---------------------------------------------------------------------------------


class _Detection(BaseModel):
    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)

    x: float = Field(description="Centre of the box, in pixels from the left.")
    y: float = Field(description="Centre of the box, in pixels from the top.")
    width: float
    height: float
    confidence: float | None
    class_: str = Field(alias="class")
    class_id: int = Field(description="The model's number of the class; -1 where it has none.")
    tracker_id: int | None


class _Detections(_Body):
    task: str
    timestamp_nanos: int
    cycle: int
    width: int
    height: int
    detections: list[_Detection]


class DetectionsReply(_Body):
    """The objects in a picture; its time is when the picture was taken."""

    Success: _Detections


# -- the run ------------------------------------------------------------------------------------


class _Failed(_Body):
    Error: str


class Pipeline(_Body):
    """The state of a run."""

    id: str
    status: Literal["Running", "Stopped"] | _Failed


class Report(Pipeline):
    """How a run is doing."""

    cycles: int
    cycle_rate_hz: float
    uptime_s: float
    at_ns: int
    starting: str | None
    progress: Progress | None
    log: LogReport | None
    tasks: dict[str, TaskReport]
    last_answer: _NewestAnswer | None
    ended: str | None
    part: str | None
    links: list[LinkStatus]
    fleet: list[PartStatus]
    shows: dict[str, Shows]
    live: dict[str, list[str]]
    settings: dict[str, dict[str, Any]]
    may_run_again: bool
    channels: dict[str, int]


class Health(_Body):
    """Whether the run does what it should."""

    status: Literal["ok", "starting", "degraded", "stuck", "ended", "error"]
    why: str
    id: str
    cycles: int
    cycle_rate_hz: float


# -- the machine --------------------------------------------------------------------------------


class WhoAmI(_Body):
    """The machine and the user that the run has."""

    arch: str
    desktop_env: str
    device_name: str
    distro: str
    hostname: str
    platform: str
    realname: str
    username: str


class _Cpu(_Body):
    name: str
    brand: str
    frequency: int = Field(description="In MHz; 0 where it is not known.")
    usage: float


class _Disk(_Body):
    name: str
    file_system: str
    mount_point: str
    total_space: int
    available_space: int


class SysInfo(_Body):
    """Memory, CPUs and disks. Sizes are in bytes, usage is in percent."""

    total_memory: int
    free_memory: int
    used_memory: int
    available_memory: int
    total_swap: int
    name: str
    kernel_version: str
    os_version: str
    host_name: str
    cpus: list[_Cpu]
    disks: list[_Disk]
    global_cpu_usage: float


# -- what was done ------------------------------------------------------------------------------


class MessageReply(_Body):
    """What has been done."""

    message: str


class SwitchReply(MessageReply):
    """What has been done, and how each source is doing now."""

    sources: dict[str, ShownState]


class SetReply(_Body):
    """The values are set."""

    success: Literal[True]
