"""`Webhook`: messages posted to a URL, as JSON."""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, SecretStr

from flowrun.msgs.message import Message
from flowrun.runtime.task import Context, Input, Task, TaskConfig
from flowrun.tasks.addresses import is_this_machine
from flowrun.tasks.sinks.as_json import (
    JsonSettings,
    Kept,
    kept_fields,
    plain,
    to_json,
    unknown_fields,
)
from flowrun.tasks.sinks.outbox import Complaints, Outbox
from flowrun.tasks.sinks.settings import Url

if TYPE_CHECKING:
    import httpx

__all__ = ["Webhook"]

_END_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_MOST_REDIRECTS = 3
_REDIRECTS = (301, 302, 307, 308)
_NOT_NOW = (408, 425, 429)
_OF_FRAME = frozenset(
    ("frame_id", "frame_cycle", "frame_width", "frame_height", "pts", "width", "height")
)
"""Fields that say which picture a message is about: that is another one each time."""
_NS_PER_S = 1_000_000_000


class Webhook(Task):
    """Post messages to a URL.

    Takes messages of any class at `message`. The body is one JSON object: task, port, type, cycle,
    time_ns, tov_ns, fields; docs/sinks.md describes it. `on` says which messages are posted: all; those
    whose fields differ from the last one; or those whose fields become true, not 0 and not empty, after
    they were not, as a `BoolMsg` does.

    Any status below 300, and 303, is success. What is not reached in time, a status of 5xx, 408, 425 or
    429 is tried again, up to `retries` times, later each time; anything else is not. What could not be
    posted is dropped, counted in the run's report by its cause, and logged; the run goes on. A redirect
    is followed on the same host alone, so that what is secret stays there. A replay posts nothing.
    """

    class Config(JsonSettings):
        url: Url
        """Where to post. What is secret in it belongs into the environment: ${secret:NAME}."""
        on: Literal["every", "change", "rising"] = "every"
        """Which messages are posted: every one; those that differ; those that become true."""
        fields: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
        """The fields that `on` looks at; null: all but measurements and those that say which picture a
        message is about."""
        min_interval_s: NonNegativeFloat = 0.0
        """Seconds from one post to the next, at least, by the cycles' time; what comes before is left
        out. With on: change, what still differs after them is posted with the next message."""
        headers: dict[str, SecretStr] = Field(default_factory=dict)
        """More headers of each request. Their values are masked wherever they could be seen."""
        token: SecretStr | None = None
        """Sent as `Authorization: Bearer TOKEN`."""
        timeout_s: Annotated[float, Field(gt=0, le=300)] = 5.0
        """Seconds that an answer may take."""
        retries: Annotated[int, Field(ge=0, le=20)] = 3
        """How often a message is posted again."""
        queue: PositiveInt = 100
        """The most messages that wait to be posted; beyond that the oldest is dropped."""

    acts_outside = True
    example_config = MappingProxyType({"url": "http://127.0.0.1:8123/hook"})

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._outbox: Outbox[Kept] | None = None
        self._client: httpx.Client | None = None
        self._choice = _Choice(self.config)

    @classmethod
    def check(cls, config: TaskConfig, _graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        if not config.url:
            yield "url", "is empty; expected a URL such as https://example.org/hook"
        if config.fields is not None and config.on == "every":
            yield (
                "fields",
                "has no meaning with on: every; leave it out, or say on: change or rising",
            )
        for name, value in config.headers.items():
            if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum()):
                yield "headers", f"{name!r} is no name of a header"
            elif not _fits_a_header(value):
                yield "headers", f"the value of {name!r} holds a character that no header has"
        if config.token is not None and not _fits_a_header(config.token):
            yield "token", "holds a character that no header has"

    @classmethod
    def check_inputs(
        cls, config: TaskConfig, inputs: Mapping[str, type[Message]]
    ) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        if "message" in inputs:
            for text in unknown_fields(config.fields or (), inputs["message"]):
                yield "fields", text

    def start(self, ctx: Context) -> None:
        import httpx

        config = self.config
        headers = {name: value.get_secret_value() for name, value in config.headers.items()}
        headers["Content-Type"] = "application/json"
        if config.token is not None:
            headers["Authorization"] = f"Bearer {config.token.get_secret_value()}"
        self._ctx, self._complaints = ctx, Complaints(ctx)
        self._client = httpx.Client(
            headers=headers, timeout=config.timeout_s, trust_env=not is_this_machine(config.url)
        )
        self._outbox = Outbox(ctx, self._post, most=config.queue)

    def process(self, ctx: Context, message: Input[Message]) -> None:
        assert self._outbox is not None
        if self._choice.takes(message, ctx.now_ns):
            self._outbox.put(Kept.of(ctx, message, max_array=self.config.max_array))

    def stop(self, ctx: Context) -> None:
        del ctx
        if self._outbox is not None:
            self._outbox.close(_END_S)
        if self._client is not None:
            self._client.close()

    def _post(self, kept: Kept) -> None:
        """Post a message, again and again if need be."""
        assert self._outbox is not None
        body = to_json(kept.plain()).encode()
        pause_s, cause = _FIRST_PAUSE_S, ""
        for left in range(self.config.retries, -1, -1):
            cause, may_retry = self._attempt(body)
            if not cause:
                return
            if not may_retry or not left or self._outbox.closing_s == 0:
                break
            self._outbox.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self._ctx.dropped(1, cause)
        self._complaints.say(f"dropped: {cause}", host=_host(self.config.url), cycle=kept.cycle)

    def _attempt(self, body: bytes) -> tuple[str, bool]:
        """Why a post has failed, "" if it has not, and whether to try again."""
        import httpx

        assert self._client is not None
        assert self._outbox is not None
        url = self.config.url
        left_s = self._outbox.closing_s
        timeout_s = self.config.timeout_s if left_s is None else min(left_s, self.config.timeout_s)
        for _ in range(_MOST_REDIRECTS + 1):
            try:
                with self._client.stream(
                    "POST", url, content=body, timeout=max(0.1, timeout_s)
                ) as response:  # what it answers is not read
                    status, where = response.status_code, response.headers.get("Location", "")
            except httpx.TimeoutException:
                return "no answer in time", True
            except (httpx.TransportError, OSError):
                return "not reached", True
            except (httpx.InvalidURL, ValueError):
                return "no valid URL", False
            if status < 300 or status == 303:
                return "", False
            if status not in _REDIRECTS:
                return f"status {status}", status >= 500 or status in _NOT_NOW
            target = urllib.parse.urljoin(url, where)
            if not _may_follow(url, target):
                return "redirected to another host", False
            url = target
        return "redirected too often", False


class _Choice:
    """Which messages are posted."""

    def __init__(self, config: Webhook.Config) -> None:
        self._config = config
        self._posted: dict[str, Any] | None = None
        """What the message that was posted last had in these fields."""
        self._was_true = False
        self._posted_ns: int | None = None

    def takes(self, message: Message, now_ns: int) -> bool:
        """Whether to post the message of the cycle whose time is `now_ns`."""
        config = self._config
        looked_at: dict[str, Any] = {}
        if config.on != "every":
            fields = kept_fields(message, max_array=config.max_array)
            looked_at = {name: plain(fields[name]) for name in self._names(message)}
        was_true, self._was_true = self._was_true, any(looked_at.values())
        is_wanted = {
            "every": True,
            "change": looked_at != self._posted,
            "rising": self._was_true and not was_true,
        }[config.on]
        since_ns = math.inf if self._posted_ns is None else now_ns - self._posted_ns
        if not is_wanted or since_ns < config.min_interval_s * _NS_PER_S:
            return False
        self._posted, self._posted_ns = looked_at, now_ns
        return True

    def _names(self, message: Message) -> list[str]:
        if self._config.fields is not None:
            return list(self._config.fields)
        skipped = message.measured_fields | _OF_FRAME
        return [name for name in message.defaults if name not in skipped]


def _fits_a_header(value: SecretStr) -> bool:
    text = value.get_secret_value()
    return text.isascii() and text.isprintable() and text == text.strip()


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or ""


def _may_follow(url: str, target: str) -> bool:
    """Whether a redirect leads to the same host, and not from HTTPS to HTTP."""
    try:
        one, other = urllib.parse.urlsplit(url), urllib.parse.urlsplit(target)
        ports = {one.port, other.port}
    except ValueError:
        return False
    is_upgrade = (one.scheme, other.scheme) == ("http", "https") and ports <= {None, 80, 443}
    return one.hostname == other.hostname and (
        is_upgrade or (one.scheme == other.scheme and len(ports) == 1)
    )
