"""Who watches whom: four rings, on which everybody finds his neighbours without being told.

    ring r: all members that live, in the order of their ids, turned left by 8 r bytes

        ... -- predecessor -- this node -- successor -- ...
                (observer)                 (subject)

A node probes its *subjects*, the successors on the four rings, and is probed by its *observers*,
the predecessors; both together are its neighbours, eight at most in the ordinary case. An id is a
public key, so its bytes are as good as random: each ring is another random circle, and four random
circles make an expander. News crosses it in few steps, and hardly any failure cuts it apart.

Who is dead is on no ring, so the rings close behind it. Who is suspected still is, and whoever
would stop at it goes on to the next as well: else nobody would watch the one behind it until the
suspicion ends, and when many die at once, several lie in a row.

With at most nine on the rings, everybody is everybody's subject.

References:
    Rapid (Suresh et al. 2018), section 4.1: K random rings as an expander, observers and subjects.
    SWIM's random targets would need a session, hence a handshake, for nearly every probe.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Final

from overlay.types import NodeId

# -- specification ---------------------------------------------------------------------------------

RINGS: Final = 4
"""Four observers each: one that fails, or lies, is outvoted by the others."""

EVERYBODY: Final = 9
"""Up to so many on the rings, this node included, all are each other's subjects."""

STRIDE: Final = 8
"""Bytes by which the id is turned from one ring to the next: a quarter of it."""

# -- implementation --------------------------------------------------------------------------------

REMEMBERED: Final = 32
"""Members whose observers are remembered until the rings change. Who watches a suspect is asked
with every claim about it."""

WALK: Final = 4
"""Suspects that are passed on one ring, at most. A liar cannot make a node watch everybody."""


class Ring:
    """One ring: the ids of its members in order, and in an array the eight bytes that decide it.

    So each member costs 16 bytes on a ring, and is found by comparing numbers.

    Args:
        number: which of the rings, 0 <= number < `RINGS`.
    """

    __slots__ = ("_turn", "_weights", "members")

    def __init__(self, number: int) -> None:
        self._turn = STRIDE * number
        self._weights = array("Q")  # of the members: the first bytes of their turned ids
        self.members: list[NodeId] = []

    def find(self, node: NodeId) -> int:
        """The place of a member, or the one that a node would get."""
        return self._find(node, self._weight(node))

    def has(self, node: NodeId, at: int) -> bool:
        """Whether `node` stands at that place, which `find` has returned."""
        return at < len(self.members) and self.members[at] == node

    def insert(self, node: NodeId) -> None:
        """Put a node on the ring that is not on it."""
        weight = self._weight(node)
        at = self._find(node, weight)
        self._weights.insert(at, weight)
        self.members.insert(at, node)

    def remove(self, node: NodeId) -> None:
        """Take a member off the ring."""
        at = self.find(node)
        del self._weights[at], self.members[at]

    def check_invariants(self, members: set[NodeId]) -> None:
        """Assert that the ring holds these members, in order. For tests."""
        assert self.members == sorted(members, key=self._turned)
        assert list(self._weights) == list(map(self._weight, self.members))

    def _find(self, node: NodeId, weight: int) -> int:
        members, weights = self.members, self._weights
        at = bisect_left(weights, weight)
        # Equal weights are no accident, but whoever makes such ids shall not bring us to blows.
        while at < len(members) and weights[at] == weight:
            if members[at] == node or self._turned(members[at]) >= self._turned(node):
                break
            at += 1
        return at

    def _weight(self, node: NodeId) -> int:
        return int.from_bytes(node[self._turn : self._turn + STRIDE], "big")

    def _turned(self, node: NodeId) -> bytes:
        return node[self._turn :] + node[: self._turn]


class Rings:
    """The rings, as one node sees them. Adding and removing cost microseconds at 3,000 members.

    Args:
        local: this node, which is always on the rings.
    """

    __slots__ = ("_local", "_neighbours", "_observers", "_rings", "_subjects", "_suspects")

    def __init__(self, local: NodeId) -> None:
        self._local = local
        self._rings = [Ring(number) for number in range(RINGS)]
        for ring in self._rings:
            ring.insert(local)
        self._suspects: set[NodeId] = set()
        self._subjects: tuple[NodeId, ...] | None = ()
        self._neighbours: tuple[NodeId, ...] | None = ()
        self._observers: dict[NodeId, tuple[NodeId, ...]] = {}

    def __len__(self) -> int:
        """How many are on the rings, this node included."""
        return len(self._rings[0].members)

    def __contains__(self, node: NodeId) -> bool:
        """Whether `node` is on the rings."""
        ring = self._rings[0]
        return ring.has(node, ring.find(node))

    def add(self, node: NodeId) -> None:
        """Put a member on the rings; nothing happens if it is on them."""
        if node in self:
            return
        for ring in self._rings:
            ring.insert(node)
        self._changed()

    def remove(self, node: NodeId) -> None:
        """Take a member off the rings: it is dead, or no member any more."""
        if node == self._local or node not in self:
            return
        for ring in self._rings:
            ring.remove(node)
        self._suspects.discard(node)
        self._changed()

    def suspect(self, node: NodeId, suspected: bool) -> None:
        """Pass over a member from now on, or no longer."""
        if suspected != (node in self._suspects) and node in self:
            (self._suspects.add if suspected else self._suspects.discard)(node)
            self._changed()

    def subjects(self) -> tuple[NodeId, ...]:
        """Whom this node probes."""
        if self._subjects is None:
            self._subjects = self._near(self._local, 1)
        return self._subjects

    def observers(self) -> tuple[NodeId, ...]:
        """Who probes this node."""
        return self.observers_of(self._local)

    def observers_of(self, node: NodeId) -> tuple[NodeId, ...]:
        """Who probes `node`, which need not be on the rings; this node may be among them."""
        observers = self._observers.get(node)
        if observers is None:
            if len(self._observers) >= REMEMBERED:
                self._observers.clear()
            observers = self._observers[node] = self._near(node, -1)
        return observers

    def neighbours(self) -> tuple[NodeId, ...]:
        """Subjects and observers: with whom this node gossips."""
        if self._neighbours is None:
            self._neighbours = tuple(dict.fromkeys(self.subjects() + self.observers()))
        return self._neighbours

    def is_suspect(self, node: NodeId) -> bool:
        """Whether a member on the rings is passed over."""
        return node in self._suspects

    def check_invariants(self) -> None:
        """Assert that all rings hold the same members, in order. For tests."""
        members = set(self._rings[0].members)
        assert self._local in members
        assert all(self._near(node, -1) == kept for node, kept in self._observers.items())
        assert self._suspects <= members
        for ring in self._rings:
            ring.check_invariants(members)

    def _near(self, node: NodeId, step: int) -> tuple[NodeId, ...]:
        """The next on each ring in one direction, in order of rings, each once."""
        count, suspects = len(self), self._suspects
        if count <= EVERYBODY:
            return tuple(one for one in self._rings[0].members if one != node)
        found: dict[NodeId, None] = {}
        for ring in self._rings:
            at = ring.find(node)
            if step < 0:
                at -= 1
            elif ring.has(node, at):
                at += 1
            for place in range(at, at + step * WALK, step):
                other = ring.members[place % count]
                if other == node:
                    break
                found[other] = None
                if other not in suspects:
                    break
        return tuple(found)

    def _changed(self) -> None:
        self._subjects = self._neighbours = None
        if self._observers:
            self._observers = {}
