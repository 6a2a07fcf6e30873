"""The counters of all lanes together.

A lane's process reports totals since it was born. When it ends, what it last reported stays in the
sums; what it held then is lost and counted as such, so the books still balance. What it did after
its last report is in no book, neither as read nor as handed on.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from overlay.drops import DropReason
from overlay.forwarding.ledger import Ledger
from overlay.lanes.messages import Stats, Traffic
from overlay.types import NodeId
from overlay.views import LedgerView
from overlay.wire.handed import BYTES, INT, TEXT, Handed, fresh, table


class PeerTraffic:
    """What went to and came from one peer."""

    __slots__ = ("drops", "rx_bytes", "tx_bytes")

    HANDED: ClassVar = Handed(tx_bytes=INT, rx_bytes=INT, drops=table(TEXT, INT, Counter))

    def __init__(self) -> None:
        self.tx_bytes = 0
        self.rx_bytes = 0
        self.drops: Counter[str] = Counter()

    def add(self, other: PeerTraffic) -> None:
        """Sum up."""
        self.tx_bytes += other.tx_bytes
        self.rx_bytes += other.rx_bytes
        self.drops += other.drops


class Books:
    """What the node's other lanes have counted."""

    HANDED: ClassVar = Handed(
        _received=INT,
        _sent=INT,
        _drops=table(TEXT, INT, Counter),
        _past=table(BYTES, fresh(PeerTraffic, PeerTraffic)),
    )

    def __init__(self) -> None:
        self._stats: dict[int, Stats] = {}
        self._peers: dict[int, dict[NodeId, PeerTraffic]] = {}
        self._received = 0
        self._sent = 0
        self._drops: Counter[str] = Counter()
        self._past: dict[NodeId, PeerTraffic] = {}

    def on_stats(self, lane: int, stats: Stats) -> None:
        """The present totals of a lane."""
        self._stats[lane] = stats

    def on_traffic(self, lane: int, traffic: Traffic) -> None:
        """The present totals of some of a lane's peers."""
        peers = self._peers.setdefault(lane, {})
        for node, tx_bytes, rx_bytes, _, drops in traffic.peers:
            peer = peers[node] = PeerTraffic()
            peer.tx_bytes, peer.rx_bytes = tx_bytes, rx_bytes
            peer.drops = Counter(dict(drops))

    def peer_of(self, lane: int, node: NodeId) -> PeerTraffic:
        """What one lane has reported of a peer."""
        return self._peers.get(lane, {}).get(node) or PeerTraffic()

    def close(self, lane: int) -> None:
        """The lane's process has ended."""
        stats = self._stats.pop(lane, None)
        if stats is not None:
            self._received += stats.received
            self._sent += stats.sent
            self._drops += Counter(dict(stats.drops))
            self._drops += Counter({str(DropReason.LANE_LOST): stats.queued})
        for node, peer in self._peers.pop(lane, {}).items():
            self._past.setdefault(node, PeerTraffic()).add(peer)

    def close_all(self) -> None:
        """The processes of all lanes have ended."""
        for lane in list(self._stats | self._peers):
            self.close(lane)

    def forget(self, node: NodeId) -> None:
        """The node is no peer any more."""
        for peers in (*self._peers.values(), self._past):
            peers.pop(node, None)

    def view(self, ledger: Ledger) -> LedgerView:
        """The sum over all lanes; `ledger` is lane 0's."""
        own = ledger.view()
        if not self._stats and not self._received:
            return own
        now = self._stats.values()
        drops = Counter(own.drops) + self._drops
        for stats in now:
            drops += Counter(dict(stats.drops))
        return LedgerView(
            received=own.received + self._received + sum(stats.received for stats in now),
            sent=own.sent + self._sent + sum(stats.sent for stats in now),
            queued=own.queued + sum(stats.queued for stats in now),
            drops=dict(sorted(drops.items())),
        )

    def peer(self, node: NodeId) -> PeerTraffic:
        """What all other lanes exchanged with a peer."""
        total = PeerTraffic()
        for peers in (*self._peers.values(), self._past):
            if node in peers:
                total.add(peers[node])
        return total
