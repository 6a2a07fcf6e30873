"""What was inside an opened burst: packets, each judged by itself, and control messages."""

from __future__ import annotations

import pytest

from overlay.forwarding.flow import MAX_FLOWS
from overlay.forwarding.inbound import Control, Handshake, Moved, Proven
from overlay.session.replay import REJECT_COUNTER
from overlay.types import Endpoint
from overlay.wire.burst import BlockKind, block
from overlay.wire.header import TYPE_COOKIE_REPLY, TYPE_INITIATION, TYPE_RESPONSE
from overlay.wire.virtio import NO_OFFLOAD, VIRTIO_NET_HDR_F_NEEDS_CSUM, VirtioHeader
from tests.support.pair import (
    ALICE,
    BOB,
    CAROL,
    ENDPOINTS,
    Pair,
    burst,
    keypairs,
    packet4,
    packet6,
    sealed,
)

HERE, ELSEWHERE = ENDPOINTS[ALICE], Endpoint("203.0.113.5", 4242)
BIG = packet4(ALICE, BOB, bytes(range(256)) * 200)


STEP = 1500 - 28


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


@pytest.mark.parametrize("packet", [packet4(ALICE, BOB, b"x" * 40), packet6(ALICE, BOB, b"x" * 40)])
@pytest.mark.parametrize("place", [8, 12, 16])
def test_an_offload_header_cannot_change_addresses_that_were_checked(pair, packet, place):
    """A checksum to be completed in the middle of the IP header would be written over them."""
    lie = VirtioHeader(VIRTIO_NET_HDR_F_NEEDS_CSUM, csum_start=place, csum_offset=2).encode()
    bodies = [lie + packet[len(lie) :], packet]
    plaintext = b"".join(block(BlockKind.OFFLOADED, body) for body in bodies)
    for number in range(2):  # the second one is of a flow that is remembered
        pair.bob.receive(sealed(pair, plaintext), source=HERE)
        assert pair.bob.lost() == {"malformed": number + 1}
    assert pair.bob.delivered == [packet, packet]


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
    pair.bob.routes.v4.update([], [prefix for prefix, _ in pair.bob.routes.v4.items()])
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


def test_a_counter_that_nobody_may_send_is_refused_before_it_is_opened(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("overlay.session.transport.REJECT_COUNTER", 1 << 64)
    pair.alice.peers[BOB].keypair.counter = REJECT_COUNTER
    datagram = burst(pair, packet4(ALICE, BOB))
    monkeypatch.undo()
    pair.bob.receive(datagram, source=HERE)
    assert pair.bob.delivered == []
    assert pair.bob.lost() == {"replayed": 1}
    pair.alice.peers[BOB].keypair.counter = 0
    pair.bob.receive(burst(pair, packet4(ALICE, BOB)), source=HERE)
    assert len(pair.bob.delivered) == 1
