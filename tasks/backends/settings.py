"""What a graph file may say of each kind of backend."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from flowrun.runtime.task import TaskConfig
from flowrun.runtime.wording import secrets_in_urls
from flowrun.tasks.addresses import http_url

__all__ = [
    "KINDS",
    "BackendSettings",
    "Device",
    "Dtype",
    "OpenAISettings",
    "ServerSettings",
    "TransformersSettings",
    "problems_of_urls",
]

_SHORTEST_WITHIN = 8
"""Length of the shortest secret that is looked for within arguments: `api_key: ollama` is no secret."""

KINDS = ("transformers", "openai")
"""The kinds that `backends:` may hold; `embedded` needs no settings."""

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


_SECRET_OPTION = re.compile(
    r"(--?(?:[\w-]*(?:api[-_]?key|(?:hf|auth|access)[-_]?token|password|passwd|secret)|token))(?:=|$)",
    re.IGNORECASE,
)

# An environment variable that is not set is empty in a replay, which reaches no server.
_Url = Annotated[str, AfterValidator(http_url)]


class TransformersSettings(TaskConfig):
    """A checkpoint that the transformers library loads into this process."""

    type: Literal["transformers"] = "transformers"
    """The kind of backend."""
    model: str
    """The checkpoint: a folder (relative ones start at the graph file) or a hub id."""
    device: Device = "auto"
    """Where the model computes: auto, cpu, cuda or cuda:N; auto: the first GPU, if there is one."""
    dtype: Dtype = "auto"
    """The type that the model computes in; auto: bfloat16 on a GPU and on a CPU that computes in it,
    float32 on others."""
    local_files_only: bool = False
    """Never look on the network for the model."""
    static_cache: bool = False
    """Give the model a cache of a fixed size: on a GPU transformers then compiles the decoding, which
    takes a minute at the first answer and makes all others faster."""


def _as_text(value: Any) -> Any:
    """YAML reads 0 as a number, and a variable that is empty as nothing."""
    if value is None:
        return ""
    return str(value) if type(value) in (int, float) else value


def _tells_secret(arguments: list[str], secrets: Collection[str]) -> bool:
    """Whether one of `arguments` is one of `secrets`, or holds one."""
    long = [secret for secret in secrets if len(secret) >= _SHORTEST_WITHIN]
    return any(
        bool(secrets_in_urls(argument))
        or any(secret in (argument, argument.partition("=")[2]) for secret in secrets)
        or any(secret in argument for secret in long)
        for argument in arguments
    )


class ServerSettings(TaskConfig):
    """A server that runs as long as the graph does."""

    command: list[str] | str
    """The program and its arguments, as a list or as one text; run in the graph file's folder, not
    by a shell. Everybody on the machine can read it: keys and passwords belong in `env`."""
    env: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")],
        Annotated[SecretStr, BeforeValidator(_as_text)],
    ] = Field(default_factory=dict)
    """Environment variables of the server besides flowrun's own, such as `LLAMA_API_KEY` or
    `HF_TOKEN`; their values are masked wherever they would show."""
    ready_url: _Url | None = None
    """The URL that answers 200 when the server is ready; if not given, `models` below `base_url`."""
    start_timeout_s: PositiveFloat = 120.0
    """How long the server may take until it is ready; loading a large model takes a while."""

    @property
    def secret_option(self) -> str | None:
        """An option of the command whose value is a secret by its name."""
        found = (re.match(_SECRET_OPTION, word) for word in self.command)
        return next((match[1] for match in found if match is not None), None)

    @field_validator("command")
    @classmethod
    def _has_a_program(cls, command: list[str] | str, info: ValidationInfo) -> list[str]:
        words = shlex.split(command) if isinstance(command, str) else command
        if not words or not words[0]:
            raise ValueError("names no program; give it and its arguments: [llama-server, -m, ...]")
        if _tells_secret(words[1:], (info.context or {}).get("secrets", ())):
            raise ValueError(
                "holds a secret, which everybody on this machine can read; give it by the environment, "
                "as in env: {LLAMA_API_KEY: ${secret:KEY}}"
            )
        return words


class OpenAISettings(TaskConfig):
    """A server with OpenAI's HTTP API: llama-server, vLLM, Ollama, SGLang and others."""

    type: Literal["openai"] = "openai"
    """The kind of backend."""
    base_url: _Url | Annotated[list[_Url], Field(min_length=1)]
    """Where the API begins, usually with /v1: http://127.0.0.1:8080/v1. A list is a farm of servers with
    the same model: each question goes to the one with the fewest, and to another if that one fails."""
    model: str | None = None
    """The server's name for the model. If not given, the only one that it has."""
    api_key: SecretStr | None = None
    """The key that the server asks for. `${NAME}`, an environment variable, keeps it out of the graph
    file; it is masked wherever it would show."""
    timeout_s: PositiveFloat = 30.0
    """How long an answer may take, from the question to its end, including retries."""
    retries: Annotated[int, Field(ge=0, le=10)] = 1
    """How often to ask again after a refused or broken connection, or a status of 408, 425, 429 or
    5xx. After that the server is left alone for 1 s, doubled with each failure up to 30 s, or as
    long as its Retry-After says, at most 300 s; questions about further frames fail meanwhile. Of a
    farm, each server is asked once, and the others answer meanwhile."""
    start_timeout_s: Annotated[float, Field(ge=0)] = 120.0
    """How long to wait at the start for a server that does not listen yet, or says that it is not
    ready, because it loads its model (a status of 502, 503 or 504); with `fallback`, the next
    backend answers meanwhile."""
    stream: bool = True
    """While somebody watches the page, have the answer sent as it grows."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 90
    """Quality of the picture that is sent, from 1 to 100."""
    server: ServerSettings | None = None
    """Have flowrun start the server, and end it with the run."""

    @property
    def urls(self) -> list[str]:
        """Those of all servers, in their order."""
        return [self.base_url] if isinstance(self.base_url, str) else self.base_url

    @field_validator("api_key")
    @classmethod
    def _fits_into_a_header(cls, api_key: SecretStr | None) -> SecretStr | None:
        key = api_key.get_secret_value() if api_key is not None else ""
        if not (key.isascii() and key.isprintable() and key == key.strip()):
            raise ValueError(
                "a key holds only printable ASCII characters, and no space or line end around them"
            )
        return api_key


def problems_of_urls(settings: OpenAISettings) -> Iterator[tuple[str, str]]:
    """What is wrong with addresses of which each is valid in itself, and at which key."""
    is_list = not isinstance(settings.base_url, str)
    for number, url in enumerate(settings.urls):
        key = f"base_url[{number}]" if is_list else "base_url"
        if not url:
            yield key, f"{key} is empty"
        elif (before := [it.rstrip("/") for it in settings.urls[:number]]).count(url.rstrip("/")):
            yield key, f"{key} is the same server as base_url[{before.index(url.rstrip('/'))}]"
    if settings.server is not None and len(settings.urls) > 1:
        yield (
            "server",
            (
                "flowrun starts one server, and base_url lists several; start them another way, or "
                "give each an entry of 'backends' of its own"
            ),
        )


BackendSettings = Annotated[TransformersSettings | OpenAISettings, Field(discriminator="type")]
