"""The kernel's rules for packets behind a virtio_net_hdr, written down a second time, the slow way.

It shares no code with `overlay.wire` and `overlay.forwarding`: it is what they are judged by. The
kernel itself is asked whether the judge is right, in `tests/netns/test_super_packets.py`.

    completed   what one packet of wire size is on a wire: its checksum finished
    is_same     whether a packet from a wire is that one
    segments    what a super-packet is on a wire, or `RefusedByKernel`

References:
    Linux include/linux/virtio_net.h, virtio_net_hdr_to_skb (what is refused); net/core/dev.c,
    skb_checksum_help; net/ipv4/af_inet.c, inet_gso_segment; net/ipv4/tcp_offload.c,
    tcp_gso_segment; net/ipv4/udp_offload.c, __udp_gso_segment.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tests.support.builders import FIN, PSH, TCP, UDP, slow_checksum

NEEDS_CSUM = 1
TCPV4, TCPV6, UDP_L4 = 1, 4, 5
CWR = 0x80
VNET = struct.Struct("<BBHHHH")
MOST_SEGMENTS = 64
"""Of UDP: since Linux 6.10 it is 128, but the older kernels with USO have to take it as well."""
LARGEST = 0xFFFF


class RefusedByKernel(AssertionError):
    """A write of this to a TUN would fail."""


class Vnet(NamedTuple):
    """A virtio_net_hdr. Positions count from the IP header."""

    flags: int = 0
    gso_type: int = 0
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def encode(self) -> bytes:
        return VNET.pack(*self)


def parted(frame: bytes) -> tuple[Vnet, bytes]:
    """The offload header and the packet."""
    return Vnet._make(VNET.unpack_from(frame)), frame[VNET.size :]


def completed(frame: bytes) -> bytes:
    """The packet with its checksum finished, if it needs that (skb_checksum_help).

    Of the two zeros it gets 0xFFFF, whatever the protocol.
    """
    vnet, packet = parted(frame)
    if vnet.gso_type:
        raise RefusedByKernel("a super-packet is no single packet")
    if not vnet.flags & NEEDS_CSUM:
        return packet
    at = vnet.csum_start + vnet.csum_offset
    if at + 2 > len(packet):
        raise RefusedByKernel("a checksum behind the end")
    value = slow_checksum(packet[vnet.csum_start :]) or 0xFFFF
    return packet[:at] + value.to_bytes(2, "big") + packet[at + 2 :]


def is_same(packet: bytes, frame: bytes) -> bool:
    """Whether `packet`, from a wire, is the one that `frame` stands for.

    An unfinished checksum of TCP that comes out as zero may be either zero: the kernel writes 0
    into what it cuts and 0xFFFF into what is whole. A complete one comes as it was.
    """
    whole = completed(frame)
    vnet, _ = parted(frame)
    at = vnet.csum_start + vnet.csum_offset
    if vnet.flags & NEEDS_CSUM and vnet.csum_offset == 16 and whole[at : at + 2] == b"\xff\xff":
        return packet in (whole, whole[:at] + bytes(2) + whole[at + 2 :])
    return packet == whole


def segments(frame: bytes) -> list[bytes]:
    """The packets that a super-packet is cut into, each complete."""
    vnet, packet = parted(frame)
    version, transport = packet[0] >> 4, (packet[0] & 15) * 4
    protocol = packet[9] if version == 4 else packet[6]
    if version == 6:
        transport = 40
    header = 8 if protocol == UDP else (packet[transport + 12] >> 4) * 4
    _accept(vnet, (version, protocol), transport, header, len(packet))
    if version == 4 and packet[6:8] not in (b"\0\0", b"\x40\0"):
        raise RefusedByKernel("a fragment")
    start, made = transport + header, []
    if vnet.hdr_len != start:
        raise RefusedByKernel(f"headers of {start} bytes are announced as {vnet.hdr_len}")
    for at in range(start, len(packet), vnet.gso_size):
        data = packet[at : at + vnet.gso_size]
        is_last = at + vnet.gso_size >= len(packet)
        front = bytearray(packet[transport:start])
        if protocol == UDP:
            front[4:6] = (len(front) + len(data)).to_bytes(2, "big")
        else:
            sequence = int.from_bytes(front[4:8], "big") + at - start
            front[4:8] = (sequence % (1 << 32)).to_bytes(4, "big")
            front[13] &= 0xFF if is_last else 0xFF & ~(PSH | FIN)
            front[13] &= 0xFF if at == start else 0xFF & ~CWR
        made.append(_packet(packet[:transport], len(made), protocol, front, data))
    return made


def _accept(vnet: Vnet, kind: tuple[int, int], transport: int, header: int, size: int) -> None:
    wanted = {(4, TCP): TCPV4, (6, TCP): TCPV6, (4, UDP): UDP_L4, (6, UDP): UDP_L4}
    if vnet.gso_type & 0x7F != wanted.get(kind):
        raise RefusedByKernel(f"gso type {vnet.gso_type} for IPv{kind[0]}, protocol {kind[1]}")
    if not vnet.flags & NEEDS_CSUM:
        raise RefusedByKernel("a super-packet with a complete checksum")
    if (vnet.csum_start, vnet.csum_offset) != (transport, 6 if kind[1] == UDP else 16):
        raise RefusedByKernel("a checksum elsewhere")
    data = size - transport - header
    if not vnet.gso_size or data <= vnet.gso_size:
        raise RefusedByKernel(f"{data} bytes in segments of {vnet.gso_size}")
    if size > LARGEST or (kind[1] == UDP and data > vnet.gso_size * MOST_SEGMENTS):
        raise RefusedByKernel(f"{data} bytes in segments of {vnet.gso_size}: too many")


def _packet(ip: bytes, index: int, protocol: int, front: bytearray, data: bytes) -> bytes:
    """Segment number `index`, with the lengths and checksums that are right for it."""
    head, size = bytearray(ip), len(front) + len(data)
    if head[0] >> 4 == 4:
        identification = int.from_bytes(head[4:6], "big") + index
        head[2:6] = struct.pack(">HH", len(head) + size, identification & 0xFFFF)
        head[10:12] = bytes(2)
        head[10:12] = slow_checksum(bytes(head)).to_bytes(2, "big")
        ends = head[12:20]
    else:
        head[4:6] = size.to_bytes(2, "big")
        ends = head[8:40]
    pseudo = bytes(ends) + struct.pack(">IxxxB", size, protocol)
    at = 6 if protocol == UDP else 16
    front[at : at + 2] = bytes(2)
    value = slow_checksum(pseudo + bytes(front) + data)
    if protocol == UDP:  # where zero says that there is none
        value = value or 0xFFFF
    front[at : at + 2] = value.to_bytes(2, "big")
    return bytes(head + front) + data
