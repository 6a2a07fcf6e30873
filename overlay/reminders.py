"""Shows a node what it has said and its state does not know: a backup was put back.

    record 1.9 held here         1.9 > 1.4: it was told and then forgotten
    record 2.1 comes,  -------->  Delta(1.9) to its owner, and with each look until its record
    "resumed at 1.4"              says that it went on from 1.9, or for `LOOKS` looks

What a node tells it has stored before, so an honest restart resumes at its last record, or later.
The owner checks its own signature and freezes (`overlay.conflict`).

All members that hold such a record see it at once. Those with a session speak first; the others
call the node only if that did not help, and not all together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overlay.catalog.catalog import Catalog
from overlay.catalog.keys import node_key
from overlay.catalog.records import NodeRecord
from overlay.effects import Effect, SendControl
from overlay.forwarding.path import PeerPath
from overlay.types import NodeId
from overlay.wire.control import encode
from overlay.wire.items import Item
from overlay.wire.messages import Delta

LOOKS: Final = 5
"""So often a record is shown: a look is a second, and a datagram may be lost."""

PATIENCE: Final = 3
"""Looks for which those who have no session with the node leave it to the others, at least."""

SPREAD: Final = 16
"""They begin over so many looks, each at one of its own."""

MOST: Final = 64
"""Reminders kept at a time: one per node whose state is old."""


class _Reminder:
    """A record that its owner has forgotten, and how many looks there were since."""

    __slots__ = ("looks", "record")

    def __init__(self, record: NodeRecord) -> None:
        self.record = record
        self.looks = 0


class Reminders:
    """The records that owners are shown.

    Args:
        local: this node.
        catalog: knows the newest record of each node.
        paths: node -> path, of those there may be a session with.
    """

    def __init__(self, local: NodeId, catalog: Catalog, paths: Mapping[NodeId, PeerPath]) -> None:
        self._local = local
        self._catalog = catalog
        self._paths = paths
        self._reminders: dict[NodeId, _Reminder] = {}

    def compare(self, before: NodeRecord) -> list[Effect]:
        """A record has come into force, or not, where `before` was in force."""
        node = before.node
        full = len(self._reminders) >= MOST
        if node == self._local or node in self._reminders or full or not self._is_forgotten(before):
            return []
        self._reminders[node] = _Reminder(before)
        return [] if self._wait(node) else [_show(before)]

    def on_look(self) -> list[Effect]:
        """About a second has gone by: show what is still forgotten."""
        effects: list[Effect] = []
        for node, reminder in list(self._reminders.items()):
            reminder.looks += 1
            wait = self._wait(node)
            if reminder.looks > wait + LOOKS or not self._is_forgotten(reminder.record):
                del self._reminders[node]
            elif reminder.looks > wait:
                effects.append(_show(reminder.record))
        return effects

    def _wait(self, node: NodeId) -> int:
        path = self._paths.get(node)
        if path is not None and path.keypair is not None:
            return 0
        return PATIENCE + (self._local[0] ^ node[0]) % SPREAD

    def _is_forgotten(self, record: NodeRecord) -> bool:
        """Whether what the node says now follows from a time before `record`."""
        now = self._catalog.nodes.get(record.node)
        if now is None or now.left or now.conflict:  # it is gone, or knows already
            return False
        return record.boot < now.boot and now.resumed < record.version


def _show(record: NodeRecord) -> SendControl:
    item = Item(node_key(record.node), record.version, record.body)
    return SendControl(record.node, encode(Delta((item,))))
