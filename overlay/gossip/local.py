"""Who this node is, as far as gossip must know: its id, its start, and how claims are proven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from overlay.complaints import Complaints
from overlay.types import NodeId
from overlay.wire.claims import Claim


@dataclass(frozen=True, slots=True)
class LocalNode:
    """This node, and how claims are proven.

    Attributes:
        node: its id.
        boot: which start this is.
        prove: makes the proof that it lives, for boot and incarnation.
        is_proven: whether a claim's node itself went on to that incarnation.
        complaints: the book of what members did wrong.
    """

    node: NodeId
    boot: int
    prove: Callable[[int, int], bytes]
    is_proven: Callable[[Claim], bool]
    complaints: Complaints = field(default_factory=Complaints)
