"""An agenda says what a look at all deadlines would say."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overlay.agenda import SLACK, Agenda, earliest

KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
TIMES = st.integers(0, 20).map(float)


class AgendaMachine(RuleBasedStateMachine):
    """The agenda beside a plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.agenda: Agenda[bytes] = Agenda()
        self.slow: dict[bytes, float] = {}

    @rule(key=KEYS, at=TIMES)
    def put(self, key: bytes, at: float) -> None:
        self.agenda.set(key, at)
        self.slow[key] = at

    @rule(key=KEYS)
    def drop(self, key: bytes) -> None:
        self.agenda.set(key, None)
        self.slow.pop(key, None)

    @rule(now=TIMES)
    def take(self, now: float) -> None:
        due = sorted((at, key) for key, at in self.slow.items() if at <= now)
        assert self.agenda.take_due(now) == [key for _, key in due]
        for _, key in due:
            del self.slow[key]

    @invariant()
    def they_agree(self) -> None:
        assert self.agenda.next_deadline() == min(self.slow.values(), default=None)
        assert len(self.agenda) == len(self.slow)


TestAgendaMachine = AgendaMachine.TestCase


def test_what_was_overtaken_does_not_pile_up() -> None:
    agenda: Agenda[bytes] = Agenda()
    agenda.set(b"first", 0.0)
    for at in range(10_000):
        agenda.set(b"moved", 1.0 + at)
    assert len(agenda._heap) <= 2 * 2 + SLACK + 1
    assert agenda.take_due(0.0) == [b"first"]
    assert agenda.next_deadline() == 10_000.0


def test_the_earliest_of_some_deadlines_and_none_of_none() -> None:
    assert earliest(2.0, None, 0.0, 1.0) == 0.0
    assert earliest(None, None) is None
    assert earliest() is None
