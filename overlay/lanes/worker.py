"""The packet path of one lane that is not the daemon's: everything but the process around it.

    orders -----> remotes, routes, keys
    TUN queue --> outbound --> datagrams       the same code as lane 0's, with other keys
    datagrams --> inbound ---> TUN queue
                        +----> a `LaneProbe` --> report; no other control message is for a lane

It decides nothing about membership, sessions or routes; it does what it was told last. Its keys
are in memory only and end with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from itertools import count
from typing import Final

from overlay.answers import IcmpAnswers
from overlay.config import Limits, Timing
from overlay.drops import DropReason
from overlay.effects import Effect, Persist, SendDatagram, SetOffload, TellDaemon
from overlay.errors import WireError
from overlay.forwarding.coalesce import Coalescer
from overlay.forwarding.inbound import Control, Deliver, Inbound
from overlay.forwarding.ledger import Ledger
from overlay.forwarding.outbound import Outbound
from overlay.forwarding.path import PeerPath
from overlay.forwarding.sealer import Transmit
from overlay.lanes.messages import (
    PER_MESSAGE,
    Answered,
    Down,
    Key,
    KeyGone,
    LaneReport,
    Local,
    Order,
    Peer,
    PeerGone,
    Probed,
    Routes,
    Stats,
    TooBig,
    Traffic,
    Use,
    Wanted,
    Worn,
    decode_order,
    encode,
    unpack_prefix,
)
from overlay.lanes.remote import Probing, Remote
from overlay.routing.table import Announcement, RouteTable
from overlay.session.index import lane_index
from overlay.session.transport import Keypair, lane_byte
from overlay.types import Address, Endpoint, Entropy, NodeId, Prefix
from overlay.wire.control import decode_untrusted
from overlay.wire.control import encode as encode_message
from overlay.wire.messages import LaneProbe
from overlay.wire.reassembly import Reassembly

WANTED_INTERVAL: Final = 1.0
"""Between reports that packets wait for the same node."""


class LaneWorker:
    """One lane.

    Args:
        local: the node whose lane this is.
        lane: which one, 1 to 15.
        limits, timing: bounds of queues and of reassembly.
        entropy: makes the numbers of probes.
        deliver: writes a packet (virtio_net_hdr first) to the TUN queue.
        transmit: sends datagrams. An endpoint that is a `ViaFirst` is reached from the socket of
            lane 0, others from this lane's own.
        offloads: super-packets the TUN takes (`tso`, `uso`).
    """

    def __init__(
        self,
        *,
        local: NodeId,
        lane: int,
        limits: Limits,
        timing: Timing,
        entropy: Entropy,
        deliver: Deliver,
        transmit: Transmit,
        offloads: tuple[str, ...] = (),
    ) -> None:
        self._local = local
        self._lane = lane
        self._remotes: dict[NodeId, Remote] = {}
        self._paths: dict[NodeId, PeerPath] = {}
        self._keypairs: dict[int, Keypair] = {}
        self._of_index: dict[int, NodeId] = {}
        self._prefixes: dict[Prefix, NodeId] = {}
        self._routes_are_stale = False
        self._addresses: tuple[Address | None, Address | None] = (None, None)
        # A reply to a worker that is gone must not prove anything to the one after it.
        self._tokens: Iterator[int] = count(int.from_bytes(entropy(4), "big") << 32)
        self._singly: dict[NodeId, frozenset[Endpoint]] = {}
        self._reported: dict[NodeId, tuple[object, ...]] = {}
        self._wanted_at: dict[NodeId, float] = {}
        self._due = math.inf
        self.routes = RouteTable()
        self.ledger = Ledger()
        self.reassembly = Reassembly(
            per_session=limits.reassembly_per_session,
            total=limits.reassembly_total,
            expires_after=timing.reassembly_after,
        )
        self.outbound = Outbound(
            local=local,
            routes=self.routes,
            peers=self._paths,
            ledger=self.ledger,
            transmit=transmit,
            queued_packets=limits.queued_packets,
            queued_bytes=limits.queued_bytes,
        )
        self.outbound.find = self._find
        self.inbound = Inbound(
            local=local,
            routes=self.routes,
            peers=self._paths,
            keypairs=self._keypairs,
            ledger=self.ledger,
            deliver=deliver,
            reassembly=self.reassembly,
            coalescer=Coalescer(tso="tso" in offloads, uso="uso" in offloads),
            lane=lane,
        )
        self._answers = IcmpAnswers(deliver)

    # -- life: what a driver expects of whatever it drives -----------------------------------------

    def start(self, now: float) -> list[Effect]:
        """There is nothing to do before the first order."""
        del now
        return []

    def stop(self, now: float) -> list[Effect]:
        """The daemon says good-bye for all lanes."""
        del now
        return []

    def on_persist_failed(self, lost: Sequence[Persist], why: str, now: float) -> list[Effect]:
        """A lane stores nothing."""
        del lost, why, now
        return []

    # -- orders ------------------------------------------------------------------------------------

    def on_orders(self, orders: Iterable[bytes], now: float) -> list[Effect]:
        """Do what the daemon says, in its order.

        Raises:
            WireError: something in it is no order. Nothing else.
        """
        effects: list[Effect] = []
        for data in orders:
            effects += self._on_order(decode_order(data), now)
        if self._routes_are_stale:
            self._routes_are_stale = False
            routes = [Announcement(prefix, node, "") for prefix, node in self._prefixes.items()]
            self.routes.replace(routes, now)
            self._forget_flows()
        return effects

    def _on_order(self, order: Order, now: float) -> list[Effect]:
        match order:
            case Local(address, address6):
                self._addresses = _address(address), _address(address6)
            case Routes(added, removed):
                self._on_routes(added, removed)
            case PeerGone(node):
                return self._on_peer_gone(node)
            case KeyGone(index):
                of = self._of_index.pop(index, None)
                if of is not None:
                    self._remotes[of].on_key_gone(index, now)
                    return self._tend(self._remotes[of], now)
            case Peer(node) | Key(node) | Use(node) | Down(node) | Answered(node):
                return self._on_order_about(self._remote(node), order, now)
        return []

    def _on_order_about(self, remote: Remote, order: Order, now: float) -> list[Effect]:
        match order:
            case Peer():
                remote.on_peer(order, now)
                return [*self._follow_singly(order.node, _singly(order)), *self._tend(remote, now)]
            case Key(node, index):
                self._of_index[index] = node
                remote.on_key(order)
            case Use(_, index):
                remote.on_use(index, now)
            case Down():
                self.outbound.abandon(remote.path)
                remote.path.awaited = False
                self._forget_flows()
            case Answered(_, token):
                remote.on_answered(token, now)
        return self._tend(remote, now)

    def _follow_singly(self, node: NodeId, wanted: frozenset[Endpoint]) -> list[Effect]:
        """Segment sends to all endpoints but those where that was seen to fail."""
        known = self._singly.pop(node, frozenset())
        # Whoever lost its state comes back as another node at the same endpoint.
        of_others = frozenset[Endpoint]().union(*self._singly.values())
        if wanted:
            self._singly[node] = wanted
        changed = [(endpoint, False) for endpoint in sorted(wanted - known)]
        changed += [(endpoint, True) for endpoint in sorted(known - wanted - of_others)]
        return [SetOffload("udp_gso", on=on, endpoint=endpoint) for endpoint, on in changed]

    def _remote(self, node: NodeId) -> Remote:
        remote = self._remotes.get(node)
        if remote is None:
            remote = Remote(node, self._lane, self._keypairs, lambda: next(self._tokens))
            self._remotes[node] = remote
            self._paths[node] = remote.path
        return remote

    def _find(self, node: NodeId) -> PeerPath:
        """The daemon has paths to the peers somebody talks to: for another one it makes one now."""
        if node not in self._remotes:
            self._remote(node).path.awaited = True
        return self._paths[node]

    def _on_peer_gone(self, node: NodeId) -> list[Effect]:
        remote = self._remotes.pop(node, None)
        if remote is None:
            return []
        remote.clear()
        self.outbound.abandon(remote.path)
        del self._paths[node]
        self._reported.pop(node, None)
        self._wanted_at.pop(node, None)
        self._of_index = {index: of for index, of in self._of_index.items() if of != node}
        self._forget_flows()
        return self._follow_singly(node, frozenset())

    def _on_routes(self, added: Sequence[tuple[NodeId, bytes]], removed: Sequence[bytes]) -> None:
        for prefix in removed:
            self._prefixes.pop(unpack_prefix(prefix), None)
        for node, prefix in added:
            self._prefixes[unpack_prefix(prefix)] = node
        self._routes_are_stale = True

    def _forget_flows(self) -> None:
        self.outbound.forget_flows()
        self.inbound.forget_flows()

    # -- packets -----------------------------------------------------------------------------------

    def on_datagrams(
        self, buffer: memoryview, segment_size: int, source: Endpoint, now: float
    ) -> list[Effect]:
        """Take what one read of this lane's socket gave."""
        arrivals = self.inbound.on_datagrams_untrusted(buffer, segment_size, source, now)
        effects: list[Effect] = []
        for arrival in arrivals:
            if isinstance(arrival, Control):
                effects += self._on_control(arrival)
            else:
                # A handshake: it is for lane 0, as its header says.
                self.ledger.drop(DropReason.BAD_HEADER)
        return effects

    def _on_control(self, control: Control) -> list[Effect]:
        try:
            message = decode_untrusted(control.message)
        except WireError:
            message = None
        if not isinstance(message, LaneProbe) or control.keypair.node is None:
            self.ledger.drop(DropReason.BAD_CONTROL)
            return []
        self.ledger.consumed_out += 1
        return [_tell(Probed(control.keypair.node, message.lane, message.token))]

    def flush(self, now: float) -> list[Effect]:
        """End of a pass over the TUN queue: send what was packed, say what sessions it needs."""
        outbound = self.outbound
        outbound.flush(now)
        if outbound.rejected:
            rejected, outbound.rejected = outbound.rejected, []
            self._answers.answer(rejected, *self._addresses, now)
        if not outbound.wanted:
            return []
        wanted, outbound.wanted = sorted(outbound.wanted), set()
        due = [node for node in wanted if now >= self._wanted_at.get(node, now)][:PER_MESSAGE]
        for node in due:
            self._wanted_at[node] = now + WANTED_INTERVAL
        return [_tell(Wanted(due))] if due else []

    def on_too_big(self, endpoint: Endpoint, now: float) -> list[Effect]:
        """The kernel refused datagrams to `endpoint` as larger than the interface's MTU."""
        del now
        return [
            _tell(TooBig(node)) for node, path in self._paths.items() if path.endpoint == endpoint
        ]

    # -- time --------------------------------------------------------------------------------------

    def _tend(self, remote: Remote, now: float) -> list[Effect]:
        """What is due for one peer; what waited leaves if it can now."""
        probes = remote.on_deadline(now)
        self._due = min(self._due, remote.next_deadline())
        if remote.path.queue:
            self.outbound.release(remote.path, now)
        return [self._probe(remote, probe) for probe in probes]

    def _probe(self, remote: Remote, probe: Probing) -> Effect:
        message = encode_message(LaneProbe(self._lane, probe.token))
        sealed = self.outbound.seal_control(
            probe.keypair, message, probe.endpoint, remote.path.path_mtu
        )
        return SendDatagram(probe.endpoint, sealed.datagram, sealed.segment_size)

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do next."""
        reassembly = self.reassembly.next_deadline()
        due = self._due if reassembly is None else min(self._due, reassembly)
        return None if due == math.inf else due

    def on_deadline(self, now: float) -> list[Effect]:
        """Everything that is due."""
        self.inbound.expire(now)
        if now < self._due:
            return []
        self._due = math.inf
        effects: list[Effect] = []
        for remote in self._remotes.values():
            effects += self._tend(remote, now)
        return effects

    # -- observation -------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether there is a session, and packets for every peer that has one can leave."""
        live = [remote for remote in self._remotes.values() if remote.live]
        return bool(live) and all(remote.settled for remote in live)

    def stats(self, cpu: float) -> list[bytes]:
        """Reports of all counters that have changed; `cpu` is this process's time in seconds."""
        view = self.ledger.view()
        changed = []
        for node, path in self._paths.items():
            lost = tuple((str(reason), count) for reason, count in path.drops.items())
            now = (path.tx_bytes, path.rx_bytes, path.heard_at, lost)
            if self._reported.get(node) != now:
                self._reported[node] = now
                changed.append((node, *now))
        worn = [node for node, remote in self._remotes.items() if remote.worn][:PER_MESSAGE]
        return [
            *([encode(Worn(worn))] if worn else []),
            encode(Stats(view.received, view.sent, view.queued, [*view.drops.items()], cpu)),
            *(
                encode(Traffic(changed[at : at + PER_MESSAGE]))
                for at in range(0, len(changed), PER_MESSAGE)
            ),
        ]

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        self.ledger.check_invariants()
        self.outbound.check_invariants()
        self.inbound.check_invariants()
        assert self._remotes.keys() == self._paths.keys()
        assert self._singly.keys() <= self._remotes.keys()
        for remote in self._remotes.values():
            remote.check_invariants()
        for index, keypair in self._keypairs.items():
            assert keypair.lane >> 4 == self._lane
            assert index == lane_index(
                keypair.local_index, lane_byte(keypair.lane & 15, self._lane)
            )


def _singly(peer: Peer) -> frozenset[Endpoint]:
    """Where the kernel must not cut bursts. What was found out about one port is true of all."""
    if not (peer.singly and peer.host):
        return frozenset()
    ports = range(peer.port, peer.port + peer.lanes)
    return frozenset(Endpoint(peer.host, port) for port in ports)


def _tell(report: LaneReport) -> Effect:
    return TellDaemon(encode(report))


def _address(text: str) -> Address | None:
    return ip_address(text) if text else None
