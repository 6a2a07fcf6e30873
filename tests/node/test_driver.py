from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

import pytest

from node.driver import TUN_READS, UDP_READS, Driver
from node.errors import NodeError
from node.io.memory import MemoryNetwork, MemoryTun, MemoryUdp
from node.io.ports import Received
from node.loop import LoopKind, run
from overlay.config import Settings, Timing
from overlay.effects import (
    BenchAnswered,
    BenchAsked,
    BenchEffect,
    BenchEnded,
    Effect,
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
from overlay.engine import Engine
from overlay.sim.packets import udp
from overlay.sim.world import EPOCH, World
from overlay.state import Change
from overlay.types import Endpoint, NodeId
from overlay.wire.burst import BLOCK_HEADER_SIZE
from overlay.wire.virtio import NO_OFFLOAD

HERE, THERE = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 2)
NODE = NodeId(bytes(32))
PASSES = 50
"""Turns of the event loop in which everything that is ready gets done."""


async def turns(count: int = PASSES) -> None:
    """Let the loop look at its descriptors and timers so many times; no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


def on_loop(main: Callable[[], Coroutine[object, object, None]]) -> None:
    run(main, LoopKind.ASYNCIO)


# -- doubles ---------------------------------------------------------------------------------------

ONE, TWO = Persist(((b"key", b"1"),)), Persist(((b"key", b"2"),))


@dataclass
class ScriptedEngine:
    """Returns what the test says, and writes down what it was asked."""

    log: list[object]
    effects: dict[str, list[Effect]] = field(default_factory=dict)
    deadline: float | None = None
    left_over: int = 0

    def __post_init__(self) -> None:
        self.outbound = self
        self.buffer = memoryview(bytearray(300_000))

    def _asked(self, verb: str, *details: object) -> list[Effect]:
        self.log.append((verb, *details))
        return self.effects.pop(verb, [])

    def start(self, now: float) -> list[Effect]:
        return self._asked("start")

    def stop(self, now: float) -> list[Effect]:
        return self._asked("stop")

    def room(self) -> memoryview:
        return self.buffer

    def accept_run(self, sizes: list[int], now: float) -> None:
        at = 0
        for size in sizes:
            self.log.append(("accept", bytes(self.buffer[at : at + min(size, 8)])))
            at += size + BLOCK_HEADER_SIZE

    def flush(self, now: float) -> list[Effect]:
        self.left_over -= self.waiting
        return self._asked("flush")

    @property
    def waiting(self) -> bool:
        return self.left_over > 0

    def on_datagrams(self, buffer: memoryview, step: int, source: Endpoint, now: float):
        return self._asked("datagrams", bytes(buffer), step, source)

    def on_too_big(self, endpoint: Endpoint, now: float) -> list[Effect]:
        return self._asked("too big", endpoint)

    def on_persist_failed(self, lost: list[Persist], why: str, now: float) -> list[Effect]:
        return self._asked("persist failed", lost, why)

    def next_deadline(self) -> float | None:
        return self.deadline

    def on_deadline(self, now: float) -> list[Effect]:
        self.deadline = None
        return self._asked("deadline", now)


@dataclass
class RecordingListener:
    """Writes down what it is told; cannot store anything while `full` is set."""

    log: list[object]
    full: bool = False

    def persist(self, changes: tuple[Change, ...]) -> None:
        if self.full:
            raise NodeError("the disk is full")
        self.log.append(("persist", changes))

    def network_changed(self) -> None:
        self.log.append("network changed")

    def report(self, report: Report) -> None:
        self.log.append(report)

    def probe_answered(self, answer: ProbeAnswered) -> None:
        self.log.append(answer)

    def left(self, left: Left) -> None:
        self.log.append(left)

    def bench(self, effect: BenchEffect) -> None:
        self.log.append(effect)

    def tell(self, message: TellLane | TellDaemon) -> None:
        self.log.append(message)


class Bench:
    """A driver between doubles. Use inside a running loop."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.now = 100.0
        self.engine = ScriptedEngine(self.log)
        self.listener = RecordingListener(self.log)
        self.tun = MemoryTun()
        network = MemoryNetwork()
        self.udp, self.far = MemoryUdp(network, HERE), MemoryUdp(network, THERE)
        self.driver = Driver(
            engine=self.engine,
            tun=self.tun,
            udp=self.udp,
            listener=self.listener,
            clock=lambda: self.now,
        )

    def __enter__(self) -> Bench:
        self.driver.start()
        self.log.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.close()
        for port in (self.tun, self.udp, self.far):
            port.close()

    def count(self, verb: str) -> int:
        return sum(isinstance(entry, tuple) and entry[0] == verb for entry in self.log)


# -- effects ---------------------------------------------------------------------------------------


def test_effects_are_executed_in_order():
    async def main() -> None:
        with Bench() as bench:
            bench.far.send(HERE, memoryview(b"x"), 0)
            told = [Report("one"), ProbeAnswered(NODE, 1, 0.5), Left(2), Report("two")]
            told += [BenchAsked(NODE, 1, b"", b"", 1), BenchAnswered(NODE, 1), BenchEnded(NODE, 1)]
            told += [TellLane(1, b"order"), TellDaemon(b"report")]
            assert bench.driver.perform([ONE, NetworkChanged(), *told, TWO])
            assert bench.log == [
                ("persist", ONE.changes),
                "network changed",
                *told,
                ("persist", TWO.changes),
            ]

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
            stored = bench.driver.perform(
                [Report("before"), ONE, SendDatagram(THERE, b"announce"), Report("after"), TWO]
            )
            assert not stored
            assert bench.far.receive() is None
            assert bench.log == [
                Report("before"),
                ("persist failed", [ONE, TWO], "the disk is full"),
                Report("state.not-stored"),
            ]

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


# -- the interface is removed ----------------------------------------------------------------------


class FragileTun(MemoryTun):
    """An interface somebody can remove; readable for ever then, as the kernel's is."""

    gone = False
    can_return = True

    def remove(self) -> None:
        self.gone = True
        self._set()

    def read_run(self, room: memoryview, *, gap: int, most: int, large: int) -> list[int]:
        if self.gone:
            raise NodeError("interface memory0 is gone")
        return super().read_run(room, gap=gap, most=most, large=large)

    def reopen(self) -> None:
        if not self.can_return:
            raise NodeError("the name is taken")
        self.gone = False
        self.close()
        super(MemoryTun, self).__init__()


def fragile_bench() -> Bench:
    bench = Bench()
    bench.tun.close()
    bench.driver._tun = bench.tun = FragileTun()
    return bench


def test_a_removed_interface_is_made_anew_and_read_again():
    async def main() -> None:
        with fragile_bench() as bench:
            bench.tun.remove()
            await turns()
            why = {"interface": "memory0", "why": "interface memory0 is gone"}
            assert bench.log == [Report("tun.made-anew", why), "network changed", ("flush",)]
            bench.log.clear()
            bench.tun.inject(b"packet")
            await turns()
            assert bench.log == [("accept", b"packet"), ("flush",)]

    on_loop(main)


def test_an_interface_that_cannot_be_made_anew_is_reported_once_and_does_not_spin():
    async def main() -> None:
        with fragile_bench() as bench:
            bench.tun.can_return = False
            bench.tun.remove()
            await turns()
            why = {"why": "interface memory0 is gone, the name is taken"}
            assert bench.log == [Report("tun.lost", why), ("flush",)]
            bench.far.send(HERE, memoryview(b"x"), 0)
            await turns()
            assert bench.count("datagrams") == 1, "the rest goes on"

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


# -- two real engines ------------------------------------------------------------------------------


class Node:
    """A real engine on a driver, with a disk that is a list."""

    def __init__(
        self,
        world: World,
        name: str,
        network: MemoryNetwork,
        *,
        make_udp: type[MemoryUdp] = MemoryUdp,
        tun: MemoryTun | None = None,
        settings: Settings | None = None,
    ) -> None:
        machine = world[name]
        member = machine.membership
        self.listener = RecordingListener([])
        self.tun, self.udp = tun or MemoryTun(), make_udp(network, machine.endpoint)
        behind = time.monotonic() - world.now
        self.clock = lambda: time.monotonic() - behind
        self.engine = Engine(
            identity=member.identity,
            cluster=member.cluster,
            psk=member.psk,
            state=machine.stored,
            settings=settings or Settings(),
            entropy=random.Random(name).randbytes,
            rng=random.Random(name),
            epoch=EPOCH,
            endpoints=(machine.endpoint,),
            deliver=self.tun.write,
            transmit=self.udp.send,
            authority=member.authority,
        )
        self.driver = Driver(
            engine=self.engine,
            tun=self.tun,
            udp=self.udp,
            listener=self.listener,
            clock=self.clock,
        )

    def start(self) -> None:
        self.driver.start()
        self.address = self.engine.snapshot(self.clock()).address

    def close(self) -> None:
        self.driver.close()
        self.tun.close()
        self.udp.close()


@pytest.fixture(scope="module")
def world() -> World:
    """Two nodes that know each other, as a simulation left them on their disks."""
    made = World(1)
    made.add_node("node2")
    made.run_until(made.converged, 60.0)
    for name in ("node1", "node2"):
        made[name].stop()
    return made


@pytest.mark.parametrize("kind", list(LoopKind))
def test_two_nodes_on_drivers_carry_packets_both_ways(world: World, kind: LoopKind):
    async def main() -> None:
        network = MemoryNetwork()
        one, two = (Node(world, name, network) for name in ("node1", "node2"))
        one.start()
        two.start()
        there = [NO_OFFLOAD + udp(one.address, two.address, bytes([n]) * n) for n in range(200)]
        there.append(NO_OFFLOAD + udp(one.address, two.address, bytes(60_000)))
        back = [NO_OFFLOAD + udp(two.address, one.address, b"back")]
        for packet in there:
            one.tun.inject(packet)
        for packet in back:
            two.tun.inject(packet)
        async with asyncio.timeout(10.0):  # in case a handshake has to be repeated
            while len(two.tun.written) < len(there) or len(one.tun.written) < len(back):
                await turns(1)
        assert two.tun.written == there
        assert one.tun.written == back
        for node in (one, two):
            node.engine.ledger.check_invariants()
            assert node.listener.log[0][0] == "persist", "the boot counter, before anything else"
            node.close()

    run(main, kind)


# -- kernels that corrupt what they offload --------------------------------------------------------


class CorruptingUdp(MemoryUdp):
    """A socket whose kernel flips a byte in every run of datagrams that it cuts or joins.

    Without UDP_SEGMENT a run is sent datagram by datagram; without UDP_GRO it is read so.
    """

    cuts_wrongly = joins_wrongly = False
    corrupted = 0

    def send(self, endpoint: Endpoint, datagrams: memoryview, step: int) -> bool:
        if not step or len(datagrams) <= step:
            return super().send(endpoint, datagrams, 0)
        if ("udp_gso", False, endpoint) in self.set:
            return all(
                super(CorruptingUdp, self).send(endpoint, datagrams[at : at + step], 0)
                for at in range(0, len(datagrams), step)
            )
        return super().send(endpoint, self._flipped(datagrams, self.cuts_wrongly), step)

    def receive(self) -> Received | None:
        read = super().receive()
        joins = ("udp_gro", False, None) not in self.set
        # The kernel joins what comes close together, however it was sent.
        if read is None or len(read.datagrams) <= 1200 or not (joins and self.joins_wrongly):
            return read
        return read._replace(datagrams=self._flipped(read.datagrams, True))

    def _flipped(self, datagrams: memoryview, wrongly: bool) -> memoryview:
        if not wrongly:
            return datagrams
        self.corrupted += 1
        at = len(datagrams) // 2
        changed = bytearray(datagrams)
        changed[at] ^= 0x10
        return memoryview(changed)


class CutsWrongly(CorruptingUdp):
    cuts_wrongly = True


class JoinsWrongly(CorruptingUdp):
    joins_wrongly = True


QUICK = Settings(timing=Timing(path_probe_retry=0.05), offloads=("udp_gso", "udp_gro"))
"""Trials in tenths of a second."""


@pytest.mark.parametrize(
    ("near", "far", "switched"),
    [(CutsWrongly, CorruptingUdp, "udp_gso"), (CorruptingUdp, JoinsWrongly, "udp_gro")],
    ids=["the sender's cuts wrongly", "the receiver's joins wrongly"],
)
def test_a_kernel_that_corrupts_costs_speed_and_never_data(world: World, near, far, switched):
    async def main() -> None:
        network = MemoryNetwork()
        one = Node(world, "node1", network, make_udp=near, settings=QUICK)
        two = Node(world, "node2", network, make_udp=far, settings=QUICK)
        one.start()
        two.start()
        guilty = one if switched == "udp_gso" else two
        payload = random.Random(5).randbytes(20_000)
        packet = NO_OFFLOAD + udp(one.address, two.address, payload)
        async with asyncio.timeout(20.0):
            while (switched, False) not in [each[:2] for each in guilty.udp.set]:
                one.tun.inject(packet)  # data flows while it is tried
                await asyncio.sleep(0.01)
            guilty.udp.corrupted, two.tun.written[:] = 0, []
            while len(two.tun.written) < 20:
                one.tun.inject(packet)
                await asyncio.sleep(0.01)
        assert set(two.tun.written) == {packet}, "what does arrive is right"
        failed = [each for each in guilty.listener.log if isinstance(each, Report)]
        assert [each.fields["offloads"] for each in failed if each.event == "offload.failed"] == [
            switched
        ]
        for node in (one, two):
            node.close()

    on_loop(main)
