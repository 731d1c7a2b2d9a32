"""What others see of a message: what was published, as the log gives it back, for ever."""

from __future__ import annotations

import copy
import enum
import gc
import heapq
import json
import mmap
import pickle
import re
import weakref
from collections import Counter, OrderedDict, namedtuple
from typing import Annotated, Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowrun.msgs import (
    DetectionsMsg,
    FloatMsg,
    ImageRgb8Msg,
    IntMsg,
    LatePublishError,
    Message,
    MessageTypeError,
    Shape,
    TextMsg,
)
from flowrun.msgs.arrays import is_published, is_reused


class ArrMsg(Message):
    data: Annotated[NDArray[np.float32], Shape("N")]


class MixMsg(Message):
    truth: bool
    count: int
    ratio: float
    name: str
    blob: bytes
    maybe: int | None
    numbers: list[int]
    scores: dict[str, float]
    anything: list[Any]
    things: dict[str, Any]
    bare: list  # type: ignore[type-arg]
    row: Annotated[NDArray[np.float32], Shape("N")]


class Name(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Bits(enum.IntFlag):
    A = 1
    B = 2


class Plain(enum.Enum):
    X = 1


class MyFloat(float):
    pass


class MyStr(str):
    __slots__ = ()


class Item:
    """Has `item`, as NumPy's scalars have, but no `dtype`."""

    item = 5

    def __repr__(self) -> str:
        return "Item()"


NONE_OF = "is none of bool, int, float, str, bytes, list, dict and None"
Pair = namedtuple("Pair", "a b")  # noqa: PYI024


def published(kind: type[Message], **fields: Any) -> Message:
    message = kind()
    for name, value in fields.items():
        setattr(message, name, value)
    message.publish(tov_ns=7)
    return message


def whole(text: str) -> str:
    return f"^{re.escape(text)}$"


def exact(value: Any) -> Any:
    """A value with its type, all the way down; lists and dicts of messages count as plain ones."""
    if isinstance(value, np.ndarray):
        return (
            type(value),
            value.dtype.str,
            value.shape,
            value.tobytes(),
            value.flags.c_contiguous,
        )
    if isinstance(value, list):
        return [exact(item) for item in value]
    if isinstance(value, dict):
        return [(exact(key), exact(item)) for key, item in value.items()]
    return (type(value), repr(value))


# -- values ------------------------------------------------------------------------------------


_INTS = st.integers(-(2**66), 2**66)
_TEXTS = st.text(st.characters(), max_size=4)  # lone surrogates included
_ODD = st.sampled_from(
    [
        np.float64(0.1), np.float32(0.1), np.float16(2), np.longdouble(1), np.int64(-3),
        np.uint64(2**63), np.bool_(True), np.str_("s"), np.bytes_(b"b"), np.arange(2), Name.RED,
        Number.ONE, Bits.A | Bits.B, Plain.X, MyFloat(2.5), MyStr("m"), bytearray(b"ba"),
        memoryview(b"mv"), {1, 2}, frozenset(), object(), 1j, range(2),
        (1, (2, 3)), Pair(1, "x"), OrderedDict(a=1), Counter("aab"), {1: 2}, {None: 1}, {(1, 2): 3},
        {np.int64(1): 1}, {b"k": [()]}, float("nan"), -0.0, 2**64 - 1, -(2**63), 2**64, "\ud800",
        IntMsg(value=1), print,
    ]
)  # fmt: skip
_BUFFERS = st.builds(lambda: memoryview(np.arange(2)))  # it has no hash
_LEAVES = (
    st.none()
    | st.booleans()
    | _INTS
    | st.floats()
    | _TEXTS
    | st.binary(max_size=4)
    | _ODD
    | _BUFFERS
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2) | st.just(Name.RED), inner, max_size=3)
    ),
    max_leaves=5,
)
_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(MixMsg.defaults.keys() - {"row"}, _VALUES),
        "row": st.just(np.arange(6, dtype=np.float32)[::2]) | _ODD,
    },
)


@given(fields=_FIELDS)
def test_a_consumer_sees_what_the_log_returns_and_a_replay_feeds(fields: dict[str, Any]) -> None:
    message = MixMsg()
    for name, value in fields.items():
        setattr(message, name, value)
    try:
        message.publish(tov_ns=1)
    except MessageTypeError as error:
        named = re.match(r"MixMsg\.(\w+): ", str(error))
        assert named is not None and named[1] in fields  # noqa: PT018
        assert not message.present
        assert exact(message.view().__dict__) == exact(MixMsg.defaults)
        return
    seen = message.view()
    logged = MixMsg.decode_fields(b"".join(seen.encode()))
    assert exact(seen.__dict__) == exact(logged)
    again = MixMsg()
    again.restore(logged, tov_ns=1)
    assert exact(again.view().__dict__) == exact(seen.__dict__)
    assert again.view().encode() == seen.encode()


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("ratio", np.float64(0.5), 0.5),
        ("ratio", np.float32(0.5), 0.5),
        ("ratio", 3, 3),
        ("count", np.int64(5), 5),
        ("count", Number.ONE, 1),
        ("count", Bits.A | Bits.B, 3),
        ("truth", np.bool_(True), True),
        ("name", Name.RED, "red"),
        ("name", MyStr("m"), "m"),
        ("blob", bytearray(b"x"), b"x"),
        ("blob", memoryview(b"x"), b"x"),
        ("maybe", np.uint8(3), 3),
        ("numbers", (1, np.int32(2)), [1, 2]),
        ("scores", OrderedDict(a=np.float64(1)), {"a": 1.0}),
        ("anything", [(1, (2,))], [[1, [2]]]),
        ("things", {"box": Pair(1, Name.RED)}, {"box": [1, "red"]}),
        ("bare", (1, "a"), [1, "a"]),
        ("anything", [{1: (), b"k": {None: np.uint8(2)}}], [{1: [], b"k": {None: 2}}]),
        ("things", {"half": np.float16(0.5), "no": np.bool_(False)}, {"half": 0.5, "no": False}),
    ],
)
def test_values_become_those_of_the_log(field: str, value: Any, shown: Any) -> None:
    assert exact(getattr(published(MixMsg, **{field: value}).view(), field)) == exact(shown)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("ratio", np.bool_(True), "expected float, got bool np.True_"),
        ("count", 2**64, "expected int, got int 18446744073709551616 (an int has 64 bits)"),
        ("count", np.float64(1), "expected int, got float64 np.float64(1.0)"),
        ("scores", {"a": "x"}, "expected dict[str, float], got dict {'a': 'x'}"),
        ("scores", {1: 2.0}, "expected dict[str, float], got dict {1: 2.0}"),
        ("numbers", [1, "x"], "expected list[int], got list [1, 'x']"),
        ("bare", {1}, "expected list, got set {1}"),
        ("bare", {"a": 1}, "expected list, got dict {'a': 1}"),
        (
            "things",
            {"t": {1}},
            "the log cannot hold {'t': {1}}: set {1} is none of bool, int, float, str, bytes, list, "
            "dict and None",
        ),
        (
            "things",
            {"t": np.arange(2)},
            "the log cannot hold {'t': array([0, 1])}: ndarray <int64 [2]> is none of bool, int, float, "
            "str, bytes, list, dict and None; declare an array field for it, or use tolist()",
        ),
        ("things", {"t": 2**70}, f"the log cannot hold {{'t': {2**70}}}: an int has 64 bits"),
        (
            "anything",
            ["a\ud800"],
            "the log cannot hold ['a\\ud800']: '\\ud800' at 1 of a text is not Unicode",
        ),
        (
            "row",
            np.ma.masked_array(np.zeros(2, np.float32)),
            "a masked array; the log keeps no mask: use filled()",
        ),
        ("row", [1.0], "expected an array, got list"),
        *(
            ("row", np.zeros(1, kind), f"expected float32 of shape (N), got {kind} of shape (1,)")
            for kind in ("float16", "float64", "int8", "uint32", ">f4")
        ),
        *(
            ("things", {"t": it}, f"the log cannot hold {{'t': {it!r}}}: {kind} {it!r} {rest}")
            for kind, it, rest in (
                ("longdouble", np.longdouble(1), f"{NONE_OF}; use item()"),
                ("complex64", np.complex64(1), f"{NONE_OF}; use item()"),
                ("complex", 1j, NONE_OF),
                ("Item", Item(), NONE_OF),
            )
        ),
        (
            "anything",
            [msgpack.ExtType(5, b"x")],
            "the log cannot hold [ExtType(code=5, data=b'x')]: an extension type of msgpack (code 5) "
            "has no place in a field",
        ),
        ("things", [1], "expected dict[str, typing.Any], got list [1]"),
    ],
)  # fmt: skip
def test_values_that_the_log_does_not_hold_are_refused(field: str, value: Any, text: str) -> None:
    message = published(MixMsg, name="before")
    setattr(message, field, value)
    with pytest.raises(MessageTypeError, match=whole(f"MixMsg.{field}: {text}")):
        message.publish(tov_ns=8)
    assert (message.view().name, message.tov_ns) == ("before", 7)  # what was published stays


def test_memory_with_gaps_is_refused() -> None:
    """In the words of Python's version."""
    with pytest.raises(MessageTypeError, match=r"^MixMsg\.anything: the log cannot hold \[<memory"):
        published(MixMsg, anything=[memoryview(b"abcd")[::2]])


def test_a_value_that_contains_itself_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    itself: dict[str, Any] = {}
    itself["me"] = itself
    for value in ({"x": deep}, itself):
        with pytest.raises(MessageTypeError, match="nested too deeply, or contains itself$"):
            published(MixMsg, things=value)


def test_the_field_that_is_wrong_is_named_though_another_only_had_to_be_changed() -> None:
    with pytest.raises(MessageTypeError, match=r"^MixMsg\.name: expected str, got int 5$"):
        published(MixMsg, count=np.int64(1), name=5)
    with pytest.raises(MessageTypeError, match=r"^MixMsg\.things: the log cannot hold"):
        published(MixMsg, count=np.int64(1), things={"x": set()})


@pytest.mark.parametrize("tov_ns", [-1, 2**63, 1.0, "1", None.__class__])
def test_a_time_that_is_none_is_refused(tov_ns: Any) -> None:
    message = published(IntMsg, value=1)
    message.value = 2  # type: ignore[attr-defined]
    text = f"IntMsg: tov_ns must be a whole number of nanoseconds, 0 or more; got {tov_ns!r}"
    with pytest.raises(MessageTypeError, match=whole(text)):
        message.publish(tov_ns=tov_ns)
    assert (message.view().value, message.tov_ns) == (1, 7)  # type: ignore[attr-defined]


def test_declared_arrays_are_of_numbers() -> None:
    for element in (np.object_, np.str_, np.void, np.datetime64):
        declared = Annotated[NDArray[element], Shape("N")]  # type: ignore[valid-type]
        with pytest.raises(MessageTypeError, match="an array field is declared as"):
            type("BadMsg", (Message,), {"__annotations__": {"x": declared}})


# -- after publishing --------------------------------------------------------------------------


def test_a_field_that_is_set_after_publishing_is_shown_when_it_is_published_again() -> None:
    message = IntMsg(value=1)
    message.publish(tov_ns=1)
    message.value = 2
    assert message.view().value == 1
    message.publish(tov_ns=2)
    assert message.view().value == 2


def test_the_publishers_own_containers_are_its_own() -> None:
    history, row = [1], np.zeros(2, np.float32)
    message = published(MixMsg, numbers=history, things={"deep": history}, row=row)
    history.append(2)
    row[:] = 9
    seen = message.view()
    assert (seen.numbers, seen.things, list(seen.row)) == ([1], {"deep": [1]}, [0, 0])  # type: ignore[attr-defined]


CHANGES = [
    lambda p: p.numbers.append(1),
    lambda p: p.numbers.sort(),
    lambda p: p.numbers.clear(),
    lambda p: p.numbers.__setitem__(0, 1),
    lambda p: p.numbers.__iadd__([1]),
    lambda p: p.numbers.__imul__(2),
    lambda p: p.numbers.pop(),
    lambda p: p.numbers.insert(0, 1),
    lambda p: p.numbers.extend([1]),
    lambda p: p.numbers.remove(1),
    lambda p: p.numbers.reverse(),
    lambda p: p.numbers.__delitem__(0),
    lambda p: p.things.__setitem__("n", 1),
    lambda p: p.things.update(n=1),
    lambda p: p.things.pop("list"),
    lambda p: p.things.popitem(),
    lambda p: p.things.clear(),
    lambda p: p.things.setdefault("n", 1),
    lambda p: p.things.__ior__({"n": 1}),
    lambda p: p.things.__delitem__("list"),
    lambda p: p.things["list"].append(1),
    lambda p: p.things["list"][0].update(n=1),
    lambda p: p.anything[0].append(1),
]


@pytest.mark.parametrize("change", CHANGES)
def test_containers_of_an_input_are_read_only_all_the_way_down(change: Any) -> None:
    message = published(MixMsg, numbers=[2, 1], things={"list": [{"a": 1}]}, anything=[[]])
    before = b"".join(message.view().encode())
    refused = r"^inputs are read-only: cannot .* of a message; copy\.deepcopy"
    with pytest.raises(TypeError, match=refused):
        change(message.view())
    assert b"".join(message.view().encode()) == before


def test_every_method_that_changes_a_list_or_dict_is_refused() -> None:
    seen: Any = published(MixMsg, numbers=[1], things={"a": 1}).view()
    reading = {
        "__class_getitem__", "__init_subclass__", "__getstate__", "__init__", "__new__", "__setattr__",
        "__delattr__", "__subclasshook__",
    }  # fmt: skip
    for value, base in ((seen.numbers, list), (seen.things, dict)):
        for name in dir(base):
            plain = copy.deepcopy(value)
            function = getattr(plain, name)
            if name in reading or not callable(function):
                continue
            for arguments in ((), (0,), ("a",), (0, 0), ([1],), ({"b": 1},), ("b", 1)):
                before = repr(plain)
                try:
                    function(*arguments)
                except Exception:  # noqa: BLE001  # other arguments
                    continue
                if repr(plain) != before:
                    with pytest.raises(TypeError, match="read-only"):
                        getattr(value, name)(*arguments)
                    plain = copy.deepcopy(value)
                    function = getattr(plain, name)


def test_containers_of_an_input_are_lists_and_dicts() -> None:
    seen: Any = published(MixMsg, numbers=[1], things={"a": [{}]}).view()
    assert isinstance(seen.numbers, list)
    assert json.dumps(seen.things) == '{"a": [{}]}'
    assert [*seen.numbers, 2] == seen.numbers.__add__([2]) == [1, 2]
    for made in (copy.deepcopy(seen.things), pickle.loads(pickle.dumps(seen.things))):
        assert made == {"a": [{}]}
        assert (type(made), type(made["a"]), type(made["a"][0])) == (dict, list, dict)
    assert type(copy.copy(seen.numbers)) is type(seen.numbers.copy()) is list
    assert type(copy.copy(seen.things)) is type(seen.things | {}) is dict


# -- arrays ------------------------------------------------------------------------------------


def _torch(value: NDArray[Any]) -> tuple[Any, Any]:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(value)
    return tensor.numpy(), lambda: tensor.fill_(7)


def _bytearray(value: NDArray[Any]) -> tuple[Any, Any]:
    memory = bytearray(value.tobytes())
    return np.frombuffer(memory, np.float32), lambda: memory.__setitem__(3, 0x40)


def _memoryview(value: NDArray[Any]) -> tuple[Any, Any]:
    memory = bytearray(value.tobytes())
    seen = memoryview(memory).toreadonly()
    return np.frombuffer(seen, np.float32), lambda: memory.__setitem__(3, 0x40)


def _shared(value: NDArray[Any]) -> tuple[Any, Any]:
    memory = mmap.mmap(-1, value.nbytes)
    return np.frombuffer(memory, np.float32), lambda: memory.__setitem__(3, 0x40)


def _view(value: NDArray[Any]) -> tuple[Any, Any]:
    head = value[:1]
    return value, lambda: head.__setitem__(0, 5)


def _own(value: NDArray[Any]) -> tuple[Any, Any]:
    return value[:], lambda: value.__setitem__(0, 5)


def _sealed(value: NDArray[Any]) -> tuple[Any, Any]:
    head = value[:1]
    value.setflags(write=False)
    return value, lambda: head.__setitem__(0, 5)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(_torch, marks=pytest.mark.long),
        _bytearray,
        _memoryview,
        _shared,
        _view,
        _own,
        _sealed,
    ],
)
def test_what_shares_an_array_s_memory_does_not_change_what_others_see(make: Any) -> None:
    array, write = make(np.zeros(4, np.float32))
    message = published(ArrMsg, data=array)
    kept = message.view().copy()
    write()
    assert (array != 0).any()
    assert not message.view().data.any()  # type: ignore[attr-defined]
    assert not kept.data.any()  # type: ignore[attr-defined]


def test_only_memory_that_is_known_is_shared() -> None:
    source, passed, kept = ArrMsg(), ArrMsg(), np.ones(3, np.float32)
    slots = source.allocate("data", (3,))
    slots[:] = 2
    source.publish(tov_ns=1)
    assert np.shares_memory(source.view().data, slots)
    assert is_reused(source.view().data)
    assert not slots.flags.writeable
    passed.data = source.view().data  # an input's
    passed.publish(tov_ns=1)
    assert np.shares_memory(passed.view().data, slots)
    assert not np.shares_memory(passed.copy().data, slots)
    source.hand_over("data", kept)
    source.publish(tov_ns=2)
    assert np.shares_memory(source.view().copy().data, kept)
    source.data = bytes_of = np.frombuffer(bytes(12), np.float32)
    source.publish(tov_ns=3)
    assert np.shares_memory(source.view().data, bytes_of)  # a `bytes` never changes


def test_a_part_of_the_memory_itself_may_be_overwritten_too() -> None:
    message = ArrMsg()
    message.allocate("data", (3,))
    message.publish(tov_ns=1)
    memory = message.view().data.base  # type: ignore[attr-defined]
    assert is_reused(memory)
    assert is_reused(memory[1:])
    message.hand_over("data", np.zeros(3, np.float32))
    message.publish(tov_ns=2)
    assert not is_reused(message.view().data)  # type: ignore[attr-defined]
    assert not is_reused(np.zeros(3))
    assert not is_published(np.zeros(3))


def test_an_array_is_as_the_log_gives_it_back() -> None:
    """Sums of floats depend on the order in memory."""
    image = ImageRgb8Msg()
    image.pixels = np.zeros((4, 6, 3), np.uint8)[::2, ::-2]
    image.publish(tov_ns=1)
    assert image.view().pixels.flags.c_contiguous
    message = published(ArrMsg, data=np.arange(3, dtype=np.float32).view(np.recarray))
    assert type(message.view().data) is np.ndarray  # type: ignore[attr-defined]
    unaligned = np.frombuffer(b"." + np.arange(3, dtype=np.float32).tobytes(), np.float32, offset=1)
    for how in (ArrMsg.hand_over, Message.__setattr__):
        message = ArrMsg()
        how(message, "data", unaligned)
        message.publish(tov_ns=1)
        assert message.view().data.flags.aligned
        assert message.view().data.tolist() == [0, 1, 2]


def test_a_published_array_keeps_its_shape() -> None:
    message = ImageRgb8Msg()
    own = message.allocate_pixels(2, 3)
    message.publish(tov_ns=1)
    message.pixels = seen = message.view().pixels  # shown by itself
    message.publish(tov_ns=2)
    assert message.view().pixels is not seen
    own.shape = seen.shape = (3, 2, 3)
    assert message.view().pixels.shape == (2, 3, 3)


def test_a_published_array_stays_read_only() -> None:
    message = ArrMsg()
    message.allocate("data", (2,))
    message.publish(tov_ns=1)
    for array in (message.view().data, message.view().data[:1]):
        with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
            array.setflags(write=True)
    own = message.allocate("data", (2,))  # while others see the first
    own[:] = 5
    assert not np.shares_memory(own, message.view().data)


def test_hand_over_checks_the_array_and_copies_one_of_another_layout() -> None:
    message = ArrMsg()
    text = "ArrMsg has no array field 'dat'; array fields: ['data']"
    with pytest.raises(MessageTypeError, match=whole(text)):
        message.hand_over("dat", np.zeros(1, np.float32))
    with pytest.raises(MessageTypeError, match=r"^ArrMsg\.data: expected float32 of shape \(N\)"):
        message.hand_over("data", np.zeros(1))
    every_second = np.zeros(4, np.float32)[::2]
    message.hand_over("data", every_second)
    message.publish(tov_ns=1)
    assert message.view().data.flags.c_contiguous


# -- when --------------------------------------------------------------------------------------


def test_a_message_that_is_not_open_is_not_published() -> None:
    late = []
    message = IntMsg(value=1)
    envelope = message.envelope
    envelope.owner, envelope.note_late, envelope.is_open = (
        "task 't', port 'out'",
        late.append,
        False,
    )
    text = (
        "task 't', port 'out': IntMsg.publish() was called outside process, on thread 'MainThread'; "
        "publish before process returns, or keep the value and publish it in a later call"
    )
    with pytest.raises(LatePublishError, match=whole(text)) as caught:
        message.publish(tov_ns=1)
    assert late == [caught.value]
    assert not message.present
    mixed = MixMsg()
    mixed.envelope.is_open = False
    with pytest.raises(LatePublishError):
        mixed.publish()
    mixed.restore({"name": "fed"}, tov_ns=3)  # the runtime may
    assert (mixed.view().name, mixed.present) == ("fed", True)


@pytest.mark.parametrize("kind", [IntMsg, MixMsg, ImageRgb8Msg])
def test_clearing_leaves_nothing_of_an_attribute_that_is_no_field(kind: type[Message]) -> None:
    message = kind()
    message.extra = 5  # type: ignore[attr-defined]
    del message.__dict__[next(iter(kind.defaults))]
    message.clear()
    assert message.__dict__.keys() == kind.defaults.keys()
    message.publish(tov_ns=1)


def test_the_envelope_cannot_be_set() -> None:
    message = IntMsg()
    for name in ("present", "tov_ns"):
        with pytest.raises(AttributeError, match="no setter"):
            setattr(message, name, 1)


def test_a_message_is_freed_without_the_collector() -> None:
    class Buffer(np.ndarray):  # type: ignore[type-arg]
        """An array to which a weak reference can be made."""

    gc.disable()
    try:
        message, view = ImageRgb8Msg(), None
        pixels = np.zeros((2, 2, 3), np.uint8).view(Buffer)
        alive = weakref.ref(pixels)
        message.hand_over("pixels", pixels)
        message.publish(tov_ns=1)
        view, copied = message.view(), message.view().copy()
        del pixels
        assert alive() is not None
        del message, view, copied
        assert alive() is None
    finally:
        gc.enable()


# -- as Python objects -------------------------------------------------------------------------


def test_a_copy_may_be_changed() -> None:
    message = published(MixMsg, numbers=[1], things={"a": [1]}, row=np.ones(2, np.float32))
    for copied in (message.view().copy(), copy.copy(message.view()), copy.deepcopy(message.view())):
        assert not copied.is_view
        assert (copied.present, copied.tov_ns) == (True, 7)
        copied.numbers.append(2)  # type: ignore[attr-defined]
        copied.things["a"].append(2)  # type: ignore[attr-defined]
        assert copied.view().numbers == [1]  # type: ignore[attr-defined]
        copied.publish(tov_ns=9)
        assert copied.view().numbers == [1, 2]  # type: ignore[attr-defined]
    assert message.view().numbers == [1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("first", [np.int64(1), None])
def test_a_copy_is_of_what_was_published_last(first: Any) -> None:
    message = IntMsg()
    if first is None:
        message.restore({"value": 1}, tov_ns=0)
    else:
        message.value = first
        message.publish()
    message.value = 2
    message.publish()
    assert message.view().copy().value == 2
    assert message.envelope.mend() is None


def test_a_copy_has_lists_of_its_own_also_for_c_code() -> None:
    message = published(MixMsg, numbers=[3, 4])
    copied = message.view().copy()
    heapq.heappush(copied.view().numbers, 1)  # type: ignore[attr-defined]
    assert message.view().numbers == [3, 4]  # type: ignore[attr-defined]
    assert copied.envelope.mend() == "numbers"


def test_a_copy_of_a_draft_is_a_draft() -> None:
    copied = MixMsg(count=3).copy()
    assert (copied.count, copied.present, copied.tov_ns) == (3, False, 0)
    assert copied.view().count == 0


@pytest.mark.parametrize("of", [lambda message: message, lambda message: message.view()])
def test_a_message_is_pickled(of: Any) -> None:
    message = published(MixMsg, numbers=[1], things={"a": (1,)}, row=np.ones(2, np.float32))
    again = pickle.loads(pickle.dumps(of(message)))
    assert type(again) is MixMsg
    assert (again.present, again.tov_ns) == (True, 7)
    assert exact(again.view().__dict__) == exact(message.view().__dict__)
    unpublished = pickle.loads(pickle.dumps(IntMsg(value=3)))
    assert (unpublished.value, unpublished.present) == (3, False)


def test_messages_are_equal_if_the_log_would_hold_the_same() -> None:
    assert IntMsg(value=1) == published(IntMsg, value=1) == published(IntMsg, value=1).view()
    assert IntMsg(value=1) != IntMsg(value=2)
    assert FloatMsg(value=1) != FloatMsg(value=1.0)
    assert FloatMsg(value=float("nan")) == FloatMsg(value=float("nan"))
    assert FloatMsg(value=0.0) != FloatMsg(value=-0.0)
    assert IntMsg(value=1) != TextMsg(value="1")
    assert IntMsg(value=1) != 1
    one, two = (ImageRgb8Msg(pixels=np.zeros((1, 1, 3), np.uint8)) for _ in range(2))
    assert one == two
    two.pixels[0, 0, 0] = 1
    assert one != two
    assert published(MixMsg, numbers=[1]).view() == published(MixMsg, numbers=[1]).copy()


def test_a_message_has_no_hash() -> None:
    for message in (IntMsg(), IntMsg().view()):
        with pytest.raises(TypeError, match="unhashable type: 'IntMsg'"):
            hash(message)


def test_what_a_class_adds_to_the_check_holds_when_it_is_published() -> None:
    message = DetectionsMsg(labels=("a",))
    with pytest.raises(
        MessageTypeError, match="every object has one box, score, label and class id"
    ):
        message.publish(tov_ns=1)
    message.boxes, message.scores = np.zeros((1, 4), np.float32), np.zeros(1, np.float32)
    message.class_ids = np.zeros(1, np.int32)
    message.publish(tov_ns=1)
    assert message.view().labels == ["a"]
