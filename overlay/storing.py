"""What one node has to store: the differences between what it holds and what its disk holds.

    pods, reservations, rests --- which have changed (`overlay.noted`) ---+
    items of gossip ------------- which have changed (`unstored`) --------+--> Unstored --> Persist
    everything else: a dozen values ------------------- all compared -----+

There may be thousands of the first, and one changes at a time. All of them are looked at the first
time, because the disk may hold what was not taken over, and when the clock was set: the end of a
rest is stored as wall-clock time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from overlay.effects import Persist
from overlay.parts import Parts
from overlay.state import (
    ALONE,
    FAMILIES,
    ITEMS,
    Change,
    NodeState,
    family,
    name_of,
    prefix_of,
    singles,
    write_entry,
)


class Unstored:
    """Says which entries must be stored to make the disk hold a state.

    A change is handed out once. One that could not be stored is given back with `refuse` and is
    handed out again, with the value of then. Nothing is kept per item of gossip: there may be many,
    and their store knows which have changed (`overlay.gossip.store.Store.unstored`).

    Args:
        stored: what the disk holds.
    """

    def __init__(self, stored: NodeState) -> None:
        self._handed = {name: family(stored, name) for name in FAMILIES if name != ITEMS}
        self._handed[ALONE] = singles(stored)
        self._refused: set[bytes] = set()

    def take(
        self, state: NodeState, changed: Mapping[str, Mapping[bytes, object]]
    ) -> tuple[Change, ...]:
        """The changes to store now, sorted by key.

        Args:
            state: what the disk shall hold. The families that `changed` has are not looked at, and
                its `items` never are.
            changed: by family, the elements that may have changed since the last call, by key;
                None for one that is gone.
        """
        new: dict[bytes, object] = {key: self._last(key) for key in self._refused}
        self._refused = set()
        for name, handed in self._handed.items():
            if name in changed:
                prefix = prefix_of(name)
                now = {prefix + key: element for key, element in changed[name].items()}
            else:
                now = singles(state) if name == ALONE else family(state, name)
                now = {key: now.get(key) for key in (*now, *handed)}
            new |= {key: value for key, value in now.items() if handed.get(key) != value}
        for key in new:
            self._hand_out(key, new[key])
        items = {prefix_of(ITEMS) + key: item for key, item in changed.get(ITEMS, {}).items()}
        written = (new | items).items()
        return tuple(
            (k, None if v is None else write_entry(k, v)) for k, v in sorted(written, key=_first)
        )

    def refuse(self, changes: Iterable[Change]) -> set[bytes]:
        """These changes were not stored.

        Returns:
            The keys of the items among them, for whoever keeps track of items.
        """
        keys, prefix = {key for key, _ in changes}, prefix_of(ITEMS)
        items = {key for key in keys if key.startswith(prefix)}
        self._refused |= keys - items
        return {key.removeprefix(prefix) for key in items}

    def _last(self, key: bytes) -> object:
        return self._handed[name_of(key)].get(key)

    def _hand_out(self, key: bytes, value: object) -> None:
        handed = self._handed[name_of(key)]
        if value is None:
            handed.pop(key, None)
        else:
            handed[key] = value


def _first(entry: tuple[bytes, object]) -> bytes:
    return entry[0]


class Storing:
    """Keeps one node's disk up to date.

    Args:
        parts: the machines of the node.
        disk: what it holds.
    """

    def __init__(self, parts: Parts, disk: NodeState) -> None:
        self._parts = parts
        self._unstored = Unstored(disk)
        self._epoch: float | None = None

    def persist(self, standing: int) -> Persist:
        """Store what differs from what is stored.

        Args:
            standing: the number of `overlay.conflict.Standing`.
        """
        parts, registrar, epoch = self._parts, self._parts.book, self._parts.wall.epoch
        whole, self._epoch = epoch != self._epoch, epoch
        changed: Mapping[str, Mapping[bytes, Any]] = parts.holdings.take_changed(epoch)
        state = parts.holdings.stored(
            parts.record.versions.boot,
            tokens=registrar.tokens.encode() if registrar else b"",
            names=registrar.encode() if registrar else b"",
            standing=standing,
            epoch=epoch,
            whole=whole,
        )
        store = parts.store
        items, store.unstored = {key: store.get(key) for key in store.unstored}, set()
        return Persist(self._unstored.take(state, {**({} if whole else changed), ITEMS: items}))

    def refuse(self, lost: Iterable[Persist]) -> None:
        """These were not stored: what they have is part of the next one."""
        for persist in lost:
            self._parts.store.unstored |= self._unstored.refuse(persist.changes)
