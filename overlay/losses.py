"""Tells peers that bursts of theirs do not arrive whole: a reason for them to look at their path.

    reassembly table --- bursts given up, by receiver index ---> at most one SegmentLoss a second

A link that has become too small for the size in use swallows full segments and lets short ones
pass, so the receiver sees bursts that stay incomplete where the sender sees nothing. What is
counted here is not authentic (segments are not, before a burst is whole), which is why a report
makes its receiver ask and not believe: see `overlay.routing.mtu`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overlay.effects import Effect, SendControl
from overlay.session.transport import Keypair
from overlay.types import NodeId
from overlay.wire.control import encode
from overlay.wire.messages import SegmentLoss
from overlay.wire.packing import U32
from overlay.wire.reassembly import Reassembly

REPORT_INTERVAL: Final = 1.0
"""Least time between two reports; one covers all peers, each gets its own message."""


class LossReports:
    """Counts what stays incomplete, and says so now and then.

    Args:
        reassembly: the table of incomplete bursts.
        keypairs: local index -> keypair, kept by the sessions.
    """

    def __init__(self, reassembly: Reassembly, keypairs: Mapping[int, Keypair]) -> None:
        self._reassembly = reassembly
        self._keypairs = keypairs
        self._bursts: dict[NodeId, int] = {}
        self._report_at = 0.0

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do next; the table's own deadline comes besides."""
        return self._report_at if self._bursts else None

    def on_deadline(self, now: float) -> list[Effect]:
        """Count what was given up since the last call; report it when it is time."""
        for index, bursts in self._reassembly.take_incomplete().items():
            keypair = self._keypairs.get(index)
            if keypair is not None and keypair.node is not None:
                self._bursts[keypair.node] = self._bursts.get(keypair.node, 0) + bursts
        if not self._bursts or now < self._report_at:
            return []
        self._report_at = now + REPORT_INTERVAL
        lost, self._bursts = self._bursts, {}
        return [
            SendControl(node, encode(SegmentLoss(min(bursts, U32))))
            for node, bursts in sorted(lost.items())
        ]
