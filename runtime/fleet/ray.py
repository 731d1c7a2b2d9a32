"""Placement by Ray: each process of a fleet runs where an actor of its own is put.

Ray decides where, and nothing else: no message goes through it, and it starts nothing again. A node that
is lost is a process that has failed.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from flowrun.runtime.children.process import ChildProcess
from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.errors import UsageError
from flowrun.runtime.extras import import_optional
from flowrun.runtime.fleet.placement import LOCAL_SETTINGS, PATIENCE_S, Place, PlaceLost
from flowrun.runtime.graph.spec import GraphSpec, PartId

__all__ = ["RayPlacement"]

_WHAT = "flowrun up --ray"
_WAIT_S = 1.0
_PLACED_S = 60.0
"""How long Ray may take to find a place for all."""
_STOP_S = PATIENCE_S + 5.0
_CONNECT_S = 5.0
_KNOWN_S = 5.0
"""How long Ray may take to know that a node is lost when it says that an actor is."""
_LOST = 1


class _Node(NamedTuple):
    """Where a process is put. id: Ray's."""

    host: str
    port: int
    id: str


class _Runner:
    """What runs on the node: one process, and what becomes of it."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = []
        self._dropped = 0
        self._came = threading.Condition()
        self._child: ChildProcess | None = None
        self._told: list[str] = []
        self._telling = threading.Lock()

    def place(self) -> _Node:
        """The node, and a port at which nobody listens there."""
        ray = import_optional("ray", _WHAT, extra="ray")
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = int(probe.getsockname()[1])
        return _Node(ray.util.get_node_ip_address(), port, ray.get_runtime_context().get_node_id())

    def start(self, words: Sequence[str], name: str, folder: str) -> None:
        child = ChildProcess(
            [sys.executable, *words],
            folder=Path(folder),
            name=name,
            patience_s=PATIENCE_S,
            drop_stdout=True,
            hears=True,
            on_line=lambda line: self._note("line", line),
        )
        with self._telling:
            for line in self._told:
                child.tell(line)
            child.start()
            self._child = child
        child.keep_running(on_end=self._ended, on_failure=lambda _: None)

    def tell(self, line: str) -> None:
        """See `ChildProcess.tell`."""
        with self._telling:
            self._told.append(line)
            if self._child is not None:
                self._child.tell(line)

    def _ended(self, status: int, _pause_s: float) -> bool:
        self._note("end", status)
        return False

    def _note(self, what: str, value: object) -> None:
        with self._came:
            self._events.append((what, value))
            self._came.notify()

    def events(self, seen: int) -> list[tuple[str, Any]]:
        """What has happened after the first `seen` events, which are forgotten; waits a second for
        something. An answer that is lost is asked for again."""
        with self._came:
            del self._events[: max(0, seen - self._dropped)]
            self._dropped = max(seen, self._dropped)
            self._came.wait_for(lambda: self._events, _WAIT_S)
            return list(self._events)

    def stop(self) -> int | None:
        child, self._child = self._child, None
        if child is None:
            return None
        child.stop()
        return child.status


class RayPlacement:
    """Puts processes onto the nodes of a cluster. See `Placement`.

    address: "auto", the cluster that this machine belongs to; "local", one of this machine's own; or
        ray://HOST:PORT.
    """

    def __init__(self, address: str) -> None:
        self._ray = import_optional("ray", _WHAT, extra="ray")
        _require_listener(address)
        try:
            self._ray.init(
                address=address,
                include_dashboard=False if address == "local" else None,
                log_to_driver=False,
                logging_level="error",
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = str(error).partition("\n")[0].partition(". ")[0]
            raise UsageError(
                f"--ray {address}: no cluster is found: {first}; ray start --head starts one"
            ) from error
        self._actors: dict[PartId, Any] = {}
        self._nodes: dict[PartId, _Node] = {}

    def note_into(self, path: Path) -> None:
        """Have what Ray says of its nodes go into the file `path`: it prints pages of its own state
        when one is lost."""
        from importlib import import_module

        def note(data: Mapping[str, Any], *_: object, **__: object) -> None:
            with path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in data["lines"])

        # `log_to_driver=False` stops only what workers print.
        import_module("ray._private.worker").print_to_stdstream = note  # type: ignore[attr-defined]

    def places(self, graph: GraphSpec) -> Mapping[PartId, Place]:
        """An actor for each process. `UsageError` where Ray finds no place for them within a minute, or
        the graph does not say how they may talk from node to node."""
        ray = self._ray
        kind = ray.remote(_Runner)
        for partition in graph.partitions:
            for part in partition.parts:
                self._actors[part] = kind.options(
                    num_cpus=0,
                    num_gpus=partition.num_gpus or 0,
                    max_restarts=0,
                    max_task_retries=0,
                    max_concurrency=4,
                    scheduling_strategy="SPREAD",
                ).remote()
        asked = {part: actor.place.remote() for part, actor in self._actors.items()}
        try:
            found = {part: ray.get(it, timeout=_PLACED_S) for part, it in asked.items()}
        except ray.exceptions.GetTimeoutError:
            wanted = {it.id: it.num_gpus for it in graph.partitions if it.num_gpus}
            there = ray.cluster_resources().get("GPU", 0)
            self.close()
            raise UsageError(
                f"Ray has no place for all partitions within {_PLACED_S:g} s; they ask for the GPUs "
                f"{wanted}, the cluster has {there:g}"
            ) from None
        self._nodes = found
        if len({it.host for it in found.values()}) == 1:
            return {
                part: Place(f"tcp/127.0.0.1:{it.port}", LOCAL_SETTINGS)
                for part, it in found.items()
            }
        if graph.network.tls.ca is None and not graph.network.insecure:
            self.close()
            raise UsageError(
                f"{graph.path}: its partitions are on several nodes; say network: {{tls: {{ca, cert, "
                "key}}, or {insecure: true} where everybody on the network may read and write"
            )
        protocol = "tcp" if graph.network.tls.ca is None else "tls"
        return {part: Place(f"{protocol}/{it.host}:{it.port}", {}) for part, it in found.items()}

    def process(
        self, part: PartId, words: Sequence[str], on_line: Callable[[str], None], pause_s: float
    ) -> _Placed:
        return _Placed(
            self._ray, self._actors[part], self._nodes[part], part, words, on_line, pause_s
        )

    def close(self) -> None:
        """Give the actors back."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()
        self._ray.shutdown()


class _Placed:
    """A process on a node, as `ChildProcess` is one here."""

    command_pid = None

    def __init__(
        self,
        ray: Any,
        actor: Any,
        node: _Node,
        part: PartId,
        words: Sequence[str],
        on_line: Callable[[str], None],
        pause_s: float,
    ) -> None:
        self._ray, self._actor, self._node = ray, actor, node
        self._words, self._name = list(words), f"flowrun-part-{part}"
        self._on_line, self._pause_s = on_line, pause_s
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._on_failure: Callable[[OSError], None] = lambda _: None
        self._seen, self._is_lost = 0, False
        self.status: int | None = None

    def start(self) -> None:
        """Raises `OSError` where the node has no such program, `PlaceLost` where it is lost."""
        try:
            self._ray.get(self._actor.start.remote(self._words, self._name, str(Path.cwd())))
        except self._ray.exceptions.RayTaskError as error:
            raise OSError(0, str(error.cause)) from error
        except self._ray.exceptions.RayError as error:
            raise self._lost(error) from error

    def tell(self, line: str) -> None:
        """See `ChildProcess.tell`. Does not wait for the node."""
        self._actor.tell.remote(line)

    def keep_running(
        self, *, on_end: Callable[[int, float], bool], on_failure: Callable[[OSError], None]
    ) -> None:
        self._on_failure = on_failure
        self._watcher = threading.Thread(
            target=self._watch, args=[on_end, on_failure], name=self._name, daemon=True
        )
        self._watcher.start()

    def _watch(
        self, on_end: Callable[[int, float], bool], on_failure: Callable[[OSError], None]
    ) -> None:
        pause_s = self._pause_s
        while not self._stopping.is_set():
            try:
                events = self._events()
            except self._ray.exceptions.RayError as error:
                if not self._stopping.is_set():
                    self._is_lost = True
                    on_failure(self._lost(error))
                return
            for what, value in events:
                self._seen += 1
                if what == "line":
                    self._on_line(value)
                    continue
                if self._stopping.is_set():
                    return
                if not on_end(value, pause_s) or self._stopping.wait(pause_s):
                    return
                pause_s = min(2 * pause_s, 30.0)
                try:
                    self.start()
                except OSError as error:
                    on_failure(error)
                    return

    def _events(self) -> list[tuple[str, Any]]:
        """What has happened. While the node does not answer, Ray is asked again, until it gives it up:
        some 20 s."""
        is_told = False
        while True:
            try:
                return list(self._ray.get(self._actor.events.remote(self._seen)))
            except self._ray.exceptions.ActorUnavailableError:
                if self._stopping.wait(_WAIT_S):
                    raise
                if not is_told:
                    is_told = True
                    self._on_line(f"its node {self._node.host} does not answer")

    def stop(self) -> None:
        self._stopping.set()
        try:
            self.status = self._ray.get(self._actor.stop.remote(), timeout=_STOP_S)
            if self._watcher is not None:
                self._watcher.join()
            for what, value in self._events():
                if what == "line":
                    self._on_line(value)
        except self._ray.exceptions.RayError as error:
            self.status = _LOST
            if self._watcher is not None:
                self._watcher.join()
            if not self._is_lost:
                self._on_failure(self._lost(error))

    def _lost(self, error: Exception) -> PlaceLost:
        """What became of the actor, in words: Ray has only begun to find out when it says so."""
        host, id_ = self._node.host, self._node.id
        by_ray = " ".join(str(error).split("\n\n")[0].split())
        until_s = monotonic_s() + _KNOWN_S
        while monotonic_s() < until_s:
            if id_ not in {it["NodeID"] for it in self._ray.nodes() if it["Alive"]}:
                return PlaceLost(
                    f"its node {host} is lost (Ray's {id_[:8]})",
                    "ray status shows the nodes that are left; the same command starts all again",
                )
            self._stopping.wait(_WAIT_S)
        return PlaceLost(
            f"Ray has ended it on its node {host}: {by_ray}", "the same command starts all again"
        )


def _require_listener(address: str) -> None:
    """`UsageError` where nobody listens at `address`, which Ray would try for minutes."""
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = place.hostname, place.port
    except ValueError as error:
        raise UsageError(f"--ray {address}: expected auto, local, or HOST:PORT: {error}") from None
    if host is None or port is None:
        return  # auto, local
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError as error:
        why = error.strerror or error
        raise UsageError(
            f"--ray {address}: no cluster is found: {why}; ray start --head starts one"
        ) from error
