"""TUN to underlay: read, route, pack; in the order a packet meets them. Then `sealer` sends it.

Packets are read into one arena, back to back, each with room for a block header in front of it. So
what one pass reads for one peer already is the plaintext of a burst and is sealed where it lies:

    arena  | header | packet for B | header | packet for B | header | packet for C | ...
           '------- span of B: one seal -----------------''---- span of C ---------'

Super-packets wait in the arena for their turn, so that small packets need not (`backlog`): it is a
ring, and what waits longest bounds how far it may be used.

Only where peers alternate are the spans of one peer copied together before they are sealed. Runs of
packets that look alike (a flow of datagrams) are checked and given their headers in one go.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Final

import numpy as np

from overlay.drops import DropReason
from overlay.forwarding.backlog import Backlog, Entry
from overlay.forwarding.flow import MAX_FLOWS, Routes, ends, flow_untrusted, owners, with_ports
from overlay.forwarding.ledger import Ledger
from overlay.forwarding.path import PeerPath
from overlay.forwarding.sealer import Sealer, Transmit
from overlay.session.transport import Keypair
from overlay.types import NodeId
from overlay.wire.burst import (
    BLOCK,
    BLOCK_HEADER_SIZE,
    MAX_BURST,
    BlockKind,
)
from overlay.wire.ip import is_unroutable
from overlay.wire.virtio import READ_SIZE, VIRTIO_HEADER_SIZE

LARGE: Final = 16_384
"""A block over this size is bulk: it waits for its turn. What else waits for the same peer and was
read right behind it may share its burst."""

ARENA_SIZE: Final = 8 << 20
"""Bytes that are read and not yet sealed, at most. A processor drains that in some 15 ms; what is
not read yet waits in the kernel's queue, in front of everybody."""

SERVED: Final = 256 << 10
"""Bytes of bulk sealed by one `flush`: four super-packets, a fraction of a millisecond."""

RUN_LEAST: Final = 8
"""Packets of one size from which a look at all of them at once is cheaper than one at each."""

MAX_BLOCK: Final = 0xFFFF
"""What a block can hold: its length is 16 bits."""

MAX_REJECTED: Final = 16
"""Packets of one pass that may be answered with an ICMP error; the answers are limited anyway."""

# Reading a member of an enum takes as long as what is done with it here, per packet.
_OFFLOADED: Final = int(BlockKind.OFFLOADED)
_PACKET_AT: Final = BLOCK_HEADER_SIZE + VIRTIO_HEADER_SIZE

# What the packets of a run must have in common, per IP version: where their lengths and their
# addresses lie in a block. All that routing asks of a packet is in there.
_ALIKE: Final = {
    4: (slice(_PACKET_AT, _PACKET_AT + 4), slice(_PACKET_AT + 12, _PACKET_AT + 20)),
    6: (slice(_PACKET_AT, _PACKET_AT + 6), slice(_PACKET_AT + 8, _PACKET_AT + 40)),
}


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
        self._sealer = Sealer(ledger, transmit)
        self.seal_control = self._sealer.control
        self.seal_empty = self._sealer.empty
        self.began = self._sealer.began
        self.find: Callable[[NodeId], PeerPath | None] = peers.get
        """The path to a node; whoever makes paths on demand replaces it."""
        self._max_packets = queued_packets
        self._max_bytes = queued_bytes
        # np.empty instead of zeros or bytearray: pages that no packet ever reaches cost nothing.
        self._bytes = np.empty(ARENA_SIZE + BLOCK_HEADER_SIZE + READ_SIZE, np.uint8)
        self._arena = memoryview(self._bytes.data).cast("B")
        self._at = 0  # where the next block begins
        self._backlog = Backlog()
        self._joined = memoryview(np.empty(MAX_BURST, np.uint8).data).cast("B")
        self._flows: dict[bytes, PeerPath] = {}
        self._packing: dict[PeerPath, None] = {}  # a set that keeps the order
        self.wanted: set[NodeId] = set()
        """Peers that packets wait for and that have no session; the engine empties it."""
        self.rejected: list[tuple[DropReason, bytes]] = []
        """Packets whose sender deserves an ICMP error; bounded, the engine empties it."""

    # -- 1. reading ------------------------------------------------------------------------------

    def room(self) -> memoryview:
        """Where to read the next packet (virtio_net_hdr first) before calling `accept`.

        At least `READ_SIZE` bytes, or fewer when nothing must be read before the next `flush`. Ask
        again after every `accept`: the place changes. Several packets may be read at once,
        `BLOCK_HEADER_SIZE` bytes apart, for `accept_run`.
        """
        oldest = self._backlog.oldest()
        if oldest is not None and oldest >= self._at:
            return self._arena[self._at + BLOCK_HEADER_SIZE : oldest]
        if self._at <= ARENA_SIZE:
            return self._arena[self._at + BLOCK_HEADER_SIZE :]
        if not oldest:
            return self._arena[:0]
        self._at = 0
        return self._arena[BLOCK_HEADER_SIZE:oldest]

    @property
    def waiting(self) -> bool:
        """Whether `flush` has left bulk behind: call it again soon, even if nothing more comes."""
        return len(self._backlog) > 0

    # -- 2. routing ------------------------------------------------------------------------------

    def accept(self, size: int, now: float) -> None:
        """Take the packet that was read into `room()`.

        `size`: bytes read, the virtio_net_hdr included.
        """
        if self._take(self._at, size, now):
            self._advance(self._at + BLOCK_HEADER_SIZE + size, now)

    def accept_run(self, sizes: list[int], now: float) -> None:
        """Take packets that were read into `room()` one behind the other.

        `sizes`: bytes of each, the virtio_net_hdr included. Between two packets
        `BLOCK_HEADER_SIZE` bytes were left free.
        """
        at = end = self._at
        for size, same in groupby(sizes):
            needed = BLOCK_HEADER_SIZE + size
            count = sum(1 for _ in same)
            if count >= RUN_LEAST and self._take_run(at, needed, count, now):
                at += count * needed
                end = at
                continue
            for _ in range(count):
                kept = self._take(at, size, now)
                at += needed
                if kept:
                    end = at
        self._advance(end, now)

    def _advance(self, end: int, now: float) -> None:
        """The next packet goes behind what waits in the arena; never more than fits."""
        self._at = end
        if end > ARENA_SIZE:
            self.flush(now)

    def _take(self, at: int, size: int, now: float) -> bool:
        """Route the packet of the block at `at`; whether it waits there to be sealed."""
        self._ledger.tun_in += 1
        end = at + BLOCK_HEADER_SIZE + size
        peer = self._destination(at, end)
        if isinstance(peer, DropReason):
            self._refuse(peer, at, end)
            return False
        keypair = peer.keypair
        if keypair is None or not keypair.usable(now):
            self._enqueue(peer, at, end)
            return False
        BLOCK.pack_into(self._arena, at, size, _OFFLOADED)
        if end - at > LARGE or self._backlog:
            flow = with_ports(self._arena, at + _PACKET_AT, end)
            if end - at > LARGE or self._backlog.holds(flow):
                self._backlog.put(peer, Entry(at, end, flow))
                self._ledger.queued_packets += 1
                return True
        if peer.fill + end - at > peer.burst:
            self._seal_packed(peer, keypair)
        self._pack(peer, at, end, 1)
        return True

    def _take_run(self, at: int, needed: int, count: int, now: float) -> bool:
        """Take `count` blocks of `needed` bytes at once, if one look answers for all of them."""
        if needed > LARGE or needed < _PACKET_AT + 1 or self._backlog:
            return False
        rows = self._bytes[at : at + count * needed].reshape(count, needed)
        columns = _ALIKE.get(int(rows[0, _PACKET_AT]) >> 4)
        if columns is None or not all((rows[:, cols] == rows[0, cols]).all() for cols in columns):
            return False
        peer = self._destination(at, at + needed)
        if isinstance(peer, DropReason):
            return False
        keypair = peer.keypair
        if keypair is None or not keypair.usable(now) or needed > peer.burst:
            return False
        self._ledger.tun_in += count
        header = BLOCK.pack(needed - BLOCK_HEADER_SIZE, _OFFLOADED)
        rows[:, :BLOCK_HEADER_SIZE] = np.frombuffer(header, np.uint8)
        while count:
            fitting = min(count, (peer.burst - peer.fill) // needed)
            if not fitting:
                self._seal_packed(peer, keypair)
                continue
            self._pack(peer, at, at + fitting * needed, fitting)
            at += fitting * needed
            count -= fitting
        return True

    def _destination(self, at: int, end: int) -> PeerPath | DropReason:
        if end - at - BLOCK_HEADER_SIZE > MAX_BLOCK:
            return DropReason.OVERSIZE
        flow = flow_untrusted(self._arena, at + _PACKET_AT, end)
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
        peer = self.find(owner)
        if peer is None or (peer.endpoint is None and not peer.awaited):
            return DropReason.NO_ENDPOINT
        if len(self._flows) >= MAX_FLOWS:
            self._flows.clear()
        self._flows[flow] = peer
        return peer

    def forget_flows(self) -> None:
        """Routes or endpoints changed: look everything up again."""
        self._flows.clear()

    def _refuse(self, reason: DropReason, at: int, end: int) -> None:
        self._ledger.drop(reason)
        answered = reason in (DropReason.NO_ROUTE, DropReason.NO_ENDPOINT)
        if answered and len(self.rejected) < MAX_REJECTED:
            self.rejected.append((reason, bytes(self._arena[at + _PACKET_AT : end])))

    # -- 3. packing and waiting --------------------------------------------------------------------

    def _pack(self, peer: PeerPath, at: int, end: int, packets: int) -> None:
        if not peer.fill:
            self._packing[peer] = None
        spans = peer.spans
        if spans and spans[-1] == at:
            spans[-1] = end
        else:
            spans += (at, end)
        peer.fill += end - at
        peer.packed += packets
        self._ledger.queued_packets += packets

    def _enqueue(self, peer: PeerPath, at: int, end: int) -> None:
        self.wanted.add(peer.node)
        size = end - at - BLOCK_HEADER_SIZE
        full = len(peer.queue) >= self._max_packets or peer.queued_bytes + size > self._max_bytes
        if full:
            self._sealer.lose(peer, DropReason.QUEUE_FULL, 1)
            return
        BLOCK.pack_into(self._arena, at, size, _OFFLOADED)
        peer.queue.append(bytes(self._arena[at:end]))
        peer.queued_bytes += size
        self._ledger.queued_packets += 1

    def release(self, peer: PeerPath, now: float) -> None:
        """A session is up: send what waited for it."""
        keypair = peer.keypair
        if keypair is None or not keypair.usable(now):
            return
        waiting, peer.queue, peer.queued_bytes = peer.queue, [], 0
        self._ledger.queued_packets -= len(waiting)
        for packet in waiting:
            self._sealer.seal(peer, keypair, memoryview(packet), 1)

    def abandon(self, peer: PeerPath) -> None:
        """No session will come: lose what was packed, and what waited for one."""
        self._abandon_packed(peer)
        self._abandoned(peer, self._backlog.drop(peer))
        waiting = len(peer.queue)
        peer.queue.clear()
        peer.queued_bytes = 0
        self._abandoned(peer, waiting)

    def _abandon_packed(self, peer: PeerPath) -> None:
        self._abandoned(peer, peer.unpack())

    def _abandoned(self, peer: PeerPath, packets: int) -> None:
        if packets:
            self._ledger.queued_packets -= packets
            self._sealer.lose(peer, DropReason.NO_SESSION, packets)

    # -- 4. sealing ------------------------------------------------------------------------------

    def flush(self, now: float) -> None:
        """Seal what was packed in this pass, then some of the bulk.

        Call when the TUN has nothing more, or `room` got short; again while there is `waiting`.
        """
        if self._packing:
            packing, self._packing = self._packing, {}
            for peer in packing:
                keypair = peer.keypair
                if keypair is not None and keypair.usable(now):
                    self._seal_packed(peer, keypair)
                else:
                    self._abandon_packed(peer)
        if self._backlog:
            self._serve(now)
        if not self._backlog:
            self._at = 0

    def _serve(self, now: float) -> None:
        """Let peers take turns, one burst each, until enough was sent for one pass."""
        left = SERVED
        while left > 0 and (turn := self._backlog.take()) is not None:
            peer, start, end, packets = turn
            keypair = peer.keypair
            if keypair is None or not keypair.usable(now):
                self._abandoned(peer, packets)
                continue
            self._ledger.queued_packets -= packets
            self._sealer.seal(peer, keypair, self._arena[start:end], packets)
            left -= end - start

    def _seal_packed(self, peer: PeerPath, keypair: Keypair) -> None:
        if not peer.fill:
            return
        plaintext, spans = self._plaintext(peer), peer.spans
        packets = peer.unpack()
        bulk = self._backlog.first(peer)
        if bulk is not None and spans[1:] == [bulk.start] and bulk.end - spans[0] <= peer.burst:
            # Acknowledgements of one flow travel for nothing with the bulk of another.
            plaintext = self._arena[spans[0] : bulk.end]
            self._backlog.pop(peer)
            packets += 1
        self._ledger.queued_packets -= packets
        self._sealer.seal(peer, keypair, plaintext, packets)

    def _plaintext(self, peer: PeerPath) -> memoryview:
        spans = peer.spans
        if len(spans) == 2:
            return self._arena[spans[0] : spans[1]]
        fill = 0
        for start, end in zip(spans[::2], spans[1::2], strict=True):
            self._joined[fill : fill + end - start] = self._arena[start:end]
            fill += end - start
        return self._joined[:fill]

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        assert len(self._flows) <= MAX_FLOWS
        assert len(self.rejected) <= MAX_REJECTED
        waiting = 0
        for path in self._peers.values():
            waiting += len(path.queue) + path.packed + self._backlog.waiting_for(path)
            assert (path.packed > 0) == (path.fill > 0)
            assert not path.packed or path in self._packing, "packed, and no flush would send it"
            assert path.fill <= path.burst <= MAX_BURST
            assert path.fill == sum(path.spans[1::2]) - sum(path.spans[::2])
            assert all(at <= self._at for at in path.spans)
            assert len(path.queue) <= self._max_packets
            held = sum(len(queued) - BLOCK_HEADER_SIZE for queued in path.queue)
            assert path.queued_bytes == held <= self._max_bytes
        assert self._ledger.queued_packets == waiting
        self._backlog.check_invariants()
