"""What members did that no honest node does: a bounded book, and what of it is told to others.

    an item, a message, a packet that cannot be honest --> note(node, fault) --> book
                                                                                  |
                          this node's `status`: what, how often, last evidence <--+
                          this node's record: whom it complains of, and of what <-'

A complaint is this node's own word, from evidence that it has seen itself: who sent a forged item
is the member in whose session it came. An honest node checks what it passes on, so whoever passes
on what does not hold has made it, or has not checked. Nothing is noted that two honest nodes may
see differently: a certificate that has just expired, a clock, who is trusted at the moment.

A complaint has no other effect than to be shown. What others complain of is shown as their word:
nobody is cut off because somebody else said so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from overlay.faults import FAULTS, Fault
from overlay.types import NodeId

# -- specification ---------------------------------------------------------------------------------

COMPLAINTS_MAX: Final = 8
"""Complaints in one record: enough to see who it is. A record must not grow with what liars do."""


# -- implementation --------------------------------------------------------------------------------

KEPT_FOR: Final = 600.0
"""Seconds for which a complaint stands after the last time."""

BOOK_MAX: Final = 256
"""Complaints kept. The one that was quiet for longest makes room."""

EVIDENCE_MAX: Final = 200
"""Characters of evidence."""


class Complaint(NamedTuple):
    """What is told: who, and what it did."""

    node: NodeId
    fault: Fault


class Entry(NamedTuple):
    """What the book says of one complaint. Times are monotonic seconds."""

    times: int
    first: float
    last: float
    evidence: str


class Complaints:
    """The book of one node.

    Attributes:
        entries: complaint -> how often, since when, when last, and what was seen then. To be read
            only.
        news: complaints that were new since somebody took them.
    """

    __slots__ = ("entries", "news")

    def __init__(self) -> None:
        self.entries: dict[Complaint, Entry] = {}
        self.news: list[Complaint] = []

    def note(
        self, node: NodeId, fault: Fault, now: float, evidence: str = "", times: int = 1
    ) -> None:
        """`node` did this just now, `times` times. What is not printable in `evidence` is left out.

        >>> book = Complaints()
        >>> book.note(NodeId(bytes(32)), Fault.FORGED_RECORD, 1.0)
        >>> [entry.times for entry in book.entries.values()]
        [1]
        """
        complaint = Complaint(node, fault)
        before = self.entries.pop(complaint, None)
        if before is None:
            if len(self.entries) >= BOOK_MAX:
                del self.entries[next(iter(self.entries))]
            if len(self.news) < BOOK_MAX:
                self.news.append(complaint)
            before = Entry(0, now, now, "")
        said = "".join(one for one in evidence[:EVIDENCE_MAX] if one.isprintable())
        # Put back as the last: the book stays in the order of the last time.
        self.entries[complaint] = Entry(
            before.times + times, before.first, now, said or before.evidence
        )

    def expire(self, now: float) -> None:
        """Forget what was not repeated for `KEPT_FOR`."""
        while self.entries:
            complaint, entry = next(iter(self.entries.items()))
            if now - entry.last < KEPT_FOR:
                return
            del self.entries[complaint]

    def forget(self, node: NodeId) -> None:
        """`node` is no member any more: what it did is not held against anybody."""
        for complaint in [one for one in self.entries if one.node == node]:
            del self.entries[complaint]

    def take_news(self) -> list[Complaint]:
        """Complaints that were new since the last call, in order."""
        taken, self.news = self.news, []
        return taken

    def told(self) -> tuple[Complaint, ...]:
        """What the node's record says: at most `COMPLAINTS_MAX`, in order of nodes and faults.

        Of each node the first complaint before the second of any, older ones first, so that what
        was said once is not replaced by what came later.
        """
        return choose((entry.first, complaint) for complaint, entry in self.entries.items())

    def check_invariants(self) -> None:
        """Assert bounds and order. For tests."""
        assert len(self.entries) <= BOOK_MAX
        assert len(self.told()) <= COMPLAINTS_MAX
        lasts = [entry.last for entry in self.entries.values()]
        assert lasts == sorted(lasts)
        assert all(entry.times > 0 and entry.first <= entry.last for entry in self.entries.values())


def choose(dated: Iterable[tuple[float, Complaint]]) -> tuple[Complaint, ...]:
    """The complaints to be told, of pairs of when one began and what it is. See `told`."""
    seen: dict[NodeId, int] = {}
    ranked = []
    for first, complaint in sorted(dated):
        rank = seen[complaint.node] = seen.get(complaint.node, -1) + 1
        ranked.append((rank, first, complaint))
    chosen = [complaint for _, _, complaint in sorted(ranked)[:COMPLAINTS_MAX]]
    return tuple(sorted(chosen, key=lambda one: (one.node, FAULTS.index(one.fault))))
