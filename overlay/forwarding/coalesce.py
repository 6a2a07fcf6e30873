"""Runs of like packets become super-packets again, on their way to the TUN.

A pod that sends datagrams one by one costs the far kernel one write, one routing decision and one
trip through a veth for each. The kernel's own receive offload joins such packets when they come
from a network card; a TUN has none. So the packets of a burst are joined here, where they lie side
by side, and the kernel cuts them again where it must: at the receiving socket.

    block | IP, id 7 | UDP | data 1     block | IP, id 8 | UDP | data 2     block | IP, id 9 | ...
          '---------------------------------------.--------------------------------'
    virtio_net_hdr: gso_size | IP, id 7 | UDP, partial checksum | data 1 data 2 data 3

A super-packet says less than the packets it is made of, so they are joined only if cutting it gives
back the very same bytes: all headers alike, IPv4 identifications counting up by one, TCP sequence
numbers without a gap, and every checksum right (joining recomputes it, so a wrong one would be made
right). PSH may close a run of TCP segments; any other flag than ACK and ECE keeps a segment alone.

The work is done on all packets of a run at once, a column at a time.

References:
    Linux Documentation/networking/segmentation-offloads.rst; net/core/gro.c, net/ipv4/tcp_offload.c
    and net/ipv4/udp_offload.c (what may be joined). Differs from them: packets with the same
    identification are not joined, even if it has no meaning (RFC 6864), because cutting them would
    give them different ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from overlay.wire.burst import BLOCK_HEADER_SIZE
from overlay.wire.checksum import checksum, pseudo_header_sum
from overlay.wire.ip import (
    IPV4_HEADER_SIZE,
    IPV6_HEADER_SIZE,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    IpView,
    parse_untrusted,
)
from overlay.wire.transport import UDP_HEADER_SIZE, TcpFlag, tcp_untrusted, udp_untrusted
from overlay.wire.virtio import (
    VIRTIO_HEADER,
    VIRTIO_HEADER_SIZE,
    VIRTIO_NET_HDR_F_DATA_VALID,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6,
    VIRTIO_NET_HDR_GSO_UDP_L4,
)

RUN_LEAST: Final = 8
"""Packets of one size from which looking at them together costs less than writing each."""

CLOSE_LOOK_LEAST: Final = 16
"""The same where they are not all of one flow, or have complete checksums to verify."""

LEAST_STRIDE: Final = BLOCK_HEADER_SIZE + VIRTIO_HEADER_SIZE + IPV4_HEADER_SIZE
"""Bytes of the shortest block that may be looked at here: it has an IP header."""

MAX_SEGMENTS: Final = 64
"""Packets in one super-packet: what every kernel with USO takes (UDP_MAX_SEGMENTS)."""

_MAX_PACKET: Final = 0xFFFF
_ONES: Final = 0xFFFF
_IP_AT: Final = BLOCK_HEADER_SIZE + VIRTIO_HEADER_SIZE
_FREE_FLAGS: Final = TcpFlag.ECE | TcpFlag.PSH
_TCP_FLAGS_AT: Final = 13
_TCP_CHECKSUM_AT: Final = 16
_UDP_CHECKSUM_AT: Final = 6

_COUNTING_UP: Final = np.arange(1 << 16).astype(">u2").tobytes()
_COUNTING_DOWN: Final = ((_ONES - np.arange((1 << 16) + 600)) % _ONES).astype(">u2").tobytes()

Rows = NDArray[np.uint8]


class _Layout(NamedTuple):
    """Where things are in the packets of a run. Positions count from the IP header.

    Attributes:
        version: of IP, 4 or 6.
        protocol: TCP or UDP.
        transport: where its header starts.
        payload: where the data start.
        partial: whether the checksums hold the pseudo header's sum alone.
    """

    version: int
    protocol: int
    transport: int
    payload: int
    partial: bool

    @property
    def checksum(self) -> int:
        return self.transport + self.checksum_offset

    @property
    def checksum_offset(self) -> int:
        return _TCP_CHECKSUM_AT if self.protocol == PROTOCOL_TCP else _UDP_CHECKSUM_AT


class _Masks(NamedTuple):
    """Bits of the headers, block header first, that packets of one layout have in common.

    Attributes:
        fixed: all of them.
        shared: neighbours that may be joined.
        alike: those of a run that is one flow: also the flags.
    """

    fixed: Rows
    shared: Rows
    alike: Rows


@lru_cache(maxsize=64)
def _masks(layout: _Layout) -> _Masks:
    shared = np.full(_IP_AT + layout.payload, 0xFF, np.uint8)
    fixed = np.zeros(_IP_AT + layout.payload, np.uint8)
    transport = _IP_AT + layout.transport
    fixed[: _IP_AT + 1] = 0xFF  # block header, offload header, version
    if layout.version == 4:
        shared[_IP_AT + 4 : _IP_AT + 6] = 0  # identification
        shared[_IP_AT + 10 : _IP_AT + 12] = 0  # header checksum
        fixed[_IP_AT + 2 : _IP_AT + 4] = fixed[_IP_AT + 6 : _IP_AT + 8] = 0xFF  # length, fragment
        fixed[_IP_AT + 9] = 0xFF
    else:
        fixed[_IP_AT + 4 : _IP_AT + 7] = 0xFF  # length, next header
    if layout.protocol == PROTOCOL_TCP:
        shared[transport + 4 : transport + 8] = 0  # sequence number
        shared[transport + _TCP_FLAGS_AT] = 0xFF & ~TcpFlag.PSH
        fixed[transport + 12 : transport + 14] = 0xF0, 0xFF & ~(TcpFlag.PSH | TcpFlag.ECE)
    else:
        fixed[transport + 4 : transport + 6] = 0xFF  # length
    if not layout.partial:
        shared[_IP_AT + layout.checksum : _IP_AT + layout.checksum + 2] = 0
    alike = shared.copy()
    if layout.protocol == PROTOCOL_TCP:
        alike[transport + _TCP_FLAGS_AT] = 0xFF
    return _Masks(fixed, shared, alike)


class Coalescer:
    """Joins packets, in a buffer it owns and reuses.

    Args:
        tso: whether the TUN takes TCP super-packets.
        uso: whether it takes UDP ones.
    """

    __slots__ = ("_made", "_protocols", "_view")

    def __init__(self, *, tso: bool, uso: bool) -> None:
        wanted = ((PROTOCOL_TCP, tso), (PROTOCOL_UDP, uso))
        self._protocols = frozenset(protocol for protocol, taken in wanted if taken)
        self._made = np.zeros(VIRTIO_HEADER_SIZE + _MAX_PACKET, np.uint8)
        self._view = memoryview(self._made.data).cast("B")

    def __bool__(self) -> bool:
        """Whether anything can be joined at all."""
        return bool(self._protocols)

    def joined_untrusted(
        self, plaintext: memoryview, start: int, stride: int, count: int
    ) -> Iterator[tuple[memoryview, int]]:
        """The packets of a run, joined where they can be; in order.

        Args:
            plaintext: of a burst.
            start: where the block header of the first packet is.
            stride: bytes from one block to the next.
            count: blocks of kind OFFLOADED and equal length from `start` on.

        Yields:
            A virtio_net_hdr and a packet, and how many of the run's packets that is. The view is
            valid until the next step.
        """
        layout = self._layout(plaintext[start + BLOCK_HEADER_SIZE : start + stride])
        if layout is None:
            for at in range(start, start + count * stride, stride):
                yield plaintext[at + BLOCK_HEADER_SIZE : at + stride], 1
            return
        rows = np.frombuffer(plaintext, np.uint8, count * stride, start).reshape(count, stride)
        edges = _edges_of_one(rows, layout)
        if edges is None:
            edges = _edges(rows, layout) if count >= CLOSE_LOOK_LEAST else list(range(count + 1))
        for first, end in pairwise(edges):
            if end - first == 1:
                at = start + first * stride
                yield plaintext[at + BLOCK_HEADER_SIZE : at + stride], 1
            else:
                yield self._join(rows[first:end], layout), end - first

    def _layout(self, packet: memoryview) -> _Layout | None:
        """What the packets of a run must look like, by its first; None if nothing can be joined."""
        flags, gso_type, _, _, csum_start, csum_offset = VIRTIO_HEADER.unpack_from(packet)
        if gso_type or flags & ~(VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID):
            return None
        layout = _layout(packet[VIRTIO_HEADER_SIZE:], flags)
        if layout is None or layout.protocol not in self._protocols:
            return None
        announced = (csum_start, csum_offset)
        if layout.partial and announced != (layout.transport, layout.checksum_offset):
            return None
        return layout

    def _join(self, rows: Rows, layout: _Layout) -> memoryview:
        count, stride = rows.shape
        size = stride - _IP_AT - layout.payload
        length = layout.payload + count * size
        header = bytearray(rows[0, _IP_AT : _IP_AT + layout.payload].tobytes())
        _set_lengths(header, layout, length)
        if layout.protocol == PROTOCOL_TCP:
            flags = layout.transport + _TCP_FLAGS_AT
            header[flags] = int(rows[-1, _IP_AT + flags])
        header[layout.checksum : layout.checksum + 2] = _pseudo_sum(header, layout, length)
        front = VIRTIO_HEADER_SIZE + layout.payload
        self._view[:front] = _offload(layout, size) + header
        whole = self._made[front : front + count * size].reshape(count, size)
        whole[:] = rows[:, _IP_AT + layout.payload :]
        return self._view[: VIRTIO_HEADER_SIZE + length]


def _layout(packet: memoryview, flags: int) -> _Layout | None:
    """The layout of a complete TCP or UDP packet with data and without IP options, else None."""
    ip = parse_untrusted(packet)
    if ip is None or ip.is_fragment or ip.end != len(packet):
        return None
    if ip.transport != (IPV4_HEADER_SIZE if ip.version == 4 else IPV6_HEADER_SIZE):
        return None
    payload = _udp_payload(packet, ip) or _tcp_payload(packet, ip)
    if not payload or payload == ip.end:
        return None
    partial = bool(flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
    return _Layout(ip.version, ip.protocol, ip.transport, payload, partial)


def _udp_payload(packet: memoryview, ip: IpView) -> int:
    udp = udp_untrusted(packet, ip)
    if udp is None or ip.transport + udp.length != ip.end:
        return 0
    return ip.transport + UDP_HEADER_SIZE


def _tcp_payload(packet: memoryview, ip: IpView) -> int:
    tcp = tcp_untrusted(packet, ip)
    return tcp.payload if tcp is not None and tcp.flags & ~_FREE_FLAGS == TcpFlag.ACK else 0


def _edges_of_one(rows: Rows, layout: _Layout) -> list[int] | None:
    """The edges where all packets are a single flow without a flaw; None: it takes a closer look.

    That is what bulk traffic looks like. Checking it costs a third: the first packet speaks for the
    others, whose identifications count up and whose header checksums therefore count down.
    """
    count = len(rows)
    headers = rows[:, : _IP_AT + layout.payload]
    if not layout.partial or ((headers[1:] ^ headers[0]) & _masks(layout).alike).any():
        return None
    first = headers[0].tobytes()[_IP_AT:]
    if _pseudo_sum(first, layout, rows.shape[1] - _IP_AT) != first[layout.checksum :][:2]:
        return None
    if layout.version == 4 and not _counts_up(rows, first):
        return None
    if layout.protocol == PROTOCOL_TCP:
        sequence = _numbers(rows, _IP_AT + layout.transport + 4, ">u4")
        if (np.diff(sequence) != rows.shape[1] - headers.shape[1]).any():
            return None
        if first[layout.transport + _TCP_FLAGS_AT] & TcpFlag.PSH:
            return None  # they all have it, and each ends its super-packet
    return _chunked([0], count, rows, layout)


def _counts_up(rows: Rows, first: bytes) -> bool:
    """Whether identifications count up from the first header's, and the checksums follow."""
    count = len(rows)
    identification = int.from_bytes(first[4:6], "big")
    below = _ONES - int.from_bytes(first[10:12], "big")
    if checksum(first[:IPV4_HEADER_SIZE]) or not below or identification + count > _ONES:
        return False
    return rows[:, _IP_AT + 4 : _IP_AT + 6].tobytes() == _up(identification, count) and rows[
        :, _IP_AT + 10 : _IP_AT + 12
    ].tobytes() == _down(below, count)


def _up(first: int, count: int) -> bytes:
    """`count` numbers of 16 bits from `first` on."""
    return _COUNTING_UP[2 * first : 2 * (first + count)]


def _down(below: int, count: int) -> bytes:
    """`count` numbers downwards from 0xFFFF - `below`; after 0 comes 0xFFFE, as in checksums."""
    return _COUNTING_DOWN[2 * below : 2 * (below + count)]


def _edges(rows: Rows, layout: _Layout) -> list[int]:
    """Where one super-packet ends and the next begins; the first is 0, the last all rows."""
    count, stride = rows.shape
    headers = rows[:, : _IP_AT + layout.payload]
    masks = _masks(layout)
    fit = ~((headers ^ headers[0]) & masks.fixed).any(axis=1)
    fit &= _sound(rows, layout)
    follows = ~((headers[1:] ^ headers[:-1]) & masks.shared).any(axis=1)
    follows &= fit[1:] & fit[:-1]
    if layout.version == 4:
        follows &= np.diff(_numbers(rows, _IP_AT + 4, ">u2")) == 1
    if layout.protocol == PROTOCOL_TCP:
        sequence = _numbers(rows, _IP_AT + layout.transport + 4, ">u4")
        follows &= np.diff(sequence) == stride - headers.shape[1]
        follows &= (headers[:-1, _IP_AT + layout.transport + _TCP_FLAGS_AT] & TcpFlag.PSH) == 0
    edges = [0]
    for edge in [*(np.flatnonzero(~follows) + 1).tolist(), count]:
        _chunked(edges, edge, rows, layout)
    return edges


def _chunked(edges: list[int], edge: int, rows: Rows, layout: _Layout) -> list[int]:
    """Add `edge`, and before it as many as keep every super-packet within its limits."""
    size = rows.shape[1] - _IP_AT - layout.payload
    most = min(MAX_SEGMENTS, (_MAX_PACKET - layout.payload) // size)
    edges += range(edges[-1] + most, edge, most)
    edges.append(edge)
    return edges


def _sound(rows: Rows, layout: _Layout) -> NDArray[Any]:
    """Which rows have checksums that are right, and written as the kernel would write them."""
    end = rows.shape[1]
    addresses = slice(12, 20) if layout.version == 4 else slice(8, 40)
    total = _sums(rows, _IP_AT + addresses.start, _IP_AT + addresses.stop)
    total += layout.protocol + end - _IP_AT - layout.transport
    field = _numbers(rows, _IP_AT + layout.checksum, ">u2")
    if layout.partial:
        sound: NDArray[Any] = total % _ONES == field % _ONES
    else:
        total += _sums(rows, _IP_AT + layout.transport, end)
        # Not zero: UDP's 0 says there is none, and of TCP the kernel writes both 0 and 0xFFFF.
        sound = (total % _ONES == 0) & (field % _ONES != 0)
    if layout.version == 4:
        header = _sums(rows, _IP_AT, _IP_AT + IPV4_HEADER_SIZE)
        sound &= (header % _ONES == 0) & (_numbers(rows, _IP_AT + 10, ">u2") != _ONES)
    return sound


def _sums(rows: Rows, start: int, end: int) -> NDArray[np.uint32]:
    """Sum of the 16-bit words in some columns, not folded; `start` is even within the packet."""
    high = rows[:, start:end:2].sum(axis=1, dtype=np.uint32)
    low = rows[:, start + 1 : end : 2].sum(axis=1, dtype=np.uint32)
    total: NDArray[np.uint32] = (high << 8) + low
    return total


def _numbers(rows: Rows, at: int, kind: str) -> NDArray[Any]:
    """A big-endian number in each row."""
    width = np.dtype(kind).itemsize
    return np.ascontiguousarray(rows[:, at : at + width]).view(kind)[:, 0]


def _set_lengths(header: bytearray, layout: _Layout, length: int) -> None:
    if layout.version == 4:
        header[2:4] = length.to_bytes(2, "big")
        header[10:12] = b"\0\0"
        header[10:12] = checksum(header[:IPV4_HEADER_SIZE]).to_bytes(2, "big")
    else:
        header[4:6] = (length - IPV6_HEADER_SIZE).to_bytes(2, "big")
    if layout.protocol == PROTOCOL_UDP:
        at = layout.transport + 4
        header[at : at + 2] = (length - layout.transport).to_bytes(2, "big")


def _pseudo_sum(header: bytes | bytearray, layout: _Layout, length: int) -> bytes:
    """What a partial checksum holds."""
    middle, end = (16, 20) if layout.version == 4 else (24, 40)
    source = int.from_bytes(header[2 * middle - end : middle], "big")
    destination = int.from_bytes(header[middle:end], "big")
    size = length - layout.transport
    return pseudo_header_sum(source, destination, layout.protocol, size).to_bytes(2, "big")


def _offload(layout: _Layout, size: int) -> bytes:
    """The virtio_net_hdr of a super-packet with `size` bytes of data in each segment."""
    kind = VIRTIO_NET_HDR_GSO_UDP_L4
    if layout.protocol == PROTOCOL_TCP:
        kind = VIRTIO_NET_HDR_GSO_TCPV4 if layout.version == 4 else VIRTIO_NET_HDR_GSO_TCPV6
    return VIRTIO_HEADER.pack(
        VIRTIO_NET_HDR_F_NEEDS_CSUM,
        kind,
        layout.payload,
        size,
        layout.transport,
        layout.checksum_offset,
    )
