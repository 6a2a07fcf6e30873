"""What gossip replicates: one opaque, versioned item per key, and a short description of all of it.

For each key the item with the higher (version, body) wins. That is a total order, so merging is
a semilattice: commutative, associative, idempotent. Items may arrive in any order, over any
path, any number of times; nodes that have seen the same items hold the same store.

    items     key -> (version, body)                                  what is replicated
    digest    (key, version, fingerprint), sorted by key              tells which items differ
    root      XOR over all items of BLAKE2s(key, version, fingerprint)   tells whether any do

The store does not know what a body means. `admit` does: it is asked about every item from
elsewhere that would win, and what it does not vouch for leaves no trace but a counter.

References:
    Demers et al. 1987, "Epidemic algorithms for replicated database maintenance", section 1.3:
    anti-entropy that compares checksums first and entries only when those differ.
    Shapiro et al. 2011, "Conflict-free replicated data types", section 2.2: state-based
    replication by a join.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from hashlib import blake2s
from typing import Final

from overlay.config import Limits
from overlay.errors import CapacityError
from overlay.wire.items import Item, fingerprint
from overlay.wire.messages import ROOT_SIZE, DigestEntry

# -- specification ---------------------------------------------------------------------------------

_ENTRY: Final = struct.Struct(">BQ")
"""Length of the key and version; key and fingerprint follow. Eight bytes of hash are enough: only
members write items, and one that searched for a collision would hide nothing but its own."""


class Store:
    """The replicated items of one node.

    Error contract: an item that is refused, older, or over the limit changes only a counter;
    after a CapacityError the store is as before.

    Args:
        admit: whether an item from elsewhere is what it claims to be. Asked only about items
            that would replace what is held, because the answer costs signature checks.
        limits: `items` bounds the number of keys.

    Attributes:
        refused: items that `admit` did not vouch for.
        overflowed: items with a new key that came when the store was full.
        unstored: keys of items that changed since whoever stores them emptied it.
    """

    __slots__ = (
        "_admit",
        "_digest",
        "_entries",
        "_items",
        "_limits",
        "_root",
        "overflowed",
        "refused",
        "unstored",
    )

    def __init__(self, admit: Callable[[Item], bool], limits: Limits) -> None:
        self._admit = admit
        self._limits = limits
        self._items: dict[bytes, Item] = {}
        self._entries: dict[bytes, DigestEntry] = {}
        self._digest: tuple[DigestEntry, ...] | None = None
        self._root = 0
        self.refused = 0
        self.overflowed = 0
        self.unstored: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._items)

    def merge(self, items: Iterable[Item]) -> list[Item]:
        """Take over from `items` what is newer than what is held, and admitted.

        Returns:
            The items that were new, each key once; empty when nothing was.
        """
        new = {}
        for item in items:
            if self._wins(item):
                self._set(item)
                new[item.key] = item
        return list(new.values())

    def put(self, item: Item) -> bool:
        """Take over an item of this node's own, or from its own stored state, without asking.

        Returns:
            False, and nothing changes, when the same or a newer item is held.

        Raises:
            CapacityError: the key is new and the store is full (`items`). Nothing else.
        """
        held = self._items.get(item.key)
        if not self.fits(item.key):
            raise CapacityError(f"the store holds {len(self._items)} items already", "items")
        if held is not None and not _supersedes(item, held):
            return False
        self._set(item)
        return True

    def fits(self, key: bytes) -> bool:
        """Whether an item with this key can be kept: one is held already, or there is room."""
        return key in self._items or not self._full

    def get(self, key: bytes) -> Item | None:
        """The item with this key."""
        return self._items.get(key)

    def items(self, prefix: bytes = b"") -> list[Item]:
        """All items whose key starts with `prefix`, sorted by key."""
        return [self._items[key] for key in sorted(self._items) if key.startswith(prefix)]

    def root(self) -> bytes:
        """Equal for equal stores; the order in which items came does not matter."""
        return self._root.to_bytes(ROOT_SIZE, "big")

    def digest(self) -> tuple[DigestEntry, ...]:
        """One entry per item, sorted by key."""
        if self._digest is None:
            self._digest = tuple(sorted(self._entries.values()))
        return self._digest

    def describe(self, items: Iterable[Item]) -> tuple[DigestEntry, ...]:
        """The entries of those `items` that are held, sorted by key."""
        keys = sorted({item.key for item in items})
        return tuple(self._entries[key] for key in keys if key in self._entries)

    def newer_than(self, entries: Iterable[DigestEntry], *, complete: bool = True) -> list[Item]:
        """What is held that whoever sent `entries` may lack.

        With the same version and another fingerprint nobody knows whose body is the higher one
        without seeing both, so such an item is sent *and* asked for.

        Args:
            entries: what the other side has.
            complete: `entries` is all it has: what is not listed is missing there.
        """
        theirs = {entry.key: entry for entry in entries}
        keys = sorted(self._entries) if complete else theirs
        return [self._items[key] for key in keys if self._ahead(key, theirs.get(key))]

    def lacking(self, entries: Iterable[DigestEntry]) -> list[bytes]:
        """The keys of which whoever sent `entries` may have something newer."""
        return [entry.key for entry in entries if self._behind(entry)]

    def check_invariants(self) -> None:
        """Assert that digest and root describe the items. For tests."""
        root = 0
        for key, item in self._items.items():
            assert self._entries[key] == (key, item.version, fingerprint(item))
            root ^= _entry_hash(self._entries[key])
        assert root == self._root
        assert self._entries.keys() == self._items.keys()
        assert self.digest() == tuple(sorted(self._entries.values()))

    @property
    def _full(self) -> bool:
        return len(self._items) >= self._limits.items

    def _wins(self, item: Item) -> bool:
        """Cheap questions first: most items that arrive are already held."""
        held = self._items.get(item.key)
        if held is not None and not _supersedes(item, held):
            return False
        if held is None and self._full:
            self.overflowed += 1
            return False
        if not self._admit(item):
            self.refused += 1
            return False
        return True

    def _set(self, item: Item) -> None:
        old = self._entries.get(item.key)
        if old is not None:
            self._root ^= _entry_hash(old)
        entry = DigestEntry(item.key, item.version, fingerprint(item))
        self._root ^= _entry_hash(entry)
        self._entries[item.key] = entry
        self.unstored.add(item.key)
        self._items[item.key] = item
        self._digest = None

    def _ahead(self, key: bytes, theirs: DigestEntry | None) -> bool:
        held = self._entries.get(key)
        return held is not None and (theirs is None or _may_supersede(held, theirs))

    def _behind(self, theirs: DigestEntry) -> bool:
        held = self._entries.get(theirs.key)
        if held is None:
            return not self._full  # asking for what cannot be kept would repeat every round
        return _may_supersede(theirs, held)


def _supersedes(item: Item, held: Item) -> bool:
    return (item.version, item.body) > (held.version, held.body)


def _may_supersede(entry: DigestEntry, other: DigestEntry) -> bool:
    # Bodies decide between equal versions, and a fingerprint only tells that they differ.
    same_version = entry.version == other.version
    return entry.version > other.version or (
        same_version and entry.fingerprint != other.fingerprint
    )


def _entry_hash(entry: DigestEntry) -> int:
    data = _ENTRY.pack(len(entry.key), entry.version) + entry.key + entry.fingerprint
    return int.from_bytes(blake2s(data, digest_size=ROOT_SIZE).digest(), "big")
