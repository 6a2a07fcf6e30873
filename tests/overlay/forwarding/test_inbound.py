from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from overlay.forwarding.flow import MAX_FLOWS
from overlay.forwarding.inbound import Control, Handshake, Moved, Proven
from overlay.session.suites import Suite
from overlay.session.transport import REJECT_COUNTER
from overlay.types import Endpoint, NodeId
from overlay.wire.burst import BlockKind, block
from overlay.wire.header import (
    HEADER_SIZE,
    TYPE_COOKIE_REPLY,
    TYPE_DATA,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    Header,
)
from overlay.wire.virtio import (
    NO_OFFLOAD,
    VIRTIO_HEADER_SIZE,
    VirtioHeader,
    segment_untrusted,
)
from tests.support.pair import (
    ALICE,
    BOB,
    CAROL,
    ENDPOINTS,
    LIFE,
    Pair,
    Side,
    address,
    keypairs,
    packet4,
    packet6,
    pieces,
)
from tests.support.pcap import all_frames

HERE, ELSEWHERE = ENDPOINTS[ALICE], Endpoint("203.0.113.5", 4242)
BIG = packet4(ALICE, BOB, bytes(range(256)) * 200)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def burst(pair: Pair, *packets: bytes) -> bytes:
    """The datagrams of one burst from Alice to Bob, back to back."""
    pair.alice.send(*packets)
    ((_, datagrams, _),) = pair.alice.take_wire()
    return datagrams


def sealed(pair: Pair, plaintext: bytes) -> bytes:
    """One datagram that holds any plaintext at all, properly sealed by Alice."""
    keypair = pair.alice.peers[BOB].keypair
    counter = keypair.next_counter()
    header = Header(TYPE_DATA, receiver=keypair.remote_index, counter=counter).encode()
    out = bytearray(len(plaintext) + 16)
    keypair.seal_into(counter, plaintext, header, out)
    return header + bytes(out)


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
    assert set(pair.bob.lost()) <= {"unknown_type", "bad_header", "unknown_index", "bad_tag"}
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


# -- inside an opened burst ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (packet4(CAROL, BOB), "spoofed_source"),
        (packet6(CAROL, BOB), "spoofed_source"),
        (packet4(BOB, BOB), "spoofed_source"),
        (packet6(BOB, BOB), "spoofed_source"),
        (packet4(ALICE, CAROL), "not_ours"),
        (packet6(ALICE, CAROL), "not_ours"),
        (packet4(ALICE, ALICE), "not_ours"),
        (packet4(ALICE, BOB)[:-4] + bytes([224, 0, 0, 1]), "not_ours"),
        (packet4(ALICE, BOB)[:-1], "malformed"),
        (packet6(ALICE, BOB) + b"\0", "malformed"),
        (NO_OFFLOAD + b"\x55" + packet4(ALICE, BOB)[11:], "malformed"),
        (NO_OFFLOAD, "malformed"),
        (b"", "malformed"),
    ],
)
@pytest.mark.parametrize("kind", [BlockKind.PACKET, BlockKind.OFFLOADED])
def test_a_packet_a_peer_may_not_send_is_counted_by_reason(pair, packet, reason, kind):
    body = packet if kind is BlockKind.OFFLOADED else packet[len(NO_OFFLOAD) :]
    good = packet4(ALICE, BOB, b"good")
    plaintext = block(kind, body) + block(BlockKind.OFFLOADED, good)
    for _ in range(2):
        pair.bob.receive(sealed(pair, plaintext), source=HERE)
    assert pair.bob.lost() == {reason: 2}
    assert dict(pair.bob.peers[ALICE].drops) == {reason: 2}
    assert pair.bob.delivered == [good, good], "its neighbours arrive"


def test_a_flow_of_one_peer_is_not_anothers_to_use(pair: Pair):
    """Alice's flow is remembered; Carol sends packets with the same addresses."""
    pair.alice.send(packet4(ALICE, BOB))
    pair.carry()
    ours, theirs = keypairs(CAROL, BOB, indexes=9)
    pair.bob.use(CAROL, theirs)
    carol = Pair()
    carol.alice.peers[BOB].keypair = ours
    pair.bob.receive(burst(carol, packet4(ALICE, BOB)), source=ENDPOINTS[CAROL])
    assert pair.bob.lost() == {"spoofed_source": 1}
    assert dict(pair.bob.peers[CAROL].drops) == {"spoofed_source": 1}
    pair.bob.receive(burst(pair, packet4(ALICE, BOB)), source=HERE)
    assert len(pair.bob.delivered) == 2


def test_a_remembered_flow_follows_the_routes_once_told(pair: Pair):
    pair.bob.receive(burst(pair, packet4(ALICE, BOB)), source=HERE)
    pair.bob.routes.v4.replace_all([])
    pair.bob.inbound.forget_flows()
    pair.bob.receive(burst(pair, packet4(ALICE, BOB)), source=HERE)
    assert pair.bob.lost() == {"spoofed_source": 1}


def test_more_flows_than_are_remembered_all_get_through(pair: Pair):
    v6 = packet6(ALICE, BOB)
    packets = [
        v6[:-32] + v6[-32:-24] + host.to_bytes(8, "big") + v6[-16:] for host in range(MAX_FLOWS + 5)
    ]
    for packet in packets:
        pair.alice.accept(packet)
    pair.alice.outbound.flush(0.0)
    pair.carry()
    assert pair.bob.ledger.tun_out == MAX_FLOWS + 5


def test_an_unknown_block_is_skipped_and_counted(pair: Pair):
    good = packet4(ALICE, BOB, b"good")
    plaintext = b"\x00\x03\x7fabc" + block(BlockKind.OFFLOADED, good) + b"\x00\x00\x00"
    pair.bob.receive(sealed(pair, plaintext), source=HERE)
    assert pair.bob.lost() == {"unknown_block": 2}
    assert pair.bob.delivered == [good]


@pytest.mark.parametrize("rest", [b"\x00", b"\x00\x05", b"\x00\x05\x02abcd", b"\xff\xff\x03"])
def test_blocks_that_do_not_add_up_are_counted_once(pair: Pair, rest: bytes):
    good = packet4(ALICE, BOB, b"good")
    pair.bob.receive(sealed(pair, block(BlockKind.OFFLOADED, good) + rest), source=HERE)
    assert pair.bob.lost() == {"bad_block": 1}
    assert pair.bob.delivered == [good], "what stood before them arrives"


def test_a_burst_without_blocks_is_authentic_and_says_nothing(pair: Pair):
    assert pair.bob.receive(sealed(pair, b""), source=HERE) == []
    assert pair.bob.peers[ALICE].heard_at == 0.0
    assert pair.bob.lost() == {}


def test_a_packet_the_kernel_refuses_is_counted(pair: Pair):
    pair.bob.refuse = True
    pair.bob.receive(burst(pair, *[packet4(ALICE, BOB)] * 3), source=HERE)
    assert pair.bob.lost() == {"delivery_failed": 3}


# -- what the engine has to act on -----------------------------------------------------------------


@pytest.mark.parametrize("kind", [TYPE_INITIATION, TYPE_RESPONSE, TYPE_COOKIE_REPLY])
def test_handshakes_are_handed_out_as_they_came(pair: Pair, kind: int):
    datagram = bytes([kind]) + bytes(range(100))
    assert pair.bob.receive(datagram, source=ELSEWHERE) == [Handshake(datagram)]
    assert pair.bob.lost() == {}


def test_handshakes_between_bursts_are_handed_out_too(pair: Pair):
    first, second = (burst(pair, packet4(ALICE, BOB, bytes([one]) * 40)) for one in (1, 2))
    handshake = bytes([TYPE_INITIATION]).ljust(len(first), b"\0")
    assert pair.bob.receive(first + handshake + second, len(first), source=HERE) == [
        Handshake(handshake)
    ]
    assert len(pair.bob.delivered) == 2


@pytest.mark.parametrize("size", [0, 10, 50_000])
def test_control_messages_are_handed_out_with_their_keypair(pair: Pair, size: int):
    message = bytes(index % 251 for index in range(size))
    ours, theirs = pair.alice.peers[BOB].keypair, pair.bob.peers[ALICE].keypair
    effect = pair.alice.outbound.seal_control(ours, message, ENDPOINTS[BOB], 1500)
    arrivals = pair.bob.receive(effect.datagram, effect.segment_size, source=HERE)
    assert arrivals == [Control(theirs, message)]
    assert pair.bob.lost() == {}


def test_control_and_packets_share_a_burst(pair: Pair):
    packet = packet4(ALICE, BOB, b"x")
    plaintext = (
        block(BlockKind.CONTROL, b"first")
        + block(BlockKind.OFFLOADED, packet)
        + block(BlockKind.CONTROL, b"second")
    )
    keypair = pair.bob.peers[ALICE].keypair
    arrivals = pair.bob.receive(sealed(pair, plaintext), source=HERE)
    assert arrivals == [Control(keypair, b"first"), Control(keypair, b"second")]
    assert pair.bob.delivered == [packet]


def test_the_first_authentic_burst_proves_a_keypair(pair: Pair):
    keypair = pair.bob.peers[ALICE].keypair
    keypair.confirmed = False
    spoiled = bytearray(burst(pair, packet4(ALICE, BOB)))
    spoiled[-1] ^= 1
    assert pair.bob.receive(bytes(spoiled), source=HERE) == []
    arrivals = pair.bob.receive(sealed(pair, block(BlockKind.CONTROL, b"m")), source=HERE)
    assert arrivals == [Proven(keypair), Control(keypair, b"m")], "the session first"
    keypair.confirmed = True
    assert pair.bob.receive(burst(pair, packet4(ALICE, BOB)), source=HERE) == []


def test_only_an_authentic_burst_moves_a_peer(pair: Pair):
    datagram = burst(pair, packet4(ALICE, BOB))
    spoiled = datagram[:-1] + bytes([datagram[-1] ^ 1])
    assert pair.bob.receive(spoiled, source=ELSEWHERE) == []
    keypair = pair.bob.peers[ALICE].keypair
    assert pair.bob.receive(datagram, source=ELSEWHERE) == [Moved(keypair)]
    assert pair.bob.receive(datagram, source=Endpoint("198.51.100.9", 1)) == [], "a replay"
    pair.bob.peers[ALICE].endpoint = ELSEWHERE
    assert pair.bob.receive(burst(pair, packet4(ALICE, BOB)), source=ELSEWHERE) == []


def test_hearing_from_a_peer_is_remembered(pair: Pair):
    datagrams = burst(pair, BIG)
    pair.bob.receive(datagrams, STEP, source=HERE, now=3.5)
    path = pair.bob.peers[ALICE]
    assert (path.heard_at, path.rx_bytes) == (3.5, len(datagrams))
    assert path.rx_bytes == pair.alice.peers[BOB].tx_bytes


# -- joiners ---------------------------------------------------------------------------------------


def test_a_joiner_talks_and_delivers_no_packets(pair: Pair):
    ours, theirs = keypairs(None, BOB, indexes=5)
    theirs.confirmed = True
    pair.bob.keypairs[theirs.local_index] = theirs
    pair.alice.peers[BOB].keypair = ours
    plaintext = (
        block(BlockKind.OFFLOADED, packet4(ALICE, BOB))
        + block(BlockKind.PACKET, packet6(ALICE, BOB)[10:])
        + block(BlockKind.CONTROL, b"join")
    )
    arrivals = pair.bob.receive(sealed(pair, plaintext), source=ELSEWHERE)
    assert arrivals == [Control(theirs, b"join")]
    assert pair.bob.delivered == []
    assert pair.bob.lost() == {"spoofed_source": 2}


def test_a_node_without_a_path_delivers_no_packets(pair: Pair):
    del pair.bob.peers[ALICE]
    pair.bob.receive(burst(pair, packet4(ALICE, BOB)), source=HERE)
    assert pair.bob.lost() == {"spoofed_source": 1}


def test_the_highest_counters_are_just_counters(pair: Pair):
    pair.alice.peers[BOB].keypair.counter = REJECT_COUNTER - 1
    pair.bob.receive(burst(pair, packet4(ALICE, BOB)), source=HERE)
    assert len(pair.bob.delivered) == 1


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
