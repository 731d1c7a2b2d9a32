"""OpenAI's HTTP API in bytes: what is sent to ask about a JPEG of a frame, and what its errors say.

The part of the API that llama-server, vLLM, Ollama and others share: `POST chat/completions` with
one user message of an `image_url` (a data URL) and a text, streamed or not, and `GET models`.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from flowrun.runtime.pictures.encode import jpeg
from flowrun.tasks.models.question import ModelError, Question

__all__ = [
    "RETRIED",
    "ServerError",
    "chat_request",
    "error_code",
    "error_text",
    "is_error",
    "models_in",
    "refusal_text",
    "shown",
]

RETRIED = {408, 425, 429, *range(500, 600)}
"""The statuses after which the same request may well be answered; proxies have their own from 520 on."""
_OF_QUESTION = {0, 400, 413, 422}
"""The statuses of a question that no server with this model would answer; 0: the reply says so."""
_LONGEST_ERROR = 2000


class ServerError(ModelError):
    """A server refused a question, or its reply holds no answer.

    status: of the HTTP response; 0 if none came, or if it was 200.
    retry_after_s: how long the server asks to be left alone; None if it does not.
    """

    def __init__(
        self,
        text: str,
        *,
        may_pass: bool = False,
        status: int = 0,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(text, may_pass=may_pass)
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def is_of_server(self) -> bool:
        """Whether another server with the same model may well answer the same question."""
        return self.may_pass or self.status not in _OF_QUESTION


def chat_request(
    question: Question, *, model: str | None, stream: bool, jpeg_quality: int
) -> bytes:
    """The body of `POST chat/completions` for `question`."""
    picture = base64.b64encode(jpeg(question.pixels, quality=jpeg_quality)).decode()
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{picture}"}},
        {"type": "text", "text": question.prompt},
    ]
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": content}],
        "max_tokens": question.max_new_tokens,
        "temperature": 0.0,
        "stream": stream,
    }
    if model is not None:
        body["model"] = model
    if stream:
        body["stream_options"] = {"include_usage": True}
    if question.sampling is not None:
        body |= {"temperature": question.sampling.temperature, "seed": question.sampling.seed}
    if question.stop:
        body["stop"] = list(question.stop)
    return json.dumps(body).encode()


def models_in(reply: bytes, *, where: str) -> list[str]:
    """The names in a server's list of its models. Raises `ModelError`."""
    try:
        return [str(model["id"]) for model in json.loads(reply)["data"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ServerError(
            f"{where}/models gives no list of models but {shown(reply)}; base_url must "
            "be where the API begins, usually with /v1"
        ) from None


def is_error(reply: dict[str, Any]) -> bool:
    """Whether a reply with status 200 is an error nevertheless."""
    return bool(reply.get("error")) or reply.get("object") == "error"


def error_text(reply: Any) -> str:
    """The text of an error: `{"error": {"message": ...}}`, `{"error": ...}`, `{"message": ...}`,
    `{"detail": ...}`; of any other reply the reply itself."""
    found = reply
    while isinstance(found, dict):
        inner = next((found[key] for key in ("error", "message", "detail") if found.get(key)), None)
        if inner is None:
            break
        found = inner
    text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}..."


def error_code(reply: Any) -> int:
    """The number that an error gives as its code; 0 if it gives none."""
    error = reply.get("error") if isinstance(reply, dict) else None
    code = (error if isinstance(error, dict) else reply if isinstance(reply, dict) else {}).get(
        "code"
    )
    return code if isinstance(code, int) else 0


def refusal_text(reply: bytes) -> str:
    """What the body of a refused request says, as one line."""
    try:
        parsed = json.loads(reply.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return shown(reply)
    return error_text(parsed) if isinstance(parsed, dict) else shown(reply)


def shown(reply: bytes) -> str:
    """The beginning of a reply that is not what was expected; of a web page, its words."""
    text = reply.decode("utf-8", "replace").strip()
    kind = ""
    if re.match(r"(?i)<(!doctype|html|head|\?xml)", text):
        kind = "a web page: "
        text = " ".join(re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", text).split())
    if not text:
        return f"{kind or 'nothing'}".removesuffix(": ")
    return f"{kind}{text[:200]!r}{'...' if len(text) > 200 else ''}"
