"""OpenAI's HTTP API in bytes: what is sent to ask about a JPEG of a frame, and how replies are read.

The part of the API that llama-server, vLLM, Ollama and others share: `POST chat/completions` with
one user message of an `image_url` (a data URL) and a text, streamed or not, and `GET models`.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from flowrun.runtime.pictures.encode import jpeg
from flowrun.tasks.models.question import Answer, ModelError, Question

__all__ = ["StreamedReply", "chat_request", "error_message", "models_in", "whole_answer"]

_LONGEST_ANSWER = 2**20
"""Bytes of an answer's text in UTF-8: far more than a model writes about a picture. A server that
sends without end must not fill the memory and the log."""


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


def whole_answer(reply: bytes, kind: str, *, where: str) -> Answer:
    """The answer in a reply that is one piece of JSON.

    kind: its content type, for the error's text.
    where: the server, for the same. Raises `ModelError`.
    """
    try:
        data = json.loads(reply)
        text = _text(data["choices"][0]["message"]["content"])
        tokens = int((data.get("usage") or {}).get("completion_tokens") or 0)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ModelError(
            f"{where}: no answer in JSON but {kind or 'no content type'}: {_shown(reply)}",
            may_pass=True,
        ) from None
    _check_size(_size(text), where)
    return Answer(text, tokens)


class StreamedReply:
    """An answer that comes as server-sent events, line by line.

    where: the server, for errors.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self.text = ""
        """The answer as far as it has come."""
        self._size = 0
        self._tokens = 0
        self._ended = False

    def add(self, line: str) -> bool:
        """Take in a line; whether it was a piece of the answer. Raises `ModelError`."""
        if not line.startswith("data:"):
            return False
        piece = line[5:].strip()
        if piece == "[DONE]":
            self._ended = True
            return False
        try:
            data = json.loads(piece)
            if data.get("error"):
                raise ModelError(f"{self._where}: {error_message(piece.encode())}", may_pass=True)
            self._add(data)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ModelError(
                f"{self._where}: broken JSON in the stream: {_shown(piece.encode())}",
                may_pass=True,
            ) from None
        _check_size(self._size, self._where)
        return True

    def _add(self, data: dict[str, Any]) -> None:
        self._tokens = int((data.get("usage") or {}).get("completion_tokens") or self._tokens)
        for choice in data.get("choices") or []:
            added = (choice.get("delta") or {}).get("content") or ""
            self.text += added
            self._size += _size(added)
            self._ended = self._ended or bool(choice.get("finish_reason"))

    def answer(self) -> Answer:
        """The answer, once all lines have come. Raises `ModelError` if it is not whole."""
        if not self._ended:
            raise ModelError(
                f"{self._where}: the answer broke off after {len(self.text)} characters",
                may_pass=True,
            )
        return Answer(_text(self.text), self._tokens)


def models_in(reply: bytes, *, where: str) -> list[str]:
    """The names in a server's list of its models. Raises `ModelError`."""
    try:
        return [str(model["id"]) for model in json.loads(reply)["data"]]
    except (ValueError, KeyError, TypeError):
        raise ModelError(
            f"{where}/models gives no list of models but {_shown(reply)}; base_url must "
            "be where the API begins, usually with /v1"
        ) from None


def _check_size(size: int, where: str) -> None:
    if size > _LONGEST_ANSWER:
        raise ModelError(f"{where}: the answer is longer than {_LONGEST_ANSWER >> 20} MiB of text")


def error_message(reply: bytes) -> str:
    """The text of `{"error": {"message": ...}}` or `{"error": ...}`; any other reply as it came."""
    try:
        error = json.loads(reply)["error"]
        text = str(error["message"]) if isinstance(error, dict) else str(error)
    except (ValueError, LookupError, TypeError):
        return _shown(reply)
    return text if len(text) <= 2000 else f"{text[:2000]}..."


def _text(content: Any) -> str:
    if not isinstance(content, str):
        raise TypeError
    # Half a surrogate pair can come from JSON; the log cannot hold one.
    return content.encode("utf-8", "replace").decode().strip()


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _shown(reply: bytes) -> str:
    text = reply[:200].decode(errors="replace").strip()
    return f"{text!r}{'...' if len(reply) > 200 else ''}" if text else "nothing"
