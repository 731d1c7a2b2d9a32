"""What web servers give, and refuse to give."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import av
import pytest
from PIL import Image
from structlog.testing import capture_logs

from flowrun.runtime.testing import run_task
from flowrun.tasks.video.capture import VideoCapture
from flowrun.tasks.video.opening import VideoError, open_video
from flowrun.tasks.video.settings import VideoSettings
from flowrun.tasks.video.web import ask, gives_parts, missing_index
from support.certificates import Authority
from support.films import FILMS, FRAMES, draw
from support.web_films import served


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Its index is at its end, and its first packet is not small: FFmpeg goes back for it."""
    return draw(tmp_path / "film.mp4", bf="0", size=(640, 480), crf="1")


def error_of(folder: Path, uri: str, **config: Any) -> VideoError:
    with pytest.raises(VideoError) as caught:
        open_video(VideoSettings(source_uri=uri, timeout_s=30, **config), folder)
    return caught.value


def test_no_picture_is_lost_where_the_server_closes_connections(film: Path, tmp_path: Path) -> None:
    with (
        served(film) as host,
        open_video(VideoSettings(source_uri=f"http://{host}/film.mp4"), tmp_path) as container,
    ):
        packets = [it for it in container.demux(video=0) if it.size]
    assert len(packets) == FRAMES
    assert packets[0].is_keyframe


NO_RANGES = (
    "its server gives films as a whole only (no ranges), which an MP4 with its index at the end does "
    "not allow; have the server allow ranges, move the index with ffmpeg -i IN -c copy -movflags "
    "+faststart OUT, or download the film"
)


def test_a_server_that_gives_no_part_of_a_film_with_its_index_at_the_end_is_named(
    film: Path, tmp_path: Path
) -> None:
    with served(film, ranges=None) as host:
        error = error_of(tmp_path, f"http://me:secret@{host}/film.mp4")
    assert error.code == "codec"
    assert str(error) == f"cannot open http://{host}/film.mp4: {NO_RANGES}"


@pytest.mark.parametrize("says", ["length", "chunks", "nothing"])
def test_a_server_that_gives_the_whole_in_place_of_a_part_is_named_too(
    film: Path, tmp_path: Path, says: Literal["length", "chunks", "nothing"]
) -> None:
    with served(film, ranges=False, says=says) as host, pytest.raises(VideoError) as caught:
        read(tmp_path, f"http://{host}/film.mp4")
    assert caught.value.code == "codec"
    assert str(caught.value) == f"'http://{host}/film.mp4' has no frames: {NO_RANGES}"


def test_so_is_one_of_which_reading_all_takes_too_long(film: Path, tmp_path: Path) -> None:
    with served(film, ranges=False, pause_s=0.5) as host, pytest.raises(VideoError) as caught:
        read(tmp_path, f"http://{host}/film.mp4", timeout_s=1, reconnect={"at_start": True})
    assert str(caught.value) == f"cannot open http://{host}/film.mp4: {NO_RANGES}"


def test_what_is_no_mp4_is_not_said_to_lack_ranges(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a film at all")
    with served(text, ranges=False) as host:
        uri = f"http://{host}/notes"
        assert str(error_of(tmp_path, uri)) == (
            f"cannot open {uri}: not a video that FFmpeg can read"
        )
        assert missing_index(VideoSettings(source_uri=uri)) is None
    assert missing_index(VideoSettings(source_uri=uri)) is None  # nobody answers
    assert missing_index(VideoSettings(source_uri=str(text))) is None


def test_a_server_that_gives_parts_is_not_said_to_lack_ranges(film: Path) -> None:
    with served(film) as host:
        assert missing_index(VideoSettings(source_uri=f"http://{host}/film.mp4")) is None


def test_a_server_that_does_not_send_the_index_at_the_end_of_a_film_is_named(
    film: Path, tmp_path: Path
) -> None:
    with served(film, share=0.5) as host:
        error = error_of(tmp_path, f"http://{host}/film.mp4")
    assert error.code == "codec"
    assert str(error) == (
        f"cannot open http://{host}/film.mp4: its server ends the connection before it has sent as much "
        "as it says there is, and the index of this MP4 is at its end; see whether the film there is "
        "whole"
    )


def test_a_film_that_cannot_be_read_is_not_asked_for_again(film: Path, tmp_path: Path) -> None:
    with served(film, share=0.5) as host, pytest.raises(VideoError) as caught:
        read(tmp_path, f"http://{host}/film.mp4", reconnect={"at_start": True})
    assert caught.value.is_lasting


SERVERS: dict[str, dict[str, Any]] = {
    "ranges": {},
    "the whole": {"ranges": False},
    "no length": {"ranges": False, "says": "nothing"},
    "chunks": {"ranges": False, "says": "chunks"},
}


def film_of(folder: Path, kind: str, **options: Any) -> Path:
    """A film; an MP4 has its index at the beginning, `parts.mp4` a piece of it before each group."""
    drawn = draw(folder / f"drawn{Path(kind).suffix}", **options)
    with av.open(str(drawn)) as source:
        flags = {"parts.mp4": "frag_keyframe+empty_moov", "film.mp4": "faststart"}
        options = {"movflags": flags[kind]} if kind in flags else {}
        with av.open(str(folder / kind), "w", options=options) as made:
            stream = made.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    made.mux(packet)
    return folder / kind


def read(folder: Path, uri: str, *, cycles: int | None = None, **config: Any) -> list[int]:
    """The time stamps of the pictures that a source gives."""
    config = {"source_uri": uri, **config, **({"live": False} if "://" in uri else {})}
    out = run_task(VideoCapture, config=config, cycles=cycles, graph_dir=folder)
    return [cycle["image"].pts for cycle in out]


@pytest.mark.parametrize("kind", ["film.mp4", "film.mkv", "film.ts"])
@pytest.mark.parametrize("server", SERVERS)
def test_a_film_is_whole_whatever_its_server_can_do(tmp_path: Path, kind: str, server: str) -> None:
    film = film_of(tmp_path, kind, bf="0")
    stamps = read(tmp_path, str(film))
    assert len(stamps) == FRAMES
    late = stamps[FRAMES // 2 :]
    with served(film, **SERVERS[server]) as host:
        uri = f"http://{host}/{kind}"
        assert read(tmp_path, uri) == stamps
        assert read(tmp_path, uri, loop=True, cycles=2 * FRAMES) == 2 * stamps
        begun = read(tmp_path, uri, start_s=(FRAMES // 2 - 0.5) / 30)
    assert begun == (stamps[FRAMES - len(begun) :] if server == "ranges" else late)


@pytest.mark.parametrize("says", ["length", "chunks", "nothing"])
@pytest.mark.parametrize("kind", ["film.mp4", "film.mkv", "film.avi", "film.flv", "parts.mp4"])
def test_a_film_that_is_cut_off_on_its_way_is_an_error(
    tmp_path: Path, kind: str, says: Literal["length", "chunks", "nothing"]
) -> None:
    film = film_of(tmp_path, kind, frames=2 * FRAMES, moves=False)
    with (
        served(film, ranges=False, says=says, share=0.4) as host,
        pytest.raises(VideoError) as caught,
    ):
        read(tmp_path, f"http://{host}/{kind}")
    assert str(caught.value) == (
        f"'http://{host}/{kind}' has ended the connection before the end of the film"
    )
    assert caught.value.code == "ended"


@pytest.mark.parametrize("kind", ["film.mp4", "film.flv", "parts.mp4"])
def test_a_film_that_is_cut_off_on_the_disk_gives_what_it_has_and_says_so(
    tmp_path: Path, kind: str
) -> None:
    film = film_of(tmp_path, kind, frames=2 * FRAMES, moves=False)
    whole = film.read_bytes()
    for share, times in ((1.0, 0), (0.4, 1)):
        film.write_bytes(whole[: int(share * len(whole))])
        with capture_logs() as logged:
            stamps = read(tmp_path, str(film))
        said = [
            it for it in logged if it["event"] == "the film is cut off in the middle of a packet"
        ]
        assert len(said) == times
        assert len(stamps) >= share * 2 * FRAMES - 3


def test_an_address_that_sends_on_to_another_kind_says_where(tmp_path: Path, film: Path) -> None:
    with served(film, location="rtsp://me:secret@camera.example/cam") as host:
        error = error_of(tmp_path, f"http://{host}/film.mp4")
    assert error.code == "refused"
    assert str(error) == (
        f"{host} sends http://{host}/film.mp4 on to rtsp://camera.example/cam; if you trust that, "
        "write it as source_uri"
    )


@contextmanager
def answering(answer: bytes, *, slowly: bytes = b"", pause_s: float = 0.0) -> Iterator[str]:
    """The host and port of a server that says that to each, at first all at once, then byte by byte."""
    done = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            said = answer.replace(b"HOST", self.server.host.encode())  # type: ignore[attr-defined]
            with suppress(OSError):
                self.request.sendall(said)
                for byte in slowly:
                    if done.wait(pause_s):
                        return
                    self.request.sendall(bytes([byte]))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        host = f"127.0.0.1:{server.server_address[1]}"
        server.host = host  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield host
        finally:
            done.set()
            server.shutdown()
            thread.join()


EMPTY = b"Content-Length: 0\r\n\r\n"
LIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (b"400 Bad Request\r\n" + EMPTY, "refused", "HOST answers URI with 400 Bad Request"),
        (b"429 Slow Down\r\n" + EMPTY, "refused", "HOST answers URI with 429 Too Many Requests"),
        (b"503 Busy\r\n" + EMPTY, "refused", "HOST answers URI with 503 Service Unavailable"),
        (b"204 None\r\n\r\n", "refused", "HOST answers URI with 204 No Content"),
        (b"302 Found\r\n" + EMPTY, "refused", "HOST answers URI with 302 Found"),
        (b"200 OK\r\n" + EMPTY, "ended", "HOST answers URI with nothing (0 bytes)"),
        (
            b"302 Found\r\nLocation: http://me:secret@127.0.0.1:9/cam\r\n" + EMPTY,
            "refused",
            "HOST sends URI on to http://127.0.0.1:9/cam, which leads nowhere",
        ),
        (
            b"302 Found\r\nLocation: http://HOST/cam\r\n" + EMPTY,
            "refused",
            "HOST sends URI on to http://HOST/cam, which leads nowhere",
        ),
        (
            b"200 OK\r\nContent-Type: application/x-mpegURL\r\n\r\n" + LIST,
            "codec",
            "URI is a list (HLS) of which no part can be read; see whether they are there",
        ),
    ],
)
def test_what_a_web_server_answers_in_place_of_video_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, code: str, text: str
) -> None:
    monkeypatch.setattr("flowrun.tasks.video.web._LONGEST_S", 60)  # a busy machine takes its time
    with answering(b"HTTP/1.1 " + answer) as host:
        uri = f"http://{host}/cam"
        error = error_of(tmp_path, uri)
    assert (error.code, str(error)) == (code, text.replace("URI", uri).replace("HOST", host))


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n"


@pytest.mark.timeout(60)
def test_a_server_that_answers_byte_by_byte_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each byte comes within the limit, and all of them would take 80 minutes."""
    monkeypatch.setattr("flowrun.tasks.video.web._LONGEST_S", 0.2)
    with answering(b"", slowly=HEAD + bytes(50_000), pause_s=0.1) as host:
        config = VideoSettings(source_uri=f"http://{host}/cam")
        assert ask(config) is None
        assert missing_index(config) is None
        assert gives_parts(config)


@pytest.mark.timeout(60)
def test_nor_is_one_that_gives_what_it_has_byte_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowrun.tasks.video.web._LONGEST_S", 0.2)
    with answering(HEAD + b"\r\n", slowly=bytes(50_000), pause_s=0.01) as host:
        assert missing_index(VideoSettings(source_uri=f"http://{host}/cam")) is None


@pytest.mark.long
def test_a_server_that_answers_and_sends_no_picture_in_time_is_not_said_to_be_silent(
    tmp_path: Path,
) -> None:
    with answering(HEAD + b"\r\n", slowly=bytes(50_000), pause_s=0.05) as host:
        uri = f"http://{host}/cam"
        with pytest.raises(VideoError) as caught:
            open_video(VideoSettings(source_uri=uri, timeout_s=2), tmp_path)
    assert caught.value.code == "timeout"
    assert str(caught.value) == (
        f"{uri} answers, but has sent nothing within timeout_s 2 with which decoding can begin; where "
        "its key frames come less often, write a longer timeout_s"
    )


# -- secure ones -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ({"days": -1}, "certificate has expired"),
        (
            {"host": "camera.example"},
            "IP address mismatch, certificate is not valid for '127.0.0.1'",
        ),
        ({}, ""),
    ],
)
def test_certificates_are_checked_where_options_say_so(
    tmp_path: Path, certificate: dict[str, Any], reason: str
) -> None:
    film = draw(tmp_path / "plain.mp4", **FILMS["plain.mp4"])
    authority = Authority(tmp_path)
    with served(film, certificate=authority.certify("camera", **certificate)) as host:
        uri = f"https://{host}/film.mp4"
        open_video(VideoSettings(source_uri=uri), tmp_path).close()  # any is taken
        options = {"tls_verify": 1, "ca_file": str(authority.path)}
        if not reason:
            open_video(VideoSettings(source_uri=uri, options=options), tmp_path).close()
            reason, options = "unable to get local issuer certificate", {"tls_verify": 1}
        error = error_of(tmp_path, uri, options=options)
    assert error.code == "tls"
    assert str(error) == (
        f"{host} makes no secure connection for {uri}: its certificate is not trusted: {reason}; name "
        "the file of its authority, or the certificate itself, in options: {ca_file: ...}, or leave out "
        "tls_verify, which takes any"
    )


def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path, film: Path) -> None:
    with served(film, certificate=Authority(tmp_path).certify("camera")) as host:
        options = {"tls_verify": 1, "ca_file": "/no/ca.pem"}
        error = error_of(tmp_path, f"https://{host}/film.mp4", options=options)
    assert str(error) == (
        f"{host} makes no secure connection for https://{host}/film.mp4: options.ca_file '/no/ca.pem' "
        "cannot be read: No such file or directory"
    )


def test_plain_http_where_tls_is_expected_is_said_and_the_other_way_round(
    tmp_path: Path, film: Path
) -> None:
    with served(film, certificate=Authority(tmp_path).certify("camera")) as host:
        error = error_of(tmp_path, f"http://{host}/film.mp4")
    assert (error.code, str(error)) == (
        "tls",
        f"cannot open http://{host}/film.mp4: {host} speaks TLS alone; "
        "write https:// in place of http://",
    )
    with served(film) as host:
        error = error_of(tmp_path, f"https://{host}/film.mp4")
    assert (error.code, str(error)) == (
        "tls",
        f"cannot open https://{host}/film.mp4: {host} speaks no TLS; "
        "write http:// in place of https://",
    )


def test_a_film_whose_packets_are_not_logged_comes_again_from_a_server_without_ranges(
    tmp_path: Path,
) -> None:
    """It is opened again: the decoder is at its end."""
    path = tmp_path / "film.gif"
    first, *others = [Image.new("RGB", (64, 48), (k, k, k)).convert("P") for k in (0, 51, 102)]
    first.save(path, save_all=True, append_images=others, duration=100)
    with served(path, ranges=False) as host:
        config = {"source_uri": f"http://{host}/film.gif", "loop": True}
        out = run_task(VideoCapture, config=config, graph_dir=tmp_path, cycles=7, period_ns=1_000)
    assert [int(it["image"].pixels[0, 0, 0]) for it in out] == [0, 51, 102, 0, 51, 102, 0]
