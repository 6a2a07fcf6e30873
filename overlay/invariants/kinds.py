"""What an invariant is: a name, a claim, and a check that says how it was broken.

    Invariant("one-user", "No address block is used by two nodes.", Scope.CLUSTER, check)
                                       |
    check(subject) --> "block 10.244.3.0/24 is used by node1 and by node2", ...   or nothing

A check never raises for what it finds. What it yields is evidence: names, addresses, numbers, so
that a reader of a log or of `muslin status` can begin to look for the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from overlay.errors import OverlayError

S = TypeVar("S")


class Scope(StrEnum):
    """Who can see whether it holds."""

    NODE = "node"  #: the node itself
    CLUSTER = "cluster"  #: only somebody who sees all nodes


class Subject(StrEnum):
    """What a check reads: it need not be repeated while that has not changed."""

    BOOKS = "books"  #: counters, which always change
    HOLDINGS = "holdings"  #: blocks, pods, own record
    ITEMS = "items"  #: records and deeds of all
    ROUTES = "routes"  #: what is derived from them
    TABLES = "tables"  #: their sizes
    SIGNATURES = "signatures"  #: of all items; nothing changes them, so nothing says when to look
    DEPTHS = "depths"  #: all of it, and slowly: only on demand


class Breach(NamedTuple):
    """An invariant that does not hold."""

    name: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Invariant(Generic[S]):
    """Something that must always be true.

    Attributes:
        name: lower case, dashed; stable, because `status` shows it.
        claim: one sentence.
        scope: who can see it.
        subject: what its truth depends on.
        check: yields evidence of every breach.
    """

    name: str
    claim: str
    scope: Scope
    subject: Subject
    check: Callable[[S], Iterator[str]]

    def breaches(self, subject: S) -> list[Breach]:
        """What is wrong now; empty when it holds.

        Tables that are damaged enough to make the check itself fail are a breach as well: what
        looks after the node must not stop the node.
        """
        try:
            return [Breach(self.name, evidence) for evidence in self.check(subject)]
        except (OverlayError, LookupError, ValueError, TypeError, AttributeError) as error:
            evidence = f"the check failed with {type(error).__name__}: {error}"
        except AssertionError as error:
            evidence = f"an assertion does not hold: {error}"
        return [Breach(self.name, evidence)]
