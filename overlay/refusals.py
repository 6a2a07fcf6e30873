"""Items that are refused, and whose fault that is: the member's that sent them, or their owner's.

    item of a member --> admitted? --no--> a lie (`Catalog.lie`): the sender's fault, noted
                            |
                            '--yes--> a record: more than `RECORDS` a second of its owner?
                                          refused for the moment; the owner's fault if it says them

A record that is refused for its number is not lost: stores are compared again and again, and the
newest one gets in when its turn has come. So who writes without end is known with a delay, and
costs others a constant share.

What a node says of itself is counted by itself. A member may have kept all the records that an
honest node ever wrote, and tell them in order to one that knows none of them: that neither takes
the owner's turns away, nor is it the owner's fault.

A member may send its own record under any version, however far ahead, and has nothing of it but
that it cannot write another one: versions only grow. A limit that depends on what was known before
would have nodes that came later know another record than the rest, for ever. So a jump is named,
not refused: no honest node starts that often.
"""

from __future__ import annotations

from typing import Final

from overlay.allowance import AHEAD, LIES, VAIN, Allowances
from overlay.catalog.catalog import Catalog
from overlay.catalog.keys import node_of_key
from overlay.complaints import Complaints
from overlay.debts import Debts
from overlay.faults import Fault
from overlay.types import NodeId
from overlay.versions import TOMBSTONE
from overlay.wire.items import Item

# -- implementation --------------------------------------------------------------------------------

RECORDS: Final = 4.0
"""Records per second of one node that are taken over from itself, and as many from all others. An
honest one announces two at most, and now and then one more."""

JUMP: Final = 1 << 24
"""Starts that no honest node makes between two records: one every second for half a year."""

_BOOT_SHIFT: Final = 32


class Refusals:
    """Judges items for one node.

    Args:
        complaints: where faults are noted.
        local: the node itself, whose own record is not counted.

    Attributes:
        teller: whose items are being looked at, and when; None: none that a member just sent.
        allowances: what members may say.
    """

    def __init__(self, complaints: Complaints, local: NodeId) -> None:
        self._complaints = complaints
        self._local = local
        self._records: Debts[tuple[NodeId, bool]] = Debts(AHEAD)  # of whom, said by itself?
        self.teller: tuple[NodeId, float] | None = None
        self.allowances = Allowances()

    def admit(self, item: Item, catalog: Catalog, wall: float | None) -> bool:
        """Whether an item may be taken over; see `Catalog.admit`."""
        if self.teller is None:
            return catalog.admit(item, wall)
        teller, now = self.teller
        owner = node_of_key(item.key)
        if owner == teller and self._records.is_spent((owner, True), now):
            return self._refuse_flood(owner, teller, now)  # without a look at its signature
        if not catalog.admit(item, wall):
            if catalog.lie is not None:
                self.allowances.charge(teller, LIES, now)
                self._complaints.note(teller, catalog.lie.fault, now, catalog.lie.evidence)
            return False
        if owner is None or owner == self._local:
            return True
        if not self._records.spend((owner, owner == teller), 1 / RECORDS, now):
            return self._refuse_flood(owner, teller, now)
        self.allowances.repay(teller, len(item.body))
        self._look_at_jump(owner, item, catalog, now)
        return True

    def _look_at_jump(self, owner: NodeId, item: Item, catalog: Catalog, now: float) -> None:
        before = catalog.nodes.get(owner)
        boot = item.version >> _BOOT_SHIFT
        if before is not None and boot - before.boot > JUMP and item.version != TOMBSTONE:
            evidence = f"from start {before.boot} to {boot}"
            self._complaints.note(owner, Fault.VERSION_JUMP, now, evidence)

    def _refuse_flood(self, owner: NodeId, teller: NodeId, now: float) -> bool:
        self.allowances.charge(teller, VAIN, now)
        if owner == teller:
            evidence = f"more than {RECORDS:.0f} records a second"
            self._complaints.note(owner, Fault.RECORD_FLOOD, now, evidence)
        return False

    def expire(self, now: float) -> None:
        """Forget what time has paid off. To be called now and then."""
        self._records.expire(now)
        self.allowances.expire(now)
