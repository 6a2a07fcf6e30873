"""Packed bursts to datagrams on the wire: one AEAD call, at most one copy, one or two sends.

    plaintext --seal--> ciphertext --cut, one strided copy--> headed segments --transmit--> UDP

Also for control messages, which travel in bursts of their own.
"""

from __future__ import annotations

from collections.abc import Callable

from overlay.drops import DropReason
from overlay.effects import SendDatagram
from overlay.forwarding.ledger import Ledger
from overlay.forwarding.path import PeerPath
from overlay.session.transport import Keypair
from overlay.types import Endpoint, NodeId
from overlay.wire.burst import MAX_RUN, TAG_SIZE, BlockKind, Cutter, block, segment_payload
from overlay.wire.control import goes_at_once
from overlay.wire.header import HEADER, HEADER_SIZE, MAX_SEGMENTS, TYPE_DATA

Transmit = Callable[[Endpoint, memoryview, int], bool]
"""`transmit(endpoint, datagrams, segment_size)`: hand datagrams of `segment_size` bytes each (the
last may be shorter; 0: there is one) to UDP. False when the kernel refused them. The buffer may be
reused when it returns."""


class Sealer:
    """Seals bursts and sends them.

    Args:
        ledger: where the fate of every packet is counted.
        transmit: sends datagrams.

    Attributes:
        began: peers whose path carries its first packets; whoever measures paths empties it. In a
            lane's process nobody does, but each peer is in it once.
    """

    def __init__(self, ledger: Ledger, transmit: Transmit) -> None:
        self._ledger = ledger
        self._transmit = transmit
        self._cutter = Cutter()
        self.began: set[NodeId] = set()

    def seal(self, peer: PeerPath, keypair: Keypair, plaintext: memoryview, packets: int) -> None:
        """Send a burst of `packets` blocks, and count what became of them."""
        endpoint = peer.endpoint
        if endpoint is None:
            self.lose(peer, DropReason.NO_ENDPOINT, packets)
            return
        datagrams, step = self._datagrams(keypair, plaintext, peer.payload)
        peer.tx_bytes += len(datagrams)
        peer.used += 1
        if not peer.carried:
            self.began.add(peer.node)
        peer.carried += 1
        if self._transmit_runs(endpoint, datagrams, step):
            self._ledger.sent_out += packets
        else:
            self.lose(peer, DropReason.SEND_FAILED, packets)

    def _datagrams(
        self, keypair: Keypair, plaintext: memoryview, payload: int
    ) -> tuple[memoryview, int]:
        size = len(plaintext) + TAG_SIZE
        counter = keypair.next_counter()
        last = (size - 1) // payload
        assert last < MAX_SEGMENTS
        header = HEADER.pack(TYPE_DATA, 0, last, keypair.lane, keypair.remote_index, counter)
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

    def control(
        self, keypair: Keypair, message: bytes, endpoint: Endpoint, path_mtu: int
    ) -> SendDatagram:
        """A burst with one control message, as an effect: most must not overtake a `Persist`."""
        payload = segment_payload(path_mtu, endpoint.ip_overhead)
        plaintext = memoryview(block(BlockKind.CONTROL, message))
        datagrams, step = self._datagrams(keypair, plaintext, payload)
        return SendDatagram(endpoint, bytes(datagrams), step, goes_at_once(message))

    def empty(self, keypair: Keypair, endpoint: Endpoint, path_mtu: int) -> SendDatagram:
        """A burst with nothing in it: all that it says is that we live."""
        payload = segment_payload(path_mtu, endpoint.ip_overhead)
        datagrams, step = self._datagrams(keypair, memoryview(b""), payload)
        return SendDatagram(endpoint, bytes(datagrams), step, at_once=True)

    def lose(self, peer: PeerPath, reason: DropReason, packets: int) -> None:
        """Count packets to `peer` as lost."""
        self._ledger.drop(reason, packets)
        peer.drops[reason] = peer.drops.get(reason, 0) + packets
