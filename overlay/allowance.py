"""How much a member may say: an allowance per member and kind of message, spent before it is read.

    message --> kind, by its number --> costs 1 / rate seconds, or size / bytes per second
                                                |
              owed so far, paid off by time ----+--> more than `AHEAD` seconds owed: dropped

What is expensive stands behind this: decoding, signature checks, answers that are larger than the
question. So a member can make this node work so much and no more, and since each has its own
allowance, nobody else's messages wait for it.

Honest members were not seen to owe more than one second of any of this: not while a hundred
nodes join at once, nor when halves of a cluster meet again, nor to a node that slept for half a
minute and hears everything in one moment.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from overlay.debts import Debts
from overlay.types import NodeId
from overlay.wire.control import number_of
from overlay.wire.messages import (
    BenchDone,
    BenchReady,
    BenchRequest,
    BlockRequest,
    Buckets,
    Claims,
    Delta,
    Facts,
    FactsRequest,
    Have,
    Ids,
    IndirectProbe,
    IndirectReply,
    Probe,
    ProbeReply,
    Refusal,
    RenewGrant,
    RenewRequest,
    Summary,
    Want,
)

# -- implementation --------------------------------------------------------------------------------

AHEAD: Final = 10.0
"""Seconds of its allowance that a member may use up at once."""

LIES: Final = 10.0
"""Forged items per second that a member may send. Whoever has used that up is not listened to about
items, until time has paid it off."""

VAIN: Final = 100.0
"""The same of items that are genuine, and were refused because their owner writes too many."""


class Kind(StrEnum):
    """What is counted together."""

    LIVES = "lives"
    CLAIMS = "claims"
    NEWS = "news"
    COMPARING = "comparing"
    WANTS = "wants"
    ITEMS = "items"
    REQUESTS = "requests"
    PATH = "path"


class Rate(NamedTuple):
    """What one member may say of one kind, for ever."""

    messages: float
    """Per second."""
    size: float
    """Bytes per second."""


RATES: Final = {
    Kind.LIVES: Rate(50, 50_000),
    Kind.CLAIMS: Rate(20, 200_000),
    Kind.NEWS: Rate(50, 200_000),
    Kind.COMPARING: Rate(10, 200_000),
    Kind.WANTS: Rate(50, 100_000),
    Kind.ITEMS: Rate(200, 1_000_000),
    Kind.REQUESTS: Rate(5, 10_000),
    Kind.PATH: Rate(100, 1_000_000),
}
"""Of each kind. What no kind is known for counts as `PATH`."""

_KINDS: Final = {
    Kind.LIVES: (Probe, ProbeReply, IndirectProbe, IndirectReply),
    Kind.CLAIMS: (Claims,),
    Kind.NEWS: (Have,),
    Kind.COMPARING: (Summary, Buckets, Ids),
    Kind.WANTS: (Want,),
    Kind.ITEMS: (Delta,),
    Kind.REQUESTS: (
        *(BlockRequest, Refusal, RenewRequest, RenewGrant),
        *(BenchRequest, BenchReady, BenchDone, FactsRequest, Facts),
    ),
}
_KIND_OF: Final = {number_of(one): kind for kind, types in _KINDS.items() for one in types}
_NUMBER_AT: Final = 1


class Allowances:
    """What members owe to one node."""

    __slots__ = ("_debts", "_lies")

    def __init__(self) -> None:
        self._debts: Debts[tuple[NodeId, Kind]] = Debts(AHEAD)
        self._lies: Debts[NodeId] = Debts(AHEAD)

    def spend(self, node: NodeId, message: bytes, now: float) -> Kind | None:
        """`node` says `message`, as it is encoded.

        Returns:
            None when it may; else what it says too much of.
        """
        kind = _KIND_OF.get(message[_NUMBER_AT] if len(message) > _NUMBER_AT else 0, Kind.PATH)
        rate = RATES[kind]
        cost = max(1 / rate.messages, len(message) / rate.size)
        if kind is Kind.ITEMS and self._lies.is_spent(node, now):
            return kind
        return None if self._debts.spend((node, kind), cost, now) else kind

    def repay(self, node: NodeId, size: int) -> None:
        """`node` brought a record of so many bytes that was good and new: that is no flood.

        So a node to which all is new may hear it from one member, at once. There is only so much
        that is new: of each owner a few records a second.
        """
        self._debts.repay((node, Kind.ITEMS), size / RATES[Kind.ITEMS].size)

    def charge(self, node: NodeId, rate: float, now: float) -> None:
        """`node` made this node check an item for nothing; it may do so `rate` times a second."""
        self._lies.spend(node, 1 / rate, now)

    def expire(self, now: float) -> None:
        """Forget who owes nothing. To be called now and then."""
        self._debts.expire(now)
        self._lies.expire(now)
