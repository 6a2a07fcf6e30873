"""What gossip replicates: one opaque, versioned item per key, and short descriptions of all of it.

For each key the item with the higher (version, body) wins. That is a total order, so merging is
a semilattice: commutative, associative, idempotent. Items may arrive in any order, over any
path, any number of times; nodes that have seen the same items hold the same store.

    item --- id      8 bytes of hash: names this version of it
      |
    bucket           by the last byte of the key: its ids, and the XOR of them
      |
    root             XOR of all ids: tells whether two stores differ at all

Every change costs a hash or two, however many items there are.

The store does not know what a body means. `admit` does: it is asked about every item from
elsewhere that would win, and what it does not vouch for leaves no trace but a counter.

References:
    Demers et al. 1987, "Epidemic algorithms for replicated database maintenance", section 1.3:
    anti-entropy that compares checksums first and entries only when those differ.
    Shapiro et al. 2011, "Conflict-free replicated data types", section 2.2: state-based
    replication by a join.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import ClassVar

from overlay.config import Limits
from overlay.errors import CapacityError
from overlay.gossip.recent import SHORT_LIFE, Recent
from overlay.wire.handed import INT, Handed
from overlay.wire.items import ID_SIZE, Item, item_id
from overlay.wire.messages import BUCKETS, ROOT_SIZE

# -- specification ---------------------------------------------------------------------------------

assert ROOT_SIZE == ID_SIZE, "a root is an XOR of ids"


def bucket_of(key: bytes) -> int:
    """The bucket of an item with this key, 0 to 255: the last byte of the key.

    Keys end with a public key or with the number of a block: they spread without hashing.
    """
    return key[-1]


class Store:
    """The replicated items of one node.

    Error contract: an item that is refused, older, or over the limit changes only a counter;
    after a CapacityError the store is as before.

    Args:
        admit: whether an item from elsewhere is what it claims to be. Asked only about items
            that would replace what is held, because the answer costs signature checks.
        limits: `items` bounds the number of keys.
        id_of: what `item_id` says of an item; nodes of one process may share the answers.

    Attributes:
        refused: items that `admit` did not vouch for, or whose id an item of another key has.
        size: bytes of all keys and bodies.
        overflowed: items with a new key that came when the store was full.
        unstored: keys of items that changed since whoever stores them emptied it.
        superseded: ids of items of which a newer version is held, for a while.
        unwelcome: ids of items that were refused, or found no room, for a while.
    """

    __slots__ = (
        "_admit",
        "_buckets",
        "_id_of",
        "_ids",
        "_items",
        "_limits",
        "_root",
        "_roots",
        "overflowed",
        "refused",
        "size",
        "superseded",
        "unstored",
        "unwelcome",
    )

    HANDED: ClassVar = Handed(refused=INT, overflowed=INT)

    def __init__(
        self,
        admit: Callable[[Item], bool],
        limits: Limits,
        id_of: Callable[[Item], bytes] = item_id,
    ) -> None:
        self._admit = admit
        self._limits = limits
        self._id_of = id_of
        self._ids: dict[bytes, bytes] = {}  # key -> id
        self._items: dict[bytes, Item] = {}  # id -> item
        # Ids of each bucket: short lists, as a dozen items of 3,000 nodes are in one.
        self._buckets: list[list[bytes]] = [[] for _ in range(BUCKETS)]
        self._roots = [0] * BUCKETS
        self._root = 0
        self.refused = 0
        self.size = 0
        self.overflowed = 0
        self.unstored: set[bytes] = set()
        self.superseded = Recent()
        self.unwelcome = Recent(SHORT_LIFE)

    def __len__(self) -> int:
        return len(self._items)

    # -- items in ----------------------------------------------------------------------------------

    def merge(self, items: Iterable[Item]) -> list[Item]:
        """Take over from `items` what is newer than what is held, and admitted.

        Returns:
            The items that were new, each key once; empty when nothing was.
        """
        new = {}
        for item in items:
            if self._wins(item):
                if self._set(item):
                    new[item.key] = item
                else:
                    self.refused += 1
        return list(new.values())

    def put(self, item: Item) -> bool:
        """Take over an item of this node's own, or from its own stored state, without asking.

        Returns:
            False, and nothing changes, when the same or a newer item is held, or one of another
            key that has its id.

        Raises:
            CapacityError: the key is new and the store is full (`items`). Nothing else.
        """
        held = self.get(item.key)
        if not self.fits(item.key):
            raise CapacityError(f"the store holds {len(self._items)} items already", "items")
        if held is not None and not _supersedes(item, held):
            return False
        return self._set(item)

    def discard(self, key: bytes) -> None:
        """Hold nothing under this key any more: what made it good is gone. For all stores alike."""
        one = self._ids.pop(key, None)
        if one is None:
            return
        bucket, number = bucket_of(key), int.from_bytes(one, "big")
        self.size -= _size(self._items.pop(one))
        self._buckets[bucket].remove(one)
        self._roots[bucket] ^= number
        self._root ^= number
        self.unstored.add(key)
        self.unwelcome.add(one)

    def fits(self, key: bytes) -> bool:
        """Whether an item with this key can be kept: one is held already, or there is room."""
        return key in self._ids or not self._full

    # -- items out ---------------------------------------------------------------------------------

    def get(self, key: bytes) -> Item | None:
        """The item with this key."""
        one = self._ids.get(key)
        return None if one is None else self._items[one]

    def items(self, prefix: bytes = b"") -> list[Item]:
        """All items whose key starts with `prefix`, sorted by key."""
        return [self._items[self._ids[key]] for key in sorted(self._ids) if key.startswith(prefix)]

    def unsorted(self) -> Collection[Item]:
        """All items, in any order; costs nothing. Not to be kept: it changes with the store."""
        return self._items.values()

    # -- descriptions ------------------------------------------------------------------------------

    def root(self) -> bytes:
        """Equal for equal stores; the order in which items came does not matter."""
        return self._root.to_bytes(ROOT_SIZE, "big")

    def bucket_roots(self) -> list[int]:
        """The roots of all buckets, in order. To be read only."""
        return self._roots

    def ids_in(self, bucket: int) -> Iterable[bytes]:
        """The ids of the items in a bucket, 0 <= bucket < `BUCKETS`."""
        return self._buckets[bucket]

    def id_of(self, key: bytes) -> bytes | None:
        """The id of the item with this key."""
        return self._ids.get(key)

    def name(self, item: Item) -> bytes:
        """The id of any item; costs a hash unless it is this very one that is held."""
        one = self._ids.get(item.key)
        return one if one is not None and self._items[one] is item else self._id_of(item)

    def holds(self, one: bytes) -> bool:
        """Whether the item with this id is held: exactly this version."""
        return one in self._items

    def by_id(self, one: bytes) -> Item | None:
        """The item with this id, if exactly this version is held."""
        return self._items.get(one)

    def lacks(self, one: bytes) -> bool:
        """Whether the item with this id is worth asking for."""
        return not (one in self._items or one in self.superseded or one in self.unwelcome)

    def key_of(self, one: bytes) -> bytes | None:
        """The key of the item with this id, if exactly this version is held."""
        item = self._items.get(one)
        return None if item is None else item.key

    def check_invariants(self) -> None:
        """Assert that ids, buckets and roots describe the items. For tests."""
        roots = [0] * BUCKETS
        for one, item in self._items.items():
            assert one == item_id(item) == self._ids[item.key]
            bucket = bucket_of(item.key)
            assert one in self._buckets[bucket]
            roots[bucket] ^= int.from_bytes(one, "big")
        assert roots == self._roots
        assert len(self._ids) == len(self._items)
        assert self.size == sum(map(_size, self._items.values()))
        assert sum(map(len, self._buckets)) == len(self._items)
        root = 0
        for each in roots:
            root ^= each
        assert root == self._root

    @property
    def _full(self) -> bool:
        return len(self._items) >= self._limits.items

    def _wins(self, item: Item) -> bool:
        """Cheap questions first: many items that arrive are already held."""
        held = self.get(item.key)
        if held is not None and not _supersedes(item, held):
            if item != held:
                self.superseded.add(self._id_of(item))
            return False
        if held is None and self._full:
            self.overflowed += 1
            self.unwelcome.add(self._id_of(item))
            return False
        if not self._admit(item):
            self.refused += 1
            self.unwelcome.add(self._id_of(item))
            return False
        return True

    def _set(self, item: Item) -> bool:
        """Hold an item; False, and nothing changes, if one of another key has its id.

        Ids are short: whoever makes items can, with much work, make two with one id.
        """
        key, bucket = item.key, bucket_of(item.key)
        one = self._id_of(item)
        if one in self._items:
            return False
        number = int.from_bytes(one, "big")
        old = self._ids.get(key)
        if old is not None:
            number ^= int.from_bytes(old, "big")
            self.size -= _size(self._items.pop(old))
            self._buckets[bucket].remove(old)
            self.superseded.add(old)
        self._roots[bucket] ^= number
        self._root ^= number
        self._ids[key], self._items[one] = one, item
        self.size += _size(item)
        self._buckets[bucket].append(one)
        self.unstored.add(key)
        return True


def _size(item: Item) -> int:
    return len(item.key) + len(item.body)


def _supersedes(item: Item, held: Item) -> bool:
    if item.version != held.version:
        return item.version > held.version
    return item.body > held.body
