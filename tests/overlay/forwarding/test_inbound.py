"""Datagrams that come in: bursts put together, or refused before anything is believed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.forwarding.inbound import Control, Handshake
from overlay.session.suites import Suite
from overlay.types import Endpoint
from overlay.wire.burst import BlockKind, block
from overlay.wire.header import HEADER_SIZE, TYPE_DATA, TYPE_INITIATION, TYPE_RESPONSE, Header
from tests.support.pair import (
    ALICE,
    BOB,
    ENDPOINTS,
    LIFE,
    Pair,
    Side,
    burst,
    keypairs,
    packet4,
    packet6,
    pieces,
    sealed,
)

HERE, ELSEWHERE = ENDPOINTS[ALICE], Endpoint("203.0.113.5", 4242)
BIG = packet4(ALICE, BOB, bytes(range(256)) * 200)


STEP = 1500 - 28


# -- whole bursts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("build", [packet4, packet6])
@pytest.mark.parametrize("size", [0, 1, 1400, 1500, 20_000, 62_000])
def test_a_packet_arrives_as_it_was_sent(suite: Suite, build: Callable[..., bytes], size: int):
    pair = Pair(suite=suite)
    packet = build(ALICE, BOB, bytes(index % 251 for index in range(size)))
    pair.alice.send(packet)
    assert pair.carry() == []
    assert pair.bob.delivered == [packet]
    assert pair.bob.ledger.tun_out == 1


def test_a_pass_of_small_packets_arrives_in_order(pair: Pair):
    packets = [packet4(ALICE, BOB, bytes([index]) * index) for index in range(100)]
    pair.alice.send(*packets)
    pair.carry()
    assert pair.bob.delivered == packets


def test_the_offload_header_travels_along(pair: Pair):
    packet = bytes(range(10)) + packet4(ALICE, BOB, b"x")[10:]
    pair.alice.send(packet)
    pair.carry()
    assert pair.bob.delivered == [packet]


def test_a_plain_packet_gets_an_empty_offload_header(pair: Pair):
    packet = packet4(ALICE, BOB, b"x")
    pair.bob.receive(sealed(pair, block(BlockKind.PACKET, packet[10:])), source=HERE)
    assert pair.bob.delivered == [packet]


def test_several_bursts_in_one_read_all_arrive(pair: Pair):
    """Bursts whose last segment is as long as the others: the kernel joins them."""
    size = 3 * (STEP - HEADER_SIZE) - 16 - 3 - 30  # three full segments
    packets = [packet4(ALICE, BOB, bytes([index]) * size) for index in range(5)]
    read = b"".join(burst(pair, packet) for packet in packets)
    assert len(read) == 15 * STEP
    pair.bob.receive(read, STEP, source=HERE)
    assert pair.bob.delivered == packets
    assert pair.bob.ledger.datagrams_in == pair.bob.ledger.consumed_out == 15
    assert pair.bob.reassembly.held == 0


def test_single_segment_bursts_in_one_read_all_arrive(pair: Pair):
    packets = [packet4(ALICE, BOB, bytes([index]) * 40) for index in range(9)]
    datagrams = [burst(pair, packet) for packet in packets]
    pair.bob.receive(b"".join(datagrams), len(datagrams[0]), source=HERE)
    assert pair.bob.delivered == packets


def test_the_read_buffer_may_be_reused_at_once(pair: Pair):
    pair.alice.send(BIG)
    wire = list(pieces(pair.alice.take_wire()))
    buffer = bytearray(1500)
    for datagram in wire:
        buffer[: len(datagram)] = datagram
        view = memoryview(buffer)[: len(datagram)]
        pair.bob.inbound.on_datagrams_untrusted(view, 0, HERE, 0.0)
        buffer[:] = bytes(1500)
    assert pair.bob.delivered == [BIG]


# -- bursts in pieces ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_single_segments_are_put_together(pair: Pair, rng: random.Random, order: str):
    datagrams = list(pieces([(HERE, burst(pair, BIG), STEP)]))
    if order == "backwards":
        datagrams.reverse()
    elif order == "shuffled":
        rng.shuffle(datagrams)
    for number, datagram in enumerate(datagrams, start=1):
        assert pair.bob.delivered == []
        assert pair.bob.ledger.queued_segments == number - 1
        pair.bob.receive(datagram, source=HERE)
    assert pair.bob.delivered == [BIG]
    assert pair.bob.ledger.queued_segments == 0


@pytest.mark.parametrize("split", [1, 2, 10, 34])
def test_a_burst_split_over_two_reads_is_put_together(pair: Pair, split: int):
    datagrams = burst(pair, BIG)
    pair.bob.receive(datagrams[: split * STEP], STEP, source=HERE)
    pair.bob.receive(datagrams[split * STEP :], STEP, source=HERE)
    assert pair.bob.delivered == [BIG]


def test_a_reordered_read_is_put_together(pair: Pair, rng: random.Random):
    datagrams = list(pieces([(HERE, burst(pair, BIG), STEP)]))
    full, rest = datagrams[:-1], datagrams[-1]
    rng.shuffle(full)
    pair.bob.receive(b"".join([*full, rest]), STEP, source=HERE)
    assert pair.bob.delivered == [BIG]


def test_a_repeated_segment_is_counted_and_harmless(pair: Pair):
    datagrams = list(pieces([(HERE, burst(pair, BIG), STEP)]))
    for datagram in datagrams:
        pair.bob.receive(datagram, source=HERE)
        pair.bob.receive(datagram, source=HERE)
    assert pair.bob.delivered == [BIG]
    assert pair.bob.lost() == {"duplicate_segment": len(datagrams) - 1, "replayed": 1}


def test_a_lost_segment_costs_its_burst_and_no_other(pair: Pair):
    first = list(pieces([(HERE, burst(pair, BIG), STEP)]))
    second = burst(pair, packet4(ALICE, BOB, b"second"))
    for datagram in first[1:]:
        pair.bob.receive(datagram, source=HERE, now=0.0)
    pair.bob.receive(second, source=HERE, now=0.5)
    assert pair.bob.delivered == [packet4(ALICE, BOB, b"second")]
    pair.bob.inbound.expire(0.999)
    assert pair.bob.lost() == {}
    pair.bob.inbound.expire(1.0)
    pair.bob.check()
    assert pair.bob.lost() == {"reassembly_expired": len(first) - 1}


def test_the_oldest_incomplete_burst_makes_room(pair: Pair):
    starts = [burst(pair, BIG)[:STEP] for _ in range(6)]
    for start in starts:
        pair.bob.receive(start, source=HERE)
    assert pair.bob.lost() == {"reassembly_full": 2}
    assert pair.bob.ledger.queued_segments == 4


# -- refused, in the order of the checks -----------------------------------------------------------


def test_every_truncation_is_counted_and_delivers_nothing(pair: Pair):
    datagram = burst(pair, packet4(ALICE, BOB, b"payload"))
    for size in range(len(datagram)):
        pair.bob.receive(datagram[:size], source=HERE)
    assert pair.bob.delivered == []
    assert pair.bob.lost() == {"truncated": HEADER_SIZE + 16, "bad_tag": len(datagram) - 32}
    pair.bob.receive(datagram, source=HERE)
    assert pair.bob.delivered == [packet4(ALICE, BOB, b"payload")]


def test_every_flipped_bit_is_counted_and_delivers_nothing(pair: Pair):
    datagram = burst(pair, packet4(ALICE, BOB, b"payload"))
    for bit in range(len(datagram) * 8):
        flipped = bytearray(datagram)
        flipped[bit // 8] ^= 1 << bit % 8
        assert all(
            isinstance(arrival, Handshake)
            for arrival in pair.bob.receive(bytes(flipped), source=HERE)
        )
    assert pair.bob.delivered == []
    lost = pair.bob.lost()
    assert lost.pop("replayed") == 1, "the highest bit of the counter: none that may be sent"
    assert set(lost) <= {"unknown_type", "bad_header", "unknown_index", "bad_tag"}
    pair.bob.receive(datagram, source=HERE)
    assert len(pair.bob.delivered) == 1, "none of them used the counter up"


def test_a_flipped_bit_in_any_segment_spoils_the_whole_burst(pair: Pair, rng: random.Random):
    for _ in range(50):
        flipped = bytearray(burst(pair, BIG))
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        pair.bob.receive(bytes(flipped), STEP, source=HERE)
    assert pair.bob.delivered == []


@pytest.mark.parametrize("kind", [TYPE_DATA, TYPE_INITIATION, TYPE_RESPONSE, 0, 255])
def test_a_header_with_nothing_behind_it_is_truncated(pair: Pair, kind: int):
    header = Header(kind, receiver=pair.bob.peers[ALICE].keypair.local_index)
    assert pair.bob.receive(header.encode(), source=HERE) == []
    assert pair.bob.lost() == {"truncated": 1}


def test_a_run_whose_last_segment_is_cut_off_is_no_burst(pair: Pair):
    datagrams = burst(pair, BIG)
    last_at = len(datagrams) // STEP * STEP
    for size in (1, HEADER_SIZE):
        pair.bob.receive(datagrams[: last_at + size], STEP, source=HERE)
    assert pair.bob.lost() == {"truncated": 2, "duplicate_segment": last_at // STEP}
    pair.bob.receive(datagrams[last_at:], source=HERE)
    assert pair.bob.delivered == [BIG]


@pytest.mark.parametrize("kind", [0, 5, 77, 255])
def test_an_unknown_type_is_counted(pair: Pair, kind: int):
    pair.bob.receive(bytes([kind]) + bytes(40), source=HERE)
    assert pair.bob.lost() == {"unknown_type": 1}


@pytest.mark.parametrize(
    ("index", "last", "lane"), [(1, 0, 0), (3, 2, 0), (0, 64, 0), (64, 255, 0), (0, 0, 1)]
)
def test_a_header_that_makes_no_sense_is_counted(pair: Pair, index: int, last: int, lane: int):
    receiver = pair.bob.peers[ALICE].keypair.local_index
    header = Header(TYPE_DATA, index, last, lane, receiver, 0)
    pair.bob.receive(header.encode() + bytes(40), source=HERE)
    assert pair.bob.lost() == {"bad_header": 1}


def test_another_lane_of_the_peer_is_heard_and_moves_and_proves_nothing(pair: Pair):
    alice, bob = (side.peers[peer] for side, peer in ((pair.alice, BOB), (pair.bob, ALICE)))
    theirs, ours = alice.keypair.for_lanes(1, 0), bob.keypair.for_lanes(0, 1)
    pair.bob.keypairs[ours.local_index | 0x10 << 32] = ours
    sealed = pair.alice.outbound.seal_control(theirs, b"\x91\x0d", HERE, 1500)
    assert Header.decode_untrusted(sealed.datagram).lane == 0x10
    elsewhere = Endpoint("192.0.2.1", 6876)
    (arrival,) = pair.bob.receive(sealed.datagram, source=elsewhere)
    assert arrival == Control(ours, b"\x91\x0d")
    assert bob.rx_bytes == len(sealed.datagram)


def test_an_unknown_index_is_counted(pair: Pair):
    pair.bob.receive(Header(TYPE_DATA, receiver=5).encode() + bytes(40), source=HERE)
    assert pair.bob.lost() == {"unknown_index": 1}


def test_an_expired_keypair_opens_nothing(pair: Pair):
    datagram = burst(pair, packet4(ALICE, BOB))
    pair.bob.receive(datagram, source=HERE, now=LIFE)
    assert pair.bob.lost() == {"unknown_index": 1}


def test_a_replay_is_counted_whatever_its_age(pair: Pair):
    first = burst(pair, BIG)
    pair.bob.receive(first, STEP, source=HERE)
    pair.bob.receive(first, STEP, source=ELSEWHERE)
    pair.alice.peers[BOB].keypair.counter = 100_000
    pair.bob.receive(burst(pair, packet4(ALICE, BOB)), source=HERE)
    pair.bob.receive(first[:STEP], source=HERE)
    segments = -(-len(first) // STEP)
    assert pair.bob.lost() == {"replayed": segments + 1}
    assert len(pair.bob.delivered) == 2


def test_a_burst_under_the_keys_of_another_session_is_a_bad_tag(pair: Pair):
    datagram = bytearray(burst(pair, packet4(ALICE, BOB)))
    other, theirs = keypairs(ALICE, BOB, indexes=7)
    pair.bob.keypairs[theirs.local_index] = theirs
    datagram[4:8] = theirs.local_index.to_bytes(4, "big")
    assert pair.bob.receive(bytes(datagram), source=HERE) == []
    assert pair.bob.lost() == {"bad_tag": 1}
    assert other.counter == 0


def test_segments_larger_than_any_burst_are_refused(pair: Pair):
    """They used to make a ciphertext that no buffer could take, and raise."""
    receiver = pair.bob.peers[ALICE].keypair.local_index
    for index in range(4):
        header = Header(TYPE_DATA, index, 3, 0, receiver, 0)
        pair.bob.receive(header.encode() + bytes(65_000), source=ELSEWHERE)
    assert pair.bob.lost() == {"bad_header": 3}


@pytest.mark.parametrize("last", [1, 63])
def test_the_longest_read_of_nonsense_raises_nothing(pair: Pair, last: int):
    receiver = pair.bob.peers[ALICE].keypair.local_index
    step = 65_507 // (last + 1)
    read = b"".join(
        Header(TYPE_DATA, index, last, 0, receiver, 0).encode().ljust(step, b"\0")
        for index in range(last + 1)
    )
    pair.bob.receive(read, step, source=ELSEWHERE)
    assert pair.bob.lost() == {"bad_tag": last + 1}


# -- before authentication, nothing changes --------------------------------------------------------


def authenticated_state(side: Side) -> list[object]:
    """Everything that only an authentic burst may change."""
    paths = [
        (path.endpoint, path.keypair, path.heard_at, path.rx_bytes, dict(path.drops))
        for path in side.peers.values()
    ]
    sessions = [
        (one.confirmed, one.counter, one.replay.highest, [one.replay.check(n) for n in range(8)])
        for one in side.keypairs.values()
    ]
    return [paths, sessions, list(side.delivered), side.ledger.tun_out, side.ledger.opened_in]


headers = st.builds(
    Header,
    type=st.sampled_from([TYPE_DATA] * 6 + [0, 9, 255]),
    index=st.integers(0, 3) | st.integers(0, 255),
    last=st.integers(0, 3) | st.integers(0, 255),
    lane=st.sampled_from([0, 0, 0, 1]),
    receiver=st.sampled_from([1001, 1001, 1001, 1, 7]),
    counter=st.integers(0, 3) | st.integers(0, (1 << 64) - 1),
)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(headers, st.binary(max_size=50)), min_size=1, max_size=6),
    st.integers(0, 66),
    st.sampled_from([HERE, ELSEWHERE]),
)
def test_a_strangers_datagrams_change_nothing_but_counters(datagrams, step: int, source: Endpoint):
    pair = Pair()
    pair.bob.receive(burst(pair, BIG), STEP, source=HERE)
    before = authenticated_state(pair.bob)
    read = b"".join(header.encode() + body for header, body in datagrams)
    arrivals = pair.bob.receive(read, step, source=source)
    assert all(isinstance(arrival, Handshake) for arrival in arrivals)
    assert authenticated_state(pair.bob) == before


@settings(max_examples=100)
@given(st.binary(max_size=300), st.integers(0, 310))
def test_any_bytes_end_in_exactly_one_counter(read: bytes, step: int):
    pair = Pair()
    arrivals = pair.bob.receive(read, step, source=ELSEWHERE)
    assert all(isinstance(arrival, Handshake) for arrival in arrivals)
    pieces_in_read = -(-len(read) // step) if step and read else 1
    assert pair.bob.ledger.datagrams_in == pieces_in_read
