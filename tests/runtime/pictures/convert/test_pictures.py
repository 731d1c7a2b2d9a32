"""Converting: the same bytes by the kernel and by NumPy, within a level of exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowrun.msgs.scaling import windows
from flowrun.runtime.pictures.convert import (
    Planes,
    integers,
    kernel,
    luma,
    planes420,
    resized,
    rgb,
)
from flowrun.runtime.pictures.convert.colors import colors_of
from flowrun.runtime.pictures.convert.integers import Samples
from support import independent_pictures

# fmt: off
YUV = [
    "yuv420p", "yuvj420p", "yuva420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv440p",
    "yuv411p", "yuv410p", "yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv420p16le",
    "nv12", "nv21", "nv16", "nv24", "p010le", "p016le", "yuyv422", "uyvy422", "yvyu422",
]
RGB = [
    "rgb24", "bgr24", "rgba", "argb", "bgra", "abgr", "rgb0", "0bgr", "gbrp", "gbrap", "gbrp10le",
    "gbrp12le", "gbrp16le", "rgb48le", "bgr48le", "rgba64le",
]
GRAY = ["gray", "gray10le", "gray12le", "gray16le", "ya8", "ya16le"]
BY_SWSCALE = ["pal8", "monob", "rgb565le", "rgb48be", "gray16be", "bayer_rggb8"]
# fmt: on
MATRICES = {1: "709", 4: "FCC", 5: "601", 6: "170M", 7: "240M", 8: "YCgCo", 9: "2020", 2: "unsaid"}
needs_kernel = pytest.mark.skipif(not kernel.is_compiled(), reason="no compiled kernel")


def noise(form: str, width: int, height: int, *, space: int = 2, span: int = 0) -> Any:
    """A picture of any values."""
    picture = av.VideoFrame(width, height, form)
    rng = np.random.default_rng(width * 1000 + height)
    for plane in picture.planes:
        values = rng.integers(0, 256, plane.buffer_size, np.uint8)
        if form.endswith(("10le", "12le")) and not form.startswith("p0"):
            values[1::2] &= 0xFF >> (16 - picture.format.components[0].bits)
        plane.update(values.tobytes())
    picture.colorspace, picture.color_range = space, span
    return picture


def by_numpy(planes: Planes) -> NDArray[np.uint8]:
    out = np.empty((planes.height, planes.width, 3), np.uint8)
    integers.to_rgb(planes.samples, planes.colors, out)
    return out


# -- one arithmetic ----------------------------------------------------------------------------


@needs_kernel
@given(
    st.sampled_from([*YUV, *RGB, *GRAY]),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from(list(MATRICES)),
    st.integers(0, 2),
)
@example("yuv420p", 1, 1, 1, 1)
@example("yuyv422", 1, 3, 1, 1)
@example("yuv411p", 5, 1, 1, 2)
@settings(deadline=None, max_examples=60)
def test_kernel_and_numpy_give_the_same_bytes(
    form: str, width: int, height: int, space: int, span: int
) -> None:
    planes = Planes.of(noise(form, width, height, space=space, span=span))
    assert np.array_equal(rgb(planes), by_numpy(planes))


@needs_kernel
@given(
    st.sampled_from(["yuv420p", "gray16le", "rgb24", "yuv422p10le"]),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 60),
)
@example("yuv420p", 8, 600, 2, 1)
@example("gray16le", 600, 2, 2, 1)
@example("yuv420p", 1800, 4, 3, 2)
@settings(deadline=None, max_examples=40)
def test_kernel_and_numpy_scale_to_the_same_values(
    form: str, width: int, height: int, new_width: int, new_height: int
) -> None:
    for plane in Planes.of(noise(form, width, height)).samples:
        rows, columns = plane.values.shape
        to = windows(rows, new_height), windows(columns, new_width)
        assert np.array_equal(kernel.scaled(plane, *to), integers.scaled(plane, *to))


@needs_kernel
def test_a_kernel_that_computes_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    found = kernel._arithmetic()
    assert kernel._agrees(found)
    for name in ("to_rgb", "scaled"):
        with monkeypatch.context() as patch:
            patch.setattr(kernel.Kernel, name, lambda *_: np.zeros(1, np.uint16))
            assert not kernel._agrees(found)


def test_a_kernel_that_is_not_there_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel.importlib.machinery, "EXTENSION_SUFFIXES", [".none"])
    kernel._arithmetic.cache_clear()
    try:
        assert kernel._arithmetic() is integers
        assert not kernel.is_compiled()
        planes = Planes.of(noise("yuv420p", 5, 3))
        assert np.array_equal(rgb(planes), by_numpy(planes))
    finally:
        kernel._arithmetic.cache_clear()


@pytest.mark.parametrize("form", ["yuv420p", "yuvj420p", "yuv422p10le", "yuyv422", "yuv444p"])
@pytest.mark.parametrize("space", [1, 2, 6])
def test_pixels_are_what_the_document_says(form: str, space: int) -> None:
    for span in (0, 1, 2):
        picture = noise(form, 34, 10, space=space, span=span)
        assert np.array_equal(rgb(picture), independent_pictures.rgb(picture))


def test_bottom_up_rows_are_turned() -> None:
    drawn = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)

    class Plane:
        height, line_size = 5, -21
        buffer_ptr = drawn.ctypes.data + 4 * 21

    from flowrun.runtime.pictures.convert.planes import _bytes

    found = Planes("rgb24", 5, 7, 0, 0, [_bytes(Plane())])
    assert np.array_equal(rgb(found), drawn[::-1])


# -- right colours -----------------------------------------------------------------------------


def exact(values: NDArray[Any], bits: int, space: int, *, is_full: bool) -> NDArray[np.float64]:
    """RGB of luma and colours (N, 3), by the standards' own formulas."""
    kr, kb = {
        1: (0.2126, 0.0722),
        4: (0.30, 0.11),
        7: (0.212, 0.087),
        9: (0.2627, 0.0593),
    }.get(space, (0.299, 0.114))
    y, u, v = values.T.astype(float)
    step, middle = 1 << (bits - 8), 1 << (bits - 1)
    if is_full:
        highest = (1 << bits) - 1
        y, u, v = y / highest, (u - middle) / highest, (v - middle) / highest
    else:
        y, u, v = (y / step - 16) / 219, (u - middle) / step / 224, (v - middle) / step / 224
    if space == 8:
        found = [y - u + v, y + u, y - u - v]
    else:
        red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
        found = [red, (y - kr * red - kb * blue) / (1 - kr - kb), blue]
    return np.clip(255 * np.stack(found, axis=1), 0, 255)


@pytest.mark.parametrize("space", MATRICES, ids=MATRICES.get)
@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_colours_are_within_a_level(bits: int, space: int, is_full: bool) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1 << bits, (20_000, 3)).astype(np.uint16)
    lowest, highest = (0, (1 << bits) - 1) if is_full else (16 << bits - 8, 235 << bits - 8)
    values[:256] = [1 << bits - 1] * 3
    values[:256, 0] = np.linspace(lowest, highest, 256).astype(int)
    planes = tuple(Samples(it[None], 16 - bits) for it in np.ascontiguousarray(values.T))
    out = np.empty((1, len(values), 3), np.uint8)
    colors = colors_of(space, 2 if is_full else 1, bits=bits, is_rgb=False)
    integers.to_rgb(planes, colors, out)  # type: ignore[arg-type]
    wanted = exact(values, bits, space, is_full=is_full)
    apart = out[0].astype(float) - wanted
    assert np.abs(apart).max() < 0.7
    assert abs(apart.mean()) < 0.03
    assert np.array_equal(out[0, :256, 0], out[0, :256, 1])  # gray is gray
    assert np.array_equal(out[0, :256, 0], out[0, :256, 2])
    assert out[0, 0].tolist() == [0, 0, 0]
    assert out[0, 255].tolist() == [255, 255, 255]


@pytest.mark.parametrize("form", [*RGB, *GRAY, *BY_SWSCALE])
@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_are_black_and_white(form: str, level: int) -> None:
    picture = av.VideoFrame(8, 6, form)
    for plane in picture.planes:
        values = np.full(plane.buffer_size, level, np.uint8)
        if picture.format.components[0].bits in (
            10,
            12,
        ):  # the upper bits of two bytes are not used
            values[1::2] &= 0xFF >> (16 - picture.format.components[0].bits)
        plane.update(values.tobytes())
    assert set(rgb(picture).ravel().tolist()) == {level}


@pytest.mark.parametrize("form", YUV)
def test_narrow_black_and_white_are_black_and_white(form: str) -> None:
    planes = Planes.of(noise(form, 8, 6, space=1, span=1))
    full = form.startswith("yuvj")
    for level, value in ((0, 0 if full else 16 << 8), (255, 255 << 8 if full else 235 << 8)):
        for at, samples in enumerate(planes.samples):
            np.copyto(samples.values, (1 << 15 if at else value) >> samples.shift)
        assert set(rgb(planes).ravel().tolist()) == {level}


@pytest.mark.parametrize("form", RGB)
def test_rgb_stays_as_it_is(form: str) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (5, 9, 3), np.uint8)
    picture = av.VideoFrame.from_ndarray(drawn, format="rgb24").reformat(format=form)
    apart = np.abs(rgb(picture).astype(int) - drawn).max()
    assert apart <= (picture.format.components[0].bits > 8)  # swscale makes 0xFF00 of 0xFF


def test_palette_gives_its_colours() -> None:
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    palette = np.random.default_rng(0).integers(0, 256, (256, 4), np.uint8)
    picture = av.VideoFrame.from_ndarray((indices, palette), format="pal8")
    assert np.array_equal(rgb(picture), palette[indices][..., 1:])


def test_gray_has_the_range_that_it_says() -> None:
    values = np.array([[16, 126, 235]], np.uint8)
    for span, wanted in ((0, [16, 126, 235]), (2, [16, 126, 235]), (1, [0, 128, 255])):
        planes = Planes("gray", 1, 3, 2, span, [values])
        assert rgb(planes)[0, :, 0].tolist() == wanted


def test_planes_of_green_blue_and_red_may_be_called_luma_and_colours() -> None:
    planes = Planes("yuv444p", 1, 1, 0, 2, [np.array([[it]], np.uint8) for it in (20, 30, 10)])
    assert rgb(planes)[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("form", ["yaf32le", "bayer_rggb8", "rgb96le"])
def test_formats_that_nobody_converts_are_a_value_error(form: str) -> None:
    with pytest.raises(ValueError, match="^its colours cannot be converted: "):
        rgb(av.VideoFrame(1, 4, form))


def test_a_plane_that_is_too_small_is_a_value_error() -> None:
    flat = np.zeros((2, 2), np.uint8)
    with pytest.raises(
        ValueError, match=r"^its colours cannot be converted: a plane is too small$"
    ):
        rgb(Planes("yuv444p", 2, 3, 2, 1, [flat] * 3))
    with pytest.raises(
        ValueError, match=r"^its colours cannot be converted: pixel format 'vaapi'$"
    ):
        rgb(Planes("vaapi", 2, 3, 2, 1, [flat] * 3))


# -- luma, and smaller ones --------------------------------------------------------------------


def test_luma_is_the_pictures_own() -> None:
    picture = noise("yuv420p10le", 6, 4)
    own = np.frombuffer(picture.planes[0], "<u2").reshape(4, -1)[:, :6]
    assert np.array_equal(luma(picture), ((own & 1023) >> 2).astype(np.uint8))
    picture = noise("nv12", 7, 5)
    own = np.frombuffer(picture.planes[0], np.uint8).reshape(5, -1)[:, :7]
    assert np.array_equal(luma(picture), own)
    colored = av.VideoFrame.from_ndarray(np.array([[[255, 0, 0], [9, 9, 9]]], np.uint8), "rgb24")
    assert luma(colored).tolist() == [[77, 9]]


def test_smaller_pictures_are_means() -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    picture = av.VideoFrame.from_ndarray(drawn, format="rgb24")
    wanted = drawn.reshape(4, 3, 5, 4, 3).mean(axis=(1, 3))
    assert np.abs(resized(picture, 5, 4) - wanted).max() < 0.6
    assert np.array_equal(resized(picture, 20, 12), drawn)
    assert np.array_equal(resized(picture, 40, 24)[1:-1:2, 1:-1:2][:, :0], drawn[:11, :0])


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (17, 2), (64, 64)])
def test_a_picture_of_one_colour_stays_one(size: tuple[int, int]) -> None:
    for level in (0, 77, 255):
        for form in ("rgb24", "gray", "gray16le", "yuvj420p"):
            picture = av.VideoFrame(16, 9, form)
            for at, plane in enumerate(picture.planes):
                plane.update(bytes([128 if at else level]) * plane.buffer_size)
            made = resized(picture, *size)
            assert made.shape == (size[1], size[0], 3)
            assert set(made.ravel().tolist()) == {level}


def test_sizes_of_nothing() -> None:
    empty = Planes("gray", 0, 4, 2, 0, [np.zeros((0, 4), np.uint8)])
    assert rgb(empty).shape == (0, 4, 3)
    text = r"^a picture of 4x0 pixels cannot be scaled to 2x2$"
    with pytest.raises(ValueError, match=text):
        resized(empty, 2, 2)


# -- what JPEGs are made of --------------------------------------------------------------------


@pytest.mark.parametrize("span", [1, 2])
def test_planes_of_a_jpeg_give_the_same_colours(span: int) -> None:
    picture = noise("yuv420p", 10, 6, space=6, span=span)
    y, u, v = planes420(picture) or ()
    again = Planes("yuvj420p", 6, 10, 6, 2, [y, u, v])
    inside = rgb(again).astype(int) - rgb(picture)
    assert np.median(np.abs(inside)) <= 1
    if span == 2:
        assert not inside.any()


def test_other_pictures_have_no_planes_of_a_jpeg() -> None:
    assert planes420(noise("yuv420p", 8, 8, space=1)) is None
    assert planes420(noise("yuv444p", 8, 8, space=6)) is None


def test_matrices_are_rounded_to_the_nearest() -> None:
    colors = colors_of(1, 1, bits=8, is_rgb=False)
    red = Fraction(2) * (1 - Fraction("0.2126")) * 255 * (1 << 21) / (224 << 8)
    assert abs(colors.chroma[1] - red) <= Fraction(1, 2)
    assert colors.chroma[0] == colors.chroma[5] == 0
