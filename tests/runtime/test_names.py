"""`from flowrun.runtime import Log, Replay`, without paying for them before they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import flowrun.runtime
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay


def test_the_package_has_log_and_replay():
    assert flowrun.runtime.Log is Log
    assert flowrun.runtime.Replay is Replay
    assert {"Log", "Replay"} <= set(dir(flowrun.runtime))


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError) as caught:
        flowrun.runtime.Lgo  # noqa: B018
    assert str(caught.value) == "module 'flowrun.runtime' has no attribute 'Lgo'"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import flowrun.runtime", {"numpy", "msgpack", "zlib_ng", "networkx", "pydantic"}),
        ("from flowrun.runtime import Log", {"networkx", "pydantic", "av", "rich", "yaml"}),
    ],
)
def test_importing_brings_only_what_is_used(code, absent):
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert set(done.stdout.split()) & absent == set()
