"""Many packets at once are treated as each of them would be; then any sequence of events."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from overlay.forwarding.flow import with_ports
from overlay.forwarding.outbound import LARGE
from overlay.types import NodeId
from overlay.wire.burst import BLOCK_HEADER_SIZE
from overlay.wire.virtio import READ_SIZE
from tests.support.pair import (
    ALICE,
    BOB,
    CAROL,
    ENDPOINTS,
    NO_OFFLOAD,
    Alice,
    Side,
    foreign,
    packet4,
    packet6,
)

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
