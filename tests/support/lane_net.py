"""Two or more nodes with several lanes each, on virtual time: engines, workers, pipes, one network.

    net = LaneNet(lanes=(2, 3)); net.run(2.0)
    net.send(0, 1, to=1)            a packet that lane 1 of node 0 reads from its queue
    net.kill(0, 1); net.spawn(0, 1)

Pipes deliver at once; datagrams after `DELAY`, unless a test loses or repeats them. Everything that
was ever sent is on `wire`, and no nonce may be used twice at any time: `check` looks.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import count

from overlay.config import Limits, Settings, Timing
from overlay.effects import Effect, Persist, SendDatagram, TellDaemon, TellLane
from overlay.engine import Engine
from overlay.lanes.messages import Ready, encode
from overlay.lanes.remote import ViaFirst
from overlay.lanes.worker import LaneWorker
from overlay.sim import udp
from overlay.sim.site import Membership
from overlay.sim.world import EPOCH
from overlay.state import Change, NodeState
from overlay.types import DEFAULT_PORT, Endpoint, NodeId
from overlay.wire.header import TYPE_DATA, Header
from overlay.wire.virtio import NO_OFFLOAD
from tests.sim.worlds import settled

DELAY = 0.005
Lossy = Callable[[bytes], int]
"""How many copies of a datagram arrive."""


@cache
def _members(nodes: int) -> tuple[tuple[Membership, NodeState, str], ...]:
    world = settled(nodes)
    machines = [world[f"node{number}"] for number in range(1, nodes + 1)]
    for machine in machines:
        machine.stop()
    return tuple((one.membership, one.stored, one.endpoint.host) for one in machines)


@dataclass(order=True)
class Flying:
    """A datagram on its way."""

    at: float
    order: int
    source: Endpoint
    target: Endpoint
    datagram: bytes


class LaneNode:
    """One node: its engine, its workers, what reached its TUN queues."""

    def __init__(self, net: LaneNet, number: int, lanes: int) -> None:
        self.net = net
        self.number = number
        self.lanes = lanes
        self.workers: dict[int, LaneWorker] = {}
        self.delivered: list[tuple[int, bytes]] = []
        membership, state, self.host = _members(net.nodes_count)[number]
        self._generator = random.Random(f"{net.seed} {number}")
        self._entropy = self._generator.randbytes
        self.id = membership.identity.node
        self._membership, self._stored = membership, state.entries()
        self.engine = self._make_engine()

    def _make_engine(self, inherited: bytes | None = None) -> Engine:
        membership, lanes = self._membership, self.lanes
        return Engine(
            identity=membership.identity,
            cluster=membership.cluster,
            psk=membership.psk,
            state=NodeState.from_entries(self._stored),
            settings=Settings(),
            entropy=self._entropy,
            rng=self._generator,
            epoch=EPOCH,
            endpoints=(Endpoint(self.host, DEFAULT_PORT),),
            deliver=lambda packet: self._deliver(0, packet),
            transmit=lambda endpoint, data, step: self._transmit(0, endpoint, data, step),
            authorities=membership.authorities,
            lanes=lanes,
            inherited=inherited,
        )

    def hand_over(self, lanes: int | None = None) -> None:
        """The next process takes over, with as many lanes unless given; the old ones end."""
        for lane in list(self.workers):
            self.kill(lane)
        data = self.engine.hand_over(self.net.now)
        self.lanes = self.lanes if lanes is None else lanes
        self.engine = self._make_engine(data)
        self.act(0, self.engine.start(self.net.now))
        assert self.engine.inherited
        for lane in range(1, self.lanes):
            self.spawn(lane)

    # -- edges -------------------------------------------------------------------------------------

    def _deliver(self, lane: int, packet: memoryview) -> bool:
        self.delivered.append((lane, bytes(packet[len(NO_OFFLOAD) :])))
        return True

    def _transmit(self, lane: int, endpoint: Endpoint, data: memoryview, step: int) -> bool:
        port = DEFAULT_PORT + (0 if isinstance(endpoint, ViaFirst) else lane)
        for at in range(0, len(data), step or len(data)):
            piece = bytes(data[at : at + (step or len(data))])
            self.net.put(Endpoint(self.host, port), Endpoint(*endpoint), piece)
        return True

    # -- lanes -------------------------------------------------------------------------------------

    def spawn(self, lane: int) -> None:
        assert lane not in self.workers
        self.workers[lane] = LaneWorker(
            local=self.id,
            lane=lane,
            limits=Limits(),
            timing=Timing(),
            entropy=self._entropy,
            deliver=lambda packet: self._deliver(lane, packet),
            transmit=lambda endpoint, data, step: self._transmit(lane, endpoint, data, step),
        )
        self.act(0, self.engine.on_lane(lane, encode(Ready()), self.net.now))

    def kill(self, lane: int) -> None:
        for report in self.workers[lane].stats(0.0):
            self.act(0, self.engine.on_lane(lane, report, self.net.now))
        del self.workers[lane]
        self.act(0, self.engine.on_lane(lane, None, self.net.now))

    def act(self, lane: int, effects: list[Effect]) -> None:
        now = self.net.now
        for effect in effects:
            match effect:
                case SendDatagram(endpoint, datagram, step):
                    self._transmit(lane, endpoint, memoryview(datagram), step)
                case TellLane(told, message):
                    if told in self.workers:
                        self.act(told, self.workers[told].on_orders([message], now))
                case TellDaemon(message):
                    self.act(0, self.engine.on_lane(lane, message, now))
                case Persist(changes):
                    self._store(changes)

    def _store(self, changes: tuple[Change, ...]) -> None:
        for key, value in changes:
            if value is None:
                self._stored.pop(key, None)
            else:
                self._stored[key] = value

    def receive(self, port: int, datagram: bytes, source: Endpoint) -> None:
        lane, view, now = port - DEFAULT_PORT, memoryview(datagram), self.net.now
        if lane == 0:
            self.act(0, self.engine.on_datagrams(view, 0, source, now))
        elif lane in self.workers:
            self.act(lane, self.workers[lane].on_datagrams(view, 0, source, now))

    def send(self, lane: int, packet: bytes) -> None:
        now = self.net.now
        carrier = self.engine if lane == 0 else self.workers[lane]
        carrier.outbound.room()[: len(NO_OFFLOAD + packet)] = NO_OFFLOAD + packet
        carrier.outbound.accept(len(NO_OFFLOAD + packet), now)
        self.act(lane, carrier.flush(now))

    # -- time --------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        carriers = (self.engine, *self.workers.values())
        return min(at for one in carriers if (at := one.next_deadline()) is not None)

    def on_deadline(self, now: float) -> None:
        for lane, carrier in [(0, self.engine), *self.workers.items()]:
            at = carrier.next_deadline()
            if at is not None and at <= now:
                self.act(lane, carrier.on_deadline(now))


class LaneNet:
    """All of it.

    Args:
        lanes: of each node.
        seed: of everything random.
    """

    def __init__(self, *lanes: int, seed: int = 1) -> None:
        self.seed = seed
        self.nodes_count = len(lanes)
        self.now = 1000.0
        self.wire: list[Flying] = []
        self.copies: Lossy = lambda _: 1
        self.blocked: set[tuple[str, int]] = set()
        """Hosts and ports at which nothing arrives."""
        self._flying: list[Flying] = []
        self._order = count()
        self._payloads = count(1)
        self.nodes = [LaneNode(self, number, number_of) for number, number_of in enumerate(lanes)]
        for node in self.nodes:
            node.act(0, node.engine.start(self.now))
            for lane in range(1, node.lanes):
                node.spawn(lane)

    def put(self, source: Endpoint, target: Endpoint, datagram: bytes) -> None:
        flying = Flying(self.now + DELAY, next(self._order), source, target, datagram)
        self.wire.append(flying)
        for _ in range(self.copies(datagram)):
            heapq.heappush(self._flying, replace(flying, order=next(self._order)))

    def replay(self, flying: Flying) -> None:
        """Somebody on the way sends again what passed."""
        again = replace(flying, at=self.now + DELAY, order=next(self._order))
        heapq.heappush(self._flying, again)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while True:
            due = min(node.next_deadline() for node in self.nodes)
            arrival = self._flying[0].at if self._flying else until
            at = min(due, arrival)
            if at > until:
                break
            self.now = max(self.now, at)
            if self._flying and self._flying[0].at <= self.now:
                self._arrive(heapq.heappop(self._flying))
            else:
                for node in self.nodes:
                    node.on_deadline(self.now)
            if self.now >= until:
                break
        self.now = until
        self.check()

    def _arrive(self, flying: Flying) -> None:
        if (flying.target.host, flying.target.port) in self.blocked:
            return
        for node in self.nodes:
            if node.host == flying.target.host:
                node.receive(flying.target.port, flying.datagram, flying.source)

    # -- packets -----------------------------------------------------------------------------------

    def address(self, number: int) -> object:
        return self.nodes[number].engine.parts.holdings.address

    def send(self, source: int, lane: int, to: int) -> bytes:
        """One packet, unlike any other, through a lane; returns it."""
        payload = next(self._payloads).to_bytes(8, "big")
        packet = udp(self.address(source), self.address(to), payload)
        self.nodes[source].send(lane, packet)
        return packet

    def arrived(self, packet: bytes, at: int) -> int:
        """How often it came out of a node's queues."""
        return [one for _, one in self.nodes[at].delivered].count(packet)

    def way(self, source: int, lane: int, to: int) -> tuple[int, bool] | None:
        """Which lane of the peer is sent to, and whether from the lane's own port."""
        path = self.nodes[source].workers[lane]._paths[self.nodes[to].id]
        if path.keypair is None:
            return None
        return path.keypair.lane & 15, not isinstance(path.endpoint, ViaFirst)

    def node_id(self, number: int) -> NodeId:
        return self.nodes[number].id

    # -- what always holds -------------------------------------------------------------------------

    def data(self) -> list[tuple[Header, Flying]]:
        """All data that was ever sent."""
        found = [(Header.decode_untrusted(one.datagram), one) for one in self.wire]
        return [(header, one) for header, one in found if header.type == TYPE_DATA]

    def check(self) -> None:
        """No nonce twice, no packet twice, books that balance, keys where they belong."""
        nonces: dict[tuple[str, int, int, int, int], bytes] = {}
        for header, one in self.data():
            key = (one.target.host, header.receiver, header.lane, header.counter, header.index)
            assert key not in nonces, f"a nonce was used twice: {header}"
            nonces[key] = one.datagram
            assert header.lane & 15 == one.target.port - DEFAULT_PORT
        for node in self.nodes:
            packets = [packet for _, packet in node.delivered]
            assert len(packets) == len(set(packets)), "a packet was delivered twice"
            node.engine.ledger.check_invariants()
            node.engine.parts.lanes.check_invariants()
            node.engine.parts.sessions.check_invariants()
            for worker in node.workers.values():
                worker.check_invariants()
            shown = node.engine.snapshot(self.now).ledger
            lost = sum(shown.drops.values())
            assert shown.received == shown.sent + shown.queued + lost
