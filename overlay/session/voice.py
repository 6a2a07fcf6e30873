"""What this node may say in handshakes: its stamps, and to whom it may speak at all.

    stamp    boot << 32 | n: greater than all before, also across restarts
    quiet    no handshake is started, but with the herald

A machine that runs on a copy of another one's identity would take the sessions of the other over:
there is one session per node id. So it keeps quiet, and tells one member alone (the herald) that
it exists.
"""

from __future__ import annotations

from typing import ClassVar, Final

from overlay.types import NodeId
from overlay.wire.handed import BOOL, BYTES, INT, Handed, maybe
from overlay.wire.packing import U64

BOOT_SHIFT: Final = 32
"""A stamp is boot << 32 | n."""


class Voice:
    """Stamps and silence of one node.

    Args:
        boot: of this start, 0 <= boot < 2**32.

    Attributes:
        quiet: whether no handshakes are started.
        herald: the one member that is spoken to although quiet.
        raised: whether its stamps are above those of the boot counter that this start has stored.
    """

    __slots__ = ("_next", "herald", "quiet", "raised")

    HANDED: ClassVar = Handed(_next=INT, quiet=BOOL, raised=BOOL, herald=maybe(BYTES))

    def __init__(self, boot: int) -> None:
        self._next = boot << BOOT_SHIFT
        self.quiet = self.raised = False
        self.herald: NodeId | None = None

    def stamp(self, above: int) -> int:
        """A stamp never used before, and greater than `above`.

        A member that knows a greater one of ours says so; if that is a lie, only the session with
        that member comes to use up its stamps.
        """
        stamp, self._next = self._next, self._next + 1
        return min(max(stamp, above + 1), U64)

    def raise_to(self, boot: int) -> None:
        """Stamps are of this boot from now on, if it is a later one."""
        self._next = max(self._next, boot << BOOT_SHIFT)
        self.raised = True

    def may_start(self, node: NodeId) -> bool:
        """Whether a handshake with `node` may be started."""
        return not self.quiet or node == self.herald
