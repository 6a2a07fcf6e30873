"""Bulk that was read from the TUN and is not sealed yet: who is next, and what must wait for it.

The kernel's queue in front of the TUN is one line for everybody, and a super-packet in it is worth
forty others. So a pass reads all there is, and sorts: small packets leave at once, super-packets
wait here for their turn. The kernel's queue stays short, and what waits is bounded in bytes.

    read -->  small packet of a flow without bulk here ------------------> next burst
              super-packet, or packet of a flow that has one here --> queue of its peer --> its turn

Peers take turns, one burst each. Within a peer, and so within a flow, the order is kept.

Nothing is copied: an entry says where in the arena a block lies, and `oldest` up to where the arena
may be used again.

References:
    RFC 8290, section 3: sparse flows before those with a standing queue. Differs from it: what is
    sparse is told by the size of packets, because a super-packet is what a sender with a queue
    makes, and queues are per peer.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import NamedTuple

from overlay.forwarding.path import PeerPath


class Entry(NamedTuple):
    """One block in the arena, its header included, and the flow it belongs to."""

    start: int
    end: int
    flow: bytes


class Turn(NamedTuple):
    """What a peer may send now: blocks that lie side by side in `arena[start:end]`."""

    peer: PeerPath
    start: int
    end: int
    packets: int


class Backlog:
    """The queues of all peers."""

    __slots__ = ("_flows", "_queues", "_starts", "_waiting")

    def __init__(self) -> None:
        self._queues: dict[PeerPath, deque[Entry]] = {}
        self._flows: dict[bytes, int] = {}
        self._starts: deque[int] = deque()  # in the order of reading, some of them gone already
        self._waiting: set[int] = set()  # starts that are not

    def __len__(self) -> int:
        """Packets that wait."""
        return len(self._waiting)

    def holds(self, flow: bytes) -> bool:
        """Whether a packet of `flow` waits here: others of it must not overtake it."""
        return flow in self._flows

    def oldest(self) -> int | None:
        """Where in the arena the packet lies that was read first of all that wait."""
        starts = self._starts
        while starts and starts[0] not in self._waiting:
            starts.popleft()
        return starts[0] if starts else None

    def put(self, peer: PeerPath, entry: Entry) -> None:
        """Let a packet wait."""
        self._queues.setdefault(peer, deque()).append(entry)
        self._flows[entry.flow] = self._flows.get(entry.flow, 0) + 1
        self._starts.append(entry.start)
        self._waiting.add(entry.start)

    def first(self, peer: PeerPath) -> Entry | None:
        """The packet of `peer` that is next; it stays."""
        queue = self._queues.get(peer)
        return queue[0] if queue else None

    def pop(self, peer: PeerPath) -> Entry:
        """Take the packet that `first` showed."""
        queue = self._queues[peer]
        entry = queue.popleft()
        if not queue:
            del self._queues[peer]
        self._waiting.discard(entry.start)
        left = self._flows[entry.flow] - 1
        if left:
            self._flows[entry.flow] = left
        else:
            del self._flows[entry.flow]
        return entry

    def take(self) -> Turn | None:
        """One burst of the peer whose turn it is; None when nothing waits."""
        peer = next(iter(self._queues), None)
        if peer is None:
            return None
        start, end, _ = self.pop(peer)
        packets = 1
        while (following := self.first(peer)) is not None:
            if following.start != end or following.end - start > peer.burst:
                self._queues[peer] = self._queues.pop(peer)  # to the end of the line
                break
            end = self.pop(peer).end
            packets += 1
        return Turn(peer, start, end, packets)

    def drop(self, peer: PeerPath) -> int:
        """Forget what waits for `peer`; how many packets it was."""
        packets = 0
        while self.first(peer) is not None:
            self.pop(peer)
            packets += 1
        return packets

    def waiting_for(self, peer: PeerPath) -> int:
        """How many packets wait for `peer`."""
        return len(self._queues.get(peer, ()))

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        entries = [entry for queue in self._queues.values() for entry in queue]
        assert all(self._queues.values())
        assert {entry.start for entry in entries} == self._waiting
        assert len(entries) == len(self._waiting) == sum(self._flows.values())
        assert self._waiting <= set(self._starts)
        spans = sorted((entry.start, entry.end) for entry in entries)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
