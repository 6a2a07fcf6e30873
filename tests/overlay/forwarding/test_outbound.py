from __future__ import annotations

from ipaddress import IPv4Network, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from overlay.forwarding.flow import MAX_FLOWS, with_ports
from overlay.forwarding.outbound import (
    ARENA_SIZE,
    LARGE,
    MAX_BLOCK,
    MAX_REJECTED,
    SERVED,
)
from overlay.session.transport import Keypair
from overlay.types import Endpoint, NodeId
from overlay.wire.burst import BLOCK_HEADER_SIZE, MAX_RUN, BlockKind
from overlay.wire.control import encode
from overlay.wire.messages import Probe
from overlay.wire.virtio import READ_SIZE
from tests.support.pair import (
    ALICE,
    BOB,
    CAROL,
    ENDPOINTS,
    LIFE,
    NO_OFFLOAD,
    Side,
    address,
    keypairs,
    open_bursts,
    packet4,
    packet6,
)

BIG = bytes(62_000)


class Alice(Side):
    """A sender with sessions to Bob and Carol; `theirs` are the keypairs of the far ends."""

    def __init__(self, **bounds: int) -> None:
        super().__init__(ALICE, **bounds)
        self.theirs: dict[NodeId, Keypair] = {}
        for number, peer in enumerate((BOB, CAROL), start=1):
            ours, self.theirs[peer] = keypairs(ALICE, peer, indexes=number)
            self.use(peer, ours)

    def sent(self, peer: NodeId = BOB) -> list[list[bytes]]:
        """The packets of each burst on the link to `peer`, which is empty afterwards."""
        there = [entry for entry in self.wire if entry[0] == ENDPOINTS[peer]]
        self.wire = [entry for entry in self.wire if entry[0] != ENDPOINTS[peer]]
        bursts = open_bursts(there, self.theirs[peer])
        assert all(kind == BlockKind.OFFLOADED for burst in bursts for kind, _ in burst.blocks)
        return [[body for _, body in burst.blocks] for burst in bursts]


@pytest.fixture
def alice() -> Alice:
    return Alice()


def foreign(source: str, target: str) -> bytes:
    """A packet between any two addresses."""
    ends = ip_address(source).packed + ip_address(target).packed
    if len(ends) == 8:
        return packet4(ALICE, BOB)[:-8] + ends
    return packet6(ALICE, BOB)[:-32] + ends


# -- routing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [packet4, packet6])
@pytest.mark.parametrize("peer", [BOB, CAROL])
def test_a_packet_goes_to_the_owner_of_its_destination(alice: Alice, build, peer: NodeId):
    packet = build(ALICE, peer, b"payload")
    alice.send(packet)
    assert [entry[0] for entry in alice.wire] == [ENDPOINTS[peer]]
    assert alice.sent(peer) == [[packet]]
    assert alice.ledger.sent_out == 1


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("10.244.0.2", "10.244.99.1", "no_route"),
        ("fd00::2", "2001:db8::1", "no_route"),
        ("10.244.1.2", "10.244.1.3", "foreign_source"),
        ("192.0.2.9", "10.244.1.2", "foreign_source"),
        ("fd00:0:0:1::2", "fd00:0:0:2::2", "foreign_source"),
        ("10.244.0.2", "10.244.0.3", "local_destination"),
        ("fd00::2", "fd00::3", "local_destination"),
        ("10.244.0.2", "224.0.0.251", "multicast"),
        ("10.244.0.2", "255.255.255.255", "multicast"),
        ("10.244.0.2", "169.254.1.1", "multicast"),
        ("fe80::1", "ff02::2", "multicast"),
        ("fd00::2", "fe80::1", "multicast"),
    ],
)
def test_a_packet_that_must_not_leave_is_counted_by_reason(alice, source, target, reason):
    for _ in range(2):  # once looked up, once remembered or not
        alice.send(foreign(source, target))
    assert alice.wire == []
    assert alice.lost() == {reason: 2}


def test_a_peer_without_an_endpoint_is_no_endpoint(alice: Alice):
    alice.peers[BOB].endpoint = None
    alice.send(packet4(ALICE, BOB))
    del alice.peers[CAROL]
    alice.send(packet6(ALICE, CAROL))
    assert alice.lost() == {"no_endpoint": 2}


def test_a_remembered_flow_follows_the_routes_once_told(alice: Alice):
    packet = packet4(ALICE, BOB)
    alice.send(packet)
    alice.routes.v4.replace_all([])
    alice.send(packet)
    assert len(alice.sent()) == 2, "remembered until told"
    alice.outbound.forget_flows()
    alice.send(packet)
    assert alice.lost() == {"foreign_source": 1}


def test_more_flows_than_are_remembered_all_get_through(alice: Alice):
    """Each of them after the table was forgotten once."""
    alice.routes.v4.insert(IPv4Network("10.128.0.0/9"), BOB)
    source = address(ALICE, 2).packed
    targets = (IPv4Network("10.128.0.0/9")[host].packed for host in range(MAX_FLOWS + 10))
    packets = [packet4(ALICE, BOB)[:-8] + source + target for target in targets]
    for packet in packets:
        alice.accept(packet)
        alice.outbound.check_invariants()
    alice.outbound.flush(0.0)
    alice.send(*packets[:10])
    assert alice.ledger.sent_out == MAX_FLOWS + 20
    assert alice.lost() == {}


# -- malformed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [packet4, packet6])
def test_every_truncation_is_malformed(alice: Alice, build):
    packet = build(ALICE, BOB, b"payload")
    alice.send(packet)  # a remembered flow must not let the others pass
    for size in range(1, len(packet)):
        alice.send(packet[:size])
    assert alice.lost() == {"malformed": len(packet) - 1}
    assert alice.sent() == [[packet]]


def test_a_packet_is_judged_by_its_own_bytes_not_by_those_before_it(alice: Alice):
    """The buffer still holds the end of the last packet."""
    alice.send(packet4(ALICE, BOB, b"a long payload"))
    alice.send(packet4(ALICE, BOB, b"a long payload")[:30])
    assert alice.lost() == {"malformed": 1}


def test_bytes_behind_the_packet_are_malformed(alice: Alice):
    alice.send(packet4(ALICE, BOB) + b"\0")
    assert alice.lost() == {"malformed": 1}


def test_a_packet_that_fits_no_block_is_oversize(alice: Alice):
    most = packet6(ALICE, BOB, bytes(MAX_BLOCK - 50))
    alice.send(most)
    alice.send(packet6(ALICE, BOB, bytes(MAX_BLOCK - 49)))
    assert len(alice.outbound.room()) >= READ_SIZE
    alice.accept(packet6(ALICE, BOB, bytes(0xFFFF)))
    assert alice.lost() == {"oversize": 2}
    assert alice.sent() == [[most]]


def test_only_unreachable_destinations_are_kept_for_an_icmp_error(alice: Alice):
    alice.peers[CAROL].endpoint = None
    unreachable = foreign("10.244.0.2", "10.244.99.1")
    alice.send(
        foreign("10.244.0.2", "224.0.0.1"),
        foreign("10.244.1.2", "10.244.1.3"),
        unreachable,
        packet6(ALICE, CAROL, b"x"),
    )
    assert [(str(reason), packet) for reason, packet in alice.outbound.rejected] == [
        ("no_route", unreachable[len(NO_OFFLOAD) :]),
        ("no_endpoint", packet6(ALICE, CAROL, b"x")[len(NO_OFFLOAD) :]),
    ]


def test_a_scan_does_not_fill_memory_with_rejected_packets(alice: Alice):
    alice.send(*[foreign("10.244.0.2", "10.244.99.1")] * (MAX_REJECTED + 5))
    assert len(alice.outbound.rejected) == MAX_REJECTED
    assert alice.lost() == {"no_route": MAX_REJECTED + 5}


# -- packing ---------------------------------------------------------------------------------------


def test_a_pass_of_small_packets_is_one_burst_and_one_send(alice: Alice):
    packets = [packet4(ALICE, BOB, bytes([index]) * index) for index in range(100)]
    alice.send(*packets)
    assert len(alice.wire) == 1
    assert alice.sent() == [packets]
    assert alice.ledger.sent_out == 100


def test_nothing_leaves_before_the_pass_ends(alice: Alice):
    alice.accept(packet4(ALICE, BOB))
    assert alice.wire == []
    assert alice.ledger.queued_packets == 1
    alice.check()
    alice.outbound.flush(0.0)
    assert len(alice.wire) == 1
    assert alice.ledger.queued_packets == 0


def test_flushing_nothing_sends_nothing(alice: Alice):
    alice.send()
    alice.send(packet4(ALICE, BOB))
    alice.wire.clear()
    alice.send()
    assert alice.wire == []


def test_a_full_burst_leaves_and_the_next_one_begins(alice: Alice):
    packets = [packet4(ALICE, BOB, bytes([index]) * 1472) for index in range(100)]
    alice.send(*packets)
    bursts = alice.sent()
    per_burst = alice.peers[BOB].burst // (len(packets[0]) + 3)
    assert [len(burst) for burst in bursts] == [per_burst, per_burst, 100 - 2 * per_burst]
    assert [packet for burst in bursts for packet in burst] == packets


def test_interleaved_peers_do_not_shrink_each_others_bursts(alice: Alice):
    to_bob = [packet4(ALICE, BOB, bytes([index])) for index in range(40)]
    to_carol = [packet6(ALICE, CAROL, bytes([index])) for index in range(40)]
    for one, other in zip(to_bob, to_carol, strict=True):
        alice.accept(one)
        alice.accept(other)
    alice.outbound.flush(0.0)
    assert len(alice.wire) == 2
    assert alice.sent(BOB) == [to_bob]
    assert alice.sent(CAROL) == [to_carol]


def test_small_packets_travel_in_the_burst_of_the_large_one_behind_them(alice: Alice):
    first, big = packet4(ALICE, BOB, b"1"), packet4(ALICE, BOB, BIG)
    alice.send(first, big)
    assert alice.sent() == [[first, big]]


def test_a_large_packet_is_a_burst_of_its_own_behind_more_than_fits_beside_it(alice: Alice):
    first = [packet4(ALICE, BOB, bytes(1400)) for _ in range(3)]
    big = packet4(ALICE, BOB, BIG)
    alice.send(*first, big)
    assert alice.sent() == [first, [big]]


def test_a_large_packet_never_overtakes_small_ones_that_another_peer_is_between(alice: Alice):
    first, between, big = packet4(ALICE, BOB, b"1"), packet4(ALICE, CAROL), packet4(ALICE, BOB, BIG)
    alice.send(first, between, big)
    assert alice.sent(BOB) == [[first], [big]]
    assert alice.sent(CAROL) == [[between]]


@pytest.mark.parametrize("over", [0, 1])
def test_the_border_between_small_and_large_loses_nothing(alice: Alice, over: int):
    packet = packet4(ALICE, BOB, bytes(LARGE - 3 - len(packet4(ALICE, BOB)) + over))
    assert len(packet) + 3 == LARGE + over
    other = packet4(ALICE, BOB)
    alice.send(packet, packet, other)
    bursts = [[other], [packet, packet]] if over else [[packet, packet, other]]
    assert alice.sent() == bursts


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


# -- runs ------------------------------------------------------------------------------------------


def read_run(side: Side, packets: list[bytes]) -> None:
    """Lay packets where one pass over the TUN would, and take them."""
    room, at = side.outbound.room(), 0
    for packet in packets:
        room[at : at + len(packet)] = packet
        at += len(packet) + BLOCK_HEADER_SIZE
    side.outbound.accept_run([len(packet) for packet in packets], 0.0)
    side.outbound.check_invariants()
    side.ledger.check_invariants()


_STRANGERS = (foreign("10.244.0.2", "10.244.99.1"), foreign("192.0.2.9", "10.244.1.2"), b"\x00" * 9)
_RUNS = st.lists(
    st.tuples(
        st.sampled_from([packet4, packet6, *_STRANGERS]),
        st.sampled_from([BOB, CAROL]),
        st.sampled_from([0, 1, 36, 36, 1400, 16_300, 20_000, 62_000]),
        st.integers(0, 255),
        st.sampled_from([1, 1, 2, 7, 8, 9, 40]),
    ),
    max_size=12,
)


@given(_RUNS)
def test_packets_taken_as_a_run_fare_as_packets_taken_one_by_one(runs):
    """The one look at a whole run must decide what a look at each packet decides."""
    packets = [
        kind if isinstance(kind, bytes) else kind(ALICE, to, bytes([fill]) * size)
        for kind, to, size, fill, count in runs
        for _ in range(count)
    ]
    one_by_one, together = Alice(), Alice()
    one_by_one.send(*packets)
    while packets:
        left, fitting = len(together.outbound.room()), 0
        for packet in packets:
            if left < READ_SIZE:
                break
            left -= len(packet) + BLOCK_HEADER_SIZE
            fitting += 1
            if len(packet) > LARGE:
                break
        read_run(together, packets[:fitting])
        del packets[:fitting]
    together.send()
    for peer in (BOB, CAROL):
        expected = [packet for burst in one_by_one.sent(peer) for packet in burst]
        found = [packet for burst in together.sent(peer) for packet in burst]
        # Whether a small packet comes before bulk of other flows is up to when passes end.
        assert [p for p in found if len(p) > LARGE] == [p for p in expected if len(p) > LARGE]
        assert sorted(found) == sorted(expected)
    assert together.lost() == one_by_one.lost()
    assert together.ledger.view() == one_by_one.ledger.view()


def test_a_run_for_one_peer_is_one_burst_that_was_never_copied(alice: Alice):
    packets = [packet4(ALICE, BOB, bytes([number]) * 36) for number in range(128)]
    read_run(alice, packets)
    assert alice.peers[BOB].spans == [0, sum(len(packet) + BLOCK_HEADER_SIZE for packet in packets)]
    alice.outbound.flush(0.0)
    assert alice.sent() == [packets]


def test_a_run_that_waits_for_a_session_waits_packet_by_packet(alice: Alice):
    alice.peers[BOB].keypair = None
    read_run(alice, [packet4(ALICE, BOB, bytes(36))] * 10)
    assert len(alice.peers[BOB].queue) == 8
    assert alice.lost() == {"queue_full": 2}


def test_more_small_packets_than_the_arena_holds_are_sealed_before_it_overflows(alice: Alice):
    packets = [packet4(ALICE, BOB, bytes([n % 256]) * 1400) for n in range(400)]
    for packet in packets:
        alice.accept(packet)
        alice.outbound.check_invariants()
    alice.outbound.flush(0.0)
    assert [packet for burst in alice.sent() for packet in burst] == packets


# -- segments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path_mtu", [1280, 1400, 1500, 9000, 65_535])
@pytest.mark.parametrize("size", [0, 1407, 1408, 2863, 30_000, 65_505])
def test_no_datagram_exceeds_the_path_and_every_send_holds_whole_segments(path_mtu, size):
    alice = Alice()
    alice.peers[BOB].use(ENDPOINTS[BOB], path_mtu)
    alice.send(packet4(ALICE, BOB, bytes(size)))
    for _, datagrams, step in alice.wire:
        assert len(datagrams) <= max(MAX_RUN, path_mtu - 28)
        assert (step or len(datagrams)) + 28 <= path_mtu
    for _, datagrams, step in alice.wire[:-1]:
        assert len(datagrams) % step == 0
    assert all(entry[1] for entry in alice.wire)
    (burst,) = open_bursts(alice.wire, alice.theirs[BOB])
    assert set(burst.sizes[:-1]) <= {path_mtu - 28}
    assert [body for _, body in burst.blocks] == [packet4(ALICE, BOB, bytes(size))]
    assert alice.peers[BOB].tx_bytes == sum(burst.sizes)


def test_a_super_packet_of_the_usual_size_is_one_send(alice: Alice):
    alice.send(packet4(ALICE, BOB, BIG))
    (_, datagrams, step), *rest = alice.wire
    assert rest == []
    assert step == 1500 - 28
    assert len(datagrams) > 62_000


def test_the_largest_burst_is_two_sends(alice: Alice):
    """One would reach the frame size from which the kernel segments in software."""
    alice.send(packet4(ALICE, BOB, bytes(65_505)))
    assert [len(entry[1]) <= MAX_RUN for entry in alice.wire] == [True, True]


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


# -- refused by the kernel -------------------------------------------------------------------------


def test_a_refused_send_loses_every_packet_of_the_burst(alice: Alice):
    alice.refuse = True
    alice.send(*[packet4(ALICE, BOB)] * 7)
    alice.send(packet4(ALICE, CAROL, BIG))
    assert alice.lost() == {"send_failed": 8}
    assert dict(alice.peers[BOB].drops) == {"send_failed": 7}
    assert dict(alice.peers[CAROL].drops) == {"send_failed": 1}
    alice.refuse = False
    alice.send(packet4(ALICE, BOB))
    assert alice.ledger.sent_out == 1


@pytest.mark.parametrize("refused", [1, 2])
def test_half_a_burst_sent_is_a_burst_lost(refused: int):
    """It went in two sends and one was refused: the receiver can do nothing with the other."""

    class Choosy(Alice):
        sends = 0

        def transmit(self, endpoint: Endpoint, datagrams: memoryview, step: int) -> bool:
            self.sends += 1
            return self.sends != refused

    choosy = Choosy()
    choosy.send(packet4(ALICE, BOB, bytes(65_505)))
    assert choosy.sends == 2
    assert choosy.lost() == {"send_failed": 1}


def test_a_path_that_lost_its_endpoint_before_the_flush_loses_the_packets(alice: Alice):
    alice.accept(packet4(ALICE, BOB))
    alice.peers[BOB].endpoint = None
    alice.outbound.flush(0.0)
    alice.check()
    assert alice.lost() == {"no_endpoint": 1}


# -- control ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 59_000])
def test_a_control_message_is_a_burst_with_one_block(alice: Alice, size: int):
    message = encode(Probe(1)) + bytes(size)
    keypair = alice.peers[BOB].keypair
    effect = alice.outbound.seal_control(keypair, message, ENDPOINTS[BOB], 1500)
    assert isinstance(effect.datagram, bytes)
    assert effect.segment_size == (1500 - 28 if size else 0)
    wire = [(effect.endpoint, effect.datagram, effect.segment_size)]
    (burst,) = open_bursts(wire, alice.theirs[BOB])
    assert burst.blocks == [(BlockKind.CONTROL, message)]
    assert alice.wire == []


def test_control_and_packets_never_share_a_counter(alice: Alice):
    keypair = alice.peers[BOB].keypair
    control = alice.outbound.seal_control(keypair, b"m", ENDPOINTS[BOB], 1500)
    alice.accept(packet4(ALICE, BOB))
    again = alice.outbound.seal_control(keypair, b"m", ENDPOINTS[BOB], 1500)
    alice.outbound.flush(0.0)
    wire = [(ENDPOINTS[BOB], effect.datagram, 0) for effect in (control, again)]
    bursts = open_bursts(wire + alice.wire, alice.theirs[BOB])
    assert sorted(burst.counter for burst in bursts) == [0, 1, 2]


def test_sealed_bytes_show_nothing_of_the_packet(alice: Alice):
    canary = b"canary-0123456789"
    alice.send(packet4(ALICE, BOB, canary), packet4(ALICE, CAROL, canary * 1200))
    assert all(canary not in datagrams for _, datagrams, _ in alice.wire)
    assert all(address(ALICE, 2).packed not in datagrams for _, datagrams, _ in alice.wire)


# -- everything at once ----------------------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """Any sequence of events: the books balance, nothing is repeated, overtaken or invented.

    Overtaken means: by a packet of its own flow. Small packets of others may.
    """

    peers = st.sampled_from([BOB, CAROL])

    @initialize()
    def start(self) -> None:
        self.alice = Alice(queued_packets=4, queued_bytes=70_000)
        self.number = 0
        self.ours = {peer: self.alice.peers[peer].keypair for peer in (BOB, CAROL)}
        self.seen: dict[bytes, int] = {}
        self.received = 0

    @rule(
        peer=peers,
        build=st.sampled_from([packet4, packet6]),
        ports=st.sampled_from([b"port", b"PORT"]),
        size=st.sampled_from([0, 50, 1400, 15_000, 16_400, 40_000, 65_000]),
        count=st.integers(1, 6),
    )
    def accept(self, peer: NodeId, build, ports: bytes, size: int, count: int) -> None:
        for _ in range(count):
            self.number += 1
            payload = ports + self.number.to_bytes(4, "big") * (size // 4 + 1)
            self.alice.accept(build(ALICE, peer, payload))

    @rule(to=st.sampled_from(["10.244.99.1", "10.244.0.9", "224.0.0.1"]))
    def accept_unroutable(self, to: str) -> None:
        self.alice.accept(foreign("10.244.0.2", to))

    @rule(packet=st.binary(min_size=1, max_size=80))
    def accept_garbage(self, packet: bytes) -> None:
        self.alice.accept(packet)

    @rule()
    def flush(self) -> None:
        self.alice.outbound.flush(0.0)

    @rule(peer=peers)
    def session_up(self, peer: NodeId) -> None:
        path = self.alice.peers[peer]
        path.keypair = self.ours[peer]
        self.alice.outbound.release(path, 0.0)
        assert not path.queue

    @rule(peer=peers, given_up=st.booleans())
    def session_down(self, peer: NodeId, given_up: bool) -> None:
        self.alice.peers[peer].keypair = None
        if given_up:
            self.alice.outbound.abandon(self.alice.peers[peer])

    @rule(refuse=st.booleans())
    def kernel(self, refuse: bool) -> None:
        self.alice.refuse = refuse

    @rule(path_mtu=st.sampled_from([1280, 1500, 9000]), peer=peers)
    def path_changes(self, path_mtu: int, peer: NodeId) -> None:
        self.alice.peers[peer].use(ENDPOINTS[peer], path_mtu)

    @invariant()
    def the_books_balance_and_order_is_kept(self) -> None:
        if not hasattr(self, "alice"):
            return
        alice = self.alice
        alice.check()
        for peer in (BOB, CAROL):
            for packet in (packet for burst in alice.sent(peer) for packet in burst):
                number = int.from_bytes(packet[-4:], "big")
                flow = with_ports(memoryview(packet), len(NO_OFFLOAD), len(packet))
                assert number > self.seen.get(flow, 0), "repeated or overtaken"
                self.seen[flow] = number
                self.received += 1
        assert self.received == alice.ledger.sent_out


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
