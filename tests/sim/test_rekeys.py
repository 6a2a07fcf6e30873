"""Proofs: keys are replaced all the time and nobody notices; no nonce comes twice; old keys go.

Two nodes under load in both directions replace their keys every 2 s, for five minutes, over links
that reorder and repeat; one datagram in twenty is lost, handshakes included. Which packets are lost
is decided beforehand (`tests.support.rekeys`), so the packets that arrive must be all the others,
with rekeys as without.
"""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from overlay.config import Timing
from overlay.session import keyring
from overlay.session.handshake import Attempt
from overlay.session.index import IndexTable
from overlay.session.noise import Handshake
from overlay.session.transport import Keypair
from overlay.sim import World
from tests.sim.worlds import carry, settled
from tests.support.engines import engine_of
from tests.support.lane_net import LaneNet
from tests.support.nonces import NonceLog
from tests.support.rekeys import EVERY, Outcome, run

MINUTES_5 = 300.0
SHORT = 30.0
TIMING = Timing()


def test_five_minutes_of_rekeys_under_load_lose_nothing_and_repeat_no_nonce(monkeypatch):
    with monkeypatch.context() as patch:
        without = run(patch, 1, seconds=MINUTES_5, rekeys=False)
    with monkeypatch.context() as patch:
        rekeyed = run(patch, 1, seconds=MINUTES_5)
    with monkeypatch.context() as patch:
        together = run(patch, 1, seconds=MINUTES_5, together=True)
    for outcome in (without, rekeyed, together):
        sound(outcome)
        assert outcome.arrived.keys() == without.arrived.keys()
        assert len(outcome.chosen) > len(outcome.sent) / 25
    assert without.keys == 2
    assert rekeyed.keys > 2 * 0.8 * MINUTES_5 / EVERY
    assert together.initiations > 1.8 * MINUTES_5 / EVERY


@pytest.mark.parametrize("seed", range(2, 10))
def test_with_other_luck_they_lose_nothing_either(monkeypatch, seed):
    with monkeypatch.context() as patch:
        sound(run(patch, seed, seconds=SHORT))
    with monkeypatch.context() as patch:
        sound(run(patch, seed, seconds=SHORT, together=True))
    with monkeypatch.context() as patch:
        outcome = run(patch, seed, seconds=SHORT, together=True, loss=0.0)
    sound(outcome)
    assert len(outcome.arrived) == len(outcome.sent)


def sound(outcome: Outcome) -> None:
    """Everything arrived once that was not lost on the way, and no nonce was used twice."""
    assert outcome.lost_otherwise == set()
    assert outcome.twice == set()
    assert outcome.log.twice == []
    assert outcome.log.total >= len(outcome.sent)
    assert not outcome.drops["bad_tag"]


def test_lanes_under_load_lose_nothing_to_rekeys_and_repeat_no_nonce(monkeypatch):
    log, rng = NonceLog().watch(monkeypatch), random.Random(4)
    net = LaneNet(2, 2)
    check, net.check = net.check, lambda: None  # it looks at all that was ever sent
    net.run(5.0)
    packets: list[tuple[bytes, int]] = []
    for step in range(3000):
        if step % 100 == 0:  # both ends at once, every two seconds
            for near in (0, 1):
                node = net.nodes[near]
                renewed = node.engine.parts.peering.renew(net.node_id(1 - near), net.now)
                node.act(0, renewed)
        source = rng.randrange(2)
        packets.append((net.send(source, rng.randrange(2), 1 - source), 1 - source))
        net.run(0.02)
    net.run(1.0)
    net.check = check
    net.check()
    arrived = [Counter(packet for _, packet in node.delivered) for node in net.nodes]
    assert [packet for packet, at in packets if arrived[at][packet] != 1] == []
    assert log.twice == []
    by_lane = {header.lane: header.receiver for header, _ in net.data()}
    assert 0x11 in by_lane
    assert len({header.receiver for header, _ in net.data() if header.lane == 0x11}) > 30


# -- old keys --------------------------------------------------------------------------------------


KINDS = (Keypair, Handshake, Attempt)


class Erasure:
    """Knows every key that is made from now on, and what of it is still there."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        gc.collect()
        self._before = [len(of_type(kind)) for kind in KINDS]
        self.log = NonceLog().watch(patch)
        self.splits: list[bytes] = []
        make = Keypair.__init__

        def noting(keypair: Keypair, split: tuple[bytes, bytes], **arguments: object) -> None:
            self.splits.extend(split)
            make(keypair, split, **arguments)

        patch.setattr(Keypair, "__init__", noting)

    def leftovers(self, world: World) -> list[str]:
        """What there is beside the keypairs that sessions hold: keypairs, handshakes, secrets."""
        gc.collect()
        present = [keypair for name in world.machines for keypair in held(world, name)]
        allowed = [len(present), 0, 0]
        found = [
            kind.__name__
            for kind, were, may in zip(KINDS, self._before, allowed, strict=True)
            if len(of_type(kind)) - were != may
        ]
        ciphers = {id(one.__self__) for keypair in present for one in ciphers_of(keypair)}
        found += ["cipher" for cipher in self.log.alive if id(cipher) not in ciphers]
        current = {id(key) for keypair in present for key in keypair._split}
        gone = {id(key): key for key in self.splits if id(key) not in current}
        return found + [
            f"a key in a {type(one).__name__}"
            for one in gc.get_objects()
            if one is not self.splits and one is not gone
            for key in referents(one)
            if id(key) in gone
        ]


def referents(one: object) -> Iterator[object]:
    """What an object refers to; tuples without anything mutable, which the collector does not
    see, with what is in them."""
    for held in gc.get_referents(one):
        yield held
        if type(held) is tuple and not gc.is_tracked(held):
            yield from held


def ciphers_of(keypair: Keypair) -> tuple[object, object]:
    return keypair._seal, keypair._open


def of_type(kind: type) -> list[object]:
    return [one for one in gc.get_objects() if type(one) is kind]


def held(world: World, name: str) -> list[Keypair]:
    """What the sessions of a node seal and open with."""
    parts = engine_of(world, name).parts
    return [keypair for node in parts.paths for keypair in parts.sessions.held(node)]


def rekeyed(patch: pytest.MonkeyPatch) -> tuple[World, Erasure]:
    """Three nodes that talk, have replaced their keys, and then gone on for `reject_after`."""
    erasure = Erasure(patch)
    world = settled(3)
    talk(world, 2 * TIMING.rekey_after + 10.0)
    old = len(erasure.splits)
    assert old >= 3 * 2 * 2 * 3
    talk(world, TIMING.reject_after + 10.0)
    assert len(erasure.splits) > old
    return world, erasure


def test_of_old_keys_nothing_is_left_in_the_process(monkeypatch):
    """Only keypairs in use exist: no old cipher, no handshake, and no object that has a secret."""
    world, erasure = rekeyed(monkeypatch)
    assert erasure.leftovers(world) == []
    assert len(erasure.log.alive) < len(erasure.log.keys) / 2


def test_keys_that_are_not_let_go_are_found(monkeypatch):
    kept: list[Keypair | None] = []
    release = IndexTable.release

    def keeping(table: IndexTable[object], index: int) -> None:
        kept.append(table.keypairs.get(index))
        release(table, index)

    monkeypatch.setattr(IndexTable, "release", keeping)
    world, erasure = rekeyed(monkeypatch)
    assert {"Keypair", "cipher", "a key in a Keypair"} <= set(erasure.leftovers(world))


def talk(world: World, seconds: float) -> None:
    """Let the three use their sessions for so long."""
    until = world.now + seconds
    while world.now < until:
        for pair in (("node1", "node2"), ("node2", "node3"), ("node1", "node3")):
            carry(world, *pair)
        world.run(min(world.now + 20.0, until))


def test_of_a_session_that_ended_nothing_is_left_either(monkeypatch):
    log = NonceLog().watch(monkeypatch)
    world = settled(2)
    (keypair,) = held(world, "node1")
    ciphers = {id(method.__self__) for method in ciphers_of(keypair)}
    assert ciphers < {id(cipher) for cipher in log.alive}
    del keypair
    world["node2"].stop()
    world.run(world.now + 1.0)
    assert held(world, "node1") == []
    gc.collect()
    assert not ciphers & {id(cipher) for cipher in log.alive}


def test_lanes_forget_old_keys_too(monkeypatch):
    log = NonceLog().watch(monkeypatch)
    net = LaneNet(2, 2)
    net.run(5.0)
    gc.collect()
    most = len(log.alive)
    for _ in range(20):
        net.run(20.0)
        net.send(0, 1, 1)
        net.send(1, 1, 0)
    gc.collect()
    assert len(log.keys) > 2 * most
    assert len(log.alive) <= 2 * most  # current and previous
    indexes = {index & 0xFFFFFFFF for node in net.nodes for index in engine_keys(node)}
    for node in net.nodes:
        for worker in node.workers.values():
            assert {index & 0xFFFFFFFF for index in worker._keypairs} <= indexes


def engine_keys(node: object) -> list[int]:
    return list(node.engine.parts.sessions.keypairs)


# -- alive -----------------------------------------------------------------------------------------


def test_without_a_farewell_to_old_keys_packets_are_lost(monkeypatch):
    monkeypatch.setattr(keyring, "LEAVING", 0)
    lost = 0
    for seed in range(1, 6):
        with monkeypatch.context() as patch:
            lost += len(run(patch, seed, seconds=SHORT, together=True, loss=0.0).lost_otherwise)
    assert lost


def test_a_counter_that_is_given_out_twice_is_found(monkeypatch):
    counter = Keypair.next_counter

    def sticking(keypair: Keypair) -> int:
        value = counter(keypair)
        return value - 1 if value == 100 else value

    monkeypatch.setattr(Keypair, "next_counter", sticking)
    outcome = run(monkeypatch, 1, seconds=10.0)
    assert outcome.log.twice
    with pytest.raises(AssertionError):
        sound(outcome)


def test_a_keypair_that_counts_anew_is_found(monkeypatch):
    """As if the key of a lane were given to a second process."""
    log = NonceLog().watch(monkeypatch)
    net = LaneNet(2, 1)
    net.run(5.0)
    worker = net.nodes[0].workers[1]
    pair = worker._paths[net.node_id(1)].keypair
    assert pair is not None
    pair.counter = 0
    net.send(0, 1, 1)
    assert log.twice
