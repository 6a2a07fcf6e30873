"""Proofs: a process takes over from another and nobody notices: no packet, no session, no word.

Two nodes that exchange packets all the time, over links that lose, repeat and reorder, and replace
their keys every few seconds; either is handed over at any moment. Every nonce that was ever sealed
under is written down by key (`tests.support.nonces`), and in the end all that was ever sent comes
again.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from overlay.config import Settings, Timing
from overlay.sim import Link, World, udp
from overlay.sim.schedules import run_schedule
from tests.sim.worlds import carry, settled
from tests.support.engines import engine_of, node_id
from tests.support.nonces import NonceLog
from tests.support.replays import caught, drawn_up, play

BAD = Link(latency=0.01, jitter=0.02, loss=0.03, duplication=0.1, reordering=0.2)
OFTEN = Timing(rekey_after=2.0, reject_after=30.0)
HANDSHAKE_SIZES = range(1, 4)
"""Types of datagrams that make sessions."""


class Talk:
    """Numbered packets between two nodes, with hand-overs meanwhile."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.sent: Counter[str] = Counter()
        self.upgrades = 0
        self.names = ("node1", "node2")

    def step(self) -> None:
        near, far = self.rng.sample(self.names, 2)
        ends = [engine_of(self.world, name).parts.holdings.address for name in (near, far)]
        size = self.rng.choice((0, 0, 100, 1200, 5000, 30_000))
        payload = self.sent[near].to_bytes(8, "big") + bytes(size)
        self.world.send_packet(near, udp(*ends, payload))
        self.sent[near] += 1
        if self.rng.random() < 0.1 and self.world[self.rng.choice(self.names)].upgrade():
            self.upgrades += 1
        self.world.run(self.world.now + self.rng.choice((0.0, 0.001, 0.004, 0.05)))

    def numbers(self, name: str) -> list[int]:
        """Of the packets that a node was delivered, in order."""
        return [int.from_bytes(one[28:36], "big") for one in self.world[name].delivered]


def talk(link: Link, seed: int, steps: int = 800) -> Talk:
    world = World(seed, link=link, settings=Settings(timing=OFTEN))
    world.add_node("node2")
    world.run_until(world.converged, timeout=30.0)
    carry(world, "node1", "node2")
    world.run(world.now + 3.0)
    for machine in world.machines.values():
        machine.delivered.clear()
    result = Talk(world, seed)
    for _ in range(steps):
        result.step()
    world.run(world.now + 3.0)
    assert not [one for one in world.trace.notes() if one.event == "handover.refused"]
    return result


@pytest.mark.parametrize("seed", range(3))
def test_over_a_good_link_every_packet_arrives_once(seed, monkeypatch):
    log = NonceLog().watch(monkeypatch)
    done = talk(Link(latency=0.003), seed)
    assert done.upgrades > 40
    for near, far in (done.names, done.names[::-1]):
        assert sorted(done.numbers(far)) == list(range(done.sent[near]))
    assert log.twice == []


@pytest.mark.parametrize("seed", range(3))
def test_over_a_bad_link_nothing_comes_twice_and_old_datagrams_are_refused(seed, monkeypatch):
    log = NonceLog().watch(monkeypatch)
    done = talk(BAD, seed)
    world = done.world
    assert done.upgrades > 40
    for near, far in (done.names, done.names[::-1]):
        arrived = Counter(done.numbers(far))
        assert set(arrived.values()) == {1}
        assert len(arrived) > 0.7 * done.sent[near]  # large ones are lost with any of their parts
    assert log.twice == []
    seen = caught(world)
    for name in done.names:
        assert world[name].upgrade()
        for order in ("in order", "shuffled"):
            play(world, name, drawn_up(seen, order), None)  # asserts that nothing is done


def test_there_are_as_many_handshakes_as_without_hand_overs(monkeypatch):
    done = talk(Link(latency=0.003), 1)
    monkeypatch.setattr("overlay.sim.machine.Machine.upgrade", lambda _: False)
    plain = talk(Link(latency=0.003), 1)
    assert done.upgrades > 40 > plain.upgrades
    assert handshakes(done.world) == handshakes(plain.world) > 10


def handshakes(world: World) -> int:
    """How many handshake datagrams were sent until now."""
    return sum(one.fate.datagram[0] in HANDSHAKE_SIZES for one in passages(world))


def passages(world: World) -> list:
    return [one for one in world.trace._entries if hasattr(one, "fate")]


@pytest.mark.parametrize("lossy", [False, True])
def test_a_rolling_upgrade_of_thirty_nodes_is_not_noticed(lossy):
    link = Link(latency=0.01, loss=0.01) if lossy else None
    world = settled(30, link=link, keep_datagrams=True)
    world.run(world.now + 10.0)
    for number in range(1, 31):
        carry(world, f"node{number}", f"node{number % 30 + 1}")
    world.run(world.now + 5.0)
    records = {name: world[name].own_record() for name in world.machines}
    routes = {name: engine_of(world, name).parts.routes.entries() for name in world.machines}
    before, began = handshakes(world), world.now
    for name in world.machines:
        assert world[name].upgrade()
        carry(world, name, "node1" if name != "node1" else "node2")
        world.run(world.now + 0.5)
    world.run(world.now + 6.0)  # each has looked at itself
    assert {name: world[name].own_record() for name in world.machines} == records
    for name, entries in routes.items():
        now = engine_of(world, name).parts.routes.entries()
        assert [(one.prefix, one.node) for one in now] == [
            (one.prefix, one.node) for one in entries
        ]
        assert engine_of(world, name).watch.found == {}
    told = {note.event for note in world.trace.notes() if note.at > began}
    assert not told & {"member.suspect", "member.dead", "member.ready", "session.established"}
    assert not told & {"session.ended", "record.overtaken", "handover.refused"}
    # Whoever talks to somebody new shakes hands, and nobody else.
    assert handshakes(world) - before <= 2 * 30 * (1 + lossy)


def test_random_schedules_with_many_hand_overs_break_nothing():
    steps = frozenset(
        ("join", "leave", "crash", "start", "restart", "upgrade", "pause", "resume", "cut")
    ) | frozenset(("partition", "heal", "add-pod", "add-fixed-pod", "remove-pod", "slow-disk"))
    upgrades = 0
    for seed in range(7000, 7040):
        outcome = run_schedule(seed, steps=steps)
        assert outcome.failure == "", (seed, outcome.failure)
        upgrades += sum(" upgrade " in line for line in outcome.log)
    assert upgrades > 40


def test_a_suspicion_is_not_forgotten_and_a_dead_member_stays_dead():
    world = settled(6)
    world.run(world.now + 3.0)
    dead, judge = node_id(world, "node6"), "node1"
    world.crash("node6")

    def gossip():
        return engine_of(world, judge).parts.gossip

    def rings():
        return gossip()._liveness.hearsay.rings

    world.run_until(lambda: str(gossip().state(dead, world.now)) == "suspect", timeout=20.0)
    assert rings().is_suspect(dead)
    assert world[judge].upgrade()
    assert rings().is_suspect(dead)
    began = world.now
    while world.now < began + 12.0 and not gossip().is_dead(dead):
        assert world[judge].upgrade()
        assert str(gossip().state(dead, world.now)) != "ready"
        world.run(world.now + 0.7)
    assert gossip().is_dead(dead)
    assert world[judge].upgrade()
    assert gossip().is_dead(dead)
    assert dead not in rings()
    gossip().check_invariants(world.now)
    world.restart("node6")
    world.run_until(world.settled, timeout=15.0)
