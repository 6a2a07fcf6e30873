from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overlay.forwarding.backlog import Backlog, Entry, Turn
from overlay.forwarding.path import PeerPath
from tests.support.pair import BOB, CAROL


def entries(*spans: tuple[int, int], flow: bytes = b"f") -> list[Entry]:
    return [Entry(start, end, flow) for start, end in spans]


def test_nothing_waits_at_first():
    backlog = Backlog()
    assert (len(backlog), backlog.oldest(), backlog.take()) == (0, None, None)
    assert not backlog.holds(b"f")


def test_peers_take_turns_and_each_keeps_its_order():
    backlog, bob, carol = Backlog(), PeerPath(BOB), PeerPath(CAROL)
    for entry in entries((0, 60_000), (70_000, 130_000)):
        backlog.put(bob, entry)
    backlog.put(carol, Entry(200_000, 260_000, b"g"))
    turns = [backlog.take() for _ in range(3)]
    assert turns == [
        Turn(bob, 0, 60_000, 1),
        Turn(carol, 200_000, 260_000, 1),
        Turn(bob, 70_000, 130_000, 1),
    ]


def test_blocks_side_by_side_are_one_turn_up_to_a_burst():
    backlog, bob = Backlog(), PeerPath(BOB)
    for entry in entries((0, 20_000), (20_000, 40_000), (40_000, 60_000), (60_000, 80_000)):
        backlog.put(bob, entry)
    assert backlog.take() == Turn(bob, 0, 60_000, 3)
    assert backlog.take() == Turn(bob, 60_000, 80_000, 1)


def test_a_flow_is_held_until_its_last_packet_went():
    backlog, bob = Backlog(), PeerPath(BOB)
    backlog.put(bob, Entry(0, 60_000, b"f"))
    backlog.put(bob, Entry(70_000, 70_100, b"f"))
    backlog.take()
    assert backlog.holds(b"f")
    backlog.take()
    assert not backlog.holds(b"f")


def test_the_oldest_is_what_was_read_first_not_what_lies_first():
    backlog, bob, carol = Backlog(), PeerPath(BOB), PeerPath(CAROL)
    backlog.put(carol, Entry(500, 900, b"f"))
    backlog.put(bob, Entry(0, 400, b"f"))  # the arena has begun again
    assert backlog.oldest() == 500
    backlog.drop(carol)
    assert backlog.oldest() == 0


class Lines(RuleBasedStateMachine):
    """Against lists: whatever is put comes out once, in the order of its peer."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog()
        self.peers = [PeerPath(BOB), PeerPath(CAROL)]
        self.model: dict[PeerPath, list[Entry]] = {peer: [] for peer in self.peers}
        self.at = 0

    @rule(
        which=st.integers(0, 1),
        size=st.sampled_from([100, 20_000, 62_000]),
        gap=st.sampled_from([0, 0, 7]),
        flow=st.sampled_from([b"f", b"g"]),
    )
    def put(self, which: int, size: int, gap: int, flow: bytes) -> None:
        entry = Entry(self.at + gap, self.at + gap + size, flow)
        self.at = entry.end
        self.model[self.peers[which]].append(entry)
        self.backlog.put(self.peers[which], entry)

    @rule()
    def take(self) -> None:
        turn = self.backlog.take()
        if turn is None:
            assert not any(self.model.values())
            return
        taken = [self.model[turn.peer].pop(0) for _ in range(turn.packets)]
        assert (taken[0].start, taken[-1].end) == (turn.start, turn.end)
        assert sum(entry.end - entry.start for entry in taken) == turn.end - turn.start
        assert turn.packets == 1 or turn.end - turn.start <= turn.peer.burst

    @rule(which=st.integers(0, 1))
    def drop(self, which: int) -> None:
        gone, self.model[self.peers[which]] = self.model[self.peers[which]], []
        assert self.backlog.drop(self.peers[which]) == len(gone)

    @invariant()
    def books(self) -> None:
        self.backlog.check_invariants()
        waiting = [entry for queue in self.model.values() for entry in queue]
        assert len(self.backlog) == len(waiting)
        assert self.backlog.oldest() == min((entry.start for entry in waiting), default=None)
        for flow in (b"f", b"g"):
            assert self.backlog.holds(flow) == any(entry.flow == flow for entry in waiting)


TestLines = Lines.TestCase
TestLines.settings = settings(deadline=None)
