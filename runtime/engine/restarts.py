"""Restarts of sources, each on a thread of its own: a camera that does not answer takes long to say so,
and the cycles go on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from flowrun.runtime.engine.instances import Instance, interrupt_task
from flowrun.runtime.engine.policy import restart_task

__all__ = ["Restarts"]


class _Restart:
    def __init__(self, made: Instance, wake: Callable[[], None]) -> None:
        self.made = made
        self.error: BaseException | None = None
        self._wake = wake
        self._thread = threading.Thread(
            target=self._work, name=f"flowrun-restart-{made.id}", daemon=True
        )
        self._thread.start()

    def wait(self, timeout_s: float | None) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            restart_task(self.made)
        except BaseException as error:  # noqa: BLE001  # of the task; the policy handles it
            self.error = error
        self._wake()


class Restarts:
    """The restarts of a run that are under way.

    wake: called when one has ended.
    at_once_s: how long the cycle that begins one waits for it: most have nothing to wait for. None:
        until it has ended.
    """

    def __init__(self, wake: Callable[[], None], *, at_once_s: float | None) -> None:
        self._wake = wake
        self._at_once_s = at_once_s
        self._under_way: dict[str, _Restart] = {}

    def restart(self, made: Instance) -> bool:
        """Restart a task, or see whether that has ended. False while it is under way.

        Passes on what the task raised.
        """
        under_way = self._under_way.get(made.id)
        wait_s: float | None = 0.0
        if under_way is None:
            under_way = self._under_way[made.id] = _Restart(made, self._wake)
            wait_s = self._at_once_s
        if not under_way.wait(wait_s):
            return False
        del self._under_way[made.id]
        if under_way.error is not None:
            raise under_way.error
        return True

    @property
    def under_way(self) -> Collection[str]:
        """The tasks that are being restarted."""
        return self._under_way.keys()

    def end(self, *, silent_s: float, timeout_s: float) -> set[str]:
        """Wait for those that are under way; returns the tasks that still start after `timeout_s`.

        silent_s: how long to wait before logging that.
        """
        left = set()
        for restart in self._under_way.values():
            interrupt_task(restart.made)
        for id_, restart in self._under_way.items():
            log = restart.made.ctx.log
            if restart.wait(silent_s):
                continue
            log.info("waiting for its start", up_to_s=timeout_s)
            if not restart.wait(timeout_s):
                log.warning("still starting; the run ends without it")
                left.add(id_)
        return left
