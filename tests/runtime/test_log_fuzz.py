"""No bytes make the reader of logs crash, hang, take all memory, or give what was not written.

`make fuzz` runs the same for as long as one likes.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from collections import deque
from pathlib import Path

import fuzz_log
import hypothesis.strategies as st
import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from log_mutations import MUTATIONS, records, reseal
from payload_mutations import WRONG, wrong_payload
from zlib_ng.zlib_ng import crc32

from flowrun.msgs import ImageRgb8Msg, protobuf
from flowrun.msgs.message import array_from_map
from flowrun.runtime.log_message import decode
from flowrun.runtime.log_picture import PictureEncoder, StoredPicture
from flowrun.runtime.log_records import pack_log, unpack_log

quick = settings(max_examples=100, deadline=None)
seeds = st.integers(0, 2**32)


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


def test_damaged_logs_keep_the_laws(tmp_path: Path) -> None:
    corpus = fuzz_log.Corpus(fuzz_log.built(), tmp_path / "whole")
    for number in range(60):
        fuzz_log.run_case(corpus, tmp_path, 3, number)


@pytest.mark.slow
def test_damaged_logs_of_real_runs_keep_the_laws_with_little_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, fuzz_log.__file__, "--cases", "200", "--seed", "2", "--kept", tmp_path],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 damaged logs in" in done.stdout
    assert ": 0 broke a law" in done.stdout


def test_the_fuzzer_notices_a_reader_that_gives_out_damaged_cycles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = fuzz_log.Corpus(fuzz_log.built(), tmp_path / "whole")
    monkeypatch.setattr("flowrun.runtime.log_slab_reader.SlabReader.check", lambda *_: None)
    monkeypatch.setattr("flowrun.runtime.log_slab_reader.SlabReader.records", _unchecked)
    with pytest.raises(fuzz_log.BrokenLawError, match="was never written so"):
        deque(fuzz_log.run_case(corpus, tmp_path, 3, number) for number in range(200))


def _unchecked(slab, index, start=None):
    for head in slab.heads(index, start):
        yield head.offset, head.cycle, head.time_ns, slab.entries(head)


def test_a_resealed_log_is_whole_again() -> None:
    for sample in fuzz_log.built():
        sealed = reseal(sample)
        assert sealed != sample
        assert len(records(sealed)) == len(records(sample)) > 10
        assert reseal(sealed) == sealed


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda it: it.__name__)
def test_each_mutation_changes_logs(mutation) -> None:
    sample = fuzz_log.built()[2]
    made = {bytes(mutation(bytearray(sample), random.Random(seed))) for seed in range(20)}
    assert len(made - {sample}) > 5


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
