"""Parsers of what pods say to each other, and of how packets lie in bursts.

Views stay inside of what they view, replies are small and to whoever sent the packet, what is cut
or joined keeps its bytes.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from node.pinger import _reply_untrusted
from overlay.errors import WireError
from overlay.forwarding.coalesce import LEAST_STRIDE, Coalescer
from overlay.forwarding.flow import flow_untrusted, with_ports
from overlay.wire.burst import (
    BLOCK_HEADER_SIZE,
    BlockKind,
    Gatherer,
    block,
    blocks_untrusted,
    is_run_untrusted,
    run_length_untrusted,
)
from overlay.wire.header import HEADER_SIZE, MAX_SEGMENTS, TYPE_DATA, Header
from overlay.wire.icmp import IcmpError, error_reply, parse_echo_untrusted
from overlay.wire.ip import endpoints, is_unroutable, parse_untrusted
from overlay.wire.reassembly import Reassembly
from overlay.wire.transport import flow_untrusted as transport_flow
from overlay.wire.transport import icmp_untrusted, tcp_untrusted, udp_untrusted
from overlay.wire.virtio import (
    NO_OFFLOAD,
    PIECES_LIMIT,
    VIRTIO_HEADER_SIZE,
    VirtioHeader,
    segment_untrusted,
)
from tests.fuzz.target import Target
from tests.support.builders import (
    ICMPV6,
    TCP,
    UDP,
    icmp4,
    icmp_echo4,
    icmp_echo6,
    ip4,
    ip6,
    tcp4,
    tcp6,
    udp4,
    udp6,
)

A4, B4, A6, B6 = "10.244.0.2", "10.244.1.2", "fd00::2", "fd00:0:0:1::2"
NODE4, NODE6 = 0x0AF40001, 0xFD << 120 | 1
LONGEST_ERROR = {4: 576, 6: 1280}


def ip(data: bytes) -> None:
    """The headers of a packet: what both views say of it agrees, and lies inside of it."""
    view = parse_untrusted(data)
    ends = endpoints(data)
    flow = flow_untrusted(memoryview(data), 0, len(data))
    transport_flow(data)
    if flow is not None:
        assert ends is not None, "the packet path takes what the parser does not"
        with_ports(memoryview(data), 0, len(data))
    if view is None:
        return
    assert ends == (view.version, view.source, view.destination)
    assert 0 < view.start + 20 <= view.transport <= view.end <= len(data)
    tcp, udp, icmp = (read(data, view) for read in (tcp_untrusted, udp_untrusted, icmp_untrusted))
    assert sum(one is not None for one in (tcp, udp, icmp)) <= 1
    assert tcp is None or view.transport + 20 <= tcp.payload <= view.end
    if view.fragment_offset:
        assert (tcp, udp, icmp) == (None, None, None), "ports of a fragment that has none"


def icmp(data: bytes) -> None:
    """Replies to a packet that cannot go on."""
    parse_echo_untrusted(data)
    for version in (4, 6):
        _reply_untrusted(version, data)
    for error, mtu in ((IcmpError.NO_ROUTE, 0), (IcmpError.TOO_BIG, 1280)):
        view = parse_untrusted(data)
        source = NODE4 if view is None or view.version == 4 else NODE6
        reply = error_reply(error, data, source, mtu)
        if reply is None:
            continue
        assert view is not None
        said = parse_untrusted(reply)
        assert said is not None
        assert (said.source, said.destination) == (source, view.source)
        assert not is_unroutable(view.version, said.destination)
        assert len(reply) <= LONGEST_ERROR[view.version]
        assert error_reply(error, reply, source) is None, "an error about an error"


def virtio(data: bytes) -> None:
    """A super-packet becomes packets of wire size, or is refused; no byte of payload is lost."""
    try:
        header = VirtioHeader.decode_untrusted(data)
        packet = data[VIRTIO_HEADER_SIZE:]
        pieces = segment_untrusted(header, packet)
    except WireError:
        return
    assert 0 < len(pieces) <= PIECES_LIMIT
    was = endpoints(packet)
    if was is not None:
        assert {endpoints(piece) for piece in pieces} == {was}, "the addresses have changed"
    whole = parse_untrusted(packet)
    if len(pieces) > 1:
        assert whole is not None
        assert sum(map(len, pieces)) <= len(packet) + PIECES_LIMIT * 140


def burst(data: bytes) -> None:
    """The blocks of a burst, and the segments of one, whose length and count come first."""
    if len(data) < 4:
        return
    step, count = 1 + data[0], 1 + data[1] % MAX_SEGMENTS
    data = data[2:]
    plaintext = memoryview(data)
    try:
        blocks = list(blocks_untrusted(plaintext))
        assert b"".join(block(kind, bytes(body)) for kind, body in blocks) == data
    except WireError:
        pass
    most = len(data) // step
    if step >= BLOCK_HEADER_SIZE and most:
        assert 1 <= run_length_untrusted(plaintext, 0, step, most) <= most
    if step > HEADER_SIZE and (count - 1) * step + HEADER_SIZE < len(data):
        is_run_untrusted(plaintext, 0, step, count)
        end = min(count * step, len(data))
        joined = bytes(_GATHERER.gather(plaintext, 0, step, end))
        pieces = [data[at + HEADER_SIZE : min(at + step, end)] for at in range(0, end, step)]
        assert joined == b"".join(pieces)


_GATHERER = Gatherer()


def reassembly(data: bytes) -> None:
    """Segments in any order, of any bursts: what is held is bounded, and is given up in the end."""
    table = Reassembly(per_session=2, total=3, expires_after=1.0)
    now = 0.0
    for at in range(0, len(data) - 5, 6):
        session, counter, index, last, size, wait = data[at : at + 6]
        if not index <= last < MAX_SEGMENTS:
            continue
        head = Header(TYPE_DATA, index=index, last=last, receiver=session & 3, counter=counter & 3)
        table.take(head, memoryview(bytes(size * 8)), None, now)
        table.check_invariants()
        now += wait / 512
        if wait & 1:
            table.expire(now)
            table.take_incomplete()
    table.expire(now + 2.0)
    table.check_invariants()
    assert (table.held, table.next_deadline()) == (0, None)


def coalesce(data: bytes) -> None:
    """A run of like packets: joined and cut again they are the same bytes, in the same order."""
    if len(data) < 2:
        return
    count, stride = 1 + data[0] % 40, LEAST_STRIDE + data[1]
    template = data[2 : 2 + stride].ljust(stride, b"\0")
    changes = data[2 + stride :]
    rows = []
    for number in range(count):
        row = bytearray(template)
        row[:BLOCK_HEADER_SIZE] = struct.pack(">HB", stride - BLOCK_HEADER_SIZE, 2)
        _count_up(row, number)
        if number * 3 + 3 <= len(changes):
            place, value = struct.unpack_from(">HB", changes, number * 3)
            if place >= BLOCK_HEADER_SIZE:
                row[place % stride or BLOCK_HEADER_SIZE] = value
        row[:BLOCK_HEADER_SIZE] = struct.pack(">HB", stride - BLOCK_HEADER_SIZE, 2)
        rows.append(bytes(row))
    packets = [row[BLOCK_HEADER_SIZE:] for row in rows]
    made = [
        (bytes(view), joined)
        for view, joined in _COALESCER.joined_untrusted(
            memoryview(b"".join(rows)), 0, stride, count
        )
    ]
    assert sum(joined for _, joined in made) == count
    at = 0
    for packet, joined in made:
        if joined == 1:
            assert packet == packets[at]
        else:
            pieces = segment_untrusted(VirtioHeader.decode_untrusted(packet), packet[10:])
            # Partial checksums are completed when a packet is cut: so are those to compare with.
            assert pieces == [_finished(one) for one in packets[at : at + joined]]
        at += joined


_COALESCER = Coalescer(tso=True, uso=True)
_IP_AT = BLOCK_HEADER_SIZE + VIRTIO_HEADER_SIZE


def _count_up(row: bytearray, number: int) -> None:
    """What a sender changes from packet to packet: the identification, and with it the checksum."""
    if row[_IP_AT] >> 4 == 4 and number:
        for place, sign in ((4, 1), (10, -1)):
            at = _IP_AT + place
            value = int.from_bytes(row[at : at + 2], "big") + sign * number
            row[at : at + 2] = (value & 0xFFFF).to_bytes(2, "big")


def _finished(packet: bytes) -> bytes:
    (whole,) = segment_untrusted(VirtioHeader.decode_untrusted(packet), packet[10:])
    return whole


# -- seeds -----------------------------------------------------------------------------------------


def ordinary() -> list[bytes]:
    """Packets as kernels make them."""
    quoted = udp4(B4, A4, b"x" * 20)
    hop = b"\x06\0\x01\x04\0\0\0\0"
    fragment = struct.pack(">BBHI", UDP, 0, 1, 7)
    return [
        udp4(A4, B4, b"hello"),
        tcp4(A4, B4, b"hello", flags=0x18),
        udp6(A6, B6, b"hello"),
        tcp6(A6, B6, b"", flags=2),
        icmp_echo4(A4, B4, b"ping"),
        icmp_echo6(A6, B6, b"pong", reply=True),
        icmp4(A4, B4, 3, 1, bytes(4) + quoted),
        ip4(TCP, A4, B4, b"t" * 24, flags=1, identification=9),
        ip4(UDP, A4, B4, b"t" * 24, flags=0, fragment_offset=24, identification=9),
        ip4(UDP, A4, B4, b"t" * 24, options=b"\x83\x07\x04" + bytes(5)),
        ip6(0, A6, B6, hop + b"u" * 16),
        ip6(44, A6, B6, fragment + b"u" * 16),
        ip6(43, A6, B6, bytes([ICMPV6, 0, 0, 0]) + bytes(12)),
    ]


def super_packets() -> list[bytes]:
    """Behind a virtio_net_hdr that asks for something."""
    tcp, udp = tcp4(A4, B4, bytes(4000)), udp6(A6, B6, bytes(3000))
    return [
        NO_OFFLOAD + ordinary()[0],
        VirtioHeader(1, 0, 0, 0, 20, 6).encode() + ordinary()[0],
        VirtioHeader(1, 1, 40, 1460, 20, 16).encode() + tcp,
        VirtioHeader(1, 5, 48, 1200, 40, 6).encode() + udp,
        VirtioHeader(1, 0, 0, 0, 0, 12).encode() + ordinary()[0],
    ]


def _runs() -> list[bytes]:
    made = []
    for packet in (udp4(A4, B4, b"x" * 20, identification=5), tcp6(A6, B6, b"y" * 30)):
        stride = BLOCK_HEADER_SIZE + VIRTIO_HEADER_SIZE + len(packet)
        made.append(bytes([19, stride - LEAST_STRIDE]) + bytes(13) + packet)
    return made


def _bursts() -> list[bytes]:
    one = block(BlockKind.PACKET, ordinary()[0]) + block(BlockKind.CONTROL, b"\x91\x0d")
    run = b"".join(
        Header(TYPE_DATA, index=at, last=3, receiver=1, counter=2).encode() + bytes(20)
        for at in range(4)
    )
    alike = block(BlockKind.OFFLOADED, NO_OFFLOAD + ordinary()[1])
    step = len(run) // 4
    return [b"\0\0" + one, bytes([len(alike) - 1, 8]) + alike * 9, bytes([step - 1, 3]) + run]


def _segments() -> list[bytes]:
    straight = b"".join(bytes([1, 1, at, 3, 50, 2]) for at in range(4))
    crossed = b"".join(bytes([at, at, 0, 63, 255, 1]) for at in range(9))
    return [straight, crossed, b"".join(a + b for a, b in pairwise([straight, crossed, straight]))]


TARGETS = [
    Target("ip", ip, ordinary, 200),
    Target("icmp", icmp, ordinary, 2000),
    Target("virtio", virtio, super_packets, 6000),
    Target("burst", burst, _bursts, 2000),
    Target("reassembly", reassembly, _segments, 600),
    Target("coalesce", coalesce, _runs, 600),
]
