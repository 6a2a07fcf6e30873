"""Proofs: a disk that takes seconds delays what must be stored first, and nothing else."""

from __future__ import annotations

import random

import pytest

from overlay import writes
from overlay.effects import Effect, SendDatagram
from overlay.sim import World, udp
from overlay.sim import machine as machines
from overlay.sim.faults import Disk
from overlay.sim.inspector import InvariantError
from overlay.sim.schedules import run_schedule
from overlay.sim.steps import STEPS
from overlay.views import NodeState
from tests.sim.worlds import settled

LATENCY = 3.0
"""Seconds per write: longer than a member may be silent without being suspected."""

GROUP = 10


def states_seen(world: World) -> set[NodeState]:
    return {view.state for name in world.machines for view in world[name].snapshot().nodes}


def test_nodes_on_slow_disks_are_suspected_by_nobody_and_suspect_nobody():
    world = settled(8)
    slow = ["node2", "node5"]
    for name in slow:
        world[name].disk.latency = LATENCY
    writes_before = {name: world[name].disk.writes for name in slow}
    seen: set[NodeState] = set()
    for number in range(60):
        for name in ("node1", *slow):
            world[name].add_pod(f"pod{number}")
        world.run(world.now + 0.5)
        seen |= states_seen(world)
    assert seen == {NodeState.READY}
    for name in slow:
        assert world[name].disk.writes - writes_before[name] >= 8, "nothing was written"
        assert world[name].disk.writes - writes_before[name] <= 12, "writes are not shared"
    world.run_until(world.settled, timeout=30.0)


def test_packets_flow_while_the_disk_writes():
    world = settled(3)
    one, two = world["node2"].add_pod("one"), world["node3"].add_pod("two")
    world.run(world.now + 2.0)
    world["node2"].disk.latency = world["node3"].disk.latency = LATENCY
    for name in ("node2", "node3"):
        world[name].add_pod("late")
    until = world.now + LATENCY - 0.1
    sent = 0
    while world.now < until:
        world.send_packet("node2", udp(one.address, two.address, b"%03d" % sent))
        sent += 1
        world.run(world.now + 0.1)
    assert [packet[28:] for packet in world["node3"].delivered] == [
        b"%03d" % number for number in range(sent)
    ]


def test_what_is_not_stored_yet_is_told_to_nobody_and_is_gone_after_a_crash():
    world = settled(3)
    world["node2"].disk.latency = LATENCY
    world["node2"].add_pod("web")
    world.run(world.now + LATENCY - 0.1)
    assert not [pod for name in ("node1", "node3") for pod in world[name].snapshot().pods]
    world.crash("node2")
    world["node2"].disk.latency = 0.0
    world.restart("node2")
    world.run_until(world.settled, timeout=10.0)
    assert not world["node2"].snapshot().pods


def test_a_block_that_is_asked_for_twice_during_one_write_is_given_once_and_after_it():
    world = settled(1)
    world["node1"].disk.latency = LATENCY
    began = world.now
    newcomer = world.add_node("node2")
    # It asks again and again; the first answer could not be sent before the deed was stored.
    world.run_until(lambda: bool(newcomer.snapshot().own_prefixes), timeout=20.0)
    assert world.now - began >= LATENCY
    world.run(world.now + 20.0)
    titles = world["node1"].engine.parts.catalog.titles
    assert titles.count_of(newcomer.membership.identity.node) == 1
    world.check_invariants()


class Slow(Disk):
    """A disk that takes some time for every write, another one than others."""

    _rng = random.Random(0)

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.latency = self._rng.choice([0.0, 0.05, 0.5, LATENCY])


@pytest.fixture
def slow_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "Disk", Slow)


ALL = frozenset(name for name, _, _ in STEPS)
ENDS = {"crash", "power-loss", "restart", "restore", "clone"}


@pytest.mark.usefixtures("slow_disks")
@pytest.mark.parametrize("first", range(1000, 1020, GROUP))
@pytest.mark.parametrize("steps", [ALL, ALL - ENDS], ids=["crashes", "frees"])
def test_whatever_happens_on_slow_disks_no_invariant_breaks(
    first: int, steps: frozenset[str]
) -> None:
    Slow._rng = random.Random(first)
    outcomes = [run_schedule(seed, steps=steps) for seed in range(first, first + GROUP)]
    assert [f"seed {one.seed}: {one.failure}" for one in outcomes if one.failure] == []


def test_if_everything_overtook_the_disk_what_is_told_would_not_be_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def everything(effect: Effect) -> bool:
        return isinstance(effect, SendDatagram)

    world = settled(3)
    world["node2"].disk.latency = LATENCY
    monkeypatch.setattr(writes, "goes_at_once", everything)
    world["node2"].add_pod("web")
    with pytest.raises(InvariantError, match="stored-first"):
        world.run(world.now + LATENCY)
