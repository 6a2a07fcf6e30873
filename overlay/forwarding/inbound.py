"""Underlay to TUN: open, check, deliver. Functions stand in the order a datagram meets them.

Before the AEAD tag verified, nothing but bounded memory in the reassembly table and counters may
change; see the receive checks in `overlay.forwarding`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np

from overlay.drops import DropReason
from overlay.errors import AuthError, WireError
from overlay.faults import Fault
from overlay.forwarding.coalesce import LEAST_STRIDE, RUN_LEAST, Coalescer
from overlay.forwarding.flow import MAX_FLOWS, Routes, flow_untrusted, owners
from overlay.forwarding.ledger import Ledger
from overlay.forwarding.path import PeerPath
from overlay.forwarding.strays import Strays
from overlay.session.transport import Keypair
from overlay.types import Endpoint, NodeId
from overlay.wire.burst import (
    BLOCK_HEADER_SIZE,
    TAG_SIZE,
    BlockKind,
    Gatherer,
    block_untrusted,
    is_run_untrusted,
    run_length_untrusted,
)
from overlay.wire.header import (
    HEADER,
    HEADER_SIZE,
    MAX_SEGMENTS,
    TYPE_COOKIE_REPLY,
    TYPE_DATA,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    Header,
)
from overlay.wire.reassembly import Reassembly
from overlay.wire.virtio import (
    NO_OFFLOAD,
    VIRTIO_HEADER_SIZE,
    rewrites_addresses_untrusted,
)

Deliver = Callable[[memoryview], bool]
"""`deliver(packet)`: write a virtio_net_hdr and an IP packet to the TUN. False when refused."""

# Reading a member of an enum takes as long as what is done with it here, per packet.
_OFFLOADED: Final = int(BlockKind.OFFLOADED)
_CONTROL: Final = int(BlockKind.CONTROL)
_KIND_AT: Final = BLOCK_HEADER_SIZE - 1
_HANDSHAKES: Final = (TYPE_INITIATION, TYPE_RESPONSE, TYPE_COOKIE_REPLY)


class Handshake(NamedTuple):
    """A handshake datagram for the sessions. The engine counts its fate."""

    datagram: bytes


class Control(NamedTuple):
    """A control message that arrived under `keypair`. The engine counts its fate."""

    keypair: Keypair
    message: bytes
    whole: bool = True
    """Whether all segments of its burst came in one read."""


class Proven(NamedTuple):
    """The first burst under `keypair` authenticated: its owner has the session."""

    keypair: Keypair


class Moved(NamedTuple):
    """The peer of `keypair` sent an authentic burst from a new address."""

    keypair: Keypair


Arrival = Handshake | Control | Proven | Moved


class Inbound:
    """The inbound half of one node.

    Args:
        local: the node itself.
        routes: address -> node, the same table as outbound.
        peers: node -> path, kept by the engine.
        keypairs: local index | lane byte << 32 -> keypair, kept by the sessions.
        ledger: where everything is counted.
        deliver: writes to the TUN.
        reassembly: table for bursts that arrive in pieces.
        coalescer: joins packets for the TUN; None: it takes no super-packets.
        lane: which of the node's lanes this is, 0 to 15.
    """

    def __init__(
        self,
        *,
        local: NodeId,
        routes: Routes,
        peers: dict[NodeId, PeerPath],
        keypairs: Mapping[int, Keypair],
        ledger: Ledger,
        deliver: Deliver,
        reassembly: Reassembly,
        coalescer: Coalescer | None = None,
        lane: int = 0,
    ) -> None:
        self._local = local
        self._routes = routes
        self.find: Callable[[NodeId], PeerPath | None] = peers.get
        """The path to a node that has proved itself; whoever makes paths on demand replaces it."""
        self.is_hopeless: Callable[[memoryview, Endpoint, float], bool] = lambda *_: False
        """Whether an initiation can be dropped at once; whoever answers them replaces it."""
        self._keypairs = keypairs
        self._ledger = ledger
        self._deliver = deliver
        self._reassembly = reassembly
        self._coalescer = coalescer or Coalescer(tso=False, uso=False)
        self._lane = lane
        self._gatherer = Gatherer()
        # Zeros of numpy: pages that no burst ever reaches cost nothing.
        self._plaintext = memoryview(np.zeros(1 << 17, np.uint8).data).cast("B")
        self._flows: dict[bytes, PeerPath] = {}
        self.strays = Strays()
        """Packets whose ends are not where they should be, for whoever names their sender."""
        # The read being worked on, so that its parts need not travel through every call.
        self._source = Endpoint("", 0)
        self._now = 0.0
        self._arrivals: list[Arrival] = []
        self._whole = True  # the burst being opened came in one read

    # -- 1. one read from the socket -------------------------------------------------------------

    def on_datagrams_untrusted(
        self, buffer: memoryview, step: int, source: Endpoint, now: float
    ) -> list[Arrival]:
        """Take what one `recvmsg` returned.

        Args:
            buffer: one datagram, or several back to back (UDP_GRO).
            step: size of each but the last; 0 or the whole length when there is one.
            source: where they came from; believed only after authentication.
            now: monotonic seconds.

        Returns:
            What the engine has to act on; usually nothing.
        """
        self._source, self._now = source, now
        size = len(buffer)
        step = step or size
        position = 0
        while position < size:
            position = self._next(buffer, position, step)
        if not size:
            self._ledger.datagrams_in += 1
            self._ledger.drop(DropReason.TRUNCATED)
        # Nothing is kept: with the last arrival its keypair would outlive the session.
        arrivals, self._arrivals = self._arrivals, []
        return arrivals

    def _next(self, buffer: memoryview, start: int, step: int) -> int:
        """Handle the burst, or the single datagram, at `start`; returns where the next begins."""
        end = min(start + step, len(buffer))
        header = self._header_untrusted(buffer[start:end])
        if header is None:
            return end
        keypair = self._admissible(header)
        if isinstance(keypair, DropReason):
            self._ledger.drop(keypair)
            return end
        if not header.last:
            ciphertext = buffer[start + HEADER_SIZE : end]
        elif self._is_whole(header, buffer, start, step):
            end = min(start + (header.last + 1) * step, len(buffer))
            self._ledger.datagrams_in += header.last
            ciphertext = self._gatherer.gather(buffer, start, step, end)
        else:
            self._piece(keypair, header, buffer[start:end])
            return end
        self._open(keypair, header, buffer[start : start + HEADER_SIZE], ciphertext)
        return end

    def _header_untrusted(self, datagram: memoryview) -> Header | None:
        self._ledger.datagrams_in += 1
        if len(datagram) <= HEADER_SIZE:
            self._ledger.drop(DropReason.TRUNCATED)
            return None
        header = Header(*HEADER.unpack_from(datagram))
        if header.type == TYPE_DATA:
            return header
        if header.type == TYPE_INITIATION and self.is_hopeless(datagram, self._source, self._now):
            self._ledger.drop(DropReason.RATE_LIMITED)  # most of a flood ends here
        elif header.type in _HANDSHAKES:
            self._arrivals.append(Handshake(bytes(datagram)))
        else:
            self._ledger.drop(DropReason.UNKNOWN_TYPE)
        return None

    def _admissible(self, header: Header) -> Keypair | DropReason:
        """The cheap checks, in the design's order: index known, counter in the window."""
        segment, lane = header.index, header.lane
        if segment > header.last or header.last >= MAX_SEGMENTS or lane & 15 != self._lane:
            return DropReason.BAD_HEADER
        keypair = self._keypairs.get(header.receiver | lane << 32)
        if keypair is None or not keypair.usable(self._now):
            return DropReason.UNKNOWN_INDEX
        if not keypair.replay.check(header.counter):
            return DropReason.REPLAYED
        return keypair

    @staticmethod
    def _is_whole(header: Header, buffer: memoryview, start: int, step: int) -> bool:
        """Whether all segments of the burst lie at `start`, in order."""
        last_at = start + header.last * step
        if header.index or last_at + HEADER_SIZE >= len(buffer):
            return False
        return is_run_untrusted(buffer, start, step, header.last + 1)

    # -- 2. in pieces ----------------------------------------------------------------------------

    def _piece(self, keypair: Keypair, header: Header, datagram: memoryview) -> None:
        table, ledger = self._reassembly, self._ledger
        taken = table.take(header, datagram[HEADER_SIZE:], self._source, self._now)
        ledger.queued_segments = table.held
        if taken.evicted:
            ledger.drop(DropReason.REASSEMBLY_FULL, taken.evicted)
        if taken.drop is not None:
            ledger.drop(taken.drop)
        if taken.ciphertext is not None:
            associated = memoryview(HEADER.pack(*header._replace(index=0)))
            self._whole = False
            self._open(keypair, header, associated, memoryview(taken.ciphertext))
            self._whole = True

    def expire(self, now: float) -> None:
        """Give up bursts whose missing segments did not come."""
        lost = self._reassembly.expire(now)
        self._ledger.queued_segments = self._reassembly.held
        if lost:
            self._ledger.drop(DropReason.REASSEMBLY_EXPIRED, lost)

    # -- 3. opening ------------------------------------------------------------------------------

    def _open(
        self, keypair: Keypair, header: Header, associated: memoryview, ciphertext: memoryview
    ) -> None:
        segments = header.last + 1
        size = len(ciphertext) - TAG_SIZE
        if size < 0:
            self._ledger.drop(DropReason.TRUNCATED, segments)
            return
        plaintext = self._plaintext[:size]
        try:
            keypair.open_into(header.counter, ciphertext, associated, plaintext)
        except AuthError:
            self._ledger.drop(DropReason.BAD_TAG, segments)
            return
        keypair.replay.accept(header.counter)
        self._ledger.consumed_out += segments
        if not keypair.confirmed:
            self._arrivals.append(Proven(keypair))
        peer = self.find(keypair.node) if keypair.node is not None else None
        if peer is not None:
            peer.heard_at = self._now
            peer.rx_bytes += len(ciphertext) + segments * HEADER_SIZE
            if size > _KIND_AT and plaintext[_KIND_AT] != _CONTROL:
                peer.used += 1
            if peer.endpoint != self._source and not keypair.lane:  # lane 0 alone says where
                self._arrivals.append(Moved(keypair))
        self._blocks(keypair, peer, plaintext)

    # -- 4. and 5. packets -----------------------------------------------------------------------

    def _blocks(self, keypair: Keypair, peer: PeerPath | None, plaintext: memoryview) -> None:
        ledger = self._ledger
        position, end = 0, len(plaintext)
        while position < end:
            try:
                kind, body = block_untrusted(plaintext, position)
            except WireError:
                ledger.opened_in += 1
                self._lose(peer, DropReason.BAD_BLOCK)
                return
            stride = len(body) + BLOCK_HEADER_SIZE
            if kind == _OFFLOADED:
                count = self._run(plaintext, position, stride) if self._coalescer else 1
                if count > 1:
                    self._packets(peer, plaintext, position, stride, count)
                    position += count * stride
                    continue
                ledger.opened_in += 1
                self._packet(peer, body, 1)
            else:
                ledger.opened_in += 1
                self._other(keypair, peer, kind, body)
            position += stride

    def _other(self, keypair: Keypair, peer: PeerPath | None, kind: int, body: memoryview) -> None:
        if kind == BlockKind.CONTROL:
            self._arrivals.append(Control(keypair, bytes(body), self._whole))
        elif kind == BlockKind.PACKET:
            self._packet(peer, memoryview(NO_OFFLOAD + bytes(body)), 1)
        else:
            self._lose(peer, DropReason.UNKNOWN_BLOCK)

    @staticmethod
    def _run(plaintext: memoryview, position: int, stride: int) -> int:
        """How many blocks from `position` on are worth a look together; 1: this one is alone."""
        most = (len(plaintext) - position) // stride
        if most < RUN_LEAST or stride < LEAST_STRIDE:
            return 1
        # The last of the shortest run first: that is one comparison, and mostly all it takes.
        header = plaintext[position : position + BLOCK_HEADER_SIZE]
        ahead = position + (RUN_LEAST - 1) * stride
        if plaintext[ahead : ahead + BLOCK_HEADER_SIZE] != header:
            return 1
        count = run_length_untrusted(plaintext, position, stride, most)
        return count if count >= RUN_LEAST else 1

    def _packets(
        self, peer: PeerPath | None, plaintext: memoryview, start: int, stride: int, count: int
    ) -> None:
        self._ledger.opened_in += count
        joined = self._coalescer.joined_untrusted(plaintext, start, stride, count)
        for packet, packets in joined:
            self._packet(peer, packet, packets)

    def _packet(self, peer: PeerPath | None, packet: memoryview, packets: int) -> None:
        """Deliver a packet, or one that `packets` were joined to."""
        if peer is None:
            # A joiner has no addresses yet.
            self._lose(peer, DropReason.SPOOFED_SOURCE, packets)
            return
        flow = flow_untrusted(packet, VIRTIO_HEADER_SIZE, len(packet))
        if flow is None or rewrites_addresses_untrusted(packet):
            self._lose(peer, DropReason.MALFORMED, packets)
        elif self._flows.get(flow) is peer or self._admit(peer, flow, packets):
            if self._deliver(packet):
                self._ledger.tun_out += packets
            else:
                self._lose(peer, DropReason.DELIVERY_FAILED, packets)

    def _admit(self, peer: PeerPath, flow: bytes, packets: int) -> bool:
        """The slow path, once per flow: may this peer send this, and is it for us?"""
        sender, owner = owners(self._routes, flow)
        if sender != peer.node:
            self._lose(peer, DropReason.SPOOFED_SOURCE, packets)
            self.strays.note(peer.node, Fault.FOREIGN_SOURCE, flow, packets, self._now)
            return False
        if owner != self._local:
            self._lose(peer, DropReason.NOT_OURS, packets)
            self.strays.note(peer.node, Fault.FOREIGN_DESTINATION, flow, packets, self._now)
            return False
        if len(self._flows) >= MAX_FLOWS:
            self._flows.clear()
        self._flows[flow] = peer
        return True

    def forget_flows(self) -> None:
        """Routes changed: check every flow again."""
        self._flows.clear()

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        assert len(self._flows) <= MAX_FLOWS
        assert self._ledger.queued_segments == self._reassembly.held
        self._reassembly.check_invariants()

    def _lose(self, peer: PeerPath | None, reason: DropReason, packets: int = 1) -> None:
        self._ledger.drop(reason, packets)
        if peer is not None:
            peer.drops[reason] = peer.drops.get(reason, 0) + packets
