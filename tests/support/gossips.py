"""Gossip machines that talk to each other over a queue, without sessions and keys."""

from __future__ import annotations

import random
from hashlib import blake2s
from heapq import heappop, heappush

from overlay.config import Limits, Timing
from overlay.effects import Report, SendControl
from overlay.gossip.letter import Letter
from overlay.gossip.local import LocalNode
from overlay.gossip.machine import Gossip
from overlay.gossip.store import Store
from overlay.types import NodeId
from overlay.views import NodeState
from overlay.wire.claims import Claim, ClaimState
from overlay.wire.control import decode_untrusted

TIMING = Timing()


def node_id(number: int) -> NodeId:
    """As random as a key, and the same each time."""
    return NodeId(blake2s(number.to_bytes(4, "big")).digest())


def proof_of(node: NodeId, boot: int, incarnation: int) -> bytes:
    """Stands for a signature: 64 bytes that belong to a node and a start of it."""
    return blake2s(node + bytes([boot]) + incarnation.to_bytes(4, "big")).digest() * 2


def is_proven(claim: Claim) -> bool:
    expected = proof_of(claim.node, claim.boot, claim.incarnation)
    return not claim.incarnation or claim.proof == expected


def local_node(number: int, boot: int = 1) -> LocalNode:
    node = node_id(number)
    return LocalNode(node, boot, lambda *start: proof_of(node, *start), is_proven)


def claim(
    node: NodeId, state: ClaimState, incarnation: int = 0, *, own: bool = False, boot: int = 1
) -> Claim:
    """A claim with a proof that holds."""
    proof = proof_of(node, boot, incarnation) if incarnation else b""
    return Claim(node, boot, incarnation, state, own, proof)


def make_gossip(number=0, peers=0, seed=1, admit=lambda item: True, limits=None, now=0.0):
    """The machine of node `number`, and its store; members are the nodes 1 to `peers`."""
    store = Store(admit, limits or Limits())
    gossip = Gossip(local_node(number), store, TIMING, random.Random(seed))
    for other in range(1, peers + 1):
        gossip.add_member(node_id(other), 1, now)
    return gossip, store


def sent(effects, kind=None):
    """(node, message) of what is sent, as effects or as letters."""
    pairs = []
    for effect in effects:
        if isinstance(effect, SendControl):
            pairs.append((effect.node, decode_untrusted(effect.message)))
        elif isinstance(effect, Letter):
            pairs.append((effect.node, effect.message))
    return [(node, m) for node, m in pairs if kind is None or isinstance(m, kind)]


class Cluster:
    """Several machines on virtual time; `reachable` decides which messages arrive."""

    def __init__(self, size, seed=1, loss=0.0):
        self.rng = random.Random(seed)
        self.loss = loss
        self.now = 0.0
        self.queue = []
        self.count = 0
        self.bytes = 0
        self.reports = []
        self.reachable = lambda a, b: True
        self.asleep = set()
        self.nodes = {}
        for number in range(size):
            self.nodes[node_id(number)] = make_gossip(number, seed=seed * 1000 + number)
        for node, (gossip, _) in self.nodes.items():
            for other in self.nodes:
                if other != node:
                    gossip.add_member(other, 1, 0.0)

    def execute(self, node, effects):
        for effect in effects:
            if isinstance(effect, Report):
                self.reports.append((node, effect.event, effect.fields.get("peer")))
        for effect in effects:
            if not isinstance(effect, SendControl):
                continue
            self.count += 1
            self.bytes += len(effect.message)
            if self.reachable(node, effect.node) and self.rng.random() >= self.loss:
                arrival = self.now + self.rng.uniform(0.005, 0.02)
                message = decode_untrusted(effect.message)
                heappush(self.queue, (arrival, self.count, effect.node, node, message))

    def run(self, until):
        while self.now < until:
            awake = [(gossip.next_deadline(), node) for node, (gossip, _) in self.nodes.items()
                     if node not in self.asleep]  # fmt: skip
            at, node = min(awake)
            if self.queue and self.queue[0][0] <= at:
                arrival, number, target, source, message = heappop(self.queue)
                self.now = max(self.now, arrival)
                if target in self.asleep:
                    heappush(self.queue, (self.now + 0.05, number, target, source, message))
                    continue
                effects = self.nodes[target][0].on_message(source, message, self.now)
                self.execute(target, effects)
            else:
                self.now = max(self.now, at)
                self.execute(node, self.nodes[node][0].on_deadline(self.now))

    def publish(self, number, item):
        node = node_id(number)
        self.execute(node, self.nodes[node][0].publish([item], self.now))

    def stop(self, *numbers):
        """Nothing comes from, or arrives at, these nodes any more."""
        for number in numbers:
            del self.nodes[node_id(number)]
        self.queue = sorted(one for one in self.queue if one[2] in self.nodes)
        alive = set(self.nodes)
        self.reachable = lambda a, b: b in alive

    def roots(self):
        return {store.root() for _, store in self.nodes.values()}

    def states(self, *numbers):
        """What all think of these nodes; of everybody without arguments."""
        wanted = {node_id(number) for number in numbers} or set(self.nodes)
        return {
            view.state
            for gossip, _ in self.nodes.values()
            for node, view in gossip.snapshot(self.now).items()
            if node in wanted
        }

    def said(self, event):
        """Whom any node reported as that."""
        return {peer for _, name, peer in self.reports if name == event}

    def check(self):
        for gossip, _ in self.nodes.values():
            gossip.check_invariants(self.now)


READY, SUSPECT, DEAD = NodeState.READY, NodeState.SUSPECT, NodeState.DEAD
