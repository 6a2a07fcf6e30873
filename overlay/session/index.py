"""Session indexes: the 32-bit numbers by which others address our keypairs and handshakes.

An index names a handshake from the initiation on and its keypair from the response on. Indexes
are random, so that they tell an observer nothing (not even how many sessions there are), and
unique, because the receiver index of a datagram is all that says which key may open it.

    index ---> pending     an initiation of ours that waits for its response
          +--> keypairs    finished handshakes; the packet path looks up here
                 |        (index | lane byte << 32 finds what other lanes of the peer send to us)
                 |
                 +--> half open: keypairs of responders that no burst has confirmed, and those of
                      joiners, oldest first, at most `limit`, and `PER_TOKEN` of one token

References:
    WireGuard paper (Donenfeld 2017), section 5.4.2: `sender` is random at each handshake.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Final, Generic, TypeVar

from overlay.session.transport import Keypair, lane_byte
from overlay.types import Entropy, NodeId
from overlay.wire.handed import BYTES, INT, Handed, table
from overlay.wire.messages import LANES_LIMIT

PER_TOKEN: Final = 4
"""Half-open keypairs of joiners with one token: who has one cannot push out all the others. Of a
member there is one at most, see `overlay.session.keyring`."""

_INDEX_SIZE: Final = 4


def lane_index(index: int, lane: int) -> int:
    """How the packet path looks a keypair up.

    Args:
        index: the receiver index of a datagram.
        lane: its lane byte.

    >>> lane_index(7, 0)
    7
    """
    return index | lane << 32


Pending = TypeVar("Pending")


class IndexTable(Generic[Pending]):
    """All local indexes of one node, and what each of them names.

    Args:
        entropy: makes the indexes.
        limit: half-open keypairs kept at most.

    Attributes:
        keypairs: by local index, and by `lane_index` for those of the peer's other lanes. The same
            dictionary for the life of the table.
        pending: by local index.
        changed: nodes of which a keypair came, was confirmed or went; whoever feeds other lanes
            empties it.
    """

    __slots__ = ("_entropy", "_half_open", "_lanes", "_limit", "changed", "keypairs", "pending")

    HANDED: ClassVar = Handed(_lanes=table(BYTES, INT))

    def __init__(self, entropy: Entropy, limit: int) -> None:
        self._entropy = entropy
        self._limit = limit
        self._half_open: dict[int, Keypair] = {}
        self._lanes: dict[NodeId, int] = {}
        self.changed: set[NodeId] = set()
        self.keypairs: dict[int, Keypair] = {}
        self.pending: dict[int, Pending] = {}

    def draw(self) -> int:
        """An index that names nothing yet. Never 0, which initiations carry as their receiver."""
        while True:
            index = int.from_bytes(self._entropy(_INDEX_SIZE), "big")
            if index and index not in self.keypairs and index not in self.pending:
                return index

    def add(self, keypair: Keypair) -> None:
        """Let `keypair` be found by its local index."""
        self.keypairs[keypair.local_index] = keypair
        self._change(keypair)
        self._widen(keypair)

    def set_lanes(self, node: NodeId, lanes: int, held: Iterable[Keypair]) -> None:
        """`node` sends from this many lanes: open what all of them seal, now and in future.

        Args:
            node: the peer.
            lanes: 1 to 16. Keys that fewer lanes do not need stay until their keypair goes.
            held: the keypairs of the session with it.
        """
        self._lanes[node] = lanes
        for keypair in held:
            self._widen(keypair)

    def forget_lanes(self, node: NodeId) -> None:
        """`node` is known no more."""
        self._lanes.pop(node, None)

    def _widen(self, keypair: Keypair) -> None:
        if keypair.node is None:
            return
        for lane in range(1, self._lanes.get(keypair.node, 1)):
            index = lane_index(keypair.local_index, lane_byte(lane, 0))
            if index not in self.keypairs:
                self.keypairs[index] = keypair.for_lanes(0, lane)

    def _change(self, keypair: Keypair | None) -> None:
        if keypair is not None and keypair.node is not None:
            self.changed.add(keypair.node)

    def add_half_open(self, keypair: Keypair) -> Keypair | None:
        """Let a responder's keypair be found that is not confirmed; `add` is for those that are.

        Returns:
            The oldest half-open keypair of the same token, or else of all, if there are too many
            now; the caller drops it.
        """
        self.add(keypair)
        self._half_open[keypair.local_index] = keypair
        if keypair.joiner_token is not None:
            same = [one for one in self.half_open() if one.joiner_token == keypair.joiner_token]
            if len(same) > PER_TOKEN:
                return same[0]
        return self.oldest_half_open() if len(self._half_open) > self._limit else None

    def confirm(self, keypair: Keypair) -> None:
        """`keypair` is half open no longer."""
        self._change(keypair)
        self._half_open.pop(keypair.local_index, None)

    def release(self, index: int) -> None:
        """`index` names nothing any more."""
        self._change(self.keypairs.pop(index, None))
        for lane in range(1, LANES_LIMIT):
            if self.keypairs.pop(lane_index(index, lane_byte(lane, 0)), None) is None:
                break  # lanes are added in order
        self.pending.pop(index, None)
        self._half_open.pop(index, None)

    def half_open(self) -> Iterator[Keypair]:
        """All half-open keypairs, oldest first."""
        return iter(self._half_open.values())

    def oldest_half_open(self) -> Keypair | None:
        """The half-open keypair that was made first, so that expires first; None without any."""
        return next(iter(self._half_open.values()), None)

    def snapshot(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Indexes of keypairs, of pending handshakes, and of half-open keypairs."""
        return tuple(self.keypairs), tuple(self.pending), tuple(self._half_open)

    def check_invariants(self) -> None:
        """Raise `AssertionError` if the three parts contradict each other."""
        assert not self.keypairs.keys() & self.pending.keys()
        assert self._half_open.keys() <= self.keypairs.keys()
        assert len(self._half_open) <= self._limit
        for index, keypair in self.keypairs.items():
            sender, receiver = keypair.lane & 15, keypair.lane >> 4  # ours is in front when we send
            assert index == lane_index(keypair.local_index, lane_byte(sender, receiver))
            assert keypair.local_index in self.keypairs
