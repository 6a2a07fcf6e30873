"""What a member can do that no honest node does: the complete list.

Whoever sees such a thing names the member in whose session it came or, where an authentic record or
deed is the proof, the one who signed it (`overlay.complaints`). Nothing
is in this list that two honest nodes may see differently: a certificate that has just expired, a
clock, who is trusted at the moment. Values are stable: they are codes in `status` and in logs, and
the place of each is its number in records. Append; never rename.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """One way to misbehave; `WRONGS` says what each is."""

    FORGED_RECORD = "forged-record"
    FORGED_CERTIFICATE = "forged-certificate"
    FORGED_DEED = "forged-deed"
    FORGED_BASE = "forged-base"
    FORGED_REMOVAL = "forged-removal"
    FORGED_CLAIM = "forged-claim"
    MALFORMED_ITEM = "malformed-item"
    MALFORMED_MESSAGE = "malformed-message"
    MALFORMED_BURST = "malformed-burst"
    FOREIGN_SOURCE = "foreign-source"
    FOREIGN_DESTINATION = "foreign-destination"
    ROUTE_NOT_CERTIFIED = "route-not-certified"
    ROUTE_FORBIDDEN = "route-forbidden"
    FORGED_LINK = "forged-link"
    GOSSIP_FLOOD = "gossip-flood"
    RECORD_FLOOD = "record-flood"
    VERSION_JUMP = "version-jump"
    DOUBLE_DEED = "double-deed"


WRONGS: Final[Mapping[Fault, str]] = {
    Fault.FORGED_RECORD: "it sent another node's record that this node has not signed",
    Fault.FORGED_CERTIFICATE: "it sent a record with a certificate that nobody has signed",
    Fault.FORGED_DEED: "it sent a deed that the block's owner has not signed",
    Fault.FORGED_BASE: "it sent the title of a block that no authority has signed",
    Fault.FORGED_REMOVAL: "it sent a removal that no authority has signed",
    Fault.FORGED_CLAIM: "it said that a member contradicted, which had not",
    Fault.MALFORMED_ITEM: "it sent an item of a wrong shape, or over a limit",
    Fault.MALFORMED_MESSAGE: "it sent a control message that does not decode",
    Fault.MALFORMED_BURST: "it sent a burst whose blocks do not add up",
    Fault.FOREIGN_SOURCE: "it sent packets from addresses that are not its own",
    Fault.FOREIGN_DESTINATION: "it sent packets to addresses that are not at their receiver",
    Fault.ROUTE_NOT_CERTIFIED: "it advertises a network that its certificate does not allow",
    Fault.ROUTE_FORBIDDEN: "it advertises a default route, or what belongs to the cluster",
    Fault.FORGED_LINK: "it sent a change of the authorities that none of them has signed",
    Fault.GOSSIP_FLOOD: "it said more than a member may; the rest is dropped",
    Fault.RECORD_FLOOD: "it writes new records all the time; not all of them are taken over",
    Fault.VERSION_JUMP: "it says that it has started more often than a node can start",
    Fault.DOUBLE_DEED: "it signed a block over to two nodes; an old backup of it would, too",
}
"""Each fault in a clause, for people."""

FAULTS: Final[tuple[Fault, ...]] = tuple(Fault)
"""By number, from 0."""
