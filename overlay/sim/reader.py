"""One reader for all nodes of a world: what one of them has checked, the others need not.

A thousand nodes read every record and every deed. What they read depends on the bytes alone
(`overlay.catalog.reader`), so each is decoded and verified once, and all nodes hold the same frozen
values: this is what makes a thousand engines fit one process.

Nothing is taken on trust: a node gets exactly what it would have read itself, refusals included,
which are not remembered.
"""

from __future__ import annotations

from typing import Final, TypeVar

from overlay.catalog.reader import Reader
from overlay.catalog.records import NodeRecord
from overlay.config import Limits
from overlay.ipam.deeds import Base, Chain, Deed
from overlay.ipam.plan import BlockPlan
from overlay.wire.claims import Claim, ClaimState
from overlay.wire.cluster import Cluster
from overlay.wire.items import Item

REMEMBERED: Final = 100_000
"""Of each kind. When there are more, the oldest half is forgotten: a world that runs for long makes
ever new versions, and the present ones are the youngest."""

Key = TypeVar("Key")
Value = TypeVar("Value")


class SharedReader(Reader):
    """A reader that remembers what it has read.

    Args:
        cluster, limits: as for `Reader`.
    """

    def __init__(self, cluster: Cluster, limits: Limits) -> None:
        super().__init__(cluster, limits)
        self.plan = BlockPlan(cluster, remember=REMEMBERED)
        self._items: dict[Item, Item] = {}
        self._ids: dict[Item, bytes] = {}
        self._records: dict[Item, NodeRecord] = {}
        self._chains: dict[bytes, Chain] = {}
        self._signed: dict[Deed | Base, bool] = {}
        self._proven: dict[Claim, bool] = {}
        self._verified: dict[Item, bool] = {}

    def keep(self, item: Item) -> Item:
        """The first of all equal items that were shown."""
        return self._items.get(item) or _remember(self._items, item, item)

    def id_of(self, item: Item) -> bytes:
        """As `Reader.id_of`."""
        return self._ids.get(item) or _remember(self._ids, item, super().id_of(item))

    def record(self, item: Item) -> NodeRecord:
        """As `Reader.record`."""
        return self._records.get(item) or _remember(self._records, item, super().record(item))

    def chain(self, data: bytes) -> Chain:
        """As `Reader.chain`."""
        return self._chains.get(data) or _remember(self._chains, data, super().chain(data))

    def is_signed(self, record: Deed | Base) -> bool:
        """As `Reader.is_signed`."""
        known = self._signed.get(record)
        return known or _remember(self._signed, record, super().is_signed(record))

    def is_proven(self, claim: Claim) -> bool:
        """As `Reader.is_proven`."""
        if claim.incarnation == 0:
            return super().is_proven(claim)
        said = claim._replace(state=ClaimState.ALIVE, own=False)  # which is not what is signed
        return self._proven.get(said) or _remember(self._proven, said, super().is_proven(claim))

    def verify(self, item: Item) -> None:
        """As `Reader.verify`: nothing of what is remembered here comes from the other methods."""
        if item not in self._verified:
            super().verify(item)
            _remember(self._verified, item, True)


def _remember(memory: dict[Key, Value], key: Key, value: Value) -> Value:
    if len(memory) >= REMEMBERED:
        for old in list(memory)[: REMEMBERED // 2]:
            del memory[old]
    memory[key] = value
    return value
