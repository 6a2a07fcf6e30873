"""Blocks that came back: their addresses rest before this node uses them, or gives them away.

    handed over by a node that leaves --+
    taken from a removed node ----------+--> rests --quarantine--> free
    handed back because it was idle ----'

Until a moment ago pods elsewhere may have had these addresses. What others still send to them must
not reach a stranger, just as with the address of a pod deleted here (`overlay.ipam.allocator`).
A block that was given because this node asked comes from those that its giver had free.

Nothing of it is stored: after a start, all blocks that came back and are not in use rest once more.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from overlay.ipam.titles import Titles
from overlay.types import BlockIndex, NodeId
from overlay.wire.handed import INT, SECONDS, Handed, many, table


class ReturnedBlocks:
    """Those of one node.

    Args:
        titles: who owns what.
        node: the node.
        quarantine: seconds that a block rests.
    """

    __slots__ = ("_node", "_owned", "_quarantine", "_titles", "_until")

    HANDED: ClassVar = Handed(_owned=many(INT, frozenset), _until=table(INT, SECONDS))

    def __init__(self, titles: Titles, node: NodeId, quarantine: float) -> None:
        self._titles = titles
        self._node = node
        self._quarantine = quarantine
        self._owned: frozenset[BlockIndex] = frozenset()
        self._until: dict[BlockIndex, float] = {}

    def watch(
        self, used: Collection[BlockIndex], taken: Collection[BlockIndex], now: float
    ) -> frozenset[BlockIndex]:
        """The blocks that rest at `now`. To be asked whenever a block may have moved.

        Args:
            used: the blocks in use: they do not rest.
            taken: those that are the node's in a moment, by the authority's word.
            now: monotonic seconds.
        """
        owned = self._titles.moved_to(self._node).union(taken)
        until = {block: at for block, at in self._until.items() if block in owned}
        for block in owned - self._owned:
            if block not in used and (block in taken or self._came_back(block)):
                until[block] = now + self._quarantine
        self._owned = owned
        self._until = {block: at for block, at in until.items() if at > now}
        return frozenset(self._until)

    def next_deadline(self) -> float | None:
        """When the next block has rested; None while none does."""
        return min(self._until.values(), default=None)

    def _came_back(self, block: BlockIndex) -> bool:
        deeds = self._titles.chain(block).deeds
        return not deeds or not deeds[-1].request
