"""Versions of a node's own record: they only grow, whatever was lost.

    version  boot << 32 | n

The boot counter was stored before this start used it, so versions grow even when the last ones
before a crash were never written. A state that was restored from a backup has an old counter, and a
copy of it on another machine has the same one: both meet a record of this node that they did not
make (`overlay.conflict`), and go on from there.

A state from before the last records of the same start is not so easily seen: its next start counts
higher than all of them. So each record says from which one its start went on (`resumed`). What was
told to anybody had been stored before; whoever holds a later record of an earlier boot number has
the proof that the state is older than that, and shows it to the node (`overlay.reminders`).

A tombstone has the last version there is. Whatever a backup from before says under whatever boot
number, its node has left: its blocks are with others, and its name may be.
"""

from __future__ import annotations

from typing import ClassVar, Final

from overlay.catalog.catalog import Catalog
from overlay.catalog.records import NodeRecord
from overlay.types import NodeId
from overlay.wire.handed import INT, Handed
from overlay.wire.packing import U64

LAST_BOOT: Final = (1 << 32) - 2
"""Two more starts fit into 32 bits."""

TOMBSTONE: Final = U64
"""Version of the record that says that its node has left."""


class Versions:
    """The versions of one node's record.

    Args:
        catalog: knows the newest record, whoever signed it.
        node: whose.
        boot: of this start, 0 <= boot < 2**32.

    Attributes:
        resumed: version of the newest record known when the present boot number began; 0: none.
    """

    __slots__ = ("_catalog", "_made", "_node", "_version", "resumed")

    HANDED: ClassVar = Handed(_version=INT, resumed=INT)

    def __init__(self, catalog: Catalog, node: NodeId, boot: int) -> None:
        self._catalog = catalog
        self._node = node
        self._version = boot << 32
        self._made: NodeRecord | None = None
        self.resumed = 0

    @property
    def boot(self) -> int:
        """This start's counter, or that of the newer record it went on from."""
        return self._version >> 32

    def next(self) -> int:
        """A version never used before, above that of every record known."""
        newer = self.overtaken_by()
        self._version = (self._version if newer is None else newer.version) + 1
        known = self._catalog.nodes.get(self._node)
        if known is not None and known.boot < self.boot:
            self.resumed = max(self.resumed, known.version)
        return self._version

    def note_made(self) -> None:
        """The record that was made last is in force here."""
        known = self._catalog.nodes.get(self._node)
        if known is not None and known.version == self._version:
            self._made = known

    def overtaken_by(self) -> NodeRecord | None:
        """A newer record of this node than the last one it has made or followed.

        Two machines that started as often count alike: one of the same version that says something
        else, and that everybody prefers, is as foreign as a newer one.
        """
        known = self._catalog.nodes.get(self._node)
        # A node that has left is not brought back by an old backup: its name may be another's.
        # Nothing comes after the last boot, which only a thief of the key would have signed.
        if known is None or known.left or known.boot >= LAST_BOOT:
            return None
        same = known.version == self._version and self._made is not None
        foreign = known.version > self._version or (
            same and known is not self._made and known != self._made
        )
        return known if foreign else None

    def follow(self, newer: NodeRecord) -> None:
        """Another machine signed this; leave it so. What is made from now on comes after it."""
        self._version = max(self._version, newer.version)
        self._made = newer if newer.version == self._version else self._made

    def forgot(self, record: NodeRecord) -> bool:
        """Whether a record of this node, signed before this start, is later than its state."""
        return self.resumed < record.version and record.boot < self.boot

    def recall(self, record: NodeRecord) -> None:
        """Go on from a record that was forgotten: nobody needs to show it again."""
        self.resumed = max(self.resumed, record.version)

    def raise_boot(self) -> int:
        """Begin a boot number that nobody has used, as far as is known; returns it."""
        newer = self.overtaken_by()
        boot = (self.boot if newer is None else newer.boot) + 1
        self._version = boot << 32
        return boot
