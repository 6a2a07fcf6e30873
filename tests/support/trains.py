"""Trains: what a pod's kernel hands over in one go, and what it would never hand over.

A train is a run of packets that look alike, as bulk traffic does, with oddities here and there:
another port, a hole in the numbers, a wrong checksum. `packets` makes the bytes, each packet behind
its virtio_net_hdr; the same train is always the same bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address
from struct import pack
from typing import Any

from overlay.types import NodeId
from tests.support.builders import (
    ACK,
    FIN,
    ICMP,
    ICMPV6,
    PSH,
    SYN,
    TCP,
    UDP,
    ip4,
    ip6,
    pseudo4,
    pseudo6,
    slow_checksum,
)
from tests.support.judge import CWR, NEEDS_CSUM, TCPV4, TCPV6, UDP_L4, VNET, Vnet
from tests.support.pair import ALICE, BLOCKS, BOB, CAROL

NODES = (ALICE, BOB, CAROL)
ECE, URG = 0x40, 0x20
GRE = 47
HOP_BY_HOP, FRAGMENT = 0, 44
TIMESTAMPS = bytes.fromhex("0101080a0000000b0000000c")
CHECKSUM_AT = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}
GSO = {(4, TCP): TCPV4, (6, TCP): TCPV6, (4, UDP): UDP_L4, (6, UDP): UDP_L4}
DATA_VALID = 2
ECN_GSO = 0x80

STRANGE = {
    4: ["10.244.200.1", "192.0.2.77", "224.0.0.251", "255.255.255.255", "169.254.1.1", "127.0.0.1"],
    6: ["fd00:0:0:99::1", "2001:db8::7", "ff02::1", "fe80::1", "::1", "::ffff:10.0.0.1"],
}
"""Addresses that belong to no node: without a route, of others, and not to be routed at all."""


@dataclass(frozen=True)
class Train:
    """A run of packets.

    Attributes:
        hop: to whom: 1 and 2 are the other two nodes, 0 is the sender's own.
        protocol: of IP.
        count: packets.
        size: bytes of data in each; of a super-packet, in each segment.
        segments: 0: packets of wire size; else each is a super-packet of as many segments.
        checksum: of TCP and UDP: partial, complete, valid (somebody checked it), wrong, none, or
            spoilt (partial, and will be wrong).
        front: bytes of IPv4 options, or an IPv6 extension header, in front of the transport.
        damage: (position, bits) that are flipped in every packet.
        odd: (index, field, value) of each packet that is not like the others.
        seed: of the data.
    """

    hop: int = 1
    version: int = 4
    protocol: int = UDP
    count: int = 1
    size: int = 64
    segments: int = 0
    checksum: str = "partial"
    identification: int = 7
    sequence: int = 1
    flags: int = ACK
    tos: int = 0
    port: int = 2000
    host: int = 2
    ttl: int = 64
    options: bytes = b""
    front: bool = False
    fragment: int = 2
    damage: tuple[int, int] = (0, 0)
    odd: tuple[tuple[int, str, Any], ...] = ()
    seed: int = 0


def packets(train: Train, sender: NodeId) -> Iterator[bytes]:
    """The packets of a train that starts at a pod of `sender`."""
    odd: dict[int, list[tuple[str, Any]]] = {}
    for index, field, value in train.odd:
        odd.setdefault(index % train.count, []).append((field, value))
    rng = random.Random(train.seed)
    identification, sequence = train.identification, train.sequence
    for index in range(train.count):
        shape, flips = (
            replace(train, identification=identification, sequence=sequence),
            [train.damage],
        )
        data: int | None = None
        source: str | None = None
        target: str | None = None
        for field, value in odd.get(index, ()):
            match field:
                case "flip":
                    flips.append(value)
                case "count on":  # identification by so much more; -1 repeats the one before
                    shape = replace(shape, identification=identification + value)
                case "go on":  # the same for the sequence, in packets
                    shape = replace(shape, sequence=sequence + value * train.size)
                case "zero":  # data so that the checksum is zero; of TCP written as `value`
                    data = value
                case "source":
                    source = STRANGE[train.version][value]
                case "target":
                    target = STRANGE[train.version][value]
                case _:
                    shape = replace(shape, **{field: value})
        # The last segment of a super-packet is mostly shorter.
        missing = train.seed % shape.size if shape.segments else 0
        content = rng.randbytes(shape.size * max(shape.segments, 1) - missing)
        yield _flipped(_frame(shape, sender, content, source, target, zero=data), flips)
        identification = shape.identification + max(shape.segments, 1)
        sequence = shape.sequence + len(content)


def _flipped(frame: bytes, flips: list[tuple[int, int]]) -> bytes:
    changed = bytearray(frame)
    for at, bits in flips:
        changed[at % len(changed)] ^= bits
    return bytes(changed)


def _frame(
    shape: Train,
    sender: NodeId,
    content: bytes,
    source: str | None,
    target: str | None,
    *,
    zero: int | None,
) -> bytes:
    there = NODES[(NODES.index(sender) + shape.hop) % len(NODES)]
    near = _number(source) if source else _address(sender, shape.version, shape.host)
    far = _number(target) if target else _address(there, shape.version, 9)
    protocol = shape.protocol
    if protocol == ICMP and shape.version == 6:
        protocol = ICMPV6
    header = _transport(shape, protocol)
    content = content[: 0xFFFF - len(header) - (28 if shape.version == 4 else 0)]
    size = len(header) + len(content)
    if protocol == UDP:
        header = header[:4] + pack(">H", size) + header[6:]
    pseudo = (pseudo4 if shape.version == 4 else pseudo6)(near, far, protocol, size)
    if protocol == ICMP:
        pseudo = b""
    if zero is not None and len(content) >= 2:
        # The word that makes the sum 0xFFFF, and the checksum zero.
        content = bytes(2) + content[2:]
        content = pack(">H", slow_checksum(pseudo + header + content)) + content[2:]
    vnet, header = _summed(shape, protocol, pseudo, header, content, zero or 0)
    packet = _ip(shape, protocol, near, far, header + content)
    return vnet.encode() + packet


@lru_cache
def _number(address: str) -> int:
    return int(ip_address(address))


@lru_cache
def _address(node: NodeId, version: int, host: int) -> int:
    return int(BLOCKS[node][version == 6][host])


def _transport(shape: Train, protocol: int) -> bytes:
    """The header, its checksum zero."""
    if protocol == UDP:
        return pack(">HHHH", 1000, shape.port, 0, 0)
    if protocol == TCP:
        words = 5 + len(shape.options) // 4
        sequence = shape.sequence % (1 << 32)
        head = pack(">HHIIBBH", 1000, shape.port, sequence, 9, words << 4, shape.flags, 512)
        return head + bytes(4) + shape.options
    if protocol in (ICMP, ICMPV6):
        return pack(">BBHHH", 8 if protocol == ICMP else 128, 0, 0, 1, shape.sequence & 0xFFFF)
    return bytes(4)


def _summed(
    shape: Train, protocol: int, pseudo: bytes, header: bytes, content: bytes, zero: int
) -> tuple[Vnet, bytes]:
    """The offload header, and the transport header with what its checksum field holds."""
    at = CHECKSUM_AT.get(protocol)
    if at is None or shape.checksum == "none":
        return Vnet(), header
    full = slow_checksum(pseudo + header + content)
    full = full or (zero if protocol == TCP else 0xFFFF)
    partial = slow_checksum(pseudo) ^ 0xFFFF
    start = (40 if shape.version == 6 else 20) + 8 * shape.front
    unfinished = shape.segments or shape.checksum in ("partial", "spoilt")
    transport = protocol in (TCP, UDP) and bool(unfinished)
    value = partial if transport else full
    value ^= 0x0101 * (shape.checksum in ("wrong", "spoilt"))
    header = header[:at] + pack(">H", value) + header[at + 2 :]
    if shape.segments:
        kind = GSO[shape.version, protocol]
        if protocol == TCP and shape.flags & CWR:
            kind |= ECN_GSO
        return Vnet(NEEDS_CSUM, kind, start + len(header), shape.size, start, at), header
    if transport:
        return Vnet(NEEDS_CSUM, csum_start=start, csum_offset=at), header
    return Vnet(DATA_VALID if shape.checksum == "valid" else 0), header


def _ip(shape: Train, protocol: int, near: int, far: int, body: bytes) -> bytes:
    if shape.version == 4:
        options = bytes([1]) * 8 if shape.front else b""
        return ip4(
            protocol,
            near,
            far,
            body,
            ttl=shape.ttl,
            tos=shape.tos,
            identification=shape.identification & 0xFFFF,
            flags=shape.fragment & 7,
            fragment_offset=(shape.fragment >> 3) * 8,
            options=options,
        )
    if shape.front:
        body = bytes([protocol, 0, 1, 4, 0, 0, 0, 0]) + body
        protocol = HOP_BY_HOP
    if shape.fragment != 2:
        word = (shape.fragment >> 3) * 8 | (shape.fragment & 1)
        body = pack(">BxHI", protocol, word, shape.identification & 0xFFFF) + body
        protocol = FRAGMENT
    body = body[:0xFFFF]
    return ip6(protocol, near, far, body, ttl=shape.ttl, traffic_class=shape.tos)


# -- any train -------------------------------------------------------------------------------------

SMALL = [1, 2, 7, 64, 64, 64, 100, 101, 333, 536, 1000, 1372, 1400, 1448, 1472]
LARGE = [4000, 8972, 16_300, 16_384, 16_400, 33_000, 60_000, 65_400, 65_507, 65_535]
COUNTS = [1, 3, 7, 8, 9, 15, 16, 17, 20, 31, 40, 63, 64, 65, 100, 130]
PROTOCOLS = [UDP] * 6 + [TCP] * 6 + [ICMP, GRE]
CHECKSUMS = ["partial"] * 6 + ["complete"] * 3 + ["valid", "wrong", "spoilt", "none"]
FLAGS = [ACK, ACK | PSH, ACK | PSH, ACK | PSH, ACK | FIN, ACK | CWR, ACK | ECE, ACK | URG, SYN, 0]
FRAGMENTS = [0, 1, 2, 3, 9, 16]
ODDITIES: dict[str, Callable[[random.Random], Any]] = {
    "flip": lambda rng: _damage(rng),
    "count on": lambda rng: rng.choice([-2, -1, 1, 2]),
    "go on": lambda rng: rng.choice([-2, -1, 1, 2]),
    "flags": lambda rng: rng.choice(FLAGS),
    "tos": lambda rng: rng.choice([1, 2, 3, 184]),
    "ttl": lambda rng: rng.randint(1, 255),
    "port": lambda _: 2001,
    "host": lambda rng: rng.choice([3, 255]),
    "checksum": lambda rng: rng.choice(CHECKSUMS),
    "zero": lambda rng: rng.choice([0, 0xFFFF]),
    "size": lambda rng: rng.choice([1, 63, 64, 65, 200]),
    "front": lambda rng: rng.random() < 0.5,
    "fragment": lambda rng: rng.choice(FRAGMENTS),
    "protocol": lambda rng: rng.choice(PROTOCOLS),
    "hop": lambda rng: rng.randrange(3),
    "target": lambda rng: rng.randrange(6),
    "source": lambda rng: rng.randrange(6),
}
"""What can be odd about a packet, and how."""


def _damage(rng: random.Random) -> tuple[int, int]:
    """A bit somewhere in the front, or in the lengths."""
    place = rng.choice([rng.randrange(90), rng.randrange(VNET.size, VNET.size + 6)])
    return place, 1 << rng.randrange(8)


LIKELY = ["count on", "go on", "flags", "checksum"] * 3
"""Those that joining has to have an eye on, and routing has not."""

OF_SUPER_PACKETS = set(ODDITIES) - {"protocol", "size", "front", "fragment"}
"""What their headers say of them has to stay true: the kernel makes no others."""


def train_of(seed: int) -> Train:
    """Train number `seed`: mostly what bulk traffic looks like, sometimes anything."""
    rng = random.Random(seed)
    protocol, size, count, segments = rng.choice(PROTOCOLS), rng.choice(SMALL), 0, 0
    kind = rng.choices(["small", "super", "large"], [6, 1, 1])[0]
    if kind == "large":
        size, count = rng.choice(LARGE), rng.randint(1, 4)
    elif kind == "super" and protocol in (TCP, UDP):
        count, segments = rng.randint(1, 3), rng.randint(2, min(64, 65_000 // size))
    odd = []
    for _ in range(rng.choice([0, 0, 1, 2, 4])):
        field = rng.choice(sorted(OF_SUPER_PACKETS if segments else ODDITIES) + LIKELY)
        odd.append((rng.randrange(130), field, ODDITIES[field](rng)))
    return Train(
        hop=rng.choices([1, 2, 0], [6, 6, 1])[0],
        version=rng.choice([4, 6]),
        protocol=protocol,
        count=count or rng.choice(COUNTS),
        size=size,
        segments=segments,
        checksum=rng.choice(CHECKSUMS),
        identification=rng.choice([0, 7, 0x1234, 0x1234, 0xFFC0, 0xFFFE, 0xFFFF]),
        sequence=rng.choice([1, 0xFFFF_FF00]),
        flags=rng.choice([ACK] * 6 + FLAGS),
        tos=rng.choice([0, 0, 0, 2, 3]),
        options=rng.choice([b"", TIMESTAMPS]),
        front=rng.random() < 0.05 and not segments,
        fragment=rng.choice([2] * 20 + FRAGMENTS) if not segments else 2,
        odd=tuple(odd),
        seed=seed & 0xFF,
    )


def bulk_of(seed: int) -> Train:
    """Train number `seed` of those that may be joined, up to what is odd about some packets."""
    rng = random.Random(seed)
    protocol = rng.choice([TCP, UDP])
    fields = [*LIKELY, "flip", "tos", "ttl", "port", "zero", "size", "fragment", "front"]
    odd = []
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        field = rng.choice(fields)
        odd.append((rng.randrange(130), field, ODDITIES[field](rng)))
    version = rng.choice([4, 6])
    options = rng.choice([b"", TIMESTAMPS])
    front = rng.random() < 0.1
    # The offload header, and lengths and flags behind the addresses.
    fragile = [*range(10), *(10 * version - 10 + at for at in (4, 5, 12, 13)), rng.randrange(90)]
    headers = 10 * version - 20 + (20 + len(options) if protocol == TCP else 8) + 8 * front
    return Train(
        version=version,
        protocol=protocol,
        count=rng.choice(COUNTS),
        # Packets of one length, whatever is in them, or data of one length.
        size=rng.choice([rng.choice(SMALL), 120 - headers, 1400 - headers]),
        checksum=rng.choice(["partial"] * 6 + ["complete"] * 3 + ["valid", "spoilt"]),
        identification=rng.choice([0, 7, 0xFFC0, 0xFFF0]),
        sequence=rng.choice([1, 0xFFFF_FF00]),
        flags=rng.choice([ACK] * 8 + FLAGS),
        options=options,
        front=front,
        fragment=rng.choice([2] * 12 + FRAGMENTS),
        damage=(rng.choice(fragile), 1 << rng.randrange(8)) if rng.random() < 0.3 else (0, 0),
        odd=tuple(odd),
        seed=seed & 0xFF,
    )
