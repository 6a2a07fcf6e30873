"""A dict that knows which of its keys have changed."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from overlay.noted import Noted

KEYS = st.integers(0, 5)


class Keeping(RuleBasedStateMachine):
    """Whoever carries out what has changed has what the dict has, however it was changed."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: Noted[int, int] = Noted()
        self.plain: dict[int, int] = {}
        self.copy: dict[int, int] = {}

    @rule(key=KEYS, value=KEYS)
    def put(self, key: int, value: int) -> None:
        self.noted[key] = self.plain[key] = value

    @rule(key=KEYS, value=KEYS)
    def put_if_missing(self, key: int, value: int) -> None:
        assert self.noted.setdefault(key, value) == self.plain.setdefault(key, value)

    @rule(new=st.dictionaries(KEYS, KEYS), joined=st.booleans())
    def put_several(self, new: dict[int, int], *, joined: bool) -> None:
        if joined:
            self.noted |= new
        else:
            self.noted.update(new)
        self.plain |= new

    @rule(key=KEYS)
    def take(self, key: int) -> None:
        assert self.noted.pop(key, None) == self.plain.pop(key, None)

    @rule(key=KEYS)
    def remove(self, key: int) -> None:
        if key in self.plain:
            del self.noted[key], self.plain[key]

    @rule()
    def take_any(self) -> None:
        if self.noted:
            key, value = self.noted.popitem()
            assert self.plain.pop(key) == value

    @rule()
    def clear(self) -> None:
        self.noted.clear()
        self.plain.clear()

    @rule()
    def carry_out(self) -> None:
        for key, value in self.noted.take_changed().items():
            self.copy.pop(key, None)
            if value is not None:
                self.copy[key] = value
        assert self.copy == self.plain
        assert self.noted.take_changed() == {}

    @invariant()
    def it_is_a_dict(self) -> None:
        assert self.noted == self.plain


def test_whatever_is_done_to_it_the_changes_make_a_copy_the_same() -> None:
    run_state_machine_as_test(Keeping)
