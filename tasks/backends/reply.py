"""How a reply to `POST chat/completions` is read: one reader for whole replies and for streamed ones.

A whole reply is a JSON object with a `message`. A streamed one is a sequence of server-sent events whose
`delta`s add up to that message. Both end in the same fields here, so that an answer does not depend on
how it was sent.
"""

from __future__ import annotations

import json
import re
from typing import Any

from flowrun.tasks.backends.chat import (
    RETRIED,
    ServerError,
    error_code,
    error_text,
    is_error,
    shown,
)
from flowrun.tasks.models.question import Answer, ModelError, split_reasoning

__all__ = ["ReplyReader"]

LONGEST_REPLY = 8 * 2**20
"""Bytes of a whole reply, or of one event: JSON may write a character of the text in six."""
LONGEST_ANSWER = 2**20
"""Bytes of an answer's text in UTF-8, its reasoning included: far more than a model writes about a
picture. A server that sends without end must not fill the memory and the log."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_FIELD = re.compile(rb"(data|error): ?(.*)", re.DOTALL)
_MARK = b"\xef\xbb\xbf"
"""UTF-8's byte order mark, which may precede a stream."""
_DONE = b"[DONE]"
_BEGINS_EVENTS = b":deir"
"""How the first line of a stream begins: a comment, data, error, event, id or retry."""
_CUTS_OFF = {"length", "max_tokens", "model_length", "content_filter", "abort"}
"""What servers give as `finish_reason` where the model had not ended its answer."""


class ReplyReader:
    """Reads a reply whose bytes come in pieces.

    where: the server, for errors.
    kind: the reply's content type, for the same.
    """

    def __init__(self, where: str, *, kind: str = "") -> None:
        self._where = where
        self._kind = kind
        self._message = _Message()
        self._head = b""
        self._rest = bytearray()
        self._event: list[bytes] = []
        self._is_stream: bool | None = None
        self._has_data = False
        self._ended = False
        self._is_done = False

    @property
    def is_whole(self) -> bool:
        """Whether the answer has come to its end, though the reply may go on."""
        return self._ended

    @property
    def text(self) -> str:
        """The answer as far as it has come, without the reasoning that precedes it."""
        return split_reasoning(self._message.text)[1]

    def add(self, piece: bytes) -> bool:
        """Take in the next bytes; whether the answer may have grown. Raises `ModelError`."""
        self._head = (self._head + piece[:256])[:256]
        if self._is_stream is None:
            begin = self._head.removeprefix(_MARK).lstrip()
            if begin and _MARK.startswith(begin):
                begin = b""
            self._is_stream = begin[0] in _BEGINS_EVENTS if begin else None
        held_end = self._rest.endswith(b"\r")
        self._rest += piece
        grown = False
        if self._is_stream and (held_end or b"\n" in piece or b"\r" in piece):
            grown = self._take_lines()
        if len(self._rest) + sum(map(len, self._event)) > LONGEST_REPLY:
            raise ServerError(f"{self._where}: the reply is longer than {LONGEST_REPLY >> 20} MiB")
        return grown

    def answer(self) -> Answer:
        """The answer, once all bytes have come. Raises `ModelError` if there is none, and says why."""
        if self._is_stream:
            self._rest += b"\n"
            self._take_lines()
            if all(map(_is_whole, _parts(self._event))):  # only the empty line after it is missing
                self._end_event()
        else:
            self._take_json(bytes(self._rest))
        if not self._has_data:
            raise self._no_answer()
        if not self._ended:
            raise ServerError(
                f"{self._where}: the answer broke off after {len(self._message.text)} characters",
                may_pass=True,
            )
        return self._message.answer(self._where)

    # -- server-sent events --------------------------------------------------------------------

    def _take_lines(self) -> bool:
        *lines, rest = _LINE_END.split(self._rest)
        if self._rest.endswith(b"\r"):  # "\n" may follow
            rest = lines.pop() + b"\r"
        self._rest = bytearray(rest)
        grown = False
        for line in map(bytes, lines):
            field = _FIELD.match(line.removeprefix(_MARK))
            if not line:
                grown = self._end_event() or grown
            elif field is not None and field[1] == b"data":
                self._event.append(field[2])
            elif field is not None:  # llama-server, before it sent errors as data
                self._raise_error(_json_or_text(field[2]))
        return grown

    def _end_event(self) -> bool:
        lines, self._event = self._event, []
        grown = False
        for data in _parts(lines):
            if data == _DONE:
                self._is_done = self._ended = True
            if not self._is_done:
                self._take_json(data)
                grown = True
        return grown

    # -- JSON ----------------------------------------------------------------------------------

    def _take_json(self, data: bytes) -> None:
        parsed = self._parsed(data)
        if not isinstance(parsed, dict):
            raise self._no_answer()
        if is_error(parsed):
            self._raise_error(parsed)
        try:
            self._take(parsed)
        except TypeError:
            raise self._no_answer() from None
        if self._message.size > LONGEST_ANSWER:
            raise ServerError(
                f"{self._where}: the answer is longer than {LONGEST_ANSWER >> 20} MiB of text"
            )

    def _parsed(self, data: bytes) -> Any:
        try:
            return json.loads(data.decode("utf-8-sig", "replace"))
        except (ValueError, RecursionError):
            if not self._is_stream:
                raise self._no_answer() from None
            raise ServerError(
                f"{self._where}: broken JSON in the stream: {shown(data)}", may_pass=True
            ) from None

    def _raise_error(self, reply: Any) -> None:
        after = len(self._message.text)
        where = f"{self._where}: after {after} characters" if after else self._where
        code = error_code(reply)
        is_final = 400 <= code < 500 and code not in RETRIED
        raise ServerError(f"{where}: {error_text(reply)}", may_pass=not is_final)

    def _take(self, data: dict[str, Any]) -> None:
        """Take in a whole reply, or a part of one. `TypeError` if it has another shape."""
        self._message.take_usage(data.get("usage"))
        for choice in map(_dict, _list(data.get("choices"))):
            if choice.get("index"):  # one answer was asked for
                continue
            self._has_data = True
            if isinstance(whole := choice.get("message"), dict):
                self._message.clear()
                self._message.add(whole)
                self._ended = True
            else:
                self._message.add(_dict(choice.get("delta")))
            if finish := choice.get("finish_reason"):
                self._message.finish = str(finish)
                self._ended = True
                if finish == "error":
                    self._raise_error(choice)

    def _no_answer(self) -> ServerError:
        return ServerError(
            f"{self._where}: no answer in the reply but {self._kind or 'no content type'}: "
            f"{shown(self._head)}",
            may_pass=True,
        )


class _Message:
    """What a model has said, of either kind of reply."""

    def __init__(self) -> None:
        self.finish: str | None = None
        self._tokens = 0
        self.clear()

    def clear(self) -> None:
        self.text = self.reasoning = self.refusal = ""
        self.size = 0
        self._has_content = False
        self._tools: list[str] = []
        self._others: list[str] = []

    def take_usage(self, usage: Any) -> None:
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if isinstance(tokens, int) and 0 < tokens < 2**53:
            self._tokens = int(tokens)

    def add(self, part: dict[str, Any]) -> None:
        """Add what a `delta` holds, or all of a `message`. `TypeError` if it has another shape."""
        self._add_content(part.get("content"))
        self._add("reasoning", part.get("reasoning_content") or part.get("reasoning"))
        self._add("refusal", part.get("refusal"))
        calls = [_dict(call).get("function") for call in _list(part.get("tool_calls"))]
        for call in [*calls, part.get("function_call")]:
            if call is not None and (name := _dict(call).get("name")):
                self._tools.append(str(name))
        if calls and not self._tools:
            self._tools.append("without a name")

    def _add_content(self, content: Any) -> None:
        if not isinstance(content, list):
            self._has_content = self._has_content or content is not None
            self._add("text", content)
            return
        for item in content:
            if isinstance(item, str):
                self._add("text", item)
                continue
            part = _dict(item)
            kind = str(part.get("type"))
            if kind in ("text", "output_text"):
                self._add("text", part.get("text"))
            elif kind == "refusal":
                self._add("refusal", part.get("refusal"))
            elif kind in ("thinking", "reasoning"):
                inner = part.get("thinking", part.get("text"))
                texts = inner if isinstance(inner, list) else [{"text": inner}]
                for text in texts:
                    self._add("reasoning", _dict(text).get("text"))
            else:
                self._others.append(kind)

    def _add(self, name: str, text: Any) -> None:
        if text is None:
            return
        if not isinstance(text, str):
            raise TypeError
        setattr(self, name, getattr(self, name) + text)
        self.size += len(text.encode("utf-8", "surrogatepass"))

    def answer(self, where: str) -> Answer:
        """The answer. `ModelError` says why there is none."""
        thought, text = split_reasoning(self.text)
        thought = _clean("\n".join(filter(None, [self.reasoning, thought])))
        text = _clean(text)
        if not text:
            why = self._why_silent(thought)
            if why is not None:
                raise ModelError(f"{where}: {why}")
        return Answer(text, self._tokens, self.finish in _CUTS_OFF, thought)

    def _why_silent(self, thought: str) -> str | None:
        """Why there is no text; None if the model chose to say nothing."""
        is_cut = self.finish in ("length", "max_tokens", "model_length")
        if self.refusal:
            return f"the model refuses to answer: {_excerpt(self.refusal)}"
        if self.finish == "content_filter":
            return "the server's content filter withheld the answer"
        if self._tools:
            return (
                f"the model calls a tool ({', '.join(self._tools[:5])}) instead of answering; "
                "run the server without tools"
            )
        if is_cut:
            began = f"; it began: {_excerpt(thought)}" if thought else ""
            return (
                f"the model {'only reasoned' if thought else 'said nothing'} until it reached "
                f"max_new_tokens; raise that, or turn the model's reasoning off{began}"
            )
        if thought:
            return f"the model reasoned and gave no answer; it began: {_excerpt(thought)}"
        if self._others:
            return f"the answer holds no text, only {', '.join(sorted(set(self._others)))}"
        if self.finish is None and not self._has_content:
            return "the reply holds no text (content: null)"
        return None


def _parts(lines: list[bytes]) -> list[bytes]:
    """What an event of several lines of data holds: one text; or, of servers that leave out the empty
    line after an event, as many as there are lines."""
    whole = b"\n".join(lines).strip()
    parts = lines if len(lines) > 1 and not _is_whole(whole) else [whole]
    return [part.strip() for part in parts if part.strip()]


def _is_whole(data: bytes) -> bool:
    return data == _DONE or not isinstance(_json_or_text(data), str)


def _json_or_text(data: bytes) -> Any:
    text = data.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _dict(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError
    return value


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError
    return value


def _clean(text: str) -> str:
    # JSON may hold the halves of a surrogate pair, in two pieces of an answer; the log holds no half.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()


def _excerpt(text: str) -> str:
    text = _clean(text)
    return repr(text if len(text) <= 200 else f"{text[:200]}...")
