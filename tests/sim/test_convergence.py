"""Proof: fifty nodes join over bad links, are cut in two, change on both sides, and agree again."""

from __future__ import annotations

from overlay.config import Timing
from overlay.sim import Link, World
from overlay.sim.goals import identity, knows_version, own_version
from overlay.sim.metrics import quantile
from overlay.views import NodeState
from tests.sim.worlds import LOSSY, blocks_of, settled

NODES = 50


def pods_seen_by(world: World, name: str) -> set[tuple[str, str, str]]:
    return {(pod.node, pod.name, str(pod.address)) for pod in world[name].snapshot().pods}


def test_fifty_nodes_agree_after_joining_with_loss_and_after_a_partition():
    world = World(2026, link=LOSSY)
    for number in range(2, NODES + 1):
        world.join(f"node{number}")
    assert world.run_until(world.converged, timeout=15.0) <= 15.0
    world.check_invariants()
    blocks = [block for name in world.machines for block in blocks_of(world, name)]
    assert len(set(blocks)) == len(blocks) == NODES

    names = list(world.machines)
    here, there = names[: NODES // 2], names[NODES // 2 :]
    world.partition(here, there)
    world.run(world.now + 5.0)
    world[here[3]].add_pod("web")
    world[there[3]].add_pod("db")
    world[here[7]].leave()
    world.crash(there[7])
    world.run(world.now + 5.0)
    world.restart(there[7])
    world.run(world.now + 10.0)
    world.check_invariants()
    assert pods_seen_by(world, here[0]) != pods_seen_by(world, there[0])
    assert not world.converged()

    world.heal()
    assert world.run_until(world.converged, timeout=15.0) <= 15.0
    live = [machine.name for machine in world.live()]
    assert len(live) == NODES - 1
    assert {name for _, name, _ in pods_seen_by(world, there[0])} == {"web", "db"}
    states = {view.name: view.state for view in world[there[0]].snapshot().nodes}
    assert states.get(here[7], NodeState.LEFT) is NodeState.LEFT
    world.check_invariants()


def test_six_nodes_join_through_one_member_at_once_within_five_seconds():
    world = World(5, link=LOSSY)
    world.every(0.05, world.check_invariants)
    for number in range(2, 8):
        world.join(f"node{number}")
    assert world.run_until(world.converged, timeout=5.0) <= 5.0
    blocks = [block for name in world.machines for block in blocks_of(world, name)]
    assert len(set(blocks)) == len(blocks) == 7


def test_a_partition_stops_growth_but_makes_no_duplicate():
    world = World(6)
    for number in range(2, 5):
        world.add_node(f"node{number}")
    world.run_until(world.converged, timeout=10.0)
    world.partition(["node1", "node2"], ["node3", "node4", "node5"])
    world.every(0.1, world.check_invariants)
    world.add_node("node5", via="node3")
    world.run(world.now + 15.0)
    assert blocks_of(world, "node5") == []
    assert any("node5 has no block" in what for what in world.differences())
    world.heal()
    world.run_until(world.converged, timeout=15.0)
    assert len(blocks_of(world, "node5")) == 1


def test_a_new_record_is_known_everywhere_within_one_comparison_although_a_quarter_is_lost():
    world = settled(60, seed=3, link=Link(latency=0.0005, jitter=0.0005), check=False)
    world.run(world.now + 5.0)  # sessions between neighbours are there
    world.underlay.set_all_links(Link(latency=0.0005, jitter=0.0005, loss=0.25))
    delays: list[float] = []
    for number in range(5):
        author = world[f"node{1 + 11 * number}"]
        knows = knows_version(identity(author), own_version(author) + 1)
        began = world.now
        author.add_pod("news")
        behind = world.live()
        while behind:
            world.run(world.now + 0.01)
            left = [machine for machine in behind if not knows(machine)]
            delays += [world.now - began] * (len(behind) - len(left))
            behind = left
        world.run(world.now + 1.0)
    assert len(delays) == 5 * 60
    period = Timing().gossip_interval
    assert quantile(sorted(delays), 0.99) <= period / 2
    assert max(delays) <= period
