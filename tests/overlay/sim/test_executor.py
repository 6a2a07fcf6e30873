"""Tests of executing effects over a disk that fails, or takes its time."""

from __future__ import annotations

from overlay.effects import Effect, Persist, Report
from overlay.sim.clock import Clock
from overlay.sim.executor import Executor
from overlay.sim.faults import Disk
from overlay.sim.processor import Processor


class Bench:
    """An executor, what it did, and what it said of failures."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.disk = Disk({})
        self.done: list[str] = []
        self.failed: list[tuple[int, str]] = []
        self.processor = Processor(self.clock, lambda: None, lambda: None)
        self.executor = Executor(self.disk, self.processor, self._execute, self._on_failed)

    def _execute(self, effect: Effect) -> bool:
        assert isinstance(effect, Report)
        self.done.append(effect.event)
        return effect.event != "stop"

    def _on_failed(self, pending: list[Persist], why: str) -> None:
        self.failed.append((len(pending), why))


def write(key: bytes) -> Persist:
    return Persist(((key, b"x"),))


def test_a_failed_write_discards_the_rest_of_its_list_and_names_all_that_was_not_stored():
    one = Bench()
    one.disk.fail(1, "full")
    one.executor.perform([Report("a"), write(b"1"), Report("b"), write(b"2")])
    one.executor.perform([write(b"3"), Report("c")])
    assert one.done == ["a", "c"]
    assert one.failed == [(2, "full")]
    assert one.disk.entries.keys() == {b"3"}


def test_an_effect_may_end_its_list():
    one = Bench()
    one.executor.perform([Report("stop"), Report("never")])
    assert one.done == ["stop"]


def test_each_write_takes_its_time_and_order_is_kept_over_all_lists():
    one = Bench()
    one.disk.latency = 1.0
    one.executor.perform([write(b"1"), Report("a"), write(b"2"), Report("b")])
    one.executor.perform([Report("c"), write(b"3"), Report("d")])
    seen = []
    for at in (0.9, 1.1, 2.1, 3.1):
        one.clock.run(at)
        seen.append((list(one.done), len(one.disk.entries), one.processor.runs))
    assert seen == [
        ([], 0, False),
        (["a"], 1, False),
        (["a", "b", "c"], 2, False),
        (["a", "b", "c", "d"], 3, True),
    ]


def test_what_was_being_written_when_the_process_died_is_not_there():
    one = Bench()
    one.disk.latency = 1.0
    one.executor.perform([write(b"1"), Report("a")])
    one.executor.reset()
    one.processor.reset()
    one.clock.run(9.0)
    assert (one.done, one.disk.entries) == ([], {})
