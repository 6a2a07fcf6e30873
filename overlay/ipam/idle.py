"""How long blocks have been without pods: what has been idle for long may go.

no pod left --> idle since `now` --`idle_after`--> due --> given back
                    ^    a pod comes: forgotten     |
                    '------- cannot go yet ---------'  looked at again after a tenth of that
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Final

from overlay.types import BlockIndex
from overlay.wire.handed import INT, SECONDS, Handed, table

AGAIN_SHARE: Final = 10
"""A block that is due but cannot go is due again after one part in so many of `idle_after`."""


class IdleBlocks:
    """The idle blocks of one node.

    Args:
        idle_after: seconds without a pod after which a block is due.
    """

    __slots__ = ("_due_at", "_idle_after")

    HANDED: ClassVar = Handed(_due_at=table(INT, SECONDS))

    def __init__(self, idle_after: float) -> None:
        self._idle_after = idle_after
        self._due_at: dict[BlockIndex, float] = {}

    def watch(self, idle: Collection[BlockIndex], now: float) -> None:
        """These blocks, and no others, are idle at `now`."""
        due_at = self._due_at
        self._due_at = {block: due_at.get(block, now + self._idle_after) for block in idle}

    def due(self, now: float) -> list[BlockIndex]:
        """Blocks that have been idle for long enough, highest first: low ones fill up first."""
        return sorted((block for block, at in self._due_at.items() if now >= at), reverse=True)

    def postpone(self, block: BlockIndex, now: float) -> None:
        """`block` cannot go yet. Nothing happens if it is not watched."""
        if block in self._due_at:
            self._due_at[block] = now + self._idle_after / AGAIN_SHARE

    def next_deadline(self) -> float | None:
        """When the next block is due; None without idle blocks."""
        return min(self._due_at.values()) if self._due_at else None
