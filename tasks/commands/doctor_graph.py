"""`flowrun doctor GRAPH`: whether a graph's model servers answer, and its certificates fit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from flowrun.runtime.graph.plan import Plan, load_plan
from flowrun.runtime.graph.spec import GraphSpec, PartitionSpec
from flowrun.runtime.links.certificates import Certificates, common_name, expires_s, troubles
from flowrun.runtime.links.lookout import why_not
from flowrun.runtime.links.security import certificates_of, hosts_of
from flowrun.runtime.wording import listed, mask_urls
from flowrun.tasks.commands.finding import Finding

__all__ = ["checks_of"]

_SOON_S = 30 * 86_400.0
"""A certificate that expires before this is mentioned."""

Check = Callable[[], Iterator[Finding]]


def checks_of(path: Path, partition: str | None) -> dict[str, Check]:
    """What there is to look at, by its name. `GraphError` for a graph that cannot be run.

    partition: the process that this machine runs; None: whichever.
    """
    plan = load_plan(path, env=os.environ, ready=False, partition=partition)
    spec = plan.graph.spec
    checks: dict[str, Check] = dict(_servers(plan))
    files = certificates_of(spec)
    if files is not None:
        checks["certificates"] = partial(_certificates, spec, files)
    if spec.part is not None:
        for address in _own(spec).connect:
            checks[address] = partial(_address, address, files)
    return checks


def _servers(plan: Plan) -> Iterator[tuple[str, Check]]:
    """Each address at which a task asks a model."""
    from flowrun.tasks.backends.settings import OpenAISettings

    for task in plan.graph.tasks:
        for name, settings in getattr(task.config, "backends", {}).items():
            if isinstance(settings, OpenAISettings) and settings.server is None:
                for url in settings.urls:
                    subject = f"{task.spec.id}.{name}"
                    yield f"{subject} {url}", partial(_server, subject, settings, url)


def _server(subject: str, settings: object, url: str) -> Iterator[Finding]:
    import structlog

    from flowrun.tasks.backends.probe import ServerProbe
    from flowrun.tasks.backends.settings import OpenAISettings
    from flowrun.tasks.models.question import ModelError

    assert isinstance(settings, OpenAISettings)
    probe = ServerProbe(settings.model_copy(update={"base_url": url}), log=structlog.get_logger())
    try:
        probe.ask()
    except ModelError as error:
        hint = "start it, or correct backends: base_url"
        yield Finding(subject, "fail", str(error), hint)
    else:
        yield Finding(subject, "ok", f"{mask_urls(url)} lists its models")


def _own(spec: GraphSpec) -> PartitionSpec:
    assert spec.part is not None
    return next(it for it in spec.partitions if it.id == spec.part.partition)


def _certificates(spec: GraphSpec, files: Certificates) -> Iterator[Finding]:
    hosts = () if spec.part is None else hosts_of(spec, _own(spec))
    found = list(troubles(files, hosts))
    for it in found:
        yield Finding(f"tls {it.key}", "fail", it.text, "network: {tls: ...} names the files")
    if found:
        return
    if files.cert is None:
        yield Finding("tls", "ok", f"{files.ca}; this process shows no certificate")
        return
    name, until_s = common_name(files), expires_s(files) or 0.0
    days = (until_s - time.time()) / 86_400
    hint = "make a new one; links end when it expires" if days * 86_400 < _SOON_S else ""
    text = f"{files.cert} is {name!r}, for {days:.0f} days more"
    yield Finding("tls", "warn" if hint else "ok", text, hint)
    yield from _allowed(spec, name)


def _allowed(spec: GraphSpec, name: str) -> Iterator[Finding]:
    allow = spec.network.allow
    if not allow:
        yield Finding(
            "allow", "warn", "whoever has a certificate of the CA may come as any partition",
            "name the certificates of each: network: {allow: {gpu: [gpu-box]}}",
        )  # fmt: skip
        return
    comes_as = [id_ for id_, names in allow.items() if name in names]
    wanted = None if spec.part is None else spec.part.partition
    if not comes_as or (wanted is not None and wanted not in comes_as):
        what = f"{name!r} may come as {listed(comes_as) if comes_as else 'no partition'}"
        yield Finding("allow", "fail", what, f"add it to network: allow: {wanted or 'PARTITION'}")
    else:
        yield Finding("allow", "ok", f"{name!r} may come as {listed(comes_as)}")


def _address(address: str, files: Certificates | None) -> Iterator[Finding]:
    text = why_not(address, files)
    if text is None:
        yield Finding("connect", "ok", f"{address} answers")
    else:
        yield Finding("connect", "warn", text, "start the partition that listens there")
