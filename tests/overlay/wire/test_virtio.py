"""virtio_net_hdr, and its offloads in software."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from overlay.errors import WireError
from overlay.wire.virtio import (
    NO_OFFLOAD,
    PIECES_LIMIT,
    VIRTIO_NET_HDR_F_DATA_VALID,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_ECN,
    VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6,
    VIRTIO_NET_HDR_GSO_UDP,
    VIRTIO_NET_HDR_GSO_UDP_L4,
    VirtioHeader,
    finish_checksum,
    rewrites_addresses_untrusted,
    segment_untrusted,
)
from tests.support import builders
from tests.support.builders import ACK, CWR, FIN, PSH, SYN, checksums_are_right, slow_checksum
from tests.support.pcap import all_frames

A4, B4 = "10.244.1.2", "10.244.2.3"
A6, B6 = "fd00::1", "fd00::2"
NUMBERS = st.integers(0, 0xFFFF)
HEADERS = st.builds(
    VirtioHeader,
    flags=st.integers(0, 255),
    gso_type=st.sampled_from([0, 1, 3, 4, 5, 0x81, 0x84, 77]),
    hdr_len=NUMBERS,
    gso_size=st.sampled_from([0, 1, 7, 100, 1448, 65535]),
    csum_start=st.sampled_from([0, 20, 40, 60, 65535]),
    csum_offset=st.sampled_from([0, 2, 6, 16, 65535]),
)
TIMESTAMPS = b"\1\1\x08\x0a" + bytes(8)


def needs_checksum(packet: bytes) -> tuple[VirtioHeader, bytearray]:
    """The packet as a sender with checksum offload hands it over."""
    start = 20 if packet[0] >> 4 == 4 else 40
    protocol = packet[9] if start == 20 else packet[6]
    offset = {6: 16, 17: 6}[protocol]
    if start == 20:
        ends = (str(ip_address(packet[12:16])), str(ip_address(packet[16:20])))
        pseudo = builders.pseudo4(*ends, protocol, len(packet) - start)
    else:
        ends = (str(ip_address(packet[8:24])), str(ip_address(packet[24:40])))
        pseudo = builders.pseudo6(*ends, protocol, len(packet) - start)
    partial = bytearray(packet)
    at = start + offset
    partial[at : at + 2] = (slow_checksum(pseudo) ^ 0xFFFF).to_bytes(2, "big")
    header = VirtioHeader(VIRTIO_NET_HDR_F_NEEDS_CSUM, csum_start=start, csum_offset=offset)
    return header, partial


def test_header_is_these_ten_bytes():
    header = VirtioHeader(1, VIRTIO_NET_HDR_GSO_TCPV4, 0x0034, 0x05A8, 0x0014, 0x0010)
    assert header.encode().hex() == "0101" + "3400" + "a805" + "1400" + "1000"
    assert VirtioHeader.decode_untrusted(b"xx" + header.encode() + b"packet", 2) == header


def test_no_offload_is_all_zero():
    assert VirtioHeader.decode_untrusted(NO_OFFLOAD) == VirtioHeader()


@given(HEADERS)
def test_header_survives_the_wire(header):
    assert VirtioHeader.decode_untrusted(memoryview(header.encode())) == header


@pytest.mark.parametrize(("size", "offset"), [(0, 0), (9, 0), (10, 1), (10, 50)])
def test_short_header_is_refused(size, offset):
    with pytest.raises(WireError):
        VirtioHeader.decode_untrusted(bytes(size), offset)


WHOLE = [
    builders.udp4(A4, B4, b"payload"),
    builders.udp6(A6, B6, b"payload!"),
    builders.tcp4(A4, B4, b"payload"),
    builders.tcp6(A6, B6, b"payload!", options=TIMESTAMPS),
]


@pytest.mark.parametrize("packet", WHOLE)
def test_partial_checksum_is_finished(packet):
    header, partial = needs_checksum(packet)
    assert bytes(partial) != packet
    finish_checksum(header, partial)
    assert bytes(partial) == packet


@pytest.mark.parametrize("packet", WHOLE)
def test_packet_of_wire_size_comes_back_alone_and_complete(packet):
    header, partial = needs_checksum(packet)
    assert segment_untrusted(header, memoryview(partial)) == [packet]
    assert segment_untrusted(VirtioHeader(VIRTIO_NET_HDR_F_DATA_VALID), packet) == [packet]


def test_udp_checksum_is_never_zero():
    # This payload makes the sum 0xFFFF, so that its complement is 0.
    base = builders.udp4(A4, B4, b"\0\0")
    packet = builders.udp4(A4, B4, base[26:28])
    assert packet[26:28] == b"\xff\xff"
    header, partial = needs_checksum(packet)
    finish_checksum(header, partial)
    assert bytes(partial) == packet


@pytest.mark.parametrize(("start", "offset"), [(0, 35), (36, 0), (65535, 65535), (35, 0)])
def test_checksum_outside_the_packet_is_refused(start, offset):
    packet = bytearray(builders.udp4(A4, B4, b"12345678"))
    before = bytes(packet)
    header = VirtioHeader(VIRTIO_NET_HDR_F_NEEDS_CSUM, csum_start=start, csum_offset=offset)
    with pytest.raises(WireError):
        finish_checksum(header, packet)
    assert bytes(packet) == before


@pytest.mark.parametrize(
    ("packet", "start", "refused"),
    [
        *((builders.udp4(A4, B4, b"12345678"), start, start < 20) for start in (0, 10, 19, 20)),
        *((builders.udp6(A6, B6, b"12345678"), start, start < 40) for start in (0, 20, 39, 40)),
    ],
)
def test_no_checksum_is_written_over_the_ip_header(packet, start, refused):
    """Else the addresses that arrive would be others than those that were checked."""
    header = VirtioHeader(VIRTIO_NET_HDR_F_NEEDS_CSUM, csum_start=start, csum_offset=6)
    assert rewrites_addresses_untrusted(memoryview(header.encode() + packet)) is refused
    assert not rewrites_addresses_untrusted(memoryview(b"\0" + header.encode()[1:] + packet))
    changed = bytearray(packet)
    with pytest.raises(WireError) if refused else nullcontext():
        finish_checksum(header, changed)
    assert changed[: len(packet) - 16] == packet[: len(packet) - 16]
    assert (changed == packet) is refused


SIZES = st.integers(1, 40)
PAYLOADS = st.binary(min_size=1, max_size=200)


def cut(payload: bytes, size: int) -> list[bytes]:
    return [payload[at : at + size] for at in range(0, len(payload), size)]


@given(PAYLOADS, SIZES, st.sampled_from([b"", TIMESTAMPS]))
def test_tcp_segments_are_what_a_sender_would_have_built(payload, size, options):
    flags = ACK | PSH | FIN | CWR
    whole = builders.tcp4(
        A4, B4, payload, sequence=2**32 - 50, flags=flags, options=options, identification=65530
    )
    pieces = cut(payload, size)
    expected = []
    for index, piece in enumerate(pieces):
        left_out = (0 if index == len(pieces) - 1 else FIN | PSH) | (CWR if index else 0)
        expected.append(
            builders.tcp4(
                A4,
                B4,
                piece,
                sequence=(2**32 - 50 + index * size) % 2**32,
                flags=flags & ~left_out,
                options=options,
                identification=(65530 + index) % 2**16,
            )
        )
    header = VirtioHeader(gso_type=VIRTIO_NET_HDR_GSO_TCPV4, gso_size=size)
    assert segment_untrusted(header, whole) == expected
    header, partial = needs_checksum(whole)
    header = header._replace(
        gso_type=VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN, gso_size=size
    )
    assert segment_untrusted(header, partial) == expected


@given(PAYLOADS, SIZES)
def test_tcp_segments_over_ipv6(payload, size):
    whole = builders.tcp6(A6, B6, payload, flags=ACK | PSH, options=TIMESTAMPS)
    made = segment_untrusted(VirtioHeader(0, VIRTIO_NET_HDR_GSO_TCPV6, gso_size=size), whole)
    assert all(checksums_are_right(piece) for piece in made)
    read = [IPv6(piece) for piece in made]
    assert b"".join(bytes(one[TCP].payload) for one in read) == payload
    assert [one[TCP].seq for one in read] == [1 + i * size for i in range(len(read))]
    assert ["P" in str(one[TCP].flags) for one in read] == [False] * (len(read) - 1) + [True]


@given(PAYLOADS, SIZES)
def test_udp_segments_are_what_a_sender_would_have_built(payload, size):
    header = VirtioHeader(0, VIRTIO_NET_HDR_GSO_UDP_L4, gso_size=size)
    whole = builders.udp4(A4, B4, payload, identification=7)
    assert segment_untrusted(header, whole) == [
        builders.udp4(A4, B4, piece, identification=7 + index)
        for index, piece in enumerate(cut(payload, size))
    ]
    whole = builders.udp6(A6, B6, payload)
    assert segment_untrusted(header, whole) == [
        builders.udp6(A6, B6, piece) for piece in cut(payload, size)
    ]


def test_segments_as_scapy_builds_them():
    payload = bytes(range(256)) * 12
    whole = IP(src=A4, dst=B4, id=9) / UDP(sport=1, dport=2) / payload
    header = VirtioHeader(0, VIRTIO_NET_HDR_GSO_UDP_L4, gso_size=1024)
    assert segment_untrusted(header, bytes(whole)) == [
        bytes(IP(src=A4, dst=B4, id=9 + i) / UDP(sport=1, dport=2) / payload[i * 1024 :][:1024])
        for i in range(3)
    ]


def test_extension_headers_are_repeated_in_every_segment():
    udp = builders.udp6(A6, B6, b"12345678")[40:]
    whole = builders.ip6(60, A6, B6, b"\x11\0" + bytes(6) + udp)
    made = segment_untrusted(VirtioHeader(0, VIRTIO_NET_HDR_GSO_UDP_L4, gso_size=4), whole)
    assert [len(piece) for piece in made] == [60, 60]
    assert [piece[40:48] for piece in made] == [whole[40:48]] * 2
    # Without the extension header they are ordinary packets, checksums included.
    plain = [builders.ip6(17, A6, B6, piece[48:]) for piece in made]
    assert plain == [builders.udp6(A6, B6, b"1234"), builders.udp6(A6, B6, b"5678")]


def test_bytes_behind_the_packet_are_left_out():
    whole = builders.udp4(A4, B4, b"12345678")
    header = VirtioHeader(0, VIRTIO_NET_HDR_GSO_UDP_L4, gso_size=5)
    assert segment_untrusted(header, whole + b"rest") == segment_untrusted(header, whole)


@pytest.mark.parametrize(
    ("gso_type", "size", "packet"),
    [
        (VIRTIO_NET_HDR_GSO_TCPV4, 0, builders.tcp4(A4, B4, b"data")),
        (VIRTIO_NET_HDR_GSO_TCPV4, 100, builders.tcp4(A4, B4, b"")),
        (VIRTIO_NET_HDR_GSO_TCPV4, 1, builders.tcp4(A4, B4, bytes(PIECES_LIMIT + 1))),
        (VIRTIO_NET_HDR_GSO_TCPV4, 2, builders.tcp6(A6, B6, b"data")),
        (VIRTIO_NET_HDR_GSO_TCPV6, 2, builders.tcp4(A4, B4, b"data")),
        (VIRTIO_NET_HDR_GSO_TCPV4, 2, builders.udp4(A4, B4, b"data")),
        (VIRTIO_NET_HDR_GSO_UDP_L4, 2, builders.tcp4(A4, B4, b"data")),
        (VIRTIO_NET_HDR_GSO_UDP, 2, builders.udp4(A4, B4, b"data")),
        (99, 2, builders.udp4(A4, B4, b"data")),
        (VIRTIO_NET_HDR_GSO_UDP_L4, 2, builders.udp4(A4, B4, b"data")[:-1]),
        (VIRTIO_NET_HDR_GSO_UDP_L4, 2, builders.ip4(17, A4, B4, bytes(30), flags=1)),
        (VIRTIO_NET_HDR_GSO_UDP_L4, 2, b""),
    ],
)
def test_impossible_super_packet_is_refused(gso_type, size, packet):
    with pytest.raises(WireError):
        segment_untrusted(VirtioHeader(0, gso_type, gso_size=size), packet)


def test_most_segments_are_made():
    whole = builders.tcp4(A4, B4, bytes(PIECES_LIMIT), flags=ACK | SYN)
    header = VirtioHeader(0, VIRTIO_NET_HDR_GSO_TCPV4, gso_size=1)
    assert len(segment_untrusted(header, whole)) == PIECES_LIMIT


@given(HEADERS, st.binary(max_size=80) | st.sampled_from([bytes(p) for p in WHOLE]))
def test_random_headers_and_packets_are_cut_or_refused(header, packet):
    with suppress(WireError):
        segment_untrusted(header, packet)
    with suppress(WireError):
        finish_checksum(header, bytearray(packet))


def test_captures_are_cut_or_refused(vectors: Path):
    for frame in all_frames(vectors / "pcaps"):
        for gso_type in (VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_UDP_L4):
            with suppress(WireError):
                made = segment_untrusted(VirtioHeader(0, gso_type, gso_size=500), frame)
                assert all(len(piece) <= len(frame) for piece in made)
