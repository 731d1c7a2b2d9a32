"""What a user writes as an address -> what kind of source it is, and what is opened."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowrun.tasks.video.address import (
    Address,
    AddressError,
    parse_address,
    without_credentials,
)


@pytest.mark.parametrize(
    ("uri", "kind", "target"),
    [
        (0, "v4l2", "0"),
        ("0", "v4l2", "0"),
        ("007", "v4l2", "7"),
        ("/dev/video2", "v4l2", "/dev/video2"),
        ("v4l2://1", "v4l2", "1"),
        ("v4l2:///dev/video1", "v4l2", "/dev/video1"),
        ("webcam", "v4l2", ""),
        ("WebCam", "v4l2", ""),
        ("./0", "file", "./0"),
        ("a/0", "file", "a/0"),
        ("rtsp://host/cam", "rtsp", "rtsp://host/cam"),
        (" RTSPS://host/cam\n", "rtsp", "RTSPS://host/cam"),
        ("rtsp://me:p@ss@host:5/cam", "rtsp", "rtsp://me:p@ss@host:5/cam"),
        ("rtsp://[::1]:554/cam", "rtsp", "rtsp://[::1]:554/cam"),
        ("http://host:8080/a@b.mp4", "url", "http://host:8080/a@b.mp4"),
        ("https://host/?to=rtsp://b", "url", "https://host/?to=rtsp://b"),
        ("udp://127.0.0.1:5000", "url", "udp://127.0.0.1:5000"),
        ("udp://@239.0.0.1:5000?ttl=1", "url", "udp://@239.0.0.1:5000?ttl=1"),
        ("udp://:5000", "url", "udp://:5000"),
        ("screen", "screen", ""),
        ("screen://:1.0", "screen", ":1.0"),
        ("test", "test", ""),
        ("./test", "file", "./test"),
        ("rtsp", "file", "rtsp"),
        ("2026-01-05T10:15:00.mp4", "file", "2026-01-05T10:15:00.mp4"),
        ("cam: 1 #2 100%.mp4", "file", "cam: 1 #2 100%.mp4"),
        ("a%20b.mp4", "file", "a%20b.mp4"),
        ("C:\\films\\a.mp4", "file", "C:\\films\\a.mp4"),
        ("~/a.mp4", "file", "~/a.mp4"),
        ("file:///a.mp4", "file", "/a.mp4"),
        ("file://localhost/a.mp4", "file", "/a.mp4"),
        ("FILE:/a.mp4", "file", "/a.mp4"),
        ("file:a.mp4", "file", "a.mp4"),
        ("file://media/a.mp4", "file", "media/a.mp4"),
        ("file:///a%20b%C3%BC.mp4", "file", "/a bü.mp4"),
        ("file:///a#1?.mp4", "file", "/a#1?.mp4"),
        ("file:~/a.mp4", "file", "~/a.mp4"),
    ],
)
def test_an_address_is_known_by_its_form(uri: str | int, kind: Any, target: str) -> None:
    assert parse_address(uri) == Address(kind, target)


@pytest.mark.parametrize("uri", ["-", "pipe:", "pipe:0", "fd:0", "/dev/stdin", "/dev/fd/0"])
def test_standard_input_is_a_file(uri: str) -> None:
    assert parse_address(uri) == Address("file", "", is_input=True)


@pytest.mark.parametrize(
    ("uri", "source_type", "found"),
    [
        ("0", "file", Address("file", "0")),
        ("test", "file", Address("file", "test")),
        ("file:///a%20b", "file", Address("file", "/a b")),
        ("/dev/v4l/by-id/usb-cam", "v4l2", Address("v4l2", "/dev/v4l/by-id/usb-cam")),
        (":1", "screen", Address("screen", ":1")),
        (None, "screen", Address("screen", "")),
        (None, "test", Address("test", "")),
        ("rtsp://host/a", "url", Address("url", "rtsp://host/a")),
    ],
)
def test_the_type_that_is_given_counts(uri: Any, source_type: Any, found: Address) -> None:
    assert parse_address(uri, source_type) == found


ANY = "a path, rtsp://..., http://..., a device's number, webcam, screen or test"


@pytest.mark.parametrize(
    ("uri", "source_type", "text"),
    [
        (None, None, f"no source_uri; write {ANY}"),
        ("", None, f"an empty address; write {ANY}"),
        (" \n", None, f"an empty address; write {ANY}"),
        ("a\0b", None, "an address with a zero byte, which no path holds"),
        (-1, None, "there is no device -1; devices are numbered from 0"),
        ("rstp://host/a", None, "unknown protocol 'rstp' (did you mean 'rtsp'?)"),
        ("htttp://host/a", None, "unknown protocol 'htttp' (did you mean 'http'?)"),
        ("rtsp:host/a", None, "'rtsp:host/a' lacks '//'; write rtsp://..., or ./rtsp:... for a file"),
        ("rtsp:///a", None, "rtsp:///a names no host; write rtsp://HOST/..."),
        *(
            (uri, None, "what follows the host of its rtsp:// address is no port from 0 to 65535")
            for uri in ("rtsp://me:secret@host:x/a", "rtsp://me:secret", "rtsp://host:65536/a")
        ),
        ("file://", None, "'file://' names no file; write file:///PATH, or the path alone"),
        ("a.mp4", "rtsp", "'a.mp4' is no rtsp source, as source_type says; write rtsp://HOST/PATH, or "
         "another source_type"),
        ("a.mp4", "test", "'a.mp4' is no test; leave source_uri out with source_type: test"),
        *(
            (f"rtsp://me:pa{mark}ss@host/cam", None, "the user name or password of its rtsp:// address "
             f"holds {mark!r}, which ends the name of the host; write {code} in its place")
            for mark, code in [("#", "%23"), ("/", "%2F"), ("?", "%3F")]
        ),
    ],
)  # fmt: skip
def test_what_means_no_source_is_refused(uri: Any, source_type: Any, text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(uri, source_type)
    assert str(caught.value) == text


def meaning(uri: str) -> tuple[str, str]:
    """The kind of source and what is opened; or "refused", and why."""
    try:
        found = parse_address(uri)
    except AddressError as error:
        return "refused", str(error)
    return found.kind, found.target


@settings(max_examples=50)
@given(
    st.text(max_size=30), st.sampled_from(["", "file:", "file://", "rtsp://", "http://a", "udp:"])
)
def test_whatever_is_written_means_something_or_is_refused(text: str, before: str) -> None:
    kind, said = meaning(before + text)
    assert kind in ("file", "rtsp", "url", "v4l2", "screen", "test", "refused")
    assert said or kind in ("file", "v4l2", "screen", "test")


SECRET = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1).map(
    lambda it: f"Q{it}Q"
)


@settings(max_examples=50)
@given(SECRET)
@example("Q@0/Q")
@example("Q@/Q")
@example("Q?@#/Q")
def test_no_password_comes_out(password: str) -> None:
    """However it is written: the address is refused without it, or its name lacks it."""
    url = f"rtsp://me:{password}@host/cam"
    assert "Q" not in without_credentials(url)
    kind, said = meaning(f"{url}?token=x")
    if kind == "refused":
        assert "Q" not in said
    else:
        assert without_credentials(said) == "rtsp://host/cam"
