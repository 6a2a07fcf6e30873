"""Replicas of the record store that exchange items in any order, against dicts of maxima.

The oracle of a replica is the set of all items it was ever shown: for each key the greatest
(version, body) is what it must hold, whatever came first and however often.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overlay.config import Limits
from overlay.gossip.store import Store
from overlay.wire.items import Item

REPLICAS = 4
KEYS = [b"n" + bytes([number]) * 32 for number in range(4)] + [b"b" + bytes([0, 0, 0, 1])]
FORGED = b"forged"


class StoreMachine(RuleBasedStateMachine):
    """Some replicas, and next to each what it was shown."""

    replicas_ = st.integers(0, REPLICAS - 1)
    items_ = st.builds(
        Item,
        st.sampled_from(KEYS),
        st.integers(0, 3),
        st.sampled_from([b"a", b"b", FORGED]),  # two bodies under one version do happen
    )

    def __init__(self) -> None:
        super().__init__()
        limits = replace(Limits(), items=len(KEYS))
        self.stores = [Store(lambda item: item.body != FORGED, limits) for _ in range(REPLICAS)]
        self.shown: list[dict[bytes, Item]] = [{} for _ in range(REPLICAS)]

    def show(self, at: int, items: list[Item]) -> set[Item]:
        """Show items to an oracle; returns what was new to it and is still so at the end."""
        before = dict(self.shown[at])
        for item in items:
            held = self.shown[at].get(item.key)
            if item.body != FORGED and (held is None or (item[1:] > held[1:])):
                self.shown[at][item.key] = item
        return {item for key, item in self.shown[at].items() if before.get(key) != item}

    @rule(at=replicas_, items=st.lists(items_, max_size=6))
    def learn(self, at: int, items: list[Item]) -> None:
        new = self.show(at, items)
        assert set(self.stores[at].merge(items)) == new

    @rule(at=replicas_, item=items_)
    def write(self, at: int, item: Item) -> None:
        if item.body == FORGED:
            return  # a node forges nothing of its own
        new = self.show(at, [item])
        assert self.stores[at].put(item) == (item in new)

    @rule(one=replicas_, other=replicas_)
    def push_all(self, one: int, other: int) -> None:
        items = self.stores[one].items()
        new = self.show(other, items)
        assert set(self.stores[other].merge(items)) == new

    @rule(one=replicas_, other=replicas_)
    def reconcile(self, one: int, other: int) -> None:
        """Anti-entropy: both hold the same afterwards, and only what differed was sent."""
        here, there = self.stores[one], self.stores[other]
        differing = set(here.items()) ^ set(there.items())
        for bucket, (ours, theirs) in enumerate(
            zip(here.bucket_roots(), there.bucket_roots(), strict=True)
        ):
            known = set(here.ids_in(bucket)), set(there.ids_in(bucket))
            assert (ours == theirs) == (known[0] == known[1])
            sent = [here.by_id(name) for name in known[0] if there.lacks(name)]
            back = [there.by_id(name) for name in known[1] if here.lacks(name)]
            assert {*sent, *back} <= differing
            self.show(other, sent)
            there.merge(sent)
            self.show(one, back)
            here.merge(back)
        assert here.items() == there.items()
        assert here.root() == there.root()

    @invariant()
    def replicas_hold_the_maximum_of_what_they_were_shown(self) -> None:
        for store, shown in zip(self.stores, self.shown, strict=True):
            assert {item.key: item for item in store.items()} == shown
            store.check_invariants()

    @invariant()
    def roots_are_equal_exactly_where_items_are(self) -> None:
        first = self.stores[0]
        for store in self.stores[1:]:
            assert (store.root() == first.root()) == (store.items() == first.items())


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
