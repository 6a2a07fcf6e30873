from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from overlay.drops import DropReason
from overlay.types import Endpoint
from overlay.wire.burst import MAX_CIPHERTEXT
from overlay.wire.header import MAX_SEGMENTS, TYPE_DATA, Header
from overlay.wire.reassembly import Reassembly, Taken

LIFE = 1.0


def table(*, per_session: int = 64, total: int = 512) -> Reassembly:
    return Reassembly(per_session=per_session, total=total, expires_after=LIFE)


def take(
    reassembly: Reassembly,
    *,
    index: int,
    last: int,
    receiver: int = 1,
    counter: int = 1,
    piece: bytes = b"x",
    source: Endpoint | None = None,
    now: float = 0.0,
) -> Taken:
    header = Header(TYPE_DATA, index, last, 0, receiver, counter)
    taken = reassembly.take(header, memoryview(piece), source, now)
    reassembly.check_invariants()
    return taken


# -- putting together ------------------------------------------------------------------------------


@given(st.integers(2, 64).flatmap(lambda count: st.permutations(range(count))))
def test_segments_in_any_order_give_the_ciphertext(order: list[int]):
    reassembly = table()
    parts = [bytes([index]) * (index + 1) for index in range(len(order))]
    taken = [
        take(reassembly, index=index, last=len(order) - 1, piece=parts[index]) for index in order
    ]
    assert taken[-1] == Taken(b"".join(parts), len(order))
    assert taken[:-1] == [Taken()] * (len(order) - 1)
    assert reassembly.held == 0
    assert reassembly.next_deadline() is None


@given(st.data(), st.integers(2, 6), st.integers(1, 4))
def test_interleaved_bursts_with_repetitions_come_out_once_each(data, count: int, bursts: int):
    reassembly = table()
    segments = [(counter, index) for counter in range(bursts) for index in range(count)]
    order = data.draw(st.permutations(segments))
    whole: dict[int, bytes] = {}
    for counter, index in order:
        piece = bytes([counter, index])
        before = reassembly.held
        taken = take(reassembly, index=index, last=count - 1, counter=counter, piece=piece)
        if taken.ciphertext is not None:
            assert counter not in whole
            whole[counter] = taken.ciphertext
            continue
        again = take(reassembly, index=index, last=count - 1, counter=counter, piece=b"else")
        assert again == Taken(drop=DropReason.DUPLICATE_SEGMENT)
        assert reassembly.held == before + 1
    assert whole == {
        counter: b"".join(bytes([counter, index]) for index in range(count))
        for counter in range(bursts)
    }


def test_the_same_counter_under_another_session_is_another_burst():
    reassembly = table()
    take(reassembly, index=0, last=1, receiver=1, piece=b"a")
    take(reassembly, index=0, last=1, receiver=2, piece=b"b")
    assert take(reassembly, index=1, last=1, receiver=2, piece=b"B").ciphertext == b"bB"
    assert take(reassembly, index=1, last=1, receiver=1, piece=b"A").ciphertext == b"aA"


def test_the_buffer_of_a_segment_may_be_reused_at_once():
    reassembly = table()
    buffer = bytearray(b"ab")
    reassembly.take(Header(TYPE_DATA, 0, 1, 0, 1, 1), memoryview(buffer), None, 0.0)
    buffer[:] = b"AB"
    assert take(reassembly, index=1, last=1, piece=b"c").ciphertext == b"abc"


# -- what contradicts is refused -------------------------------------------------------------------


def test_a_segment_with_another_last_is_refused_and_changes_nothing():
    reassembly = table()
    take(reassembly, index=0, last=1, piece=b"a")
    assert take(reassembly, index=1, last=2).drop is DropReason.BAD_HEADER
    assert take(reassembly, index=1, last=1, piece=b"b").ciphertext == b"ab"


def test_segments_larger_than_any_burst_do_not_fill_memory():
    """64 segments of 64 KB would be 4 MB per burst, and 2 GB for a full table."""
    reassembly = table()
    huge = bytes(65_507)
    taken = [
        take(reassembly, index=index, last=MAX_SEGMENTS - 1, piece=huge)
        for index in range(MAX_SEGMENTS)
    ]
    assert taken[0] == Taken()
    assert taken[1:] == [Taken(drop=DropReason.BAD_HEADER)] * (MAX_SEGMENTS - 1)


def test_the_largest_burst_is_taken():
    reassembly = table()
    half = bytes(MAX_CIPHERTEXT // 2)
    take(reassembly, index=0, last=1, piece=half)
    assert take(reassembly, index=1, last=1, piece=half).ciphertext == bytes(MAX_CIPHERTEXT)


# -- bounds ----------------------------------------------------------------------------------------


def test_a_session_over_its_bound_pushes_out_its_own_oldest_burst():
    reassembly = table(per_session=2, total=10)
    take(reassembly, index=0, last=2, receiver=9, counter=0)
    take(reassembly, index=0, last=2, receiver=1, counter=1)
    take(reassembly, index=1, last=2, receiver=1, counter=1)
    take(reassembly, index=0, last=2, receiver=1, counter=2)
    assert take(reassembly, index=0, last=2, receiver=1, counter=3) == Taken(evicted=2)
    assert reassembly.held == 3
    # The other session, though older, lost nothing.
    take(reassembly, index=1, last=2, receiver=9, counter=0)
    assert take(reassembly, index=2, last=2, receiver=9, counter=0).ciphertext == b"xxx"


OTHER = Endpoint("203.0.113.9", 999)


def test_a_full_table_pushes_out_the_oldest_burst_of_the_session_that_has_the_most():
    reassembly = table(per_session=3, total=4)
    take(reassembly, index=0, last=1, receiver=1)
    for counter in range(3):
        take(reassembly, index=0, last=1, receiver=2, counter=counter)
    assert take(reassembly, index=0, last=1, receiver=3) == Taken(evicted=1)
    assert take(reassembly, index=1, last=1, receiver=1).ciphertext == b"xx", "the oldest of all"
    assert take(reassembly, index=1, last=1, receiver=2, counter=1).ciphertext == b"xx"


def test_who_sees_an_index_cannot_push_out_the_bursts_of_its_owner():
    """A stranger fills a session from its own address, while a burst of the peer is on its way."""
    reassembly = table()
    take(reassembly, index=0, last=1, counter=1)
    for counter in range(10, 2000):
        take(reassembly, index=0, last=63, counter=counter, source=OTHER)
    assert take(reassembly, index=1, last=1, counter=1).ciphertext == b"xx"


def test_who_sees_ten_indexes_cannot_push_out_the_bursts_of_other_sessions():
    reassembly = table()
    take(reassembly, index=0, last=1, receiver=99)
    for counter in range(200):
        for receiver in range(10):
            take(reassembly, index=0, last=63, receiver=receiver, counter=counter)
    assert take(reassembly, index=1, last=1, receiver=99).ciphertext == b"xx"


def test_a_segment_from_another_address_does_not_spoil_a_burst():
    reassembly = table()
    take(reassembly, index=0, last=1, piece=b"a")
    assert take(reassembly, index=1, last=1, piece=b"evil", source=OTHER) == Taken()
    assert take(reassembly, index=1, last=1, piece=b"b").ciphertext == b"ab"


def test_a_segment_of_a_known_burst_pushes_nothing_out():
    reassembly = table(per_session=1, total=1)
    take(reassembly, index=0, last=1)
    assert take(reassembly, index=1, last=1) == Taken(b"xx", 2)


# -- time ------------------------------------------------------------------------------------------


def test_a_burst_expires_at_its_deadline_and_not_before():
    reassembly = table()
    take(reassembly, index=0, last=2, now=5.0)
    take(reassembly, index=1, last=2, now=5.9)
    take(reassembly, index=0, last=2, counter=2, now=5.5)
    assert reassembly.next_deadline() == 5.0 + LIFE
    assert reassembly.expire(5.999) == 0
    assert reassembly.expire(6.0) == 2
    assert reassembly.next_deadline() == 5.5 + LIFE
    assert reassembly.expire(100.0) == 1
    assert reassembly.held == 0
    assert reassembly.next_deadline() is None
    assert reassembly.expire(101.0) == 0


def test_bursts_given_up_are_counted_by_receiver_and_told_once():
    reassembly = table(per_session=2)
    for counter in (1, 2, 3):  # the third pushes out the first
        take(reassembly, index=0, last=2, counter=counter, now=1.0)
    take(reassembly, index=1, last=2, receiver=9, now=1.5)
    assert reassembly.take_incomplete() == {1: 1}
    reassembly.expire(5.0)
    assert reassembly.take_incomplete() == {1: 2, 9: 1}
    assert reassembly.take_incomplete() == {}


def test_a_burst_that_became_whole_was_not_given_up():
    reassembly = table()
    take(reassembly, index=0, last=1)
    take(reassembly, index=1, last=1)
    assert reassembly.take_incomplete() == {}


# -- everything at once, against a model -----------------------------------------------------------

PER_SESSION, TOTAL = 3, 5

Key = tuple[int, Endpoint, int]


class Machine(RuleBasedStateMachine):
    """The table against a list of (key, last, held pieces, expiry), oldest first."""

    @initialize()
    def start(self) -> None:
        self.table = table(per_session=PER_SESSION, total=TOTAL)
        self.model: list[tuple[Key, int, dict[int, bytes], float]] = []
        self.sessions: list[int] = []
        self.places: list[tuple[int, Endpoint]] = []
        self.now = 0.0
        self.taken = self.gone = 0

    @rule(
        receiver=st.integers(0, 2),
        port=st.integers(1, 2),
        counter=st.integers(0, 4),
        last=st.sampled_from([1, 1, 1, 2]),
        index=st.integers(0, 2),
        piece=st.binary(max_size=3) | st.just(bytes(40_000)),
    )
    def take(
        self, receiver: int, port: int, counter: int, last: int, index: int, piece: bytes
    ) -> None:
        index = min(index, last)
        self.taken += 1
        source = Endpoint("192.0.2.1", port)
        header = Header(TYPE_DATA, index, last, 0, receiver, counter)
        taken = self.table.take(header, memoryview(piece), source, self.now)
        assert taken == self.expected((receiver, source, counter), index, last, piece)
        self.gone += taken.evicted + taken.segments + (taken.drop is not None)

    def expected(self, key: Key, index: int, last: int, piece: bytes) -> Taken:
        burst = next((burst for burst in self.model if burst[0] == key), None)
        evicted = 0
        if burst is None:
            evicted = self.make_room(key[0])
            burst = (key, last, {}, self.now + LIFE)
            self.model.append(burst)
            self.follow()
        held = burst[2]
        if burst[1] != last:
            return Taken(drop=DropReason.BAD_HEADER)
        if index in held:
            return Taken(drop=DropReason.DUPLICATE_SEGMENT)
        if sum(map(len, held.values())) + len(piece) > MAX_CIPHERTEXT:
            return Taken(drop=DropReason.BAD_HEADER)
        held[index] = piece
        if len(held) <= last:
            return Taken(evicted=evicted)
        self.model.remove(burst)
        self.follow()
        return Taken(b"".join(held[at] for at in range(last + 1)), last + 1, evicted=evicted)

    def make_room(self, receiver: int) -> int:
        own = [burst for burst in self.model if burst[0][0] == receiver]
        if len(own) < PER_SESSION:
            if len(self.model) < TOTAL:
                return 0
            held = Counter(burst[0][0] for burst in self.model)
            # Where several have as much, the one that has had some for longest.
            fullest = max(self.sessions, key=lambda session: held[session])
            own = [burst for burst in self.model if burst[0][0] == fullest]
        sources = [source for session, source in self.places if session == own[0][0][0]]
        counts = Counter(burst[0][1] for burst in own)
        most = max(sources, key=lambda source: counts[source])
        victim = next(burst for burst in own if burst[0][1] == most)
        self.model.remove(victim)
        self.follow()
        return len(victim[2])

    def follow(self) -> None:
        """Sessions with a burst, and sources in them, in the order in which they came to one."""
        present = [burst[0][0] for burst in self.model]
        self.sessions = [session for session in self.sessions if session in present]
        self.sessions += [one for one in dict.fromkeys(present) if one not in self.sessions]
        pairs = [burst[0][:2] for burst in self.model]
        self.places = [pair for pair in self.places if pair in pairs]
        self.places += [pair for pair in dict.fromkeys(pairs) if pair not in self.places]

    @rule(after=st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.0]))
    def expire(self, after: float) -> None:
        self.now += after
        lost = sum(len(burst[2]) for burst in self.model if burst[3] <= self.now)
        self.model = [burst for burst in self.model if burst[3] > self.now]
        self.follow()
        assert self.table.expire(self.now) == lost
        self.gone += lost

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "table"):
            return
        self.table.check_invariants()
        assert self.table.held == sum(len(burst[2]) for burst in self.model)
        assert self.taken == self.gone + self.table.held
        assert self.table.next_deadline() == (self.model[0][3] if self.model else None)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_lanes_with_the_same_index_and_counter_are_kept_apart():
    reassembly = table(per_session=1)
    for lane in (0x01, 0x11):
        first = Header(TYPE_DATA, 0, 1, lane, 1, 1)
        assert reassembly.take(first, memoryview(bytes([lane])), None, 0.0) == Taken()
    for lane in (0x11, 0x01):
        second = Header(TYPE_DATA, 1, 1, lane, 1, 1)
        taken = reassembly.take(second, memoryview(b"end"), None, 0.0)
        assert taken == Taken(bytes([lane]) + b"end", 2)
