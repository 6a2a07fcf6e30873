"""How members behave towards this node: what no honest node does is noted, named and told.

    control message --> does it decode? --> gossip: are its items and claims what they say?
    burst           --> do its blocks add up, do its packets belong to their ends?
           |
           '--> book (`overlay.complaints`) --> a line in the log, `status`, this node's record

Noting costs nothing where nothing is wrong: packets are counted where they die, and once a second
somebody looks at the counters.
"""

from __future__ import annotations

from typing import ClassVar

from overlay.drops import DropReason
from overlay.effects import Effect, Report
from overlay.errors import NewerError, WireError
from overlay.faults import Fault
from overlay.gossip.letter import GossipMessage
from overlay.parts import Parts
from overlay.steward import Steward
from overlay.types import BlockIndex, NodeId
from overlay.wire.control import decode_untrusted
from overlay.wire.handed import BYTES, INT, Handed, many, pair, row, table
from overlay.wire.messages import Message


class Manners:
    """What one node thinks of the behaviour of others.

    Args:
        parts: its machines.
        steward: announces its record.
    """

    HANDED: ClassVar = Handed(
        _proven=many(row(pair, INT, BYTES), set),
        _counted=table(BYTES, INT),
    )

    def __init__(self, parts: Parts, steward: Steward) -> None:
        self._parts = parts
        self._steward = steward
        self._proven: set[tuple[BlockIndex, NodeId]] = set()  # conflicts that were noted
        self._counted: dict[NodeId, int] = {}  # bursts that did not add up, of each peer

    def hear(self, node: NodeId, message: GossipMessage, now: float) -> list[Effect]:
        """Gossip of a member; who sends what does not hold is noted meanwhile."""
        self._parts.refusals.teller = node, now
        effects = self._parts.gossip.on_message(node, message, now)
        self._parts.refusals.teller = None
        return effects + self._steward.learn(now)

    def read_untrusted(self, node: NodeId | None, message: bytes, now: float) -> Message | None:
        """Read a control message, if its sender may still say something.

        Args:
            node: who said it in its session; None for a joiner.
            message: as it is encoded.
            now: monotonic seconds.

        Returns:
            None when it was dropped; the ledger says why.
        """
        allowances = self._parts.refusals.allowances
        if node is not None and (kind := allowances.spend(node, message, now)) is not None:
            self._parts.ledger.drop(DropReason.FLOODED)
            self._parts.complaints.note(node, Fault.GOSSIP_FLOOD, now, f"too many {kind}")
            return None
        try:
            return decode_untrusted(message)
        except WireError as error:
            self._parts.ledger.drop(DropReason.BAD_CONTROL)
            # What a newer version may send is no fault.
            if node is not None and not isinstance(error, NewerError):
                self._parts.complaints.note(node, Fault.MALFORMED_MESSAGE, now, str(error))
            return None

    def on_look(self, now: float) -> list[Effect]:
        """About a second has gone by: judge what was dropped, forget what is old, tell the rest."""
        parts, book = self._parts, self._parts.complaints
        self._look_at_packets(now)
        self._look_at_titles(now)
        book.expire(now)
        parts.refusals.expire(now)
        for node in {one.node for one in book.entries} & parts.catalog.removed.keys():
            book.forget(node)
        reports: list[Effect] = []
        for complaint in book.take_news():
            entry = book.entries.get(complaint)
            fields = {"peer": parts.name_of(complaint.node), "code": str(complaint.fault)}
            if entry is not None:
                reports.append(Report("member.misbehaves", {**fields, "why": entry.evidence}))
        return reports + self._announce(now)

    def _look_at_packets(self, now: float) -> None:
        parts = self._parts
        for node, fault, packets, evidence in parts.inbound.strays.judge(
            parts.routes, parts.local, now, offered=parts.outside.is_offered
        ):
            # Of whom no record is here, nobody can say which addresses are its own.
            if node in parts.catalog.nodes:
                parts.complaints.note(node, fault, now, evidence, packets)
        for node, path in parts.paths.items():
            bad = path.drops.get(DropReason.BAD_BLOCK, 0) if path.drops else 0
            if more := bad - self._counted.get(node, 0):
                self._counted[node] = bad
            if more > 0:
                evidence = "the blocks of an authentic burst do not add up"
                parts.complaints.note(node, Fault.MALFORMED_BURST, now, evidence, more)
        self._counted = {node: bad for node, bad in self._counted.items() if node in parts.paths}

    def _look_at_titles(self, now: float) -> None:
        """Two deeds of one number are proof against their giver."""
        parts = self._parts
        for one in parts.catalog.titles.conflicts:
            if (one.block, one.giver) not in self._proven and one.giver != parts.local:
                evidence = f"{parts.plan.prefix4(one.block)} was given twice"
                parts.complaints.note(one.giver, Fault.DOUBLE_DEED, now, evidence)
        self._proven = {(one.block, one.giver) for one in parts.catalog.titles.conflicts}

    def _announce(self, now: float) -> list[Effect]:
        """Let the record follow the book, at the pace of all that can wait."""
        record, told = self._parts.record, self._parts.complaints.told()
        if record.complaints == told or self._steward.not_stored:
            return []
        record.complaints = told
        return self._steward.own_changed(now, wait=0.0)
