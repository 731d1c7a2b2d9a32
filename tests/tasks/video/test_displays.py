"""Pictures are shown as their stream says, in a run and in its replay."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from flowrun.runtime import Log
from flowrun.runtime.pictures.bitstream import Display, display_of
from flowrun.runtime.pictures.convert.orientation import turned
from flowrun.runtime.replay.replay import Replay
from support import helpers
from support.displays import film, sei
from support.films import FRAMES, KEY_EVERY

SLICE = {"h264": b"\0\0\1\x65slice", "h265": b"\0\0\1\x26\1slice"}


@pytest.mark.parametrize("form", ["h264", "h265"])
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("down", [False, True])
def test_what_a_stream_says_of_its_pictures(
    form: str, turns: int, across: bool, down: bool
) -> None:
    picture = np.arange(6).reshape(2, 3)
    shown = picture[:, ::-1] if across else picture
    shown = np.rot90(shown[::-1] if down else shown, turns)
    for lasts in (False, True):
        unit = sei(form, turns=turns, across=across, down=down, lasts=lasts)
        said = display_of(form, unit + SLICE[form])
        assert said is not None
        assert said.orientation is not None
        assert turned(picture, said.orientation).tolist() == shown.tolist()
        assert said.lasts is lasts


# fmt: off
SAYS_NOTHING = [
    b"", b"\0\0\1", b"\0\0\1\6", b"\0\0\1\6\x2f", b"\0\0\1\6\x2f\x03\0", b"\0\0\1\6\x2f\x02\0\0\x80",
    b"\0\0\1\6\xff\xff", b"\0\0\1\6\x05\xff", b"\0\0\1\6\x05\2ab\x80" + SLICE["h264"],
    SLICE["h264"] + sei("h264"),
]
# fmt: on


@pytest.mark.parametrize("data", SAYS_NOTHING)
def test_what_says_nothing(data: bytes) -> None:
    assert display_of("h264", data) is None
    assert display_of("mjpeg", sei("h264") + data) is None


def test_it_may_come_after_others_and_be_cancelled() -> None:
    unit = b"\0\0\1\x06\x05\2ab\x2f\x01\xc0\x80"
    assert display_of("h264", unit + SLICE["h264"]) == Display(None, lasts=True)
    assert display_of("h264", b"\0\0\1\x06\x05\2ab\x80" + sei("h264")) == Display(1, lasts=True)


@pytest.mark.parametrize(("form", "decode"), [("h264", "all"), ("h265", "asked")])
def test_a_picture_lies_as_said_until_the_next_group(
    tmp_path: Path, form: str, decode: str
) -> None:
    """The second group of three is turned."""
    made = film(tmp_path / "a.ts", form, lambda k, _: k == KEY_EVERY, sei(form, turns=1))
    plain = made.with_name("plain-a.ts")
    plan = helpers.plan_of(
        tmp_path,
        f"a=VideoCapture(source_uri: {made}, decode: {decode}); d=Digest",
        "a > d: ImageRgb8Msg",
    )
    helpers.record(plan, tmp_path / "run")
    with av.open(str(plain)) as container:
        whole = [it.to_ndarray(format="rgb24").astype(int) for it in container.decode(video=0)]
    with Log(tmp_path / "run") as log:
        assert Replay(log, env={}).run().identical
        shown = [it.pixels for it in log.frames("/a/image")]
    assert len(shown) == len(whole) == FRAMES
    for k, (seen, pixels) in enumerate(zip(shown, whole, strict=True)):
        lies = np.rot90(pixels) if KEY_EVERY <= k < 2 * KEY_EVERY else pixels
        assert seen.shape == lies.shape
        assert np.abs(seen - lies).mean() < 5
