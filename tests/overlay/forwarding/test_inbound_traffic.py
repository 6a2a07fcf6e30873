"""Many packets together: through both directions, from real networks, and joined for the TUN."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from overlay.types import Endpoint, NodeId
from overlay.wire.burst import BlockKind, block
from overlay.wire.virtio import NO_OFFLOAD, VIRTIO_HEADER_SIZE, VirtioHeader, segment_untrusted
from tests.support.pair import (
    ALICE,
    BOB,
    CAROL,
    ENDPOINTS,
    Pair,
    address,
    burst,
    packet4,
    packet6,
    pieces,
    sealed,
)
from tests.support.pcap import all_frames

HERE, ELSEWHERE = ENDPOINTS[ALICE], Endpoint("203.0.113.5", 4242)


# -- both directions together ----------------------------------------------------------------------


def disturbed(
    wire: list[tuple[Endpoint, bytes, int]], rng: random.Random
) -> Iterator[tuple[bytes, int]]:
    """Reads as a bad network and a moody kernel give them: reordered, repeated, joined anew."""
    datagrams = list(pieces(wire))
    datagrams += rng.sample(datagrams, len(datagrams) // 3)
    for at in range(len(datagrams)):  # nearby, as networks do; further away in one case of ten
        other = rng.randrange(len(datagrams)) if rng.random() < 0.1 else at + rng.randrange(4)
        other = min(other, len(datagrams) - 1)
        datagrams[at], datagrams[other] = datagrams[other], datagrams[at]
    while datagrams:
        first = datagrams.pop(0)
        read, step = first, len(first)
        room = rng.randrange(44)
        # Joined as UDP_GRO does: equal sizes, and a shorter one closes the run.
        while room and datagrams and len(datagrams[0]) <= step and len(read) % step == 0:
            read += datagrams.pop(0)
            room -= 1
        yield read, step if rng.random() < 0.5 or len(read) > step else 0


packets = st.builds(
    lambda build, size, byte, host: build(ALICE, BOB, bytes([byte]) * size, host=host),
    st.sampled_from([packet4, packet6]),
    st.sampled_from([0, 1, 8, 100, 1400, 1472]) | st.integers(0, 3000) | st.just(40_000),
    st.integers(0, 255),
    st.integers(2, 5),
)


@settings(max_examples=40)
@given(
    st.lists(st.lists(packets, min_size=1, max_size=8), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
    st.sampled_from([1280, 1400, 1500, 9000]),
)
def test_packets_arrive_exactly_once_and_unchanged(passes, rng: random.Random, path_mtu: int):
    """Whatever the network reorders, repeats or joins, as long as it loses nothing."""
    pair = Pair(path_mtu=path_mtu, incomplete=1000)
    for one in passes:
        pair.alice.send(*one)
    for read, step in disturbed(pair.alice.take_wire(), rng):
        assert pair.bob.receive(read, step, source=HERE) == []
    sent = [packet for one in passes for packet in one]
    assert sorted(pair.bob.delivered) == sorted(sent)
    assert set(pair.bob.lost()) <= {"replayed", "duplicate_segment"}
    assert pair.alice.ledger.sent_out == pair.bob.ledger.tun_out == len(sent)


@settings(max_examples=40)
@given(
    st.lists(st.lists(packets, min_size=1, max_size=8), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_with_loss_what_arrives_is_unchanged_and_the_rest_is_counted(passes, rng: random.Random):
    pair = Pair()
    for one in passes:
        pair.alice.send(*one)
    reads = [read for read in disturbed(pair.alice.take_wire(), rng) if rng.random() < 0.8]
    for now, (read, step) in enumerate(reads):
        pair.bob.inbound.expire(now * 0.2)
        pair.bob.receive(read, step, source=HERE, now=now * 0.2)
    pair.bob.inbound.expire(1e9)
    pair.bob.check()
    left = [packet for one in passes for packet in one]
    for packet in pair.bob.delivered:
        left.remove(packet)
    assert pair.bob.ledger.queued_segments == 0


# -- frames from real networks ---------------------------------------------------------------------


def captured(vectors: Path) -> list[bytes]:
    """Frames, no longer than what the TUN can give."""
    return [frame[:65_000] for frame in all_frames(vectors / "pcaps")]


def test_no_captured_frame_raises_or_gets_through(vectors: Path):
    """Each as a datagram, as a packet from the TUN, and as a packet inside a burst."""
    pair = Pair()
    for frame in captured(vectors):
        pair.bob.receive(frame, source=ELSEWHERE)
        pair.alice.send(NO_OFFLOAD + frame)
        pair.bob.receive(sealed(pair, block(BlockKind.PACKET, frame)), source=HERE)
    assert pair.alice.wire == pair.bob.delivered == []
    assert pair.alice.lost().keys() <= {
        "malformed", "foreign_source", "no_route", "multicast"
    }  # fmt: skip


def test_every_captured_frame_arrives_unchanged_as_a_payload(vectors: Path):
    pair = Pair()
    packets = [packet6(ALICE, BOB, frame) for frame in captured(vectors)]
    pair.alice.send(*packets)
    pair.carry()
    # What looks like a flow keeps its order; small packets overtake the bulk of others.
    assert sorted(pair.bob.delivered) == sorted(packets)


def test_nodes_are_told_apart_by_their_whole_id(pair: Pair):
    impostor = NodeId(ALICE[:-1] + b"b")
    pair.bob.peers[ALICE].node = impostor
    pair.bob.receive(burst(pair, packet4(ALICE, BOB)), source=HERE)
    assert pair.bob.lost() == {"spoofed_source": 1}


# -- joining for the TUN ---------------------------------------------------------------------------


def numbered(number: int, source: NodeId = ALICE) -> bytes:
    """One datagram of a flow, as its sender's kernel hands it over."""
    ends = {"src": str(address(source, 2)), "dst": str(address(BOB, 2))}
    return NO_OFFLOAD + bytes(IP(**ends, id=number) / UDP(sport=1, dport=2) / Raw(b"data" * 9))


def cut(packet: bytes) -> list[bytes]:
    return segment_untrusted(VirtioHeader.decode_untrusted(packet), packet[VIRTIO_HEADER_SIZE:])


def test_a_run_of_datagrams_is_delivered_as_one_and_counted_as_many():
    pair = Pair(coalesce=True)
    run = [numbered(number) for number in range(30)]
    pair.alice.send(packet4(ALICE, BOB, b"before"), *run, packet4(ALICE, BOB, b"behind"))
    pair.carry()
    first, joined, last = pair.bob.delivered
    assert (first, last) == (packet4(ALICE, BOB, b"before"), packet4(ALICE, BOB, b"behind"))
    assert cut(joined) == [packet for one in run for packet in cut(one)]
    assert pair.bob.ledger.tun_out == 32
    assert pair.bob.ledger.opened_in == 32


def test_a_joined_run_with_a_forged_source_is_lost_packet_by_packet_in_the_books():
    pair = Pair(coalesce=True)
    run = [numbered(number, source=CAROL) for number in range(30)]
    plaintext = b"".join(block(BlockKind.OFFLOADED, packet) for packet in run)
    pair.bob.receive(sealed(pair, plaintext), source=ENDPOINTS[ALICE])
    assert pair.bob.delivered == []
    assert pair.bob.lost() == {"spoofed_source": 30}


def test_a_joined_run_the_tun_refuses_is_lost_packet_by_packet_in_the_books():
    pair = Pair(coalesce=True)
    pair.bob.refuse = True
    pair.alice.send(*[numbered(number) for number in range(30)])
    pair.carry()
    assert pair.bob.lost() == {"delivery_failed": 30}


def test_a_run_that_ends_in_the_middle_of_a_block_is_delivered_up_to_there():
    """Only a member can send that, but it must not make the others' packets wrong."""
    pair = Pair(coalesce=True)
    run = [numbered(number) for number in range(12)]
    plaintext = b"".join(block(BlockKind.OFFLOADED, packet) for packet in run)
    pair.bob.receive(sealed(pair, plaintext[:-5]), source=ENDPOINTS[ALICE])
    assert [piece for one in pair.bob.delivered for piece in cut(one)] == [
        packet for one in run[:-1] for packet in cut(one)
    ]
    assert pair.bob.lost() == {"bad_block": 1}
