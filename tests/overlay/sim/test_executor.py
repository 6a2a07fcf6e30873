"""Tests of executing effects over a disk that fails, or takes its time."""

from __future__ import annotations

from overlay.effects import Effect, Persist, Report, SendDatagram
from overlay.sim.clock import Clock
from overlay.sim.executor import Executor
from overlay.sim.faults import Disk
from overlay.sim.processor import Processor
from overlay.types import Endpoint


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
        if isinstance(effect, SendDatagram):
            self.done.append(effect.datagram.decode())
            return True
        assert isinstance(effect, Report)
        self.done.append(effect.event)
        return effect.event != "stop"

    def _on_failed(self, pending: list[Persist], why: str) -> None:
        self.failed.append((len(pending), why))


def write(key: bytes) -> Persist:
    return Persist(((key, b"x"),))


def datagram(name: str, *, at_once: bool = True) -> SendDatagram:
    return SendDatagram(Endpoint("192.0.2.1", 1), name.encode(), at_once=at_once)


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


def test_a_slow_write_delays_what_follows_it_and_what_comes_meanwhile_is_one_write():
    one = Bench()
    one.disk.latency = 1.0
    one.executor.perform([write(b"1"), Report("a"), write(b"2"), Report("b")])
    one.executor.perform([Report("c"), write(b"3"), Report("d")])
    one.executor.perform([write(b"4"), Report("e")])
    seen = []
    for at in (0.9, 1.1, 2.1):
        one.clock.run(at)
        seen.append((list(one.done), len(one.disk.entries), one.processor.runs))
    assert seen == [
        ([], 0, True),
        (["a", "b", "c"], 2, True),  # those of a list belong together
        (["a", "b", "c", "d", "e"], 4, True),
    ]


def test_what_a_process_begins_with_is_stored_at_once():
    one = Bench()
    one.disk.latency = 1.0
    one.executor.start([write(b"1"), Report("a")])
    assert (one.done, one.disk.entries.keys()) == (["a"], {b"1"})
    one.executor.perform([write(b"2"), Report("b")])
    assert one.done == ["a"]


def test_what_need_not_wait_does_not():
    one = Bench()
    one.disk.latency = 1.0
    one.executor.perform([write(b"1"), datagram("probe"), Report("a")])
    one.executor.perform([Report("b"), datagram("reply")])
    assert one.done == ["probe", "reply"]
    one.clock.run(1.1)
    assert one.done == ["probe", "reply", "a", "b"]


def test_a_slow_write_that_fails_takes_with_it_what_was_to_be_sent_after_it():
    one = Bench()
    one.disk.latency = 1.0
    one.disk.fail(1, "full")
    one.executor.perform([write(b"1"), Report("a")])
    one.executor.perform([datagram("told", at_once=False), Report("b"), write(b"2"), Report("c")])
    one.clock.run(9.0)
    assert one.failed == [(2, "full")]
    assert one.done == ["b"]
    assert one.disk.entries == {}


def test_a_machine_that_stands_still_notices_later_what_its_disk_has_done():
    one = Bench()
    one.disk.latency = 1.0
    one.executor.perform([write(b"1"), Report("a")])
    one.processor.pause(True)
    one.clock.run(2.0)
    assert (one.done, one.disk.entries.keys()) == ([], {b"1"})
    one.executor.resume()
    assert one.done == ["a"]


def test_what_was_being_written_when_the_process_died_is_not_there():
    one = Bench()
    one.disk.latency = 1.0
    one.executor.perform([write(b"1"), Report("a")])
    one.executor.reset()
    one.processor.reset()
    one.clock.run(9.0)
    assert (one.done, one.disk.entries) == ([], {})
