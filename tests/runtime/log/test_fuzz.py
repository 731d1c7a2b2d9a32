"""No bytes make the reader of logs crash, hang, take all memory, or give what was not written.

`make fuzz` runs the same for as long as one likes.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from zlib_ng.zlib_ng import crc32

from flowrun.msgs import ImageRgb8Msg, protobuf
from flowrun.msgs.fields import array_from_map
from flowrun.runtime.log.lines import pack_log, unpack_log
from flowrun.runtime.log.values import decode
from flowrun.runtime.pictures.stored import PictureEncoder, StoredPicture
from support.fuzz import feed
from support.fuzz.feed import Fuzzer
from support.fuzz.laws import BrokenLawError
from support.fuzz.mutations import MUTATIONS, Case, make_case, records, reseal
from support.fuzz.originals import Original, originals
from support.fuzz.payloads import WRONG, wrong_payload
from support.paths import TESTS

quick = settings(max_examples=100)
seeds = st.integers(0, 2**32)
SLAB = "log_0000.mcap"


def picture(codec: str, *, height: int = 6, width: int = 4) -> bytes:
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    message = ImageRgb8Msg(pixels=pixels, frame_id=3, pts=None, fps=30.0, source="c")
    message.publish(tov_ns=5)
    return b"".join(map(bytes, PictureEncoder(codec).encode(message, 0)))


def with_own(payload: bytes, **changed: object) -> memoryview:
    """The payload of a picture with other values in its field 1000."""
    fields = dict(protobuf.fields(memoryview(payload)))
    fields[1000] = memoryview(msgpack.packb(msgpack.unpackb(fields[1000]) | changed))
    return memoryview(
        b"".join(protobuf.bytes_field(number, bytes(value)) for number, value in fields.items())
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Original]:
    return originals(tmp_path_factory.mktemp("fuzz") / "originals")


@pytest.fixture
def fuzzer(whole: list[Original], tmp_path: Path) -> Fuzzer:
    return Fuzzer(whole, tmp_path, seed=3)


def hold(fuzzer: Fuzzer, number: int) -> None:
    case = fuzzer.case(number)
    try:
        fuzzer.hold(case)
    except Exception as error:
        error.add_note(f"case {number}: {case}")
        raise


def named(whole: list[Original], name: str) -> Original:
    return next(it for it in whole if it.name == name)


@pytest.mark.parametrize("part", range(4))
def test_damaged_logs_keep_the_laws(fuzzer: Fuzzer, part: int) -> None:
    for number in range(15 * part, 15 * part + 15):
        hold(fuzzer, number)


@pytest.mark.long
@pytest.mark.slow
def test_damaged_logs_keep_the_laws_with_little_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *feed.COMMAND, "--cases", "150", "--seed", "2", "--kept", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "150 cases of seed 2 in" in done.stdout
    assert "refused, 0 wrong" in done.stdout


ENDS = """
import os, sys, time
sys.path.insert(0, "{tests}")
from support.fuzz import feed, originals

feed.originals, feed.MOST_S = originals.built, 1
ENDS = [str, lambda: time.sleep(30), os.abort, lambda: bytes(1 << 30), str]
make, hold = feed.Fuzzer.case, feed.Fuzzer.hold

def numbered(self, number):
    self.number = number
    return make(self, number)

def ends(self, case):
    outcome = hold(self, case)
    ENDS[self.number]()
    return outcome

feed.Fuzzer.case, feed.Fuzzer.hold = numbered, ends
sys.exit(feed.main([__file__]))
"""


@pytest.mark.long
@pytest.mark.slow
def test_the_fuzzer_goes_on_after_cases_that_end_its_process(tmp_path: Path) -> None:
    script = tmp_path / "ends.py"
    script.write_text(ENDS.format(tests=TESTS))
    done = subprocess.run(
        [sys.executable, script, "--cases", "5", "--kept", tmp_path / "kept"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 1, done.stderr
    assert "5 cases of seed 1 in" in done.stdout
    assert "3 wrong" in done.stdout
    why = {path.parent.name: path.read_text() for path in tmp_path.glob("kept/*/why.txt")}
    assert sorted(why) == ["1-1", "1-2", "1-3"]
    for kept, text in ("1-1", "Timeout"), ("1-2", "Aborted"), ("1-3", "MemoryError"):
        assert text in why[kept]
        assert len([*(tmp_path / "kept" / kept).glob("*.mcap")]) == 1


def test_the_laws_notice_a_reader_that_gives_out_damaged_cycles(
    whole: list[Original], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuzzer = Fuzzer([it for it in whole if it.run == "built"], tmp_path, seed=3)
    monkeypatch.setattr("flowrun.runtime.log.slab.cycles.CycleReader.check", lambda *_: None)
    monkeypatch.setattr("flowrun.runtime.log.slab.cycles.CycleReader.records", _unchecked)
    with pytest.raises(BrokenLawError, match="was never written so"):
        deque(fuzzer.hold(fuzzer.case(number)) for number in range(200))


def _unchecked(cycles, index, start=None):
    for head in cycles.heads(index, start):
        yield head.opcode, head.offset, head.cycle, head.time_ns, cycles.entries(head)


def changed(whole: list[Original], files: dict[str, bytes]) -> Case:
    return Case(named(whole, "small, finished"), files, exact=True, changes=[], donors=[])


def test_the_laws_notice_a_message_that_was_not_written(
    whole: list[Original], fuzzer: Fuzzer
) -> None:
    data = bytearray(named(whole, "small, finished").slabs[SLAB].data)
    at = data.index(msgpack.packb({"value": 16}))
    data[at : at + 8] = msgpack.packb({"value": 17})
    reseal(data)
    with pytest.raises(BrokenLawError, match="cycle 4 was never written so: .*x11"):
        fuzzer.hold(changed(whole, {SLAB: bytes(data)}))


def test_the_laws_notice_a_picture_that_was_not_written(
    whole: list[Original], fuzzer: Fuzzer
) -> None:
    original = named(whole, "pictures, finished")
    other = replace(original, pixels=original.pixels | {(3, "/zstd/image"): 1})
    case = Case(other, {SLAB: original.slabs[SLAB].data}, exact=True, changes=[], donors=[])
    with pytest.raises(BrokenLawError, match="cycle 3: /zstd/image: not the picture that was"):
        fuzzer.hold(case)


def test_the_laws_notice_cycles_of_which_nobody_says_that_they_are_missing(
    whole: list[Original], fuzzer: Fuzzer
) -> None:
    shorter = named(whole, "small, unfinished").slabs[SLAB].data
    with pytest.raises(BrokenLawError, match="cycles are missing, unsaid: .20, 21, 22, 23"):
        fuzzer.hold(changed(whole, {SLAB: shorter}))


def test_whole_logs_are_read_whole_and_sealed_as_they_should_be(
    whole: list[Original], fuzzer: Fuzzer
) -> None:
    for original in whole:
        files = {name: slab.data for name, slab in original.slabs.items()}
        case = Case(original, files, exact=True, changes=[], donors=[])
        assert fuzzer.hold(case) == "read whole"
        for data in files.values():
            assert len(records(data)) > 10
            sealed = bytearray(data)
            reseal(sealed)
            assert sealed == data, original.name


def test_a_resealed_log_gives_out_what_was_changed(whole: list[Original], fuzzer: Fuzzer) -> None:
    """Each checksum of a log is computed as its writer does."""
    original = named(whole, "made")
    data = bytearray(original.slabs[SLAB].data)
    for offset, opcode, length in records(data):
        if opcode == 0x09:  # an attachment's last byte before its CRC
            data[offset + 9 + length - 5] ^= 1
    damaged = Case(original, {SLAB: bytes(data)}, exact=False, changes=[], donors=[])
    assert fuzzer.hold(damaged) == "refused"
    reseal(data)
    damaged.files = {SLAB: bytes(data)}
    assert fuzzer.hold(damaged) == "read whole"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda it: it.__name__)
def test_each_mutation_changes_logs(whole: list[Original], mutation) -> None:
    sample = named(whole, "built, 4 cycles, big 0, finished").slabs[SLAB].data
    made = set()
    for seed in range(20):
        data = bytearray(sample)
        mutation(data, random.Random(seed))
        made.add(bytes(data))
    assert len(made - {sample}) > 5


def test_cases_are_of_all_logs_and_changes_and_come_again(whole: list[Original]) -> None:
    cases = [make_case(whole, [number, number + 1]) for number in range(600)]
    assert {case.original.name for case in cases} == {it.name for it in whole}
    made = {change.partition(" (")[0].partition(" in ")[0] for it in cases for change in it.changes}
    assert made == {it.__name__ for it in MUTATIONS} | {"wrong payloads", "splice"}
    assert 0.4 < sum(case.exact for case in cases) / len(cases) < 0.6
    assert make_case(whole, [7, 8]) == cases[7]


# -- parsers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parse",
    [StoredPicture.parse, ImageRgb8Msg.decode_fields, unpack_log],
    ids=lambda it: it.__qualname__,
)
@quick
@given(data=st.binary(max_size=80))
def test_any_bytes_are_a_message_or_a_value_error(parse, data) -> None:
    with contextlib.suppress(ValueError):
        parse(memoryview(data))


@pytest.mark.parametrize("codec", ["packets", "raw", "zstd", "ffv1"])
@quick
@given(seed=seeds)
def test_a_picture_with_other_values_is_its_own_or_a_value_error(codec, seed) -> None:
    whole = picture("packets" if codec == "raw" else codec)
    payload = memoryview(wrong_payload(whole, "protobuf", random.Random(seed)))
    with contextlib.suppress(ValueError):
        stored = StoredPicture.parse(payload)
        if stored.own["codec"] != "packets":
            read = stored.unpacked()
            assert read.shape == (*stored.own["size"], 3)
            assert not read.size or crc32(read.tobytes()) == stored.own["crc"]


@quick
@given(seed=seeds)
def test_a_log_line_or_raw_picture_with_other_values_is_read_or_a_value_error(seed) -> None:
    rng = random.Random(seed)
    line = wrong_payload(pack_log(5, "info", "text", "c", {"a": [1]}), "protobuf", rng)
    message = ImageRgb8Msg(
        pixels=np.zeros((2, 3, 3), np.uint8), frame_id=1, pts=4, fps=1.0, source="c"
    )
    message.publish(tov_ns=5)
    raw = wrong_payload(b"".join(map(bytes, message.encode())), "protobuf", rng)
    for payload, schema in ((line, "foxglove.Log"), (raw, "foxglove.RawImage")):
        with contextlib.suppress(ValueError, msgpack.UnpackException):
            decode(memoryview(payload), "protobuf", schema)


@pytest.mark.parametrize("dtype", [value for value in WRONG if value != "<f8"], ids=repr)
def test_an_array_of_a_type_that_cannot_be_is_a_value_error(dtype) -> None:
    with contextlib.suppress(ValueError):
        array_from_map({"dtype": dtype, "shape": [2], "data": bytes(16)})


def test_a_number_in_place_of_text_is_not_that_many_zeros() -> None:
    huge = protobuf.varint_field(2, 2**40)
    with pytest.raises(ValueError, match="expected a length-delimited field"):
        StoredPicture.parse(memoryview(picture("zstd") + huge))
    huge = protobuf.varint_field(7, 2**40)
    raw = ImageRgb8Msg(pixels=np.zeros((2, 3, 3), np.uint8))
    raw.publish(tov_ns=5)
    with pytest.raises(ValueError, match="expected a length-delimited field"):
        ImageRgb8Msg.decode_fields(b"".join(map(bytes, raw.encode())) + huge)
    with pytest.raises(ValueError, match="expected a length-delimited field"):
        unpack_log(pack_log(5, "info", "", "c", {}) + protobuf.varint_field(3, 2**40))


def test_a_small_frame_of_many_pixels_is_not_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 26))
    stored = StoredPicture.parse(with_own(picture("zstd")))
    bombed = StoredPicture(stored.own, "c", memoryview(bomb))
    with pytest.raises(ValueError, match="zstd: expected 72 bytes"):
        bombed.unpacked()
    for codec in ("zstd", "ffv1"):
        huge = StoredPicture.parse(with_own(picture(codec), size=[1 << 20, 1 << 20]))
        with pytest.raises(ValueError, match="expected at most 268435456"):
            huge.unpacked()
