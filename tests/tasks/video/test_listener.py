"""Who listens where a source was expected, and what to write instead."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.tasks.video.listener import Listener, listener
from flowrun.tasks.video.opening import VideoError, open_video
from flowrun.tasks.video.settings import VideoSettings
from support.certificates import Authority

MOST_S = 60.0
"""For a machine that is busy; who is silent is not waited for so long."""


def web(asked: bytes) -> bytes:
    return b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" if asked else b""


def page(asked: bytes) -> bytes:
    """As a web server answers what it takes for HTTP/0.9."""
    return b"<!DOCTYPE HTML>\n<p>Bad request version" if asked else b""


def camera(asked: bytes) -> bytes:
    return b"RTSP/1.0 400 Bad Request\r\nCSeq: 1\r\n\r\n" if b"/1." in asked else b""


def rtmp(asked: bytes) -> bytes:
    return b"\x03" + bytes(1536) if asked[:1] == b"\x03" else b""


def database(asked: bytes) -> bytes:
    return b"-ERR unknown\r\n" if asked else b""


def other(_asked: bytes) -> bytes:
    return b"\0\x07\xff\n"


def closed(_asked: bytes) -> bytes:
    return b""


def greeting(line: bytes) -> Callable[[bytes], bytes]:
    return lambda _: line


@contextmanager
def listening(
    answer: Callable[[bytes], bytes], *, tls: ssl.SSLContext | None = None, greets: bool = False
) -> Iterator[str]:
    """host:port of who answers each connection once.

    greets: whether it speaks before it is asked.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                connection = server.accept()[0]
                if ended.is_set():
                    connection.close()
                    return
                with connection, suppress(OSError):
                    talk = connection if tls is None else tls.wrap_socket(connection, True)
                    with talk:
                        talk.sendall(answer(b"" if greets else talk.recv(65536)))
                        talk.shutdown(socket.SHUT_WR)
                        while talk.recv(65536):
                            pass

        ended = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            socket.create_connection(server.getsockname()).close()
            thread.join()


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority(tmp_path).certify("camera"))
    return context


def said_of(uri: str, host: str) -> tuple[str, str] | None:
    """What is wrong with `uri`, and the code."""
    config = VideoSettings(source_uri=uri)
    heard = listener(config)
    assert heard is not None
    misfit = heard.misfit(config)
    return None if misfit is None else (str(misfit).replace(host, "HOST"), misfit.code)


PORT = ", or the port of RTSP, mostly 554"


@pytest.mark.parametrize(
    ("scheme", "who", "is_secure", "text"),
    [
        ("rtsp", web, False, f"a web server answers at HOST; write http:// in place of rtsp://{PORT}"),
        ("rtsp", page, False, f"a web server answers at HOST; write http:// in place of rtsp://{PORT}"),
        ("rtsp", web, True, f"a web server answers at HOST; write https:// in place of rtsp://{PORT}"),
        ("rtsps", web, True, f"a web server answers at HOST; write https:// in place of rtsps://{PORT}"),
        ("rtsp", rtmp, False, f"an RTMP server answers at HOST; write rtmp:// in place of rtsp://{PORT}"),
        ("rtsp", camera, True, "HOST speaks TLS alone; write rtsps:// in place of rtsp://"),
        ("rtsps", camera, False, "HOST speaks no TLS; write rtsp:// in place of rtsps://"),
        ("http", camera, False, "an RTSP camera answers at HOST; write rtsp:// in place of http://"),
        ("http", camera, True, "an RTSP camera answers at HOST; write rtsps:// in place of http://"),
        ("http", web, True, "HOST speaks TLS alone; write https:// in place of http://"),
        ("https", web, False, "HOST speaks no TLS; write http:// in place of https://"),
        ("https", camera, False, "an RTSP camera answers at HOST; write rtsp:// in place of https://"),
        ("rtmp", web, False, "a web server answers at HOST; write http:// in place of rtmp://"),
        ("rtmp", camera, False, "an RTSP camera answers at HOST; write rtsp:// in place of rtmp://"),
        ("rtmp", rtmp, True, "HOST speaks TLS alone; write rtmps:// in place of rtmp://"),
        ("rtsp", database, False, "HOST answers '-ERR unknown', which is no RTSP; check the port"),
        ("http", other, False, "HOST answers what is no text, which is no HTTP; check the port"),
        ("http", other, True, "HOST speaks TLS alone; write https:// in place of http://"),
        ("rtsp", closed, False, "HOST accepts the connection, but gives no answer; check the port"),
        ("RTSP", camera, False, None),
        ("rtsps", camera, True, None),
        ("http", web, False, None),
        ("https", page, True, None),
        ("rtmp", rtmp, False, None),
    ],
)  # fmt: skip
def test_who_answers_in_another_protocol_is_named_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch,
    tls: ssl.SSLContext,
    scheme: str,
    who: Callable[[bytes], bytes],
    is_secure: bool,
    text: str | None,
) -> None:
    monkeypatch.setattr("flowrun.tasks.video.listener._LONGEST_S", MOST_S)
    with listening(who, tls=tls if is_secure else None) as host:
        said = said_of(f"{scheme}://me:secret@{host}/cam?token=x", host)
    assert said == (None if text is None else (text, "tls" if "TLS" in text else "refused"))


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "http", "https", "rtmp"])
@pytest.mark.parametrize(
    ("line", "who"),
    [
        ("SSH-2.0-OpenSSH_9.6", "an SSH server"),
        ("220 mail.example.org ESMTP Postfix", "a mail or FTP server"),
    ],
)
def test_who_greets_is_named(
    monkeypatch: pytest.MonkeyPatch, scheme: str, line: str, who: str
) -> None:
    monkeypatch.setattr("flowrun.tasks.video.listener._LONGEST_S", MOST_S)
    with listening(greeting(f"{line}\r\n".encode()), greets=True) as host:
        said = said_of(f"{scheme}://{host}/cam", host)
    assert said == (f"{who} answers at HOST ('{line}'); check the port", "refused")


def test_a_camera_at_a_web_address_ends_in_one_line(tmp_path: Path) -> None:
    """FFmpeg takes its status for that of a web server."""
    with listening(camera) as host, pytest.raises(VideoError) as caught:
        open_video(VideoSettings(source_uri=f"http://me:secret@{host}/cam"), tmp_path)
    assert str(caught.value) == (
        f"cannot open http://{host}/cam: an RTSP camera answers at {host}; "
        "write rtsp:// in place of http://"
    )
    assert caught.value.code == "refused"


def test_a_web_server_at_an_address_of_a_camera_ends_in_one_line(tmp_path: Path) -> None:
    with listening(web) as host, pytest.raises(VideoError) as caught:
        open_video(VideoSettings(source_uri=f"rtsp://me:secret@{host}/cam"), tmp_path)
    assert str(caught.value) == (
        f"cannot open rtsp://{host}/cam: a web server answers at {host}; "
        f"write http:// in place of rtsp://{PORT}"
    )


@pytest.mark.parametrize("scheme", ["rtsp", "http", "https", "rtmp"])
def test_who_accepts_and_is_silent_is_told_from_a_machine_that_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr("flowrun.tasks.video.listener._LONGEST_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        config = VideoSettings(source_uri=f"{scheme}://{host}/cam", timeout_s=0.2)
        with pytest.raises(VideoError) as caught:
            open_video(config, tmp_path)
    assert str(caught.value) == (
        f"{scheme}://{host}/cam did not answer within timeout_s 0.2: {host} accepts the connection, but "
        "gives no answer; check the port"
    )
    assert caught.value.code == "timeout"


def test_who_is_silent_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowrun.tasks.video.listener._LONGEST_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"rtsp://127.0.0.1:{server.getsockname()[1]}/cam"
        assert listener(VideoSettings(source_uri=uri)) == ("", False, b"")


@pytest.mark.parametrize(
    "uri", ["udp://@:5000", "tcp://127.0.0.1:9/", "rtsp://127.0.0.1:9/", "test"]
)
def test_where_nobody_listens_or_nothing_can_be_asked_nobody_is_named(uri: str) -> None:
    assert listener(VideoSettings(source_uri=uri)) is None


@given(
    st.binary(max_size=200).map(lambda line: line.partition(b"\n")[0]),
    st.sampled_from(["rtsp", "rtsps", "http", "https", "rtmp"]),
    st.booleans(),
)
def test_whatever_is_answered_is_shown_without_control_characters(
    line: bytes, scheme: str, is_secure: bool
) -> None:
    config = VideoSettings(source_uri=f"{scheme}://me:secret@camera/cam?token=secret")
    text = str(Listener("", is_secure, line).misfit(config))
    assert text.isprintable()
    assert text.isascii()
    assert "secret" not in text.replace(repr(line), "")
