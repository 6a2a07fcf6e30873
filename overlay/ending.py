"""Whether the cluster holds this node's membership for ended, though the node itself does not.

    removed    an operator has declared it dead for ever
    left       its newest record is a tombstone that its state knows nothing of: a machine with a
               copy of its state has left, or it did itself before a backup was put back

Either is for ever. The node keeps its pods and what they have, hands out nothing, and says so; the
cluster takes no notice of it any more.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NoReturn

from overlay.catalog.catalog import Catalog
from overlay.errors import RefusedError
from overlay.types import NodeId

_WHAT: Final = {
    "removed": "this node was removed from its cluster",
    "left": "this node has left its cluster",
}


class Ending(StrEnum):
    """How it ended."""

    REMOVED = "removed"
    LEFT = "left"

    @property
    def what(self) -> str:
        """One clause for people."""
        return _WHAT[self.value]

    def refuse(self) -> NoReturn:
        """Decline what only a member may do.

        Raises:
            RefusedError: `node-removed`, `node-left`. Nothing else.
        """
        raise RefusedError(f"node-{self.value}", self.what, "join again with a new token")


def ending_of(catalog: Catalog, node: NodeId, *, left: bool) -> Ending | None:
    """How the membership of `node` ended behind its back; None while it has not.

    Args:
        catalog: what is known of the cluster.
        node: this node.
        left: whether it knows that it has left: then all is as it should be.
    """
    if node in catalog.removed:
        return Ending.REMOVED
    record = catalog.nodes.get(node)
    return Ending.LEFT if record is not None and record.left and not left else None
