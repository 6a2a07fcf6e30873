"""The driver between doubles: effects in their order, passes that are bounded, one timer."""

from __future__ import annotations

import pytest

from node.driver import TUN_READS, UDP_READS
from node.io.memory import MemoryNetwork, MemoryUdp
from overlay.effects import (
    BenchAnswered,
    BenchAsked,
    BenchEnded,
    Left,
    NetworkChanged,
    Persist,
    ProbeAnswered,
    Report,
    SendControl,
    SendDatagram,
    SetOffload,
    TellDaemon,
    TellLane,
)
from overlay.types import Endpoint
from tests.support.drivers import (
    HERE,
    NODE,
    ONE,
    THERE,
    TWO,
    Bench,
    ScriptedEngine,
    on_loop,
    turns,
)


def received(bench: Bench) -> list[bytes]:
    """What has come at the far end since the last call."""
    found = []
    while (one := bench.far.receive()) is not None:
        found.append(bytes(one.datagrams))
    return found


# -- effects ---------------------------------------------------------------------------------------


def test_effects_are_executed_in_order():
    async def main() -> None:
        with Bench() as bench:
            bench.far.send(HERE, memoryview(b"x"), 0)
            told = [Report("one"), ProbeAnswered(NODE, 1, 0.5), Left(2), Report("two")]
            told += [BenchAsked(NODE, 1, b"", b"", 1), BenchAnswered(NODE, 1), BenchEnded(NODE, 1)]
            told += [TellLane(1, b"order"), TellDaemon(b"report")]
            assert bench.driver.stored([ONE, NetworkChanged(), *told, TWO]).result()
            # One write for a list: a later value of a key is the one that counts.
            assert bench.log == [("persist", TWO.changes), "network changed", *told]

    on_loop(main)


def test_datagrams_are_sent_with_their_segment_size():
    async def main() -> None:
        with Bench() as bench:
            bench.driver.perform([SendDatagram(THERE, b"aab", 2), SendDatagram(THERE, b"c")])
            received = [bench.far.receive() for _ in range(2)]
            assert [(bytes(one.datagrams), one.step) for one in received] == [
                (b"aab", 2),
                (b"c", 0),
            ]

    on_loop(main)


def test_an_offload_is_set_before_what_follows_is_sent():
    async def main() -> None:
        with Bench() as bench:
            bench.driver.perform([SetOffload("udp_gso", on=False, endpoint=THERE)])
            assert bench.udp.set == [("udp_gso", False, THERE)]

    on_loop(main)


def test_a_failed_persist_discards_what_follows_and_tells_the_engine():
    """Stored before it is announced, or not announced at all."""

    async def main() -> None:
        with Bench() as bench:
            bench.listener.full = True
            bench.engine.effects["persist failed"] = [Report("state.not-stored")]
            stored = bench.driver.stored(
                [Report("before"), ONE, SendDatagram(THERE, b"announce"), Report("after"), TWO]
            )
            assert stored.result() is False
            assert bench.far.receive() is None
            assert bench.log == [
                Report("before"),
                ("persist failed", [ONE, TWO], "the disk is full"),
                Report("state.not-stored"),
            ]

    on_loop(main)


def test_a_slow_disk_delays_what_follows_a_write_and_neither_packets_nor_probes():
    async def main() -> None:
        with Bench() as bench:
            bench.listener.slow = True
            probe, announce = (
                SendDatagram(THERE, text, at_once=text == b"probe")
                for text in (b"probe", b"announce")
            )
            stored = bench.driver.stored([ONE, announce, probe, Report("told")])
            bench.driver.perform([Report("later"), SetOffload("udp_gso", on=True, endpoint=THERE)])
            bench.engine.deadline = bench.now
            bench.engine.effects["deadline"] = [probe]
            bench.driver.perform([])
            bench.tun.inject(b"packet")
            await turns()
            assert (bench.count("deadline"), bench.count("accept")) == (1, 1)
            assert bench.count("persist") == 0
            assert received(bench) == [b"probe", b"probe"]
            assert bench.udp.set == [("udp_gso", True, THERE)]
            assert not stored.done()
            bench.log.clear()
            bench.listener.writing()
            assert bench.log == [("persist", ONE.changes), Report("told"), Report("later")]
            assert received(bench) == [b"announce"]
            assert stored.result()

    on_loop(main)


def test_what_is_to_be_stored_while_the_disk_writes_is_one_write():
    async def main() -> None:
        with Bench() as bench:
            bench.listener.slow = True
            bench.driver.perform([ONE])
            waiting = [
                bench.driver.stored([Persist(((key, b"x"),)), Report(str(key))])
                for key in (b"a", b"b")
            ]
            bench.listener.writing()
            assert bench.log == [("persist", ONE.changes)]
            bench.log.clear()
            bench.listener.writing()
            assert bench.log[0] == ("persist", ((b"a", b"x"), (b"b", b"x")))
            assert all(one.result() for one in waiting)

    on_loop(main)


def test_a_slow_write_that_fails_takes_with_it_what_would_have_told_of_it():
    async def main() -> None:
        with Bench() as bench:
            bench.listener.slow = bench.listener.full = True
            first = bench.driver.stored([ONE, Report("first")])
            second = bench.driver.stored([SendDatagram(THERE, b"a"), Report("second"), TWO])
            bench.listener.writing()
            assert bench.log == [
                ("persist failed", [ONE, TWO], "the disk is full"),
                Report("second"),
            ]
            assert (first.result(), second.result()) == (False, False)
            assert received(bench) == []

    on_loop(main)


def test_the_driver_that_stops_waits_for_the_disk_and_then_says_good_bye():
    async def main() -> None:
        with Bench() as bench:
            bench.listener.slow = True
            bench.driver.perform([ONE])
            bench.engine.effects["stop"] = [TWO, SendDatagram(THERE, b"bye")]
            bench.engine.deadline = bench.now
            said = bench.driver.stop()
            bench.listener.writing()
            assert not said.done()
            bench.listener.writing()
            assert said.result()
            assert received(bench) == [b"bye"]
            await turns()
            assert not bench.count("deadline")

    on_loop(main)


def test_a_failed_persist_spares_what_other_reads_brought():
    async def main() -> None:
        with Bench() as bench:
            bench.listener.full = True
            bench.engine.effects["datagrams"] = [ONE, Report("discarded")]
            bench.engine.effects["persist failed"] = []
            bench.far.send(HERE, memoryview(b"one"), 0)
            await turns(3)
            bench.engine.effects["datagrams"] = [Report("kept")]
            bench.far.send(HERE, memoryview(b"two"), 0)
            await turns()
            reports = [entry for entry in bench.log if isinstance(entry, Report)]
            assert reports == [Report("kept")]

    on_loop(main)


def test_an_effect_the_engine_should_have_settled_is_a_defect():
    async def main() -> None:
        with Bench() as bench, pytest.raises(TypeError, match="SendControl"):
            bench.driver.perform([SendControl(NODE, b"m")])

    on_loop(main)


# -- the two edges ---------------------------------------------------------------------------------


def test_starting_the_engine_comes_before_listening():
    async def main() -> None:
        bench = Bench()
        bench.engine.effects["start"] = [ONE, SendDatagram(THERE, b"hello")]
        bench.tun.inject(b"packet")
        with bench:
            assert bench.far.receive() is not None
            await turns()
            assert bench.log == [("accept", b"packet"), ("flush",)]

    on_loop(main)


def test_a_pass_over_the_tun_is_one_flush():
    async def main() -> None:
        with Bench() as bench:
            for number in range(5):
                bench.tun.inject(bytes([number]) * 30)
            await turns()
            accepted = [("accept", bytes([number]) * 8) for number in range(5)]
            assert bench.log == [*accepted, ("flush",)]

    on_loop(main)


def test_a_pass_is_bounded_in_packets_and_what_is_left_comes_next():
    async def main() -> None:
        with Bench() as bench:
            for _ in range(2 * TUN_READS + 10):
                bench.tun.inject(bytes(40))
            await turns()
            flushes = [at for at, entry in enumerate(bench.log) if entry == ("flush",)]
            assert bench.count("accept") == 2 * TUN_READS + 10
            assert flushes[:2] == [TUN_READS, 2 * TUN_READS + 1]

    on_loop(main)


def test_bulk_that_a_pass_leaves_behind_is_gone_on_with_though_nothing_more_comes():
    async def main() -> None:
        with Bench() as bench:
            bench.engine.left_over = 3
            bench.tun.inject(bytes(62_000))
            await turns()
            assert bench.count("accept") == 1
            assert bench.count("flush") == 3
            assert not bench.engine.waiting

    on_loop(main)


def test_what_is_left_behind_when_the_driver_closes_is_not_gone_on_with():
    async def main() -> None:
        with Bench() as bench:
            bench.engine.left_over = 1000
            bench.tun.inject(bytes(62_000))
            await turns(3)
            bench.driver.close()
            flushes = bench.count("flush")
            assert flushes
            await turns()
            assert bench.count("flush") == flushes

    on_loop(main)


def test_a_pause_lets_leave_what_was_read_and_reads_nothing_more():
    async def main() -> None:
        with Bench() as bench:
            bench.engine.left_over = 300
            bench.tun.inject(bytes(62_000))
            await turns(3)
            assert bench.driver.pause()
            assert not bench.engine.waiting
            flushes = bench.count("flush")
            bench.tun.inject(b"later")
            bench.far.send(HERE, memoryview(b"later"), 0)
            await turns()
            assert (bench.count("accept"), bench.count("flush")) == (1, flushes)
            assert bench.count("datagrams") == 0
            bench.driver.go_on()
            await turns()
            assert (bench.count("accept"), bench.count("datagrams")) == (2, 1)

    on_loop(main)


def test_a_pause_says_whether_the_disk_is_still_writing():
    async def main() -> None:
        with Bench() as bench:
            bench.listener.slow = True
            stored = bench.driver.stored([ONE])
            assert not bench.driver.pause()
            assert not bench.driver.is_idle
            bench.listener.writing()
            assert await stored
            assert bench.driver.is_idle

    on_loop(main)


def test_after_a_pause_another_engine_starts_first_and_has_all_that_waited():
    async def main() -> None:
        with Bench() as bench:
            bench.driver.pause()
            bench.tun.inject(b"waits")
            other = ScriptedEngine(log := [], effects={"start": [ONE]})
            assert await bench.driver.carry_on(other)
            assert bench.log == [("persist", ONE.changes)]
            await turns()
            assert ("accept", b"waits") in log
            assert log[0] == ("start",)

    on_loop(main)


@pytest.mark.parametrize("inherited", [False, True])
def test_only_an_engine_that_has_no_new_boot_counter_gets_packets_unstored(inherited: bool):
    async def main() -> None:
        with Bench() as bench:
            bench.driver.pause()
            bench.listener.full = True
            other = ScriptedEngine(log := [], effects={"start": [ONE]}, inherited=inherited)
            assert await bench.driver.carry_on(other) is inherited
            bench.tun.inject(b"waits")
            await turns()
            assert (("accept", b"waits") in log) is inherited

    on_loop(main)


def test_neither_edge_starves_the_other():
    async def main() -> None:
        with Bench() as bench:
            for _ in range(4 * TUN_READS):
                bench.tun.inject(bytes(40))
            for _ in range(4 * UDP_READS):
                bench.far.send(HERE, memoryview(b"x"), 0)
            await turns()
            verbs = [entry[0] for entry in bench.log if entry != ("flush",)]
            assert verbs.count("datagrams") == 4 * UDP_READS
            assert verbs.count("accept") == 4 * TUN_READS
            runs = [verb for at, verb in enumerate(verbs) if at == 0 or verbs[at - 1] != verb]
            assert len(runs) == 8, "they take turns"

    on_loop(main)


def test_what_was_received_reaches_the_engine_whole():
    async def main() -> None:
        with Bench() as bench:
            bench.far.send(HERE, memoryview(b"aabbc"), 2)
            await turns()
            assert bench.log == [("datagrams", b"aabbc", 2, THERE)]

    on_loop(main)


def test_effects_of_both_edges_are_executed():
    async def main() -> None:
        with Bench() as bench:
            bench.engine.effects["flush"] = [Report("from the TUN")]
            bench.engine.effects["datagrams"] = [Report("from the network")]
            bench.tun.inject(bytes(40))
            bench.far.send(HERE, memoryview(b"x"), 0)
            await turns()
            events = sorted(entry.event for entry in bench.log if isinstance(entry, Report))
            assert events == ["from the TUN", "from the network"]

    on_loop(main)


class TooBigUdp(MemoryUdp):
    """An interface with a small MTU."""

    def __init__(self, network: MemoryNetwork, local: Endpoint) -> None:
        super().__init__(network, local)
        self.too_big: set[Endpoint] = set()

    def take_too_big(self) -> set[Endpoint]:
        taken, self.too_big = self.too_big, set()
        return taken


def test_packets_that_were_too_big_are_news_and_probes_are_not():
    async def main() -> None:
        bench = Bench()
        bench.udp.close()
        udp_port = TooBigUdp(MemoryNetwork(), HERE)
        bench.driver._udp = bench.udp = udp_port
        with bench:
            udp_port.too_big = {THERE}
            bench.tun.inject(bytes(40))
            await turns()
            assert bench.log == [("accept", bytes(8)), ("flush",), ("too big", THERE)]
            bench.log.clear()
            udp_port.too_big = {THERE}  # as sending a path probe in `perform` would leave it
            bench.driver.perform([SendDatagram(THERE, b"probe")])
            bench.tun.inject(bytes(40))
            await turns()
            assert bench.log == [("accept", bytes(8)), ("flush",)]

    on_loop(main)


# -- time ------------------------------------------------------------------------------------------


def test_a_deadline_that_is_reached_is_kept_and_the_next_one_armed():
    async def main() -> None:
        with Bench() as bench:
            bench.engine.deadline = bench.now
            bench.engine.effects["deadline"] = [Report("due")]
            bench.driver.perform([])
            await turns()
            assert bench.log == [("deadline", bench.now), Report("due")]
            bench.engine.deadline = bench.now - 5.0
            bench.driver.perform([])
            await turns()
            assert bench.count("deadline") == 2

    on_loop(main)


def test_a_deadline_ahead_is_waited_for_and_an_earlier_one_replaces_it():
    async def main() -> None:
        with Bench() as bench:
            bench.engine.deadline = bench.now + 1000.0
            bench.driver.perform([])
            await turns()
            assert bench.log == []
            bench.engine.deadline = bench.now
            bench.driver.perform([])
            await turns()
            assert bench.log == [("deadline", bench.now)]

    on_loop(main)


def test_a_deadline_that_went_away_is_not_kept():
    async def main() -> None:
        with Bench() as bench:
            bench.engine.deadline = bench.now
            bench.driver.perform([])
            bench.engine.deadline = None
            bench.driver.perform([])
            await turns()
            assert bench.log == []

    on_loop(main)


# -- the end ---------------------------------------------------------------------------------------


def test_stopping_says_good_bye_and_listens_no_more():
    async def main() -> None:
        with Bench() as bench:
            bench.engine.effects["stop"] = [SendDatagram(THERE, b"bye")]
            bench.engine.deadline = bench.now
            bench.driver.stop()
            assert bytes(bench.far.receive().datagrams) == b"bye"
            bench.tun.inject(b"packet")
            bench.far.send(HERE, memoryview(b"x"), 0)
            await turns()
            assert bench.log == [("stop",)]
            bench.driver.close()

    on_loop(main)
