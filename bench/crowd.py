"""A simulated cluster that is put through everything once, and what was seen.

    join      a founder and two more settle; all others start at one instant, each with what one of
              the three stores, as if it had just been admitted there
    traffic   nothing happens; what each node sends, and what it costs to compute
    route     one node after the other gets a pod; who holds its new record, and when
    death     three of ten die at once; who notices, and who is taken for dead by mistake

The engines are those of the daemon, on virtual time and a simulated LAN. A wait is seen to end
within `LOOK`. Invariants are not checked: that is what the tests do with smaller worlds.
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from node.errors import NodeError
from overlay.sim import Link, Machine, World
from overlay.sim.deaths import Deaths
from overlay.sim.goals import BOOT_SHIFT, Goal, holds_for_dead, identity, knows_version, own_version
from overlay.sim.metrics import Delays, Rates, Second, Tracker, quantile
from overlay.types import NodeId
from overlay.views import NodeState

LAN: Final = Link(latency=0.0005, jitter=0.0005, coalesce=True)
"""Receivers read what arrives together at once, as the daemon's sockets do (UDP_GRO)."""

SEEDS: Final = 3
LOSSES: Final = (0.0, 0.05, 0.25)
EVENTS: Final = 5
"""New records per loss."""
DYING: Final = 0.3

LOOK: Final = 0.01
"""Virtual seconds: that exact is every time."""
COARSE: Final = 0.05
"""The same for what takes seconds."""

SETTLE: Final = 10.0
"""Between the end of a phase and the next."""
REST: Final = 95.0
"""From the join to what is called rest: sessions that only the join needed have ended by then
(`idle_after`)."""
QUIET: Final = 30.0
"""How long nothing happens: every path is confirmed once (`path_confirm_interval`), which sends
more than all gossip."""
BETWEEN: Final = 1.0
"""From one event's end to the next."""
AFTER_DEATH: Final = 20.0
"""So long after the last death was noticed, mistakes are still counted."""
PATIENCE: Final = 120.0
"""Virtual seconds after which a wait has failed."""


# -- what was seen ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Joined:
    """The mass join."""

    seconds: float
    """Virtual, until all have a block and all hold the same items."""
    spent: float
    """CPU seconds of this process, here and below."""
    memory: float
    """Resident bytes that the process has more, per node and member it knows."""


@dataclass(frozen=True, slots=True)
class Steady:
    """Nothing happens."""

    early: float
    """Sent per node and second, IP and UDP headers included, soon after the join."""
    bytes: float
    """The same later, when the sessions that only the join needed have ended."""
    messages: float
    busiest: float
    """Bytes that some node sent in its worst second."""
    cpu: float
    """Seconds of CPU per node and virtual second."""
    spent: float


@dataclass(frozen=True, slots=True)
class Spreading:
    """New records, on their way to all nodes."""

    loss: float
    p50: float
    p99: float
    longest: float
    spent: float


@dataclass(frozen=True, slots=True)
class Died:
    """Many at once."""

    gone: int
    suspected: float
    """Virtual seconds until every live node suspects all of them, or more."""
    first: float
    """Until the first live node holds all of them for dead."""
    noticed: float
    """Until every live node does."""
    false_reports: int
    false_subjects: int
    spent: float


# -- one world -------------------------------------------------------------------------------------


class Crowd:
    """A world of that many nodes. Phases are called in the order in which they stand here.

    Attributes:
        world: all of them.
        rng: draws whom something befalls.
        deaths: who is declared dead.

    Raises:
        NodeError: fewer nodes than `SEEDS`; later, from each phase, something did not come.
    """

    def __init__(self, nodes: int, seed: int) -> None:
        if nodes < SEEDS:
            raise NodeError(f"there are at least {SEEDS} nodes: they are those that others know")
        self.nodes = nodes
        self.rng = random.Random(f"{seed}/crowd")
        self._pods = 0
        gc.collect()
        self._resident = resident()
        self._began = time.process_time()
        self.world = World(
            seed,
            link=LAN,
            cidr=IPv4Network("10.0.0.0/10"),
            cidr6=IPv6Network("fd00::/40"),
            keep_datagrams=False,
            check=False,
        )
        for number in range(2, SEEDS + 1):
            self.world.add_node(f"node{number}")
        self.world.run(2.0)
        self.deaths = Deaths(self.world)

    def join(self) -> Joined:
        """Everybody else starts, at once."""
        world, at = self.world, self.world.now
        for number in range(SEEDS + 1, self.nodes + 1):
            world.add_node(f"node{number}", via=f"node{1 + number % SEEDS}")
        self._wait("to join", self._is_joined, COARSE)
        seconds = world.now - at
        self._check_routes()
        gc.collect()
        grown = resident() - self._resident
        return Joined(seconds, self._spent(), grown / self.nodes**2)

    def _is_joined(self) -> bool:
        live = self.world.live()
        root = live[0].engine.parts.store.root()
        return all(
            machine.engine.parts.holdings.blocks_in_use
            and machine.engine.parts.store.root() == root
            for machine in live
        )

    def _check_routes(self) -> None:
        """Equal items make equal routes: look whether they do."""
        live = self.world.live()
        homes = {}
        for machine in live:
            parts = machine.engine.parts
            for block in parts.holdings.blocks_in_use:
                homes[int(parts.plan.prefix4(block).network_address)] = identity(machine)
        for machine in live:
            lookup = machine.engine.parts.routes.lookup4
            if any(lookup(address) != node for address, node in homes.items()):
                raise NodeError(f"{machine.name} lacks routes though it holds all records")

    def traffic(self, settle: float) -> Steady:
        """Let nothing happen, first for `settle` seconds that do not count."""
        world, joined = self.world, self.world.now
        world.run(joined + SETTLE)
        early = self._quiet()
        world.run(max(world.now, joined + settle))
        self._spent()
        seconds = self._quiet()
        spent = self._spent()
        return Steady(
            early=sum(second.bytes for second in early) / len(early),
            bytes=sum(second.bytes for second in seconds) / len(seconds),
            messages=sum(second.messages for second in seconds) / len(seconds),
            busiest=max(second.busiest for second in seconds),
            cpu=spent / self.nodes / QUIET,
            spent=spent,
        )

    def _quiet(self) -> list[Second]:
        """Every second of a while in which nothing happens."""
        rates = Rates()
        self._sample(rates)
        for _ in range(round(QUIET)):
            self.world.run(self.world.now + 1.0)
            self._sample(rates)
        return rates.seconds[1:]

    def _sample(self, rates: Rates) -> None:
        live = ((machine.name, machine.traffic) for machine in self.world.live())
        rates.sample(live, self.world.now)

    def route(self, loss: float) -> Spreading:
        """New records of nodes drawn by lot, while each datagram is lost with that chance."""
        world = self.world
        world.underlay.set_all_links(replace(LAN, loss=loss))
        world.run(world.now + BETWEEN)
        self._spent()
        times: list[float] = []
        for _ in range(EVENTS):
            machine = self.rng.choice(world.live())
            version = own_version(machine)
            self._pods += 1
            machine.add_pod(f"pod-{self._pods}")
            goal = knows_version(identity(machine), version + 1)
            times += self._follow([goal], world.live(), LOOK)
            world.run(world.now + BETWEEN)
        world.underlay.set_all_links(LAN)
        times.sort()
        return Spreading(loss, *_delays(times)[1:], spent=self._spent())

    def death(self) -> Died:
        """Some die at once; the others notice them, and nobody else."""
        world, before = self.world, self.deaths.false_reports
        world.run(world.now + SETTLE)
        self._spent()
        gone = self.rng.sample(world.live(), max(1, round(self.nodes * DYING)))
        boots = [(identity(one), own_version(one) >> BOOT_SHIFT) for one in gone]
        for machine in gone:
            world.crash(machine.name)
        live = world.live()
        doubts = [_doubts(node) for node, _ in boots]
        suspected = Tracker("suspected", world.now, doubts)
        dead = Tracker("dead", world.now, [holds_for_dead(*one) for one in boots])
        self._watch([suspected, dead], live, COARSE)
        world.run(world.now + AFTER_DEATH)
        return Died(
            gone=len(gone),
            suspected=suspected.times[-1],
            first=dead.times[0],
            noticed=dead.times[-1],
            false_reports=self.deaths.false_reports - before,
            false_subjects=len(self.deaths.false_subjects),
            spent=self._spent(),
        )

    # -- waiting ---------------------------------------------------------------------------------

    def _follow(self, goals: list[Goal], machines: Sequence[Machine], look: float) -> list[float]:
        tracker = Tracker("", self.world.now, goals)
        self._watch([tracker], machines, look)
        return tracker.times

    def _watch(
        self, trackers: Sequence[Tracker[Machine]], machines: Sequence[Machine], look: float
    ) -> None:
        named = {machine.name: machine for machine in machines}
        for tracker in trackers:
            tracker.open(named, self.world.now)

        def settled() -> bool:
            for tracker in trackers:
                tracker.look(named, self.world.now)
            return all(tracker.settled for tracker in trackers)

        self._wait("to know", settled, look)

    def _wait(self, what: str, done: Callable[[], bool], look: float) -> None:
        began = self.world.now
        while not done():
            if self.world.now > began + PATIENCE:
                raise NodeError(f"{self.nodes} nodes needed more than {PATIENCE:.0f} s {what}")
            self.world.run(self.world.now + look)

    def _spent(self) -> float:
        """Seconds of CPU since this was asked before."""
        before, self._began = self._began, time.process_time()
        return self._began - before


def _doubts(node: NodeId) -> Goal:
    """Suspects a node, or holds it for dead."""

    def met(observer: Machine) -> bool:
        state = observer.engine.parts.gossip.state(node, observer.now)
        return state in (NodeState.SUSPECT, NodeState.DEAD)

    return met


def _delays(ordered: Sequence[float]) -> Delays:
    return Delays(len(ordered), quantile(ordered, 0.5), quantile(ordered, 0.99), ordered[-1])


def resident() -> int:
    """Bytes of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
