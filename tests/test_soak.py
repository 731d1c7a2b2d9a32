"""Whether `make soak` would see a leak."""

import random

import pytest

from support import soak
from support.soak import Samples, growth


def samples(per_hour, *, seed):
    """Ten minutes: memory that goes up and down by some MiB for a while each, and grows."""
    rng, values, level = random.Random(seed), [], 0.0
    for second in range(600):
        level = 0.9 * level + rng.gauss(0, 1)
        warm = 1 - 0.9**second
        values.append(300 * warm + level + per_hour * second / 3600)
    return [float(second) / 3600 for second in range(600)], values


@pytest.mark.parametrize("seed", range(8))
def test_what_goes_up_and_down_does_not_grow(seed):
    assert not growth(*samples(0, seed=seed)).exceeds(6)


@pytest.mark.parametrize("seed", range(8))
def test_a_leak_grows(seed):
    assert growth(*samples(150, seed=seed)).exceeds(6)


def test_what_grows_too_much_is_named(capsys):
    found = Samples()
    for second in range(600):
        found.add(second, {**dict.fromkeys(soak._LONG, 5.0), "descriptors": 20 + second // 60})
    assert found.grown(soak._LONG, unit=3600, per="an hour") == ["descriptors"]
    assert "TOO MUCH" in capsys.readouterr().out.splitlines()[1]


def test_too_few_samples_say_so():
    with pytest.raises(AssertionError, match="only 10 samples"):
        growth([0.0] * 10, [0.0] * 10)
