"""Drivers between doubles, and drivers of real engines: whatever a test of drivers stands on."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial

from node.driver import Driver
from node.errors import NodeError
from node.io.memory import MemoryNetwork, MemoryTun, MemoryUdp
from node.loop import LoopKind, run
from node.writer import Stored
from overlay.config import Settings
from overlay.effects import (
    Effect,
    Left,
    Persist,
    ProbeAnswered,
    Report,
    TalkEffect,
    TellDaemon,
    TellLane,
)
from overlay.engine import Engine
from overlay.sim.world import EPOCH, World
from overlay.state import Change
from overlay.types import Endpoint, NodeId
from overlay.wire.burst import BLOCK_HEADER_SIZE

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


ONE, TWO = Persist(((b"key", b"1"),)), Persist(((b"key", b"2"),))


@dataclass
class ScriptedEngine:
    """Returns what the test says, and writes down what it was asked."""

    log: list[object]
    effects: dict[str, list[Effect]] = field(default_factory=dict)
    deadline: float | None = None
    left_over: int = 0
    inherited: bool = False

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
    """Writes down what it is told; cannot store anything while `full` is set.

    While `slow` is set, a write is done only when the test calls `writing`.
    """

    log: list[object]
    full: bool = False
    slow: bool = False
    writing: Callable[[], None] = lambda: None

    def store(self, changes: tuple[Change, ...], then: Stored) -> None:
        if self.slow:
            self.writing = partial(self._write, changes, then)
        else:
            self._write(changes, then)

    def _write(self, changes: tuple[Change, ...], then: Stored) -> None:
        if self.full:
            then(NodeError("the disk is full"))
            return
        self.log.append(("persist", changes))
        then(None)

    def network_changed(self) -> None:
        self.log.append("network changed")

    def interface_made(self) -> None:
        self.log.append("interface made")

    def report(self, report: Report) -> None:
        self.log.append(report)

    def probe_answered(self, answer: ProbeAnswered) -> None:
        self.log.append(answer)

    def left(self, left: Left) -> None:
        self.log.append(left)

    def heard(self, effect: TalkEffect) -> None:
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
            authorities=member.authorities,
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
