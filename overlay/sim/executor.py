"""Executes an engine's effects in order, and keeps the promises that hang on the disk.

What waits for the disk is `overlay.writes`' business, here as in the daemon. A disk may take its
time; the machine goes on meanwhile, as the daemon does. What it has written while the machine
stands still is noticed when that goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from overlay.effects import Effect, Persist
from overlay.sim.clock import Alarm
from overlay.sim.faults import Disk
from overlay.sim.processor import Processor
from overlay.writes import Write, Writes


class Executor:
    """One machine's.

    Args:
        disk: where it stores.
        processor: runs or not; what its disk has done a machine notices when it runs.
        execute: does everything but storing; says whether to go on with the list.
        on_failed: told about all that was to be stored and is not, and why.
    """

    __slots__ = (
        "_alarm",
        "_disk",
        "_execute",
        "_failed",
        "_on_failed",
        "_processor",
        "_writes",
        "_written",
    )

    def __init__(
        self,
        disk: Disk,
        processor: Processor,
        execute: Callable[[Effect], bool],
        on_failed: Callable[[list[Persist], str], None],
    ) -> None:
        self._disk = disk
        self._processor = processor
        self._execute = execute
        self._on_failed = on_failed
        self._writes = Writes()
        self._alarm: Alarm | None = None
        self._written = False  # the disk is done and the machine has not noticed
        self._failed: str | None = None

    def perform(self, effects: Collection[Effect]) -> None:
        """Execute a list, as far as it need not wait for the disk."""
        if not self._writes.running and self._writes.is_idle and not _stores(effects):
            self._execute_all(effects)
        else:
            for effect in self._writes.put(effects):
                self._execute(effect)
        self._go_on()

    def _execute_all(self, effects: Collection[Effect]) -> None:
        """What need not wait, nor waits behind anything: as a rule."""
        self._writes.running = True
        try:
            for effect in effects:
                if not self._execute(effect):
                    break
        finally:
            self._writes.running = False

    def start(self, effects: Collection[Effect]) -> None:
        """Execute the first list of a process: it does nothing else before that is stored.

        The disk takes no time for that.
        """
        latency, self._disk.latency = self._disk.latency, 0.0
        self.perform(effects)
        self._disk.latency = latency

    @property
    def is_idle(self) -> bool:
        """Whether everything is done, and stored."""
        return self._writes.is_idle and not self._written

    def resume(self) -> None:
        """The machine goes on: it notices what the disk has done."""
        if self._written:
            self._notice()

    def reset(self) -> None:
        """The process is gone: what was being written is not on the disk."""
        self._writes.clear()
        self._written = self._disk.writing = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _go_on(self) -> None:
        self._writes.run(self._begin, self._execute)

    def _begin(self, write: Write) -> None:
        if not self._disk.latency:
            self._failed = self._disk.write(write.changes)
            self._notice()
            return
        self._disk.writing = True
        self._alarm = self._processor.clock.after(
            self._disk.latency, lambda: self._on_written(write)
        )

    def _on_written(self, write: Write) -> None:
        self._alarm = None
        self._failed = self._disk.write(write.changes)
        self._written = True
        if self._processor.runs:
            self._notice()

    def _notice(self) -> None:
        self._written = self._disk.writing = False
        if self._failed is None:
            self._writes.on_written()
        else:
            self._on_failed(self._writes.on_failed(), self._failed)
        self._go_on()


def _stores(effects: Collection[Effect]) -> bool:
    for effect in effects:  # noqa: SIM110  # asked for each event: a generator takes longer
        if isinstance(effect, Persist):
            return True
    return False
