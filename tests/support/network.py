"""Three packet paths with a network between them, and the right answers about all of it.

Nothing is compared with what the code under test says of itself. `fate_out` and `fate_in` route
with `ipaddress`, `tests.support.judge` cuts super-packets, and a set of segments says which bursts
arrived. `Network.judge` demands equality: each packet, in its order, bit for bit, each counter.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address, ip_network
from itertools import cycle
from struct import unpack_from

from overlay.drops import DropReason
from overlay.forwarding.outbound import LARGE
from overlay.session.suites import Suite
from overlay.session.transport import Keypair
from overlay.types import Endpoint, NodeId
from overlay.wire.burst import BLOCK_HEADER_SIZE, BlockKind, block, cut_copies
from overlay.wire.header import HEADER_SIZE, TYPE_DATA, Header
from overlay.wire.virtio import READ_SIZE
from tests.support.judge import NEEDS_CSUM, VNET, is_same, parted, segments
from tests.support.pair import ALICE, BLOCKS, BOB, CAROL, ENDPOINTS, Side, keypairs, pieces
from tests.support.trains import NODES

SESSIONS = ((ALICE, BOB), (BOB, CAROL), (CAROL, ALICE))
QUEUED_PACKETS, QUEUED_BYTES = 8, 100_000
MAX_BLOCK = 0xFFFF
GRO_BYTES, GRO_SEGMENTS = 65_535, 64
NOT_ROUTED = [
    *map(ip_network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "169.254.0.0/16")),
    *map(ip_network, ("255.255.255.255/32", "ff00::/8", "fe80::/10", "::/127", "::ffff:0:0/96")),
]
LATER = 10.0


# -- the judge's routing ---------------------------------------------------------------------------


def addresses(packet: bytes) -> tuple[bytes, bytes] | None:
    """Source and destination; None for what is no IP packet, or not as long as it says."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        header, total = (packet[0] & 15) * 4, unpack_from(">H", packet, 2)[0]
        return (packet[12:16], packet[16:20]) if 20 <= header <= total == len(packet) else None
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return None
    fits = unpack_from(">H", packet, 4)[0] + 40 == len(packet)
    return (packet[8:24], packet[24:40]) if fits else None


@cache
def owner(address: bytes) -> NodeId | None:
    host = ip_address(address)
    return next((node for node in NODES if host in BLOCKS[node][host.version == 6]), None)


@cache
def is_routed(address: bytes) -> bool:
    host = ip_address(address)
    return not any(host in prefix for prefix in NOT_ROUTED if prefix.version == host.version)


def flow_of(frame: bytes) -> bytes:
    """What packets that must stay in order have in common: addresses, and what is behind them.

    Those are the ports, where there are neither IP options nor extension headers.
    """
    packet = frame[VNET.size :]
    return packet[12:24] if packet[0] >> 4 == 4 else packet[8:44]


def fate_out(node: NodeId, frame: bytes) -> NodeId | DropReason:
    """Whom a node has to send a packet to, or why to nobody."""
    if len(frame) > MAX_BLOCK:
        return DropReason.OVERSIZE
    ends = addresses(frame[VNET.size :])
    if ends is None:
        return DropReason.MALFORMED
    source, target = ends
    if not is_routed(target):
        return DropReason.MULTICAST
    if owner(source) != node:
        return DropReason.FOREIGN_SOURCE
    there = owner(target)
    if there is None:
        return DropReason.NO_ROUTE
    return DropReason.LOCAL_DESTINATION if there == node else there


def fate_in(sender: NodeId, node: NodeId, frame: bytes) -> DropReason | None:
    """Why a packet out of a burst must not be delivered, or None."""
    ends = addresses(frame[VNET.size :])
    if ends is None or _changes_header(frame):
        return DropReason.MALFORMED
    if owner(ends[0]) != sender:
        return DropReason.SPOOFED_SOURCE
    return None if owner(ends[1]) == node else DropReason.NOT_OURS


def _changes_header(frame: bytes) -> bool:
    """Whether a checksum is to be completed from within the IP header on."""
    vnet, packet = parted(frame)
    needed = bool(vnet.flags & NEEDS_CSUM)
    return needed and vnet.csum_start < (40 if packet[0] >> 4 == 6 else 20)


def blocks(plaintext: bytes) -> Iterator[tuple[int | None, bytes]]:
    """(kind, body) of each block, as the picture in the protocol document has it; None: broken."""
    at = 0
    while at < len(plaintext):
        length = int.from_bytes(plaintext[at : at + 2], "big")
        if at + 3 + length > len(plaintext):
            yield None, b""
            return
        yield plaintext[at + 2], plaintext[at + 3 : at + 3 + length]
        at += 3 + length


# -- nodes -----------------------------------------------------------------------------------------


class Node(Side):
    """A packet path whose two edges refuse now and then."""

    def __init__(self, node: NodeId, *, coalesce: bool, incomplete: int, refusing: int) -> None:
        super().__init__(
            node,
            queued_packets=QUEUED_PACKETS,
            queued_bytes=QUEUED_BYTES,
            incomplete=incomplete,
            coalesce=coalesce,
        )
        self.attempts: list[tuple[Endpoint, bytes, int, bool]] = []
        self.writes: list[tuple[bytes, bool]] = []
        self.expected: list[bytes] = []
        self.lost_out: Counter[DropReason] = Counter()
        self.lost_in: Counter[DropReason] = Counter()
        self.arrived: dict[tuple[int, int], set[int]] = {}
        self._refusals = random.Random(refusing)
        self._rate = 0.1 if refusing else 0.0

    def transmit(self, endpoint: Endpoint, datagrams: memoryview, step: int) -> bool:
        taken = self._refusals.random() >= self._rate
        self.attempts.append((endpoint, bytes(datagrams), step, taken))
        return taken

    def deliver(self, packet: memoryview) -> bool:
        taken = self._refusals.random() >= self._rate
        self.writes.append((bytes(packet), taken))
        return taken

    def read(self, frames: list[bytes], batches: tuple[int, ...]) -> None:
        """One pass: as many packets in one go as `batches` says (0: one, by `accept`)."""
        waiting, sizes = deque(frames), cycle(batches)
        while waiting:
            most = next(sizes)
            if not most:
                self.accept(waiting.popleft())
                continue
            room, at, read = self.outbound.room(), 0, []
            while waiting and len(read) < most and at + READ_SIZE <= len(room):
                frame = waiting.popleft()
                room[at : at + len(frame)] = frame
                at += len(frame) + BLOCK_HEADER_SIZE
                read.append(len(frame))
                if len(frame) > LARGE:
                    break
            self.outbound.accept_run(read, 0.0)
        self.outbound.flush(0.0)
        while self.outbound.waiting:
            self.outbound.flush(0.0)
        self.check()
        self.outbound.rejected.clear()


@dataclass(frozen=True)
class Weather:
    """What the network does to datagrams; rates from 0 to 1."""

    loss: float = 0.0
    repeat: float = 0.0
    displacement: int = 0
    split: float = 0.0
    seed: int = 0


class Network:
    """Three nodes, and what is on the wire between them."""

    def __init__(self, *, mtus, coalesce, incomplete=1000, refusing=0, suite=Suite.AES_256_GCM):
        self.nodes = {
            node: Node(node, coalesce=coalesce, incomplete=incomplete, refusing=refusing)
            for node in NODES
        }
        self.keys: dict[int, tuple[NodeId, Keypair]] = {}
        self.up: set[tuple[NodeId, NodeId]] = set()
        self.waiting: dict[tuple[NodeId, NodeId], list[bytes]] = {}
        self.wire: list[tuple[NodeId, NodeId, bytes]] = []
        self.plain: dict[tuple[int, int], bytes] = {}
        self.suite = suite
        for node in NODES:
            for peer, path in self.nodes[node].peers.items():
                path.use(ENDPOINTS[peer], mtus[NODES.index(node)])

    def connect(self, number: int) -> None:
        """A session between two nodes; what waited for it is sent."""
        one, two = SESSIONS[number]
        if (one, two) in self.up:
            return
        initiator, responder = keypairs(one, two, suite=self.suite, indexes=number + 1)
        responder.confirmed = True
        for node, peer, keypair in ((one, two, initiator), (two, one, responder)):
            self.nodes[node].use(peer, keypair)
            self.keys[keypair.local_index] = (node, keypair)
            self.up.add((node, peer))
        for node, peer in ((one, two), (two, one)):
            self.nodes[node].outbound.release(self.nodes[node].peers[peer], 0.0)
            self._sent(node, {peer: self.waiting.pop((node, peer), [])})

    def disconnect(self, number: int) -> None:
        """No session, and none in sight."""
        for node, peer in (SESSIONS[number], SESSIONS[number][::-1]):
            if (node, peer) not in self.up:
                here = self.nodes[node]
                here.outbound.abandon(here.peers[peer])
                lost = len(self.waiting.pop((node, peer), []))
                here.lost_out[DropReason.NO_SESSION] += lost

    # -- sending -----------------------------------------------------------------------------------

    def send(self, node: NodeId, frames: list[bytes], batches: tuple[int, ...]) -> None:
        """One pass over a node's TUN; what leaves is exactly what has to."""
        here = self.nodes[node]
        due: dict[NodeId, list[bytes]] = {}
        for frame in frames:
            fate = fate_out(node, frame)
            if isinstance(fate, DropReason):
                here.lost_out[fate] += 1
            elif (node, fate) in self.up:
                due.setdefault(fate, []).append(frame)
            else:
                self._queue(here, fate, frame)
        here.read(frames, batches)
        self._sent(node, due)

    def _queue(self, here: Node, peer: NodeId, frame: bytes) -> None:
        queue = self.waiting.setdefault((here.node, peer), [])
        if len(queue) == QUEUED_PACKETS or sum(map(len, queue)) + len(frame) > QUEUED_BYTES:
            here.lost_out[DropReason.QUEUE_FULL] += 1
        else:
            queue.append(frame)

    def _sent(self, node: NodeId, due: dict[NodeId, list[bytes]]) -> None:
        """Look at what a node handed to UDP: all that was due, in datagrams that fit.

        Each flow in order; small packets may overtake the bulk of other flows.
        """
        here = self.nodes[node]
        attempts, here.attempts = here.attempts, []
        bursts: dict[tuple[int, int], list[tuple[bytes, bool]]] = {}
        for endpoint, datagrams, step, taken in attempts:
            target = next(peer for peer in NODES if ENDPOINTS[peer] == endpoint)
            path = here.peers[target]
            assert len(datagrams) + endpoint.ip_overhead + 14 <= 0xFFFF
            for datagram in pieces([(endpoint, datagrams, step)]):
                assert len(datagram) + endpoint.ip_overhead <= path.path_mtu
                header = Header.decode_untrusted(datagram)
                bursts.setdefault((header.receiver, header.counter), []).append((datagram, taken))
                if taken:
                    self.wire.append((node, target, datagram))
        left: dict[tuple[NodeId, bytes], deque[bytes]] = {}
        for peer, frames in due.items():
            for frame in frames:
                left.setdefault((peer, flow_of(frame)), deque()).append(frame)
        for key, parts in bursts.items():
            target, plaintext = self._opened(key, [datagram for datagram, _ in parts])
            found = list(blocks(plaintext))
            for kind, frame in found:
                assert kind == BlockKind.OFFLOADED
                assert left[target, flow_of(frame)].popleft() == frame
            if not all(taken for _, taken in parts):
                here.lost_out[DropReason.SEND_FAILED] += len(found)
        assert not any(left.values()), "packets that were due have not been sent"

    def _opened(self, key: tuple[int, int], datagrams: list[bytes]) -> tuple[NodeId, bytes]:
        headers = [Header.decode_untrusted(datagram) for datagram in datagrams]
        assert [header.index for header in headers] == list(range(headers[0].last + 1))
        sealed = b"".join(datagram[HEADER_SIZE:] for datagram in datagrams)
        plaintext = bytearray(len(sealed) - 16)
        target, keypair = self.keys[key[0]]
        keypair.open_into(key[1], sealed, headers[0].associated_data(), plaintext)
        self.plain[key] = bytes(plaintext)
        return target, self.plain[key]

    def forge(self, node: NodeId, peer: NodeId, bodies: list[tuple[int, bytes]], tail: int) -> None:
        """A member sends what its own kernel would never have been allowed to."""
        here = self.nodes[node]
        keypair = here.peers[peer].keypair
        if keypair is None:
            return
        plaintext = b""
        for kind, body in bodies:
            if len(plaintext) + len(body) < 60_000:
                plaintext += block(BlockKind.OFFLOADED, body)[:2] + bytes([kind]) + body
        plaintext = plaintext[: len(plaintext) - tail] if tail < len(plaintext) else plaintext
        size = 1300
        last = (len(plaintext) + 15) // size
        key = keypair.remote_index, keypair.next_counter()
        header = Header(TYPE_DATA, last=last, receiver=key[0], counter=key[1]).encode()
        sealed = bytearray(len(plaintext) + 16)
        keypair.seal_into(key[1], plaintext, header, sealed)
        self.plain[key] = plaintext
        for datagram in cut_copies(header, bytes(sealed), size):
            self.wire.append((node, peer, datagram))

    # -- receiving ---------------------------------------------------------------------------------

    def carry(self, weather: Weather) -> None:
        """Everything on the wire arrives, or does not."""
        rng = random.Random(weather.seed)
        flying = []
        for place, datagram in enumerate(self.wire):
            times = 0 if rng.random() < weather.loss else 1 + (rng.random() < weather.repeat)
            for _ in range(times):
                flying.append((place + rng.uniform(0, weather.displacement), datagram))
        flying.sort(key=lambda one: one[0])
        self.wire.clear()
        for sender, target, datagrams in _reads([one for _, one in flying], weather.split, rng):
            self._receive(sender, target, datagrams)

    def _receive(self, sender: NodeId, target: NodeId, datagrams: list[bytes]) -> None:
        here = self.nodes[target]
        for datagram in datagrams:
            header = Header.decode_untrusted(datagram)
            key = header.receiver, header.counter
            seen = here.arrived.setdefault(key, set())
            before = len(seen)
            seen.add(header.index)
            if before == header.last < len(seen):
                self._expect(sender, here, self.plain[key])
        here.receive(b"".join(datagrams), len(datagrams[0]), source=ENDPOINTS[sender])

    @staticmethod
    def _expect(sender: NodeId, here: Node, plaintext: bytes) -> None:
        for kind, body in blocks(plaintext):
            if kind is None:
                here.lost_in[DropReason.BAD_BLOCK] += 1
            elif kind in (BlockKind.OFFLOADED, BlockKind.PACKET):
                frame = body if kind == BlockKind.OFFLOADED else bytes(VNET.size) + body
                fate = fate_in(sender, here.node, frame)
                if fate is None:
                    here.expected.append(frame)
                else:
                    here.lost_in[fate] += 1
            elif kind != BlockKind.CONTROL:
                here.lost_in[DropReason.UNKNOWN_BLOCK] += 1

    # -- the verdict -------------------------------------------------------------------------------

    def judge(self) -> None:
        """All that came out, and every counter, is as it has to be."""
        for here in self.nodes.values():
            waiting = sum(len(q) for (node, _), q in self.waiting.items() if node == here.node)
            assert here.ledger.queued_packets == waiting
            here.inbound.expire(LATER)
            here.check()
            delivered = sum(taken for _, taken in _matched(here.writes, here.expected))
            assert delivered == here.ledger.tun_out
            refused = len(here.expected) - delivered
            lost = Counter(here.ledger.drops)
            for reason in LATE:
                lost.pop(reason, None)
            wanted = here.lost_out + here.lost_in
            wanted += Counter({DropReason.DELIVERY_FAILED: refused})
            assert lost == wanted
            assert here.ledger.queued_segments == 0


# Datagrams that no opened burst was made of; how many follows from the books, which balance.
LATE = (DropReason.DUPLICATE_SEGMENT, DropReason.REPLAYED, DropReason.REASSEMBLY_EXPIRED)


def _reads(flying, split: float, rng: random.Random):
    """What `recvmsg` returns: runs of one sender to one receiver, of one size but for the last."""
    run: list[bytes] = []
    ends = None
    for sender, target, datagram in flying:
        fits = (
            ends == (sender, target)
            and len(datagram) <= len(run[0]) == len(run[-1])
            and (len(run) + 1) * len(run[0]) <= GRO_BYTES
            and len(run) < GRO_SEGMENTS
        )
        if not fits or rng.random() < split:
            if run:
                yield *ends, run
            run, ends = [], (sender, target)
        run.append(datagram)
    if run:
        yield *ends, run


def _matched(writes: list[tuple[bytes, bool]], expected: list[bytes]) -> list[tuple[int, int]]:
    """(packets, packets taken) of each write; fails unless they are the expected ones, in order."""
    at, found = 0, []
    for frame, taken in writes:
        assert at < len(expected), "a packet that nobody sent, or twice"
        if frame == expected[at]:
            count = 1
        else:
            cut = segments(frame)
            count = len(cut)
            assert at + count <= len(expected), "more packets in one than there were"
            for packet, one in zip(cut, expected[at : at + count], strict=True):
                assert is_same(packet, one)
        found.append((count, count * taken))
        at += count
    assert at == len(expected), f"{len(expected) - at} packets are missing"
    return found
