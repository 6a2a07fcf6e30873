"""Packets that cannot leave at once: bulk waits for its turn, others for a session."""

from __future__ import annotations

from overlay.forwarding.outbound import ARENA_SIZE, SERVED
from overlay.types import NodeId
from overlay.wire.virtio import READ_SIZE
from tests.support.pair import ALICE, BOB, CAROL, ENDPOINTS, LIFE, Alice, packet4

BIG = bytes(62_000)


# -- bulk waits, small packets do not --------------------------------------------------------------


def flow(peer: NodeId, port: int, size: int, fill: int = 0) -> bytes:
    """A packet whose payload begins with its ports."""
    return packet4(ALICE, peer, port.to_bytes(4, "big") + bytes([fill]) * size)


def test_small_packets_of_other_flows_overtake_bulk(alice: Alice):
    bulk = [flow(BOB, 1, 62_000, number) for number in range(9)]
    small = flow(BOB, 2, 60)
    for packet in (*bulk, small):
        alice.accept(packet)
    assert alice.wire == []
    alice.outbound.flush(0.0)
    assert alice.sent()[0] == [small]
    assert alice.outbound.waiting


def test_small_packets_of_a_flow_never_overtake_its_bulk(alice: Alice):
    packets = [flow(BOB, 1, size, number) for number, size in enumerate([62_000, 60, 62_000, 70])]
    alice.send(*packets)
    assert [packet for burst in alice.sent() for packet in burst] == packets


def test_a_flush_sends_a_bounded_part_of_the_bulk_and_says_that_more_waits(alice: Alice):
    bulk = [flow(BOB, 1, 62_000, number) for number in range(12)]
    for packet in bulk:
        alice.accept(packet)
    flushes = 0
    sent = []
    while alice.outbound.waiting:
        before = len(sent)
        alice.outbound.flush(0.0)
        alice.check()
        sent += [packet for burst in alice.sent() for packet in burst]
        assert (len(sent) - before - 1) * 62_000 < SERVED
        flushes += 1
    assert sent == bulk
    assert flushes > 2


def test_peers_take_turns_with_their_bulk(alice: Alice):
    for number in range(3):
        alice.accept(flow(BOB, 1, 62_000, number))
    alice.accept(flow(CAROL, 1, 62_000))
    alice.outbound.flush(0.0)
    assert [entry[0] for entry in alice.wire[:2]] == [ENDPOINTS[BOB], ENDPOINTS[CAROL]]


def test_middling_packets_that_lie_side_by_side_share_a_burst(alice: Alice):
    packets = [flow(BOB, 1, 20_000, number) for number in range(5)]
    alice.send(*packets)
    assert alice.sent() == [packets[:3], packets[3:]]


def test_the_arena_is_a_ring_and_nothing_that_waits_is_overwritten(alice: Alice):
    """More than it holds, with a flush now and then, as when the kernel's queue never empties."""
    bulk: list[bytes] = []
    sent: list[bytes] = []
    for number in range(600):
        if len(alice.outbound.room()) < READ_SIZE:
            alice.outbound.flush(0.0)
            alice.check()
            sent += [packet for burst in alice.sent() for packet in burst]
            continue
        bulk.append(flow(BOB, 1, 40_000 + number * 30, number % 256))
        alice.accept(bulk[-1])
        alice.outbound.check_invariants()
    assert len(bulk) * 40_000 > 2 * ARENA_SIZE
    while alice.outbound.waiting:
        alice.outbound.flush(0.0)
    alice.check()
    assert sent + [packet for burst in alice.sent() for packet in burst] == bulk


def test_what_waits_in_memory_is_bounded(alice: Alice):
    accepted = 0
    while len(alice.outbound.room()) >= READ_SIZE:
        alice.accept(flow(BOB, 1, 62_000))
        accepted += 1
        alice.outbound.check_invariants()
    assert accepted * 62_000 + SERVED + READ_SIZE >= ARENA_SIZE
    assert accepted * 62_000 <= ARENA_SIZE + SERVED + READ_SIZE


def test_bulk_for_a_peer_without_a_session_any_more_is_lost_in_the_books(alice: Alice):
    for number in range(3):
        alice.accept(flow(BOB, 1, 62_000, number))
    alice.outbound.abandon(alice.peers[BOB])
    alice.check()
    assert alice.lost() == {"no_session": 3}
    alice.accept(flow(BOB, 1, 62_000))
    alice.accept(flow(CAROL, 1, 62_000))
    alice.outbound.flush(LIFE)
    alice.check()
    assert alice.lost() == {"no_session": 5}
    assert not alice.outbound.waiting


# -- no session ------------------------------------------------------------------------------------


def test_without_a_session_packets_wait_and_the_peer_is_wanted(alice: Alice):
    keypair, alice.peers[BOB].keypair = alice.peers[BOB].keypair, None
    packets = [packet4(ALICE, BOB, bytes([index])) for index in range(3)]
    alice.send(*packets)
    assert alice.wire == []
    assert alice.outbound.wanted == {BOB}
    assert alice.ledger.queued_packets == 3
    alice.outbound.release(alice.peers[BOB], 0.0)
    assert alice.wire == [], "still no session"
    alice.peers[BOB].keypair = keypair
    alice.outbound.release(alice.peers[BOB], 0.0)
    alice.check()
    assert [packet for burst in alice.sent() for packet in burst] == packets
    assert alice.ledger.queued_packets == 0
    assert alice.peers[BOB].queued_bytes == 0


def test_an_expired_keypair_is_no_session(alice: Alice):
    packet = packet4(ALICE, BOB)
    alice.send(packet, now=LIFE - 0.1)
    assert len(alice.sent()) == 1
    alice.send(packet, packet4(ALICE, BOB, BIG), now=LIFE)
    assert alice.wire == []
    assert alice.outbound.wanted == {BOB}
    assert alice.ledger.queued_packets == 2
    alice.outbound.release(alice.peers[BOB], LIFE)
    assert alice.wire == []


def test_a_keypair_that_expires_between_packing_and_flushing_is_not_used(alice: Alice):
    alice.accept(packet4(ALICE, BOB), now=LIFE - 0.1)
    alice.accept(packet4(ALICE, BOB), now=LIFE)  # waits already
    alice.outbound.flush(LIFE)
    alice.check()
    assert alice.wire == []
    assert alice.lost() == {"no_session": 1}
    assert alice.ledger.queued_packets == 1


def test_the_queue_is_bounded_in_packets():
    alice = Alice(queued_packets=3)
    alice.peers[BOB].keypair = None
    alice.send(*[packet4(ALICE, BOB)] * 5, packet4(ALICE, CAROL))
    assert alice.lost() == {"queue_full": 2}
    assert dict(alice.peers[BOB].drops) == {"queue_full": 2}
    assert len(alice.sent(CAROL)) == 1, "others do not suffer"


def test_the_queue_is_bounded_in_bytes():
    alice = Alice(queued_bytes=130_000)
    alice.peers[BOB].keypair = None
    alice.send(*[packet4(ALICE, BOB, BIG)] * 3, packet4(ALICE, BOB))
    assert alice.lost() == {"queue_full": 1}
    assert alice.ledger.queued_packets == 3, "a small one still fits"
    assert alice.peers[BOB].queued_bytes <= 130_000


def test_a_queue_that_was_released_has_room_again():
    alice = Alice(queued_packets=2)
    keypair = alice.peers[BOB].keypair
    for _ in range(3):
        alice.peers[BOB].keypair = None
        alice.send(*[packet4(ALICE, BOB)] * 2)
        alice.peers[BOB].keypair = keypair
        alice.outbound.release(alice.peers[BOB], 0.0)
    assert alice.lost() == {}
    assert alice.ledger.sent_out == 6


def test_abandoning_loses_what_waits_and_what_is_packed(alice: Alice):
    alice.accept(packet4(ALICE, BOB))
    alice.peers[BOB].keypair = None
    alice.accept(packet4(ALICE, BOB))
    alice.accept(packet4(ALICE, CAROL))
    alice.outbound.abandon(alice.peers[BOB])
    alice.check()
    assert alice.lost() == {"no_session": 2}
    assert dict(alice.peers[BOB].drops) == {"no_session": 2}
    alice.outbound.flush(0.0)
    alice.check()
    assert [entry[0] for entry in alice.wire] == [ENDPOINTS[CAROL]]
    alice.outbound.abandon(alice.peers[BOB])
    assert alice.lost() == {"no_session": 2}, "nothing is lost twice"


def test_what_waits_survives_a_flush_after_several_bursts_to_the_peer(alice: Alice):
    """Several bursts leave in one pass, then the session goes: flush has no say in the queue."""
    for _ in range(100):
        alice.accept(packet4(ALICE, BOB, bytes(1472)))
    alice.outbound.abandon(alice.peers[BOB])
    alice.peers[BOB].keypair = None
    alice.accept(packet4(ALICE, BOB))
    lost = alice.lost()
    alice.outbound.flush(0.0)
    assert alice.lost() == lost
    assert alice.ledger.queued_packets == 1
