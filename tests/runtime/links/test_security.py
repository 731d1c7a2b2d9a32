"""Who may connect and say what: real Zenoh sessions with real certificates, and what the log says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.graph.spec import GraphSpec
from flowrun.runtime.links import lookout
from flowrun.runtime.links.certificates import Certificates, common_name, troubles
from flowrun.runtime.links.lookout import Lookout, why_not
from flowrun.runtime.links.security import certificates_of, hosts_of, security_of
from flowrun.runtime.links.transport import Sample
from flowrun.runtime.links.wire import Keys, Peer
from flowrun.runtime.links.zenoh import ZenohTransport, config_of, open_zenoh
from support.certificates import Authority

pytestmark = pytest.mark.slow

DOCK, GPU, OTHER = Peer("dock", "dock1", 0, 0), Peer("gpu", "0", 1, 0), Peer("dock", "dock2", 0, 1)
GRAPH = """
partitions:
  dock: {{listen: ["{listen}/127.0.0.1:{port}"], instances: {{dock1: {{}}, dock2: {{}}}}}}
  gpu: {{connect: ["{connect}/127.0.0.1:{port}"]}}
network: {{tls: {{{tls}}}, allow: {{{allow}}}}}
tasks:
  - {{id: cam, type: IntSource, partition: dock}}
  - {{id: model, type: IntSink, partition: gpu}}
cnx: [{{src: cam, dst: model, msg: IntMsg}}]
"""
ALLOW = "dock: [dock1, dock2], gpu: [gpu-box]"


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def opened() -> Iterator[list[Any]]:
    made: list[Any] = []
    yield made
    for it in made:
        it.close(timeout_s=10)


def tls(cert: str | None, ca: str = "ca") -> str:
    own = f", cert: {cert}.pem, key: {cert}.key" if cert else ""
    return f"ca: {ca}.pem{own}"


def spec(
    folder: Path,
    port: int,
    part: str,
    files: str,
    *,
    listen: str = "tls",
    connect: str = "tls",
    allow: str = "",
) -> GraphSpec:
    text = GRAPH.format(port=port, tls=files, listen=listen, connect=connect, allow=allow)
    return parse_graph(text, path=folder / "g.yaml", env={}, partition=part)


def session(graph: GraphSpec, opened: list[Any]) -> ZenohTransport:
    assert graph.part is not None
    own = next(it for it in graph.partitions if it.id == graph.part.partition)
    made = open_zenoh(config_of(own.listen, own.connect, security_of(graph)))
    opened.append(made)
    return made


class Notes:
    """What a lookout says."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._came = threading.Event()

    def __call__(self, text: str) -> None:
        self.texts.append(text)
        self._came.set()

    def wait(self) -> str:
        assert self._came.wait(60)
        return self.texts[0]


class Heard:
    """The keys of what comes to one subscriber of a session, in the order in which it comes. Each
    subscriber has a thread of its own: what came to another one says nothing about this one."""

    def __init__(self, of: ZenohTransport, key: str = "**") -> None:
        self.keys: list[str] = []
        self._came = threading.Condition()
        of.subscribe(key, self._take)

    def _take(self, sample: Sample) -> None:
        with self._came:
            self.keys.append(sample.key)
            self._came.notify_all()

    def wait(self, key: str) -> None:
        with self._came:
            assert self._came.wait_for(lambda: key in self.keys, 60)


def arrives(sender: ZenohTransport, receiver: ZenohTransport, key: str) -> bool:
    """Whether a message of `key` comes within a while."""
    came = threading.Event()
    receiver.subscribe(key, lambda _sample: came.set())
    for _ in range(300):
        sender.put(key, b"x", b"")
        if came.wait(0.1):
            return True
    return False


# -- the matrix ----------------------------------------------------------------------------------------


def test_certificates_of_one_authority_connect(ca: Authority, port: int, opened: list[Any]) -> None:
    ca.certify("dock1")
    ca.certify("gpu-box")
    folder = ca.folder
    dock = session(spec(folder, port, "dock/dock1", tls("dock1")), opened)
    graph = spec(folder, port, "gpu", tls("gpu-box"))
    gpu = session(graph, opened)
    assert arrives(dock, gpu, Keys.of("g", DOCK).cycles(GPU))
    assert gpu.linked() == {f"tls/127.0.0.1:{port}"}
    assert why_not(f"tls/127.0.0.1:{port}", certificates_of(graph)) is None


@pytest.mark.parametrize(
    ("dock", "gpu", "said"),
    [
        ("dock1", None, "who listens there asks for a certificate; give network: {tls: {cert: ..., "
         "key: ...}}"),
        ("dock1", "foreign", "who listens there does not know the CA of {folder}/foreign.pem"),
        ("foreign", "gpu-box", "the certificate of who listens there is of another CA than "
         "{folder}/ca.pem (unable to get local issuer certificate)"),
        ("dock1", "old", "{folder}/old.pem has expired"),
        ("old", "gpu-box", "the certificate of who listens there has expired"),
        ("elsewhere", "gpu-box", "the certificate of who listens there is not for '127.0.0.1'"),
    ],
)  # fmt: skip
def test_other_certificates_do_not_and_the_log_says_why(
    ca: Authority,
    port: int,
    opened: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    dock: str,
    gpu: str | None,
    said: str,
) -> None:
    monkeypatch.setattr(lookout, "_FIRST_S", 0.5)
    folder = ca.folder
    ca.certify("dock1")
    ca.certify("gpu-box")
    ca.certify("gpu-box", file="old", days=-1)
    ca.certify("dock1", file="elsewhere", host="elsewhere.example")
    Authority(folder, "other").certify("gpu-box", file="foreign")
    session(spec(folder, port, "dock/dock1", tls(dock)), opened)
    graph = spec(folder, port, "gpu", tls(gpu))
    connecting = session(graph, opened)
    notes = Notes()
    looking = Lookout(
        [f"tls/127.0.0.1:{port}"],
        certificates_of(graph),
        linked=connecting.linked,
        note=lambda text: notes(text) if text.startswith("tls/") else None,
    )
    looking.start()
    assert notes.wait() == f"tls/127.0.0.1:{port}: " + said.replace("{folder}", str(folder))
    looking.end()
    assert connecting.linked() == set()


@pytest.mark.long
@pytest.mark.parametrize(
    ("listen", "connect", "said"),
    [
        ("tls", "tcp", "who listens there speaks TLS, and this process plain TCP; connect to "
         "tls/127.0.0.1:{port}"),
        ("tcp", "tls", "who listens there speaks no TLS; plain TCP, or another program?"),
    ],
)  # fmt: skip
def test_plain_and_encrypted_do_not_mix(
    ca: Authority, port: int, opened: list[Any], listen: str, connect: str, said: str
) -> None:
    ca.certify("dock1")
    ca.certify("gpu-box")
    more = {"listen": listen, "connect": connect}
    session(spec(ca.folder, port, "dock/dock1", tls("dock1"), **more), opened)
    graph = spec(ca.folder, port, "gpu", tls("gpu-box"), **more)
    connecting = session(graph, opened)
    address = f"{connect}/127.0.0.1:{port}"
    assert why_not(address, certificates_of(graph)) == f"{address}: {said.format(port=port)}"
    assert connecting.linked() == set()


def test_where_nobody_is_that_is_said(port: int) -> None:
    at = f"127.0.0.1:{port}"
    assert why_not(f"tcp/{at}", None) == f"tcp/{at}: nobody listens there (connection refused)"
    assert why_not("tcp/no-such-host.invalid:1", None) == (
        "tcp/no-such-host.invalid:1: no host 'no-such-host.invalid' is known here"
    )


# -- who may say what ----------------------------------------------------------------------------------


@pytest.fixture
def allowed(ca: Authority, port: int, opened: list[Any]) -> tuple[ZenohTransport, ZenohTransport]:
    """dock1, which knows who may come, and a peer with gpu-box's certificate that keeps no rules."""
    for name in ("dock1", "dock2", "gpu-box", "stranger"):
        ca.certify(name)
    dock = session(spec(ca.folder, port, "dock/dock1", tls("dock1"), allow=ALLOW), opened)
    return dock, session(spec(ca.folder, port, "gpu", tls("gpu-box")), opened)


def test_allowed_certificates_get_what_links_need(
    ca: Authority, port: int, opened: list[Any]
) -> None:
    """Both sides keep the rules, and each thing that a link does is done."""
    ca.certify("dock1")
    ca.certify("gpu-box")
    dock = session(spec(ca.folder, port, "dock/dock1", tls("dock1"), allow=ALLOW), opened)
    gpu = session(spec(ca.folder, port, "gpu", tls("gpu-box"), allow=ALLOW), opened)
    its, ours = Keys.of("g", DOCK), Keys.of("g", GPU)
    assert arrives(dock, gpu, its.cycles(GPU))
    assert arrives(gpu, dock, ours.ack(DOCK))
    for key in (its.log(GPU), its.hello(GPU)):
        dock.serve(key, lambda query: (query.reply(b"yes", b""), query.finish())[1])
        found = answers(gpu, key)
        for _ in range(100):  # until the other one knows of it
            found = found or answers(gpu, key)
        assert found == [b"yes"]
    for one, other, keys in ((dock, gpu, its), (gpu, dock, ours)):
        seen = threading.Event()
        other.watch_alive(keys.alive, lambda there, seen=seen: seen.set() if there else None)
        one.declare_alive(keys.alive)
        assert seen.wait(60)


def test_nobody_puts_subscribes_or_asks_beyond_its_own_keys(
    allowed: tuple[ZenohTransport, ZenohTransport],
) -> None:
    dock, gpu = allowed
    forbidden = [
        Keys.of("g", OTHER).cycles(DOCK),  # as another instance
        Keys.of("g", GPU).cycles(OTHER),  # to somebody else
        "flow/another/gpu/0/cyc/dock/dock1",
        "anything",
    ]
    for key in forbidden:
        dock.subscribe(key, lambda _sample: None)
    dock.serve(
        Keys.of("g", DOCK).log(OTHER), lambda query: (query.reply(b"no", b""), query.finish())[1]
    )
    at_dock, at_gpu = Heard(dock), Heard(gpu)
    secret, ack, cycles = (
        Keys.of("g", DOCK).cycles(OTHER),
        Keys.of("g", GPU).ack(DOCK),
        Keys.of("g", DOCK).cycles(GPU),
    )
    assert arrives(gpu, dock, ack)
    assert arrives(dock, gpu, cycles)
    at_dock.keys.clear()
    at_gpu.keys.clear()
    # What is allowed comes after what is not: when it is here, that has not come.
    for key in (*forbidden, ack):
        gpu.put(key, b"x", b"")
    for key in (secret, cycles):
        dock.put(key, b"x", b"")
    at_dock.wait(ack)
    at_gpu.wait(cycles)
    assert answers(gpu, Keys.of("g", DOCK).log(OTHER)) == []
    assert not set(at_dock.keys) & set(forbidden)
    assert secret not in at_gpu.keys


def test_a_certificate_that_allow_does_not_name_is_linked_and_gets_nothing(
    ca: Authority,
    port: int,
    opened: list[Any],
    allowed: tuple[ZenohTransport, ZenohTransport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dock, gpu = allowed
    graph = spec(ca.folder, port, "gpu", tls("stranger"))
    stranger = session(graph, opened)
    got: list[str] = []
    dock.subscribe(Keys.of("g", GPU).ack(DOCK), lambda sample: got.append(sample.payload.decode()))
    overheard = Heard(stranger)
    deadline = time.monotonic() + 60
    while not stranger.linked():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(50):
        stranger.put(Keys.of("g", GPU).ack(DOCK), b"stranger", b"")
    assert arrives(dock, gpu, Keys.of("g", DOCK).cycles(GPU))
    assert arrives(gpu, dock, Keys.of("g", GPU).ack(DOCK))
    assert "stranger" not in got
    monkeypatch.setattr(lookout, "_FIRST_S", 0.0)
    notes = Notes()
    looking = Lookout(
        [f"tls/127.0.0.1:{port}"],
        certificates_of(graph),
        linked=stranger.linked,
        note=notes,
        unseen=lambda: ["dock/dock1"],
    )
    looking.start()
    assert notes.wait() == (
        "connected, and dock/dock1 is not seen: it does not run, or its 'allow' does not name the "
        "certificate 'stranger' of this process"
    )
    looking.end()
    overheard.wait(Keys.of("g", GPU).ack(DOCK))  # its own
    assert set(overheard.keys) == {Keys.of("g", GPU).ack(DOCK)}


def answers(asking: ZenohTransport, key: str) -> list[bytes]:
    found: list[bytes] = []
    done = threading.Event()
    asking.query(key, b"", lambda sample: found.append(sample.payload), done.set, timeout_s=5)
    assert done.wait(60)
    return found


# -- the files -----------------------------------------------------------------------------------------


def test_each_file_that_does_not_fit_is_named(ca: Authority, tmp_path: Path) -> None:
    cert, key = ca.certify("edge", host="edge-1")
    _, other_key = ca.certify("other")
    old_cert, old_key = ca.certify("edge", file="old", days=-1)
    foreign = Authority(tmp_path, "second").certify("edge", file="foreign")
    text = tmp_path / "text"
    text.write_text("no certificate")

    def said(*files: Path, hosts: tuple[str, ...] = ()) -> list[tuple[str, str, bool]]:
        return [tuple(it) for it in troubles(Certificates(*files), hosts)]  # type: ignore[misc]

    assert said(ca.path, cert, key, hosts=("edge-1",)) == []
    assert said(ca.path, cert, key, hosts=("edge-1", "edge-2", "10.0.0.1")) == [
        ("cert", f"{cert} is not for 'edge-2'", False),
        ("cert", f"{cert} is not for '10.0.0.1'", False),
    ]
    assert said(tmp_path / "none", cert, key) == [
        ("ca", f"{tmp_path}/none: no such file or directory", True)
    ]
    assert said(text, cert, key) == [("ca", f"{text} holds no certificate in PEM", True)]
    assert said(ca.path, text, key) == [("cert", f"{text} holds no certificate in PEM", True)]
    assert said(ca.path, cert, text) == [("key", f"{text} holds no private key in PEM", True)]
    assert said(ca.path, cert, other_key) == [
        ("key", f"{other_key} is not the key of {cert}", True)
    ]
    assert said(ca.path, old_cert, old_key) == [("cert", f"{old_cert} has expired", False)]
    assert said(ca.path, *foreign) == [
        (
            "cert",
            f"{foreign[0]} is none that {ca.path} accepts: unable to get local issuer certificate",
            False,
        )
    ]
    assert common_name(Certificates(ca.path, cert, key)) == "edge"
    assert common_name(Certificates(ca.path, old_cert, old_key)) == ""


def test_a_run_with_files_that_reach_nobody_does_not_start(ca: Authority, port: int) -> None:
    ca.certify("dock1")
    graph = spec(ca.folder, port, "dock/dock1", "ca: ca.pem, cert: dock1.pem, key: ca.pem")
    with pytest.raises(UsageError) as caught:
        security_of(graph)
    assert str(caught.value) == (
        f"{ca.folder}/g.yaml:5:51: 'key' of tls: {ca.folder}/ca.pem holds no private key in PEM"
    )


def test_plain_tcp_on_this_machine_needs_no_files(tmp_path: Path, port: int) -> None:
    graph = spec(tmp_path, port, "gpu", "", listen="tcp", connect="tcp")
    assert security_of(graph) == {}
    assert hosts_of(graph, graph.partitions[0]) == []


def test_the_hosts_of_a_partition_are_those_that_others_connect_to(
    ca: Authority, port: int
) -> None:
    graph = spec(ca.folder, port, "gpu", tls("gpu-box"))
    assert hosts_of(graph, graph.partitions[0]) == ["127.0.0.1"]
