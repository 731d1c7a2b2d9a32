"""A server's reply: the same answer or error from it whole, streamed, and in any pieces."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowrun.tasks.backends.reply import ReplyReader
from flowrun.tasks.models.question import Answer, ModelError, split_reasoning

USAGE = {"completion_tokens": 3}


def whole(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": USAGE, **more}).encode()


def event(data: Any, end: str = "\n") -> bytes:
    return f"data: {data if isinstance(data, str) else json.dumps(data)}{end}{end}".encode()


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def streamed(*deltas: dict[str, Any], finish: str | None = "stop", end: str = "\n") -> bytes:
    parts = [chunk({"role": "assistant", "content": None}), *map(chunk, deltas), chunk({}, finish)]
    parts.append({"choices": [], "usage": USAGE})
    return b"".join(event(part, end) for part in [*parts, "[DONE]"])


def read(*pieces: bytes, kind: str = "") -> Answer | str:
    """The answer in a reply, or the text of the error."""
    reply = ReplyReader("S", kind=kind)
    try:
        for piece in pieces:
            reply.add(piece)
        return reply.answer()
    except ModelError as error:
        return str(error)


def cut_up(reply: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(reply) + 1) for place in places), len(reply)]
    return [reply[a:b] for a, b in itertools.pairwise(edges)]


def halves(text: str) -> str:
    """`text` in surrogates: JSON may escape a character as a pair, and send the pair in two pieces."""
    units = text.encode("utf-16-be")
    return "".join(chr(int.from_bytes(units[i : i + 2])) for i in range(0, len(units), 2))


# -- laws --------------------------------------------------------------------------------------

# "\N{NEXT LINE}" and the like end a line for `str.splitlines`, but not in server-sent events.
TEXTS = st.text(st.sampled_from('a \u00e9\u2028\x85\x1c\U0001f600"\\\n\r{}<>:,'), max_size=12)
FINISHES = st.sampled_from(["stop", "length", "content_filter", "tool_calls", None])
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "content": TEXTS | st.none(),
        "reasoning_content": TEXTS,
        "refusal": TEXTS | st.none(),
        "tool_calls": st.just([{"index": 0, "function": {"name": "f", "arguments": "{}"}}]),
    },
)


@settings(max_examples=100)
@given(MESSAGES, FINISHES, st.integers(1, 4), st.booleans(), st.sampled_from(["\n", "\r\n", "\r"]))
@example({"content": "\U0001f600"}, "stop", 1, True, "\r\n")
@example({"content": ""}, None, 1, False, "\n")
def test_a_streamed_reply_says_what_the_whole_one_does(
    message: dict[str, Any], finish: str | None, size: int, escaped: bool, end: str
) -> None:
    deltas = []
    for name, value in message.items():
        if isinstance(value, str):
            text = halves(value) if escaped else value
            starts = range(0, max(1, len(text)), size)  # one piece, though empty, of an empty text
            deltas += [{name: text[i : i + size]} for i in starts]
        else:
            deltas.append({name: value})
    expected = read(whole(message, finish))
    if finish is not None or isinstance(expected, Answer):
        assert read(streamed(*deltas, finish=finish, end=end)) == expected


@settings(max_examples=100)
@given(st.data())
def test_the_pieces_in_which_a_reply_comes_do_not_matter(data: st.DataObject) -> None:
    message, finish = data.draw(MESSAGES), data.draw(FINISHES)
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    noise = data.draw(
        st.sampled_from([b"", b"\xef\xbb\xbf", b": ping\r\n\r\n", b"event: x\nid: 1\n"])
    )
    reply = data.draw(
        st.sampled_from(
            [
                whole(message, finish),
                noise + streamed(message, finish=finish, end=end),
                noise + streamed(message, finish=finish, end=end)[: data.draw(st.integers(0, 400))],
                json.dumps({"error": {"message": "no"}}).encode(),
                streamed({"content": "a"})[:200] + event({"error": "no"}),
                "<html>\u00e9</html>".encode(),
            ]
        )
    )
    places = data.draw(st.lists(st.integers(0, 5000), max_size=12))
    expected = read(reply)
    assert read(*cut_up(reply, places)) == expected
    assert read(*[reply[i : i + 1] for i in range(len(reply))]) == expected


@settings(max_examples=120)
@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "message", "delta", "content", "error", "usage", "index", "type",
                     "completion_tokens", "tool_calls", "function", "text", "finish_reason"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"%s", b"data: %s\n\n", b"error: %s\n"]),
)  # fmt: skip
@example(b"[" * 100_000, b"%s")
@example(b'{"choices": [null, {"delta": {"content": [null, {"type": "thinking"}]}}]}', b"data: %s")
@example(
    b'{"choices": [{"message": {"content": "a"}}], "usage": {"completion_tokens": 1e999}}', b"%s"
)
def test_whatever_comes_is_an_answer_or_an_error_of_the_server(data: bytes, frame: bytes) -> None:
    found = read(frame % data)
    assert isinstance(found, Answer) or found.startswith("S: ")
    assert not isinstance(found, Answer) or found.text.encode().decode() == found.text


# -- answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (whole({"content": " a ring "}), Answer("a ring", 3)),
        (whole({"content": "a ring on the le"}, "length"), Answer("a ring on the le", 3, True)),
        (whole({"content": "a ring on"}, "content_filter"), Answer("a ring on", 3, True)),
        (whole({"content": ""}), Answer("", 3)),
        (streamed(), Answer("", 3)),
        (
            whole({"content": [{"type": "text", "text": "a "}, "ring", {"type": "image_url"}]}),
            Answer("a ring", 3),
        ),
        (
            whole({"content": "a ring", "reasoning_content": "hmm"}),
            Answer("a ring", 3, reasoning="hmm"),
        ),
        (
            whole({"content": [{"type": "thinking", "thinking": [{"text": "hm"}]}, "a ring"]}),
            Answer("a ring", 3, reasoning="hm"),
        ),
        (
            streamed({"content": "<think>let me"}, {"content": " see</think>a ring"}),
            Answer("a ring", 3, reasoning="let me see"),
        ),
        (streamed({"content": "a ring"}, {"refusal": "no"}), Answer("a ring", 3)),
        # Two answers, though one was asked for; a last piece that holds the message once more.
        (
            event(chunk({"content": "a ring"}))
            + event({"choices": [{"index": 1, "delta": {"content": "two"}}]})
            + event({"choices": [{"message": {"content": "a ring"}, "finish_reason": "stop"}]}),
            Answer("a ring", 0),
        ),
        # JSON in several lines; no empty lines between events; no end of the last one.
        (
            b'data: {"choices": [{\ndata: "delta": {"content": "a ring"}}]}\n\ndata: [DONE]',
            Answer("a ring", 0),
        ),
        (
            event(chunk({"content": "a "}))[:-1] + event(chunk({"content": "ring"}, "stop"))[:-2],
            Answer("a ring", 0),
        ),
        (streamed({"content": "a ring"}) + event(chunk({"content": "after"})), Answer("a ring", 3)),
    ],
)
def test_what_is_an_answer(reply: bytes, answer: Answer) -> None:
    assert read(reply) == answer


TOOL = {"content": None, "tool_calls": [{"function": {"name": "look"}}]}
SPENT = "until it reached max_new_tokens; raise that, or turn the model's reasoning off"


@pytest.mark.parametrize(
    ("message", "finish", "text"),
    [
        (
            {"content": "", "reasoning_content": "hmm hmm"},
            "length",
            f"the model only reasoned {SPENT}; it began: 'hmm hmm'",
        ),
        (
            {"content": None, "reasoning": "hmm"},
            "length",
            f"the model only reasoned {SPENT}; it began: 'hmm'",
        ),
        (
            {"content": "<think>" + "h" * 300},
            "length",
            f"the model only reasoned {SPENT}; it began: '{'h' * 200}...'",
        ),
        ({"content": ""}, "length", f"the model said nothing {SPENT}"),
        ({"reasoning": "hmm"}, "stop", "the model reasoned and gave no answer; it began: 'hmm'"),
        (
            {"content": None, "refusal": "I can't."},
            "stop",
            'the model refuses to answer: "I can\'t."',
        ),
        (
            {"content": None, "refusal": None},
            "content_filter",
            "the server's content filter withheld the answer",
        ),
        (
            TOOL,
            "tool_calls",
            "the model calls a tool (look) instead of answering; run the server without tools",
        ),
        ({"content": [{"type": "image_url"}]}, "stop", "the answer holds no text, only image_url"),
    ],
)
def test_why_there_is_no_answer(message: dict[str, Any], finish: str, text: str) -> None:
    assert read(whole(message, finish)) == f"S: {text}"
    assert read(streamed(message, finish=finish)) == f"S: {text}"


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (b"", "application/json", "no answer in the reply but application/json: nothing"),
        (
            b"<html><style>x</style><h1>502 Bad Gateway</h1>nginx</html>",
            "text/html",
            "no answer in the reply but text/html: a web page: '502 Bad Gateway nginx'",
        ),
        (b'{"choices": []}', "", "no answer in the reply but no content type: '{\"choices\": []}'"),
        (
            b": ping\n\ndata: [DONE]\n\n",
            "a/b",
            "no answer in the reply but a/b: ': ping\\n\\ndata: [DONE]'",
        ),
        (whole({"content": None}, None), "", "the reply holds no text (content: null)"),
        (b'{"error": {"message": "too large", "code": 400}}', "", "too large"),
        (b'{"object": "error", "message": "no such model", "code": 404}', "", "no such model"),
        (b'{"detail": [{"msg": "bad"}], "error": true}', "", "true"),
        (
            event(chunk({"content": "a "})) + event({"error": {"message": "oom"}}),
            "",
            "after 2 characters: oom",
        ),
        (b'error: {"code": 500, "message": "oom"}\n\n', "", "oom"),
        (
            event({"choices": [{"finish_reason": "error", "error": {"message": "gone"}}]}),
            "",
            "gone",
        ),
        (event(chunk({"content": "a ri"})), "", "the answer broke off after 4 characters"),
        (
            event(chunk({"content": "a"})) + b'data: {"choi',
            "",
            "the answer broke off after 1 characters",
        ),
        (b'data: {"choices": [\n\n', "", "broken JSON in the stream: '{\"choices\": ['"),
    ],
)
def test_what_is_wrong_with_a_reply(reply: bytes, kind: str, text: str) -> None:
    assert read(reply, kind=kind) == f"S: {text}"


@pytest.mark.parametrize(
    ("begin", "piece", "text"),
    [
        (b'data: "', b"x" * 2**20, "the reply is longer than 8 MiB"),
        (b'{"', b"x" * 2**20, "the reply is longer than 8 MiB"),
        (
            b"",
            event(chunk({"reasoning": "x" * 100_000})),
            "the answer is longer than 1 MiB of text",
        ),
    ],
)
def test_a_reply_without_end_is_not_kept(begin: bytes, piece: bytes, text: str) -> None:
    assert read(begin, *[piece] * 11) == f"S: {text}"


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("a ring", "", "a ring"),
        ("<think>hm</think> a ring", "hm", " a ring"),
        ("\n<think>hm", "hm", ""),
        ("hm</think>a ring", "hm", "a ring"),
        ("[THINK]hm[/THINK]a ring", "hm", "a ring"),
        ("a <think> tag", "", "a <think> tag"),
    ],
)
def test_reasoning_is_kept_apart_from_the_answer(text: str, thought: str, answer: str) -> None:
    assert split_reasoning(text) == (thought, answer)
