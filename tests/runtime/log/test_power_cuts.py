"""What a power cut leaves of a log; the disk is simulated."""

from __future__ import annotations

import pytest

from support.power_cuts import cut_trial, recovery_trial

_LOSING = 312
"""A trial in which the end of one slab is lost, and the next one is there."""


def trials(tmp_path, seeds, trial=cut_trial):
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir(parents=True)
        trial(folder, seed)


def test_what_was_synced_is_read_and_recovered_after_a_power_cut(tmp_path):
    trials(tmp_path, [*range(12), _LOSING])


def test_a_recovery_that_a_power_cut_ended_is_done_again(tmp_path):
    trials(tmp_path, range(12), recovery_trial)


@pytest.mark.long
@pytest.mark.slow
def test_what_was_synced_is_read_and_recovered_after_many_power_cuts(tmp_path):
    trials(tmp_path, range(100, 200))
    trials(tmp_path / "recoveries", range(100, 200), recovery_trial)
