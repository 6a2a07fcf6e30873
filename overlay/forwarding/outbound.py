"""TUN to underlay: read, route, pack; in the order a packet meets them. Then `sealer` sends it.

Packets are read into one arena, back to back, each with room for a block header in front of it. So
what one pass reads for one peer already is the plaintext of a burst and is sealed where it lies:

    arena  | header | packet for B | header | packet for B | header | packet for C | ...
           '------- span of B: one seal -----------------''---- span of C ---------'

Only where peers alternate are the spans of one peer copied together before they are sealed. Runs of
packets that look alike (a flow of datagrams) are checked and given their headers in one go.
"""

from __future__ import annotations

from itertools import groupby
from typing import Final

import numpy as np

from overlay.drops import DropReason
from overlay.forwarding.flow import MAX_FLOWS, Routes, ends, flow_untrusted, owners
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
from overlay.wire.virtio import VIRTIO_HEADER_SIZE

READ_SIZE: Final = VIRTIO_HEADER_SIZE + 65_575
"""The most one TUN read can return: the offload header and the largest IPv6 packet."""

LARGE: Final = 16_384
"""From this size a packet is sealed where it lies: copying it would cost more than a burst."""

ARENA_SIZE: Final = 256 << 10
"""Bytes of small packets that are held at most before they are sealed, whatever the pass does."""

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
        self._max_packets = queued_packets
        self._max_bytes = queued_bytes
        # np.empty instead of zeros or bytearray: pages that no packet ever reaches cost nothing.
        self._bytes = np.empty(ARENA_SIZE + BLOCK_HEADER_SIZE + READ_SIZE, np.uint8)
        self._arena = memoryview(self._bytes.data).cast("B")
        self._at = 0  # where the next block begins
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

        At least `READ_SIZE` bytes. Ask again after every `accept`: the place changes. Several
        packets may be read at once, `BLOCK_HEADER_SIZE` bytes apart, for `accept_run`.
        """
        return self._arena[self._at + BLOCK_HEADER_SIZE :]

    # -- 2. routing ------------------------------------------------------------------------------

    def accept(self, size: int, now: float) -> None:
        """Take the packet that was read into `room()`.

        Args:
            size: bytes read, the virtio_net_hdr included.
            now: monotonic seconds.
        """
        if self._take(self._at, size, now):
            self._advance(self._at + BLOCK_HEADER_SIZE + size, now)

    def accept_run(self, sizes: list[int], now: float) -> None:
        """Take packets that were read into `room()` one behind the other.

        Args:
            sizes: bytes of each, the virtio_net_hdr included. Between two packets
                `BLOCK_HEADER_SIZE` bytes were left free.
            now: monotonic seconds.
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
        if end > ARENA_SIZE:
            self.flush(now)
        else:
            self._at = end

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
        if peer.fill + end - at > peer.burst:
            self._seal_packed(peer, keypair)
        if end - at > LARGE:
            self._seal_large(peer, keypair, at, end)
            return False
        self._pack(peer, at, end, 1)
        return True

    def _take_run(self, at: int, needed: int, count: int, now: float) -> bool:
        """Take `count` blocks of `needed` bytes at once, if one look answers for all of them."""
        if needed > LARGE or needed < _PACKET_AT + 1:
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
        while peer.queue:
            waiting = peer.queue.popleft()
            self._ledger.queued_packets -= 1
            self._sealer.seal(peer, keypair, memoryview(waiting), 1)
        peer.queued_bytes = 0

    def abandon(self, peer: PeerPath) -> None:
        """No session will come: lose what was packed, and what waited for one."""
        self._abandon_packed(peer)
        waiting = len(peer.queue)
        peer.queue.clear()
        peer.queued_bytes = 0
        self._abandoned(peer, waiting)

    def _abandon_packed(self, peer: PeerPath) -> None:
        self._abandoned(peer, self._unpack(peer))

    def _abandoned(self, peer: PeerPath, packets: int) -> None:
        if packets:
            self._ledger.queued_packets -= packets
            self._sealer.lose(peer, DropReason.NO_SESSION, packets)

    # -- 4. sealing ------------------------------------------------------------------------------

    def flush(self, now: float) -> None:
        """Seal what was packed in this pass. Call when the TUN has nothing more."""
        self._at = 0
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
        plaintext = self._plaintext(peer)
        packets = self._unpack(peer)
        self._ledger.queued_packets -= packets
        self._sealer.seal(peer, keypair, plaintext, packets)

    def _seal_large(self, peer: PeerPath, keypair: Keypair, at: int, end: int) -> None:
        """Seal the packet at `at`, and what came before it: in one burst where both lie together.

        That is how acknowledgements of one flow travel for nothing with the bulk of another.
        """
        if len(peer.spans) == 2 and peer.spans[1] == at:
            start, packets = peer.spans[0], self._unpack(peer)
            self._ledger.queued_packets -= packets
            self._sealer.seal(peer, keypair, self._arena[start:end], packets + 1)
            return
        self._seal_packed(peer, keypair)
        self._sealer.seal(peer, keypair, self._arena[at:end], 1)

    def _plaintext(self, peer: PeerPath) -> memoryview:
        spans = peer.spans
        if len(spans) == 2:
            return self._arena[spans[0] : spans[1]]
        fill = 0
        for start, end in zip(spans[::2], spans[1::2], strict=True):
            self._joined[fill : fill + end - start] = self._arena[start:end]
            fill += end - start
        return self._joined[:fill]

    @staticmethod
    def _unpack(peer: PeerPath) -> int:
        """Forget what is packed for `peer`; how many packets it was."""
        packets = peer.packed
        peer.spans = []
        peer.fill = peer.packed = 0
        return packets

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        assert len(self._flows) <= MAX_FLOWS
        assert len(self.rejected) <= MAX_REJECTED
        waiting = 0
        for path in self._peers.values():
            waiting += len(path.queue) + path.packed
            assert (path.packed > 0) == (path.fill > 0)
            assert not path.packed or path in self._packing, "packed, and no flush would send it"
            assert path.fill <= path.burst <= MAX_BURST
            assert path.fill == sum(path.spans[1::2]) - sum(path.spans[::2])
            assert all(at <= self._at for at in path.spans)
            assert len(path.queue) <= self._max_packets
            held = sum(len(queued) - BLOCK_HEADER_SIZE for queued in path.queue)
            assert path.queued_bytes == held <= self._max_bytes
        assert self._ledger.queued_packets == waiting
