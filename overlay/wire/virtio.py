"""The virtio_net_hdr in front of packets on the TUN, and in software what it asks hardware to do.

     0       1       2       4       6       8       10
     +-------+-------+-------+-------+-------+-------+----
     | flags | gso   |hdr_len| gso   | csum  | csum  | IP packet
     |       | type  |       | size  | start | offset|
     +-------+-------+-------+-------+-------+-------+----

With IFF_VNET_HDR the kernel puts these 10 bytes in front of every packet it gives, and expects them
in front of every packet it takes. They say two things:

- NEEDS_CSUM: the transport checksum, `csum_offset` bytes behind `csum_start`, holds only the sum of
  the pseudo header. Whoever puts the packet on a real wire must add the rest.
- gso_type: this is a super-packet. Whoever puts it on a real wire must cut its payload every
  `gso_size` bytes and give each piece the headers of the whole, adapted.

Between two nodes neither is needed: the packet travels sealed and the far kernel goes on with the
same header. The functions below are for a far end that cannot: a peer or kernel without offloads.

References:
    Virtual I/O Device (VIRTIO) 1.2, section 5.1.6; Linux include/uapi/linux/virtio_net.h.
    Linux net/ipv4/tcp_offload.c, tcp_gso_segment, and net/ipv4/udp_offload.c, for what changes from
    segment to segment. RFC 3168, section 6.1.2: CWR belongs to one segment only.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from overlay.errors import WireError
from overlay.wire.checksum import checksum, pseudo_header_sum
from overlay.wire.ip import (
    IPV4_HEADER_SIZE,
    IPV6_HEADER_SIZE,
    PROTOCOL_TCP,
    Buffer,
    IpView,
    parse_untrusted,
)
from overlay.wire.transport import UDP_HEADER_SIZE, TcpFlag, tcp_untrusted, udp_untrusted

# -- specification ---------------------------------------------------------------------------------

VIRTIO_HEADER: Final = Struct("<BBHHHH")
"""Little endian: the native order of the machines there are, and the order between nodes."""
VIRTIO_HEADER_SIZE: Final = VIRTIO_HEADER.size

VIRTIO_NET_HDR_F_NEEDS_CSUM: Final = 1
VIRTIO_NET_HDR_F_DATA_VALID: Final = 2

VIRTIO_NET_HDR_GSO_NONE: Final = 0
VIRTIO_NET_HDR_GSO_TCPV4: Final = 1
VIRTIO_NET_HDR_GSO_UDP: Final = 3
VIRTIO_NET_HDR_GSO_TCPV6: Final = 4
VIRTIO_NET_HDR_GSO_UDP_L4: Final = 5
VIRTIO_NET_HDR_GSO_ECN: Final = 0x80
"""Or-ed to a TCP type: the super-packet has CWR set."""

NO_OFFLOAD: Final = bytes(VIRTIO_HEADER_SIZE)
"""The header of a complete packet of wire size."""

READ_SIZE: Final = VIRTIO_HEADER_SIZE + 65_575
"""The most one read of a TUN can return: this header and the largest IPv6 packet."""

# -- implementation --------------------------------------------------------------------------------

PIECES_LIMIT: Final = 1500
"""Segments one super-packet may become. Linux allows 128 of UDP and no TCP payload under 48 bytes,
1365 of which fill a packet; a header that asks for more wants to make somebody work."""

_IPV4_LENGTH_AT: Final = 2
_IPV4_ID_AT: Final = 4
_IPV4_CHECKSUM_AT: Final = 10
_IPV6_LENGTH_AT: Final = 4
_TCP_SEQUENCE_AT: Final = 4
_TCP_FLAGS_AT: Final = 13
_TCP_CHECKSUM_AT: Final = 16
_UDP_LENGTH_AT: Final = 4
_UDP_CHECKSUM_AT: Final = 6

_LAST_ONLY: Final = TcpFlag.FIN | TcpFlag.PSH
_SUPPORTED: Final = {
    (4, VIRTIO_NET_HDR_GSO_TCPV4),
    (6, VIRTIO_NET_HDR_GSO_TCPV6),
    (4, VIRTIO_NET_HDR_GSO_UDP_L4),
    (6, VIRTIO_NET_HDR_GSO_UDP_L4),
}


class VirtioHeader(NamedTuple):
    """A decoded virtio_net_hdr. Positions count from the start of the IP packet."""

    flags: int = 0
    gso_type: int = VIRTIO_NET_HDR_GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def encode(self) -> bytes:
        """The 10 bytes.

        >>> VirtioHeader().encode() == NO_OFFLOAD
        True
        """
        return VIRTIO_HEADER.pack(*self)

    @classmethod
    def decode_untrusted(cls, data: Buffer, offset: int = 0) -> VirtioHeader:
        """Read the header at `offset`.

        Raises:
            WireError: fewer than 10 bytes. Nothing else.
        """
        if len(data) - offset < VIRTIO_HEADER_SIZE:
            raise WireError(f"{len(data) - offset} bytes where a virtio_net_hdr has 10")
        return cls._make(VIRTIO_HEADER.unpack_from(data, offset))


def finish_checksum(header: VirtioHeader, packet: bytearray) -> None:
    """Complete the partial checksum of `packet` in place, where the header says it is partial.

    Raises:
        WireError: the header points outside the packet, or into its IP header; the packet is then
            unchanged. Nothing else.
    """
    if not header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM:
        return
    at = header.csum_start + header.csum_offset
    if at + 2 > len(packet) or header.csum_start < _header_size(packet[0]):
        raise WireError(f"a checksum at {at} in a packet of {len(packet)} bytes")
    # The field holds the pseudo header's sum, so summing over it includes the pseudo header.
    _put_checksum(packet, at, checksum(memoryview(packet)[header.csum_start :]))


def rewrites_addresses_untrusted(packet: memoryview) -> bool:
    """Whether completing the checksum would write into the IP header: no honest sender asks that.

    Whoever checked the addresses in the header would have checked others than those that arrive.

    Args:
        packet: a virtio_net_hdr, and an IP packet that `forwarding.flow` has found sound.
    """
    if not packet[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM:
        return False
    start: int = packet[6] | packet[7] << 8
    return start < _header_size(packet[VIRTIO_HEADER_SIZE])


def _header_size(first: int) -> int:
    """Bytes of the IP header that begins with `first`, without options and extension headers."""
    return IPV6_HEADER_SIZE if first >> 4 == 6 else IPV4_HEADER_SIZE


def segment_untrusted(header: VirtioHeader, packet: bytes | bytearray | memoryview) -> list[bytes]:
    """The packets of wire size that a super-packet stands for, every checksum complete.

    A packet that is not a super-packet comes back alone, its checksum completed.

    Args:
        header: as read in front of the packet. `hdr_len` and the checksum positions of a
            super-packet are not trusted; they are found again.
        packet: from the IP header on. Bytes behind its own length are cut off.

    Raises:
        WireError: malformed, a fragment, of a type that is not TCP or UDP in the right family, or
            more than `PIECES_LIMIT` segments. Nothing else.
    """
    kind = header.gso_type & ~VIRTIO_NET_HDR_GSO_ECN
    if kind == VIRTIO_NET_HDR_GSO_NONE:
        whole = bytearray(packet)
        finish_checksum(header, whole)
        return [bytes(whole)]
    ip = parse_untrusted(packet)
    if ip is None or ip.is_fragment:
        raise WireError("a super-packet that is malformed or a fragment")
    if (ip.version, kind) not in _SUPPORTED:
        raise WireError(f"gso type {header.gso_type} on an IPv{ip.version} packet")
    if kind == VIRTIO_NET_HDR_GSO_UDP_L4:
        if udp_untrusted(packet, ip) is None:
            raise WireError("a UDP super-packet without a UDP header")
        return _segments(packet, ip, ip.transport + UDP_HEADER_SIZE, header.gso_size)
    tcp = tcp_untrusted(packet, ip)
    if tcp is None:
        raise WireError("a TCP super-packet without a TCP header")
    return _segments(packet, ip, tcp.payload, header.gso_size)


def _segments(packet: Buffer, ip: IpView, payload: int, size: int) -> list[bytes]:
    count = -(-(ip.end - payload) // size) if size else 0
    if not 0 < count <= PIECES_LIMIT:
        raise WireError(f"{ip.end - payload} bytes of payload in segments of {size}")
    headers = bytes(packet[:payload])
    finish = _finish_tcp if ip.protocol == PROTOCOL_TCP else _finish_udp
    made = []
    for index in range(count):
        start = payload + index * size
        piece = bytearray(headers)
        piece += packet[start : min(start + size, ip.end)]
        _set_ip(piece, ip, index)
        finish(piece, ip, offset=index * size, is_last=index == count - 1)
        made.append(bytes(piece))
    return made


def _set_ip(piece: bytearray, ip: IpView, index: int) -> None:
    if ip.version == 6:
        _put(piece, _IPV6_LENGTH_AT, len(piece) - IPV6_HEADER_SIZE)
        return
    _put(piece, _IPV4_LENGTH_AT, len(piece))
    _put(piece, _IPV4_ID_AT, (ip.identification + index) & 0xFFFF)
    _put(piece, _IPV4_CHECKSUM_AT, 0)
    _put(piece, _IPV4_CHECKSUM_AT, checksum(memoryview(piece)[: ip.transport]))


def _finish_tcp(piece: bytearray, ip: IpView, *, offset: int, is_last: bool) -> None:
    at = ip.transport + _TCP_SEQUENCE_AT
    sequence = int.from_bytes(piece[at : at + 4], "big") + offset
    piece[at : at + 4] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
    if not is_last:
        piece[ip.transport + _TCP_FLAGS_AT] &= ~_LAST_ONLY & 0xFF
    if offset:
        piece[ip.transport + _TCP_FLAGS_AT] &= ~TcpFlag.CWR & 0xFF
    _set_transport_checksum(piece, ip, _TCP_CHECKSUM_AT)


def _finish_udp(piece: bytearray, ip: IpView, *, offset: int, is_last: bool) -> None:
    del offset, is_last  # UDP segments differ in length alone
    _put(piece, ip.transport + _UDP_LENGTH_AT, len(piece) - ip.transport)
    _set_transport_checksum(piece, ip, _UDP_CHECKSUM_AT)


def _set_transport_checksum(piece: bytearray, ip: IpView, field: int) -> None:
    at = ip.transport + field
    _put(piece, at, 0)
    length = len(piece) - ip.transport
    seed = pseudo_header_sum(ip.source, ip.destination, ip.protocol, length)
    _put_checksum(piece, at, checksum(memoryview(piece)[ip.transport :], seed))


def _put_checksum(packet: bytearray, at: int, value: int) -> None:
    # 0 and 0xFFFF are the same number to a verifier, but in UDP a zero field means "no checksum"
    # (RFC 768), so the other one is written, for every protocol, as Linux does when it completes a
    # packet. Into TCP segments that it cuts itself it writes 0.
    _put(packet, at, value or 0xFFFF)


def _put(packet: bytearray, at: int, value: int) -> None:
    packet[at : at + 2] = value.to_bytes(2, "big")
