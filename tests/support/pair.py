"""Two packet paths joined by a fake link: everything between two TUNs, without sessions.

    alice.send(packet) -> Outbound -> wire -> join() -> Inbound -> bob.delivered

Keypairs are real, routes are a real longest-prefix match, and the link is a list: a test may drop,
repeat, split and reorder what is on it. Addresses: each side has an IPv4 and an IPv6 block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from struct import pack
from typing import NamedTuple

from overlay.forwarding.coalesce import Coalescer
from overlay.forwarding.inbound import Arrival, Control, Handshake, Inbound
from overlay.forwarding.ledger import Ledger
from overlay.forwarding.outbound import Outbound
from overlay.forwarding.path import PeerPath
from overlay.routing.lpm import LongestPrefixMatch
from overlay.session.suites import Suite
from overlay.session.transport import Keypair
from overlay.types import Endpoint, NodeId, Prefix
from overlay.wire.burst import TAG_SIZE, BlockKind, blocks_untrusted
from overlay.wire.header import HEADER_SIZE, TYPE_DATA, Header
from overlay.wire.reassembly import Reassembly
from overlay.wire.virtio import NO_OFFLOAD

ALICE, BOB, CAROL = (NodeId(name * 32) for name in (b"a", b"b", b"c"))
ENDPOINTS = {
    ALICE: Endpoint("192.0.2.1", 6875),
    BOB: Endpoint("192.0.2.2", 6875),
    CAROL: Endpoint("2001:db8::3", 6875),
}
BLOCKS: dict[NodeId, tuple[Prefix, Prefix]] = {
    node: (IPv4Network(f"10.244.{index}.0/24"), IPv6Network(f"fd00:0:0:{index}::/64"))
    for index, node in enumerate((ALICE, BOB, CAROL))
}
LIFE = 180.0


def _owner(node: NodeId) -> NodeId:
    """Here a route is nothing but its owner."""
    return node


class Routes:
    """Longest-prefix match of both families."""

    def __init__(self) -> None:
        self.v4: LongestPrefixMatch[NodeId, NodeId] = LongestPrefixMatch(32, _owner)
        self.v6: LongestPrefixMatch[NodeId, NodeId] = LongestPrefixMatch(128, _owner)
        for node, (block4, block6) in BLOCKS.items():
            self.v4.insert(block4, node)
            self.v6.insert(block6, node)

    def lookup4(self, address: int) -> NodeId | None:
        return self.v4.lookup(address)

    def lookup6(self, address: int) -> NodeId | None:
        return self.v6.lookup(address)


def keypairs(
    first: NodeId | None, second: NodeId, *, suite: Suite = Suite.AES_256_GCM, indexes: int = 1
) -> tuple[Keypair, Keypair]:
    """The two ends of a finished handshake: `first` is the initiator, None while it is a joiner.

    Args:
        indexes: the initiator's index; the responder's is 1000 higher.
    """
    there, back = bytes([indexes % 256]) * 32, bytes([indexes % 256 ^ 0x80]) * 32
    initiator = Keypair(
        (there, back),
        suite=suite,
        local_index=indexes,
        remote_index=indexes + 1000,
        initiator=True,
        created_at=0.0,
        expires_at=LIFE,
        node=second,
    )
    responder = Keypair(
        (back, there),
        suite=suite,
        local_index=indexes + 1000,
        remote_index=indexes,
        initiator=False,
        created_at=0.0,
        expires_at=LIFE,
        node=first,
    )
    return initiator, responder


class Side:
    """One node's packet path, with both of its edges recorded.

    Attributes:
        wire: what was handed to UDP: (endpoint, datagrams, segment size).
        delivered: what was written to the TUN.
        refuse: sends and deliveries fail while this is set.

    Args:
        queued_packets, queued_bytes: bounds of the queue for a peer without a session.
        coalesce: whether the TUN takes super-packets.
        incomplete: bursts in pieces remembered per session; in all, twice as many.
    """

    def __init__(
        self,
        node: NodeId,
        *,
        queued_packets: int = 8,
        queued_bytes: int = 100_000,
        incomplete: int = 4,
        coalesce: bool = False,
    ) -> None:
        self.node = node
        self.wire: list[tuple[Endpoint, bytes, int]] = []
        self.delivered: list[bytes] = []
        self.refuse = False
        self.ledger = Ledger()
        self.routes = Routes()
        self.peers = {peer: PeerPath(peer) for peer in BLOCKS if peer != node}
        for path in self.peers.values():
            path.use(ENDPOINTS[path.node], 1500)
        self.keypairs: dict[int, Keypair] = {}
        self.reassembly = Reassembly(
            per_session=incomplete, total=2 * incomplete, expires_after=1.0
        )
        self.outbound = Outbound(
            local=node,
            routes=self.routes,
            peers=self.peers,
            ledger=self.ledger,
            transmit=self.transmit,
            queued_packets=queued_packets,
            queued_bytes=queued_bytes,
        )
        self.inbound = Inbound(
            local=node,
            routes=self.routes,
            peers=self.peers,
            keypairs=self.keypairs,
            ledger=self.ledger,
            deliver=self.deliver,
            reassembly=self.reassembly,
            coalescer=Coalescer(tso=coalesce, uso=coalesce),
        )

    def transmit(self, endpoint: Endpoint, datagrams: memoryview, step: int) -> bool:
        """The UDP edge."""
        if not self.refuse:
            self.wire.append((endpoint, bytes(datagrams), step))
        return not self.refuse

    def deliver(self, packet: memoryview) -> bool:
        """The TUN edge."""
        if not self.refuse:
            self.delivered.append(bytes(packet))
        return not self.refuse

    def accept(self, packet: bytes, now: float = 0.0) -> None:
        """Read `packet` (virtio_net_hdr first) from the TUN, and leave the pass open."""
        self.outbound.room()[: len(packet)] = packet
        self.outbound.accept(len(packet), now)

    def send(self, *packets: bytes, now: float = 0.0) -> None:
        """One pass over the TUN, and as many more as the bulk in it needs."""
        for packet in packets:
            self.accept(packet, now)
        self.outbound.flush(now)
        while self.outbound.waiting:
            self.outbound.flush(now)
        self.check()

    def take_wire(self) -> list[tuple[Endpoint, bytes, int]]:
        """What is on the link now; it is empty afterwards."""
        taken, self.wire = self.wire, []
        return taken

    def receive(
        self, datagrams: bytes, step: int = 0, *, source: Endpoint, now: float = 0.0
    ) -> list[Arrival]:
        """What one `recvmsg` returned. Counts what the engine would count."""
        arrivals = self.inbound.on_datagrams_untrusted(memoryview(datagrams), step, source, now)
        self.ledger.consumed_out += sum(isinstance(one, Handshake | Control) for one in arrivals)
        self.check()
        return arrivals

    def use(self, peer: NodeId, keypair: Keypair) -> None:
        """Send to `peer` under `keypair`, and accept what comes under it."""
        self.peers[peer].keypair = keypair
        self.keypairs[keypair.local_index] = keypair

    def check(self) -> None:
        """The books balance after every step."""
        self.ledger.check_invariants()
        self.outbound.check_invariants()
        self.inbound.check_invariants()

    def lost(self) -> dict[str, int]:
        """Drops by reason."""
        return dict(self.ledger.view().drops)


class Pair:
    """Alice and Bob with a session, both confirmed."""

    def __init__(
        self,
        *,
        suite: Suite = Suite.AES_256_GCM,
        path_mtu: int = 1500,
        incomplete: int = 4,
        coalesce: bool = False,
    ) -> None:
        self.alice = Side(ALICE)
        self.bob = Side(BOB, incomplete=incomplete, coalesce=coalesce)
        initiator, responder = keypairs(ALICE, BOB, suite=suite)
        responder.confirmed = True
        self.alice.use(BOB, initiator)
        self.bob.use(ALICE, responder)
        self.alice.peers[BOB].use(ENDPOINTS[BOB], path_mtu)
        self.bob.peers[ALICE].use(ENDPOINTS[ALICE], path_mtu)

    def carry(self, now: float = 0.0) -> list[Arrival]:
        """Give Bob everything Alice has put on the link, as it was sent."""
        arrivals: list[Arrival] = []
        for _, datagrams, step in self.alice.take_wire():
            arrivals += self.bob.receive(datagrams, step, source=ENDPOINTS[ALICE], now=now)
        return arrivals


def pieces(wire: Iterable[tuple[Endpoint, bytes, int]]) -> Iterator[bytes]:
    """The single datagrams of what is on a link."""
    for _, datagrams, step in wire:
        step = step or len(datagrams)
        yield from (datagrams[at : at + step] for at in range(0, len(datagrams), step))


class Burst(NamedTuple):
    """One burst, opened the slow way.

    Attributes:
        blocks: (kind, body) of each block.
        sizes: bytes of each datagram, outer header included.
    """

    endpoint: Endpoint
    counter: int
    blocks: list[tuple[int, bytes]]
    sizes: list[int]


def open_bursts(wire: Iterable[tuple[Endpoint, bytes, int]], keypair: Keypair) -> list[Burst]:
    """Every burst on a link in the order of their first segments. `keypair` is the receiver's."""
    segments: dict[tuple[Endpoint, int], list[bytes]] = {}
    for entry in wire:
        for datagram in pieces([entry]):
            header = Header.decode_untrusted(datagram)
            segments.setdefault((entry[0], header.counter), []).append(datagram)
    bursts = []
    for (endpoint, counter), datagrams in segments.items():
        headers = [Header.decode_untrusted(datagram) for datagram in datagrams]
        assert [header.index for header in headers] == list(range(len(datagrams)))
        assert all(header.last == len(datagrams) - 1 for header in headers)
        ciphertext = b"".join(datagram[HEADER_SIZE:] for datagram in datagrams)
        plaintext = memoryview(bytearray(len(ciphertext) - TAG_SIZE))
        keypair.open_into(counter, ciphertext, headers[0].associated_data(), plaintext)
        blocks = [(kind, bytes(body)) for kind, body in blocks_untrusted(plaintext)]
        bursts.append(Burst(endpoint, counter, blocks, [len(one) for one in datagrams]))
    return bursts


def address(node: NodeId, host: int, version: int = 4) -> IPv4Address | IPv6Address:
    """Address number `host` of a node's block."""
    return BLOCKS[node][version == 6][host]


def packet4(source: NodeId, target: NodeId, payload: bytes = b"", *, host: int = 2) -> bytes:
    """An IPv4 packet behind an empty virtio_net_hdr."""
    ends = address(source, host).packed + address(target, host).packed
    return NO_OFFLOAD + pack(">BxHxxxxBBxx8s", 0x45, 20 + len(payload), 64, 17, ends) + payload


def packet6(source: NodeId, target: NodeId, payload: bytes = b"", *, host: int = 2) -> bytes:
    """An IPv6 packet behind an empty virtio_net_hdr."""
    ends = address(source, host, 6).packed + address(target, host, 6).packed
    return NO_OFFLOAD + pack(">B3xHBB32s", 0x60, len(payload), 17, 64, ends) + payload


def burst(pair: Pair, *packets: bytes) -> bytes:
    """The datagrams of one burst from Alice to Bob, back to back."""
    pair.alice.send(*packets)
    ((_, datagrams, _),) = pair.alice.take_wire()
    return datagrams


def sealed(pair: Pair, plaintext: bytes) -> bytes:
    """One datagram that holds any plaintext at all, properly sealed by Alice."""
    keypair = pair.alice.peers[BOB].keypair
    counter = keypair.next_counter()
    header = Header(TYPE_DATA, receiver=keypair.remote_index, counter=counter).encode()
    out = bytearray(len(plaintext) + 16)
    keypair.seal_into(counter, plaintext, header, out)
    return header + bytes(out)


class Alice(Side):
    """A sender with sessions to Bob and Carol; `theirs` are the keypairs of the far ends."""

    def __init__(self, **bounds: int) -> None:
        super().__init__(ALICE, **bounds)
        self.theirs: dict[NodeId, Keypair] = {}
        for number, peer in enumerate((BOB, CAROL), start=1):
            ours, self.theirs[peer] = keypairs(ALICE, peer, indexes=number)
            self.use(peer, ours)

    def sent(self, peer: NodeId = BOB) -> list[list[bytes]]:
        """The packets of each burst on the link to `peer`, which is empty afterwards."""
        there = [entry for entry in self.wire if entry[0] == ENDPOINTS[peer]]
        self.wire = [entry for entry in self.wire if entry[0] != ENDPOINTS[peer]]
        bursts = open_bursts(there, self.theirs[peer])
        assert all(kind == BlockKind.OFFLOADED for burst in bursts for kind, _ in burst.blocks)
        return [[body for _, body in burst.blocks] for burst in bursts]


def foreign(source: str, target: str) -> bytes:
    """A packet between any two addresses."""
    ends = ip_address(source).packed + ip_address(target).packed
    if len(ends) == 8:
        return packet4(ALICE, BOB)[:-8] + ends
    return packet6(ALICE, BOB)[:-32] + ends
