"""TUN to underlay: route, pack, seal, transmit; in the order a packet meets them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from overlay.drops import DropReason
from overlay.effects import SendDatagram
from overlay.forwarding.flow import MAX_FLOWS, Routes, ends, flow_untrusted, owners
from overlay.forwarding.ledger import Ledger
from overlay.forwarding.path import PeerPath
from overlay.session.transport import Keypair
from overlay.types import Endpoint, NodeId
from overlay.wire.burst import (
    BLOCK,
    BLOCK_HEADER_SIZE,
    MAX_RUN,
    PACKED_BURST,
    TAG_SIZE,
    BlockKind,
    Cutter,
    block,
    segment_payload,
)
from overlay.wire.header import HEADER, HEADER_SIZE, MAX_SEGMENTS, TYPE_DATA
from overlay.wire.ip import is_unroutable
from overlay.wire.virtio import VIRTIO_HEADER_SIZE

Transmit = Callable[[Endpoint, memoryview, int], bool]
"""`transmit(endpoint, datagrams, segment_size)`: hand datagrams of `segment_size` bytes each (the
last may be shorter; 0: there is one) to UDP. False when the kernel refused them. The buffer may be
reused when it returns."""

READ_SIZE: Final = VIRTIO_HEADER_SIZE + 65_575
"""The most one TUN read can return: the offload header and the largest IPv6 packet."""

LARGE: Final = 16_384
"""From this size a packet is sealed where it lies: copying it would cost more than a burst."""

MAX_BLOCK: Final = 0xFFFF
"""What a block can hold: its length is 16 bits."""

MAX_REJECTED: Final = 16
"""Packets of one pass that may be answered with an ICMP error; the answers are limited anyway."""

# Reading a member of an enum takes as long as what is done with it here, per packet.
_OFFLOADED: Final = int(BlockKind.OFFLOADED)
_PACKET_AT: Final = BLOCK_HEADER_SIZE + VIRTIO_HEADER_SIZE


class Outbound:
    """The outbound half of one node.

    Args:
        local: the node itself; its routes mark addresses that are ours.
        routes: address -> node.
        peers: node -> path, kept by the engine.
        ledger: where every packet is counted.
        transmit: sends datagrams.
        queued_packets, queued_bytes: bounds of the queue for a peer without a session.
    """

    def __init__(
        self,
        *,
        local: NodeId,
        routes: Routes,
        peers: dict[NodeId, PeerPath],
        ledger: Ledger,
        transmit: Transmit,
        queued_packets: int,
        queued_bytes: int,
    ) -> None:
        self._local = local
        self._routes = routes
        self._peers = peers
        self._ledger = ledger
        self._transmit = transmit
        self._max_packets = queued_packets
        self._max_bytes = queued_bytes
        self._room = memoryview(bytearray(BLOCK_HEADER_SIZE + READ_SIZE))
        self._read_view = self._room[BLOCK_HEADER_SIZE:]
        self._flows: dict[bytes, PeerPath] = {}
        self._packing: dict[PeerPath, None] = {}  # a set that keeps the order
        self._cutter = Cutter()
        self.wanted: set[NodeId] = set()
        """Peers that packets wait for and that have no session; the engine empties it."""
        self.rejected: list[tuple[DropReason, bytes]] = []
        """Packets whose sender deserves an ICMP error; bounded, the engine empties it."""

    # -- 1. reading ------------------------------------------------------------------------------

    def room(self) -> memoryview:
        """Where to read the next packet (virtio_net_hdr first) before calling `accept`."""
        return self._read_view

    # -- 2. routing ------------------------------------------------------------------------------

    def accept(self, size: int, now: float) -> None:
        """Take the packet that was read into `room()`.

        Args:
            size: bytes read, the virtio_net_hdr included.
            now: monotonic seconds.
        """
        self._ledger.tun_in += 1
        peer = self._destination(size)
        if isinstance(peer, DropReason):
            self._refuse(peer, size)
            return
        keypair = peer.keypair
        if keypair is None or not keypair.usable(now):
            self._enqueue(peer, size)
            return
        needed = BLOCK_HEADER_SIZE + size
        BLOCK.pack_into(self._room, 0, size, _OFFLOADED)
        if needed > LARGE:
            self._seal_packed(peer, keypair)  # what came first goes first
            self._seal(peer, keypair, self._room[:needed], 1)
            return
        if peer.fill + needed > PACKED_BURST:
            self._seal_packed(peer, keypair)
        self._pack(peer, needed)

    def _destination(self, size: int) -> PeerPath | DropReason:
        if size > MAX_BLOCK:
            return DropReason.OVERSIZE
        flow = flow_untrusted(self._room, _PACKET_AT, BLOCK_HEADER_SIZE + size)
        if flow is None:
            return DropReason.MALFORMED
        peer = self._flows.get(flow)
        return self._route(flow) if peer is None else peer

    def _route(self, flow: bytes) -> PeerPath | DropReason:
        """The slow path, once per flow: everything that makes a packet ours to send."""
        version, _, destination = ends(flow)
        if is_unroutable(version, destination):
            return DropReason.MULTICAST
        sender, owner = owners(self._routes, flow)
        if sender != self._local:
            return DropReason.FOREIGN_SOURCE
        if owner is None:
            return DropReason.NO_ROUTE
        if owner == self._local:
            return DropReason.LOCAL_DESTINATION
        peer = self._peers.get(owner)
        if peer is None or peer.endpoint is None:
            return DropReason.NO_ENDPOINT
        if len(self._flows) >= MAX_FLOWS:
            self._flows.clear()
        self._flows[flow] = peer
        return peer

    def forget_flows(self) -> None:
        """Routes or endpoints changed: look everything up again."""
        self._flows.clear()

    def _refuse(self, reason: DropReason, size: int) -> None:
        self._ledger.drop(reason)
        answered = reason in (DropReason.NO_ROUTE, DropReason.NO_ENDPOINT)
        if answered and len(self.rejected) < MAX_REJECTED:
            packet = self._room[_PACKET_AT : BLOCK_HEADER_SIZE + size]
            self.rejected.append((reason, bytes(packet)))

    # -- 3. packing and waiting --------------------------------------------------------------------

    def _pack(self, peer: PeerPath, needed: int) -> None:
        if not peer.fill:
            self._packing[peer] = None
        start, end = peer.fill, peer.fill + needed
        peer.packing_buffer()[start:end] = self._room[:needed]
        peer.fill = end
        peer.packed += 1
        self._ledger.queued_packets += 1

    def _enqueue(self, peer: PeerPath, size: int) -> None:
        self.wanted.add(peer.node)
        full = len(peer.queue) >= self._max_packets or peer.queued_bytes + size > self._max_bytes
        if full:
            self._lose(peer, DropReason.QUEUE_FULL, 1)
            return
        BLOCK.pack_into(self._room, 0, size, _OFFLOADED)
        peer.queue.append(bytes(self._room[: BLOCK_HEADER_SIZE + size]))
        peer.queued_bytes += size
        self._ledger.queued_packets += 1

    def release(self, peer: PeerPath, now: float) -> None:
        """A session is up: send what waited for it."""
        keypair = peer.keypair
        if keypair is None or not keypair.usable(now):
            return
        while peer.queue:
            waiting = peer.queue.popleft()
            self._ledger.queued_packets -= 1
            self._seal(peer, keypair, memoryview(waiting), 1)
        peer.queued_bytes = 0

    def abandon(self, peer: PeerPath) -> None:
        """No session will come: lose what was packed, and what waited for one."""
        self._abandon_packed(peer)
        waiting = len(peer.queue)
        peer.queue.clear()
        peer.queued_bytes = 0
        self._abandoned(peer, waiting)

    def _abandon_packed(self, peer: PeerPath) -> None:
        packets = peer.packed
        peer.fill = peer.packed = 0
        self._abandoned(peer, packets)

    def _abandoned(self, peer: PeerPath, packets: int) -> None:
        if packets:
            self._ledger.queued_packets -= packets
            self._lose(peer, DropReason.NO_SESSION, packets)

    # -- 4. sealing ------------------------------------------------------------------------------

    def flush(self, now: float) -> None:
        """Seal what was packed in this pass. Call when the TUN has nothing more."""
        if not self._packing:
            return
        packing, self._packing = self._packing, {}
        for peer in packing:
            keypair = peer.keypair
            if keypair is not None and keypair.usable(now):
                self._seal_packed(peer, keypair)
            else:
                self._abandon_packed(peer)

    def _seal_packed(self, peer: PeerPath, keypair: Keypair) -> None:
        if not peer.fill:
            return
        plaintext, packets = peer.packing_buffer()[: peer.fill], peer.packed
        peer.fill = peer.packed = 0
        self._ledger.queued_packets -= packets
        self._seal(peer, keypair, plaintext, packets)

    def _seal(self, peer: PeerPath, keypair: Keypair, plaintext: memoryview, packets: int) -> None:
        """One burst: one AEAD call, at most one copy, one or two sends."""
        endpoint = peer.endpoint
        if endpoint is None:
            self._lose(peer, DropReason.NO_ENDPOINT, packets)
            return
        datagrams, step = self._datagrams(keypair, plaintext, peer.payload)
        peer.tx_bytes += len(datagrams)
        if self._transmit_runs(endpoint, datagrams, step):
            self._ledger.sent_out += packets
        else:
            self._lose(peer, DropReason.SEND_FAILED, packets)

    def _datagrams(
        self, keypair: Keypair, plaintext: memoryview, payload: int
    ) -> tuple[memoryview, int]:
        size = len(plaintext) + TAG_SIZE
        counter = keypair.next_counter()
        last = (size - 1) // payload
        assert last < MAX_SEGMENTS
        header = HEADER.pack(TYPE_DATA, 0, last, 0, keypair.remote_index, counter)
        if not last:
            keypair.seal_into(counter, plaintext, header, self._cutter.single[:size])
            return self._cutter.headed(header, size), 0
        keypair.seal_into(counter, plaintext, header, self._cutter.ciphertext[:size])
        return self._cutter.cut(header, size, payload), payload + HEADER_SIZE

    def _transmit_runs(self, endpoint: Endpoint, datagrams: memoryview, step: int) -> bool:
        if len(datagrams) <= MAX_RUN:
            return self._transmit(endpoint, datagrams, step)
        run = max(MAX_RUN // step, 1) * step
        first = self._transmit(endpoint, datagrams[:run], step)
        return self._transmit(endpoint, datagrams[run:], step) and first

    def _lose(self, peer: PeerPath, reason: DropReason, packets: int) -> None:
        self._ledger.drop(reason, packets)
        peer.drops[reason] = peer.drops.get(reason, 0) + packets

    # -- 5. control ------------------------------------------------------------------------------

    def seal_control(
        self, keypair: Keypair, message: bytes, endpoint: Endpoint, path_mtu: int
    ) -> SendDatagram:
        """A burst with one control message, as an effect: it must not overtake a `Persist`."""
        payload = segment_payload(path_mtu, endpoint.ip_overhead)
        plaintext = memoryview(block(BlockKind.CONTROL, message))
        datagrams, step = self._datagrams(keypair, plaintext, payload)
        return SendDatagram(endpoint, bytes(datagrams), step)

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        assert len(self._flows) <= MAX_FLOWS
        assert len(self.rejected) <= MAX_REJECTED
        waiting = 0
        for path in self._peers.values():
            waiting += len(path.queue) + path.packed
            assert (path.packed > 0) == (path.fill > 0)
            assert not path.packed or path in self._packing, "packed, and no flush would send it"
            assert path.fill <= PACKED_BURST
            assert len(path.queue) <= self._max_packets
            held = sum(len(queued) - BLOCK_HEADER_SIZE for queued in path.queue)
            assert path.queued_bytes == held <= self._max_bytes
        assert self._ledger.queued_packets == waiting
