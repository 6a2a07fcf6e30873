"""Executes an engine's effects in order, and keeps the promises that hang on the disk.

A `Persist` that fails discards what follows it in its list: what is announced was stored. A disk
may take its time: then the rest of the list waits for it, everything that comes later waits behind
that, and the machine does nothing else, as the daemon does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from overlay.effects import Effect, Persist
from overlay.sim.faults import Disk
from overlay.sim.processor import Processor


class Executor:
    """One machine's.

    Args:
        disk: where it stores.
        processor: stands still while the disk writes.
        execute: does everything but storing; says whether to go on with the list.
        on_failed: told about what was not stored, the transactions that were to follow in the same
            list included, and why.
    """

    __slots__ = ("_disk", "_execute", "_on_failed", "_processor", "_unwritten")

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
        # Lists to be gone on with when the disk has written; None while it writes nothing.
        self._unwritten: list[list[Effect]] | None = None

    def perform(self, effects: Iterable[Effect]) -> None:
        """Execute a list, or let it wait behind others that wait for the disk."""
        if self._unwritten is not None:
            self._unwritten.append(list(effects))
            return
        waiting = deque(effects)
        while waiting:
            effect = waiting.popleft()
            if isinstance(effect, Persist):
                if self._disk.latency:
                    self._wait(effect, list(waiting))
                    break
                if not self._store(effect, waiting):
                    break
            elif not self._execute(effect):
                break

    def reset(self) -> None:
        """The process is gone: what was being written is not on the disk."""
        self._unwritten = None

    def _wait(self, write: Persist, rest: list[Effect]) -> None:
        self._unwritten = []
        self._processor.wait(self._disk.latency, partial(self._on_written, write, rest))

    def _on_written(self, write: Persist, rest: list[Effect]) -> None:
        later, self._unwritten = self._unwritten or [], None
        for effects in [rest, *later] if self._store(write, rest) else later:
            self.perform(effects)

    def _store(self, write: Persist, rest: Iterable[Effect]) -> bool:
        """Whether to go on with the `rest` of the list that `write` is from."""
        failed = self._disk.write(write.changes)
        if failed is None:
            return True
        more = [effect for effect in rest if isinstance(effect, Persist)]
        self._on_failed([write, *more], failed)
        return False
