from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.packet import Packet, Raw

from overlay.forwarding.coalesce import CLOSE_LOOK_LEAST, MAX_SEGMENTS, Coalescer
from overlay.wire.burst import BLOCK_HEADER_SIZE, BlockKind, block
from overlay.wire.checksum import pseudo_header_sum
from overlay.wire.ip import parse_untrusted
from overlay.wire.virtio import (
    VIRTIO_HEADER_SIZE,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VirtioHeader,
    segment_untrusted,
)

V4 = {"src": "10.244.0.2", "dst": "10.244.1.2"}
V6 = {"src": "fd00::2", "dst": "fd00:0:0:1::2"}
MANY = CLOSE_LOOK_LEAST
CHECKSUM_AT = {6: 16, 17: 6}


def partial(packet: bytes) -> bytes:
    """The packet as its sender's kernel hands it over: behind a header, its checksum unfinished."""
    ip = parse_untrusted(packet)
    assert ip is not None
    offset = CHECKSUM_AT[ip.protocol]
    length = ip.end - ip.transport
    total = pseudo_header_sum(ip.source, ip.destination, ip.protocol, length)
    at = ip.transport + offset
    unfinished = packet[:at] + total.to_bytes(2, "big") + packet[at + 2 :]
    flags = VIRTIO_NET_HDR_F_NEEDS_CSUM
    return VirtioHeader(flags, csum_start=ip.transport, csum_offset=offset).encode() + unfinished


def complete(packet: bytes) -> bytes:
    return VirtioHeader().encode() + packet


def datagram(number: int, size: int = 64, *, version: int = 4, sport: int = 1000) -> bytes:
    data = random.Random(number).randbytes(size)
    upper = UDP(sport=sport, dport=2000) / Raw(data)
    if version == 6:
        return bytes(IPv6(**V6) / upper)
    return bytes(IP(**V4, id=number & 0xFFFF, flags="DF") / upper)


def segment(number: int, size: int = 1000, *, version: int = 4, **fields: object) -> bytes:
    data = random.Random(number).randbytes(size)
    first = {"sport": 1000, "dport": 2000, "flags": "A", "ack": 7, "window": 500}
    options = [("NOP", None), ("NOP", None), ("Timestamp", (11, 12))]
    upper: Packet = TCP(
        **{"seq": (number * size + 0xFFFFF000) & 0xFFFFFFFF, "options": options, **first, **fields}
    ) / Raw(data)
    return bytes((IPv6(**V6) if version == 6 else IP(**V4, id=number & 0xFFFF)) / upper)


def joined(packets: list[bytes], *, tso: bool = True, uso: bool = True) -> list[tuple[bytes, int]]:
    """What becomes of packets (virtio_net_hdr first) of one size that lie side by side."""
    plaintext = b"".join(block(BlockKind.OFFLOADED, packet) for packet in packets)
    stride = len(packets[0]) + BLOCK_HEADER_SIZE
    start = 5
    room = memoryview(bytes(start) + plaintext)
    found = Coalescer(tso=tso, uso=uso).joined_untrusted(room, start, stride, len(packets))
    return [(bytes(packet), count) for packet, count in found]


def cut(packet: bytes) -> list[bytes]:
    """What the receiving kernel makes of it, checksums completed."""
    header = VirtioHeader.decode_untrusted(packet)
    return segment_untrusted(header, packet[VIRTIO_HEADER_SIZE:])


def counts(packets: list[bytes], **offloads: bool) -> list[int]:
    """How many packets each delivered one stands for, after checking that nothing changed."""
    made = joined(packets, **offloads)
    assert [piece for packet, _ in made for piece in cut(packet)] == [
        piece for packet in packets for piece in cut(packet)
    ]
    return [count for _, count in made]


@pytest.mark.parametrize("dress", [partial, complete])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("make", [datagram, segment])
def test_a_run_of_one_flow_becomes_one_super_packet(dress, version, make):
    run = [dress(make(number, version=version)) for number in range(20)]
    assert counts(run) == [20]


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1300, 1472])
def test_any_size_of_data_comes_back(size: int):
    assert counts([partial(datagram(n, size)) for n in range(9)]) == [9]
    assert counts([complete(datagram(n, size)) for n in range(MANY)]) == [MANY]
    assert counts([complete(segment(n, size)) for n in range(MANY)]) == [MANY]


def test_a_super_packet_has_no_more_segments_than_kernels_take():
    run = [partial(datagram(number)) for number in range(2 * MAX_SEGMENTS + 3)]
    assert counts(run) == [MAX_SEGMENTS, MAX_SEGMENTS, 3]


def test_a_super_packet_is_never_longer_than_ip_can_say():
    assert counts([partial(datagram(n, 8000)) for n in range(10)]) == [8, 2]
    assert counts([partial(segment(n, 8000, version=6)) for n in range(10)]) == [8, 2]


def test_identifications_that_wrap_are_in_order():
    assert counts([partial(datagram(number)) for number in range(0xFFFA, 0xFFFA + MANY)]) == [MANY]


def test_flows_are_not_mixed_and_their_order_stays():
    first = [partial(datagram(number)) for number in range(8)]
    second = [partial(datagram(number, sport=1001)) for number in range(9)]
    assert counts([*first, *second]) == [8, 9]
    between = [one for pair in zip(first, second, strict=False) for one in pair]
    assert counts(between) == [1] * 16


def test_what_only_looks_like_the_first_packet_of_a_run_is_not_joined_by_its_rules():
    """A TCP segment as long as the datagrams in front of it: other headers, other rules."""
    size = 64
    run = [complete(datagram(number, size + 24)) for number in range(9)]
    run += [complete(segment(number, size)) for number in range(9)]
    assert len({len(packet) for packet in run}) == 1
    assert counts(run) == [9] + [1] * 9


def broken(packet: bytes, at: int, value: int = 1) -> bytes:
    at %= len(packet)
    return packet[:at] + bytes([packet[at] ^ value]) + packet[at + 1 :]


@pytest.mark.parametrize("at", [-1, 26, 27, 10, 11])
def test_a_wrong_checksum_is_delivered_as_it_is(at: int):
    """Joining it would make it right, and the pod would take a damaged packet."""
    run = [datagram(number) for number in range(MANY)]
    run[4] = broken(run[4], at)
    made = joined([complete(packet) for packet in run])
    assert [count for _, count in made] == [4, 1, MANY - 5]
    assert made[1][0] == complete(run[4])


@pytest.mark.parametrize(("field", "value"), [(1, 0x01), (8, 0x01), (6, 0x40), (9, 0x08)])
def test_a_packet_with_another_header_is_alone(field: int, value: int):
    """Traffic class (ECN), TTL, don't fragment, protocol."""
    run = [datagram(number) for number in range(MANY)]
    changed = IP(broken(run[4], field, value))
    del changed.chksum
    run[4] = bytes(changed)
    made = joined([partial(p) if index != 4 else complete(p) for index, p in enumerate(run)])
    assert [count for _, count in made] == [4, 1, MANY - 5]


@pytest.mark.parametrize("flags", ["AF", "S", "AR", "AU", "AC", ""])
def test_a_segment_with_other_flags_is_alone(flags: str):
    run = [complete(segment(n, flags="A" if n != 4 else flags)) for n in range(MANY)]
    assert counts(run) == [4, 1, MANY - 5]


def test_a_push_ends_its_super_packet_and_stays_in_it():
    run = [complete(segment(n, flags="PA" if n in (3, 8) else "A")) for n in range(MANY)]
    assert counts(run) == [4, 5, MANY - 9]


@pytest.mark.parametrize("dress", [partial, complete])
@pytest.mark.parametrize("count", [9, MANY])
def test_segments_that_all_push_are_all_alone(dress, count: int):
    assert counts([dress(segment(n, flags="PA")) for n in range(count)]) == [1] * count


def test_a_gap_or_a_repetition_in_the_sequence_is_an_edge():
    order = [0, 1, 2, 3, 5, 6, 7, 7, *range(8, 16)]
    assert counts([complete(segment(number)) for number in order]) == [4, 3, 9]
    assert counts([partial(segment(number)) for number in order]) == [4, 3, 9]


@pytest.mark.parametrize("changed", [{"ack": 8}, {"window": 501}, {"urgptr": 1}])
def test_segments_with_other_acknowledgements_are_apart(changed: dict[str, int]):
    run = [segment(n, **(changed if n >= 5 else {})) for n in range(MANY)]
    assert counts([complete(packet) for packet in run]) == [5, MANY - 5]


def test_a_datagram_without_a_checksum_is_not_given_one():
    run = [IP(datagram(number)) for number in range(8)]
    for packet in run:
        packet[UDP].chksum = 0
        del packet.chksum
    assert counts([complete(bytes(packet)) for packet in run]) == [1] * 8


@pytest.mark.parametrize("zero", [b"\0\0", b"\xff\xff"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_segment_whose_checksum_is_zero_is_alone(version: int, zero: bytes):
    """The kernel writes 0 there when it cuts a packet, and 0xFFFF when it completes one."""
    run = [complete(segment(number, 100, version=version)) for number in range(MANY)]
    at = VIRTIO_HEADER_SIZE + (20 if version == 4 else 40) + CHECKSUM_AT[6]
    # What the checksum has, moved to the data.
    run[4] = run[4][:at] + zero + run[4][at + 2 : -2] + moved(run[4][-2:], run[4][at : at + 2])
    made = joined(run)
    assert [count for _, count in made] == [4, 1, MANY - 5]
    assert made[1][0] == run[4]


def moved(*words: bytes) -> bytes:
    total = sum(int.from_bytes(word, "big") for word in words)
    return ((total & 0xFFFF) + (total >> 16)).to_bytes(2, "big")


@pytest.mark.parametrize(
    "packet",
    [
        bytes(IP(**V4, flags="MF") / UDP() / Raw(b"x" * 32)),
        bytes(IP(**V4, frag=3) / UDP() / Raw(b"x" * 32)),
        bytes(IP(**V4, options=[Raw(b"\1\1\1\0")]) / UDP() / Raw(b"x" * 32)),
        bytes(IPv6(**V6) / IPv6ExtHdrHopByHop() / UDP() / Raw(b"x" * 32)),
        bytes(IP(**V4, proto=47) / Raw(b"x" * 32)),
        bytes(IP(**V4) / UDP()),
        bytes(IP(**V4) / TCP(flags="A")),
        bytes(IP(**V4) / UDP(len=20) / Raw(b"x" * 32)),
        b"\x45" * 20,
        bytes(IP(**V4) / UDP() / Raw(b"x" * 32)) + b"padding",
    ],
    ids=[
        "fragment",
        "last-fragment",
        "options",
        "extension",
        "gre",
        "empty",
        "ack",
        "short",
        "garbage",
        "padded",
    ],
)
def test_what_is_no_plain_datagram_or_segment_passes_untouched(packet: bytes):
    assert joined([complete(packet)] * 6) == [(complete(packet), 1)] * 6


def test_super_packets_and_odd_offload_headers_pass_untouched():
    packet = datagram(1)
    for header in (
        VirtioHeader(gso_type=5, gso_size=10),
        VirtioHeader(flags=4),
        VirtioHeader(flags=1, csum_start=20, csum_offset=16),
        VirtioHeader(flags=1, csum_start=9, csum_offset=6),
    ):
        assert joined([header.encode() + packet] * 5) == [(header.encode() + packet, 1)] * 5


def test_a_partial_sum_that_is_wrong_stays_wrong():
    run = [broken(partial(datagram(number)), VIRTIO_HEADER_SIZE + 27) for number in range(MANY)]
    assert counts(run) == [1] * MANY


@pytest.mark.parametrize("at", [10, 11, 4, 5])
@pytest.mark.parametrize("which", [0, 5, 19])
def test_a_header_that_does_not_count_on_is_an_edge(at: int, which: int):
    """IPv4 identification and header checksum, of the first packet, one between, and the last."""
    run = [partial(datagram(number)) for number in range(20)]
    run[which] = broken(run[which], VIRTIO_HEADER_SIZE + at)
    made = joined(run)
    expected = [count for count in (which, 1, 19 - which) if count]
    assert [count for _, count in made] == expected
    assert (run[which], 1) in made


def test_only_what_the_tun_takes_is_made():
    datagrams = [partial(datagram(number)) for number in range(5)]
    segments = [partial(segment(number)) for number in range(5)]
    assert counts(datagrams, uso=False) == [1] * 5
    assert counts(datagrams, tso=False) == [5]
    assert counts(segments, tso=False) == [1] * 5
    assert counts(segments, uso=False) == [5]
    assert not Coalescer(tso=False, uso=False)
    assert Coalescer(tso=True, uso=False)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 12),
            st.sampled_from([1000, 1000, 1000, 1001]),
            st.booleans(),
            st.sampled_from([None, None, None, 3, 10, 23, 27, 40, -1]),
        ),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from([4, 6]),
    st.booleans(),
)
def test_whatever_lies_side_by_side_comes_out_as_it_went_in(packets, version, tcp):
    """Gaps, repetitions, damage, both kinds of checksum: cut again, the same bytes."""
    run = []
    number = 0
    for ahead, sport, unfinished, damage in packets:
        number += 1 if ahead < 9 else ahead - 9
        if tcp:
            packet = segment(number, 100, version=version, sport=sport)
        else:
            packet = datagram(number, 100, version=version, sport=sport)
        packet = partial(packet) if unfinished else complete(packet)
        run.append(packet if damage is None else broken(packet, damage))
    expected = [packet[:VIRTIO_HEADER_SIZE] + packet[VIRTIO_HEADER_SIZE:] for packet in run]
    made = joined(run)
    assert sum(count for _, count in made) == len(run)
    at = 0
    for packet, count in made:
        if count == 1:
            assert packet == expected[at]
        else:
            assert cut(packet) == [one for whole in run[at : at + count] for one in cut(whole)]
        at += count
