"""Asking for an address block until one is there.

A node without a free address asks one member that has blocks to give; the answer is a deed that
arrives as a gossip item, or a refusal. Requests are repeated, because datagrams are lost, and go to
each giver in turn, because one may be dead. They are idempotent: a giver answers a repeated request
with the same deed. Two givers may both answer; the second block then stays free, and can be given
on.
"""

from __future__ import annotations

import random
from typing import Final

from overlay.catalog.catalog import Catalog
from overlay.config import Timing
from overlay.effects import Effect, Report, SendControl
from overlay.types import NodeId
from overlay.wire.control import encode
from overlay.wire.messages import BlockRequest, Refusal

FORGIVE_AFTER: Final = 5.0
"""Seconds until a member that refused, or did not answer, is asked again: blocks come back when
nodes leave. With nobody else to ask, silence is forgiven at once."""


class BlockSeeker:
    """The requests of one node.

    Args:
        catalog: who has blocks to give.
        local: the node that asks.
        timing: `request_retry`.
        rng: draws request numbers.
    """

    def __init__(self, catalog: Catalog, local: NodeId, timing: Timing, rng: random.Random) -> None:
        self._catalog = catalog
        self._local = local
        self._retry = timing.request_retry
        self._rng = rng
        self._request = 0
        self._ask_at: float | None = None
        self._refused: dict[NodeId, float] = {}
        self._silent: dict[NodeId, float] = {}
        self.why = ""
        """Why there is no block yet, for `status`; empty while none is sought."""

    @property
    def seeking(self) -> bool:
        """Whether a block is wanted."""
        return self._ask_at is not None

    def seek(self, now: float) -> None:
        """Want a block from now on; nothing happens if one is wanted already."""
        if self._ask_at is None:
            self._ask_at = now
            self._request = self._rng.getrandbits(32)
            self.why = "no member was asked yet"

    def found(self) -> None:
        """A block is there."""
        self._ask_at = None
        self._refused.clear()
        self._silent.clear()
        self.why = ""

    def on_refusal(self, node: NodeId, refusal: Refusal, now: float) -> list[Effect]:
        """A member declined: ask another one at once."""
        if not self.seeking or refusal.request != self._request:
            return []
        self._refused[node] = now
        self._ask_at = now
        self.why = f"{self._name(node)} declined: {refusal.text}"
        return [Report("block.refused", {"peer": self._name(node), "why": refusal.text})]

    def next_deadline(self) -> float | None:
        """When to ask next."""
        return self._ask_at

    def on_deadline(self, now: float) -> list[Effect]:
        """Ask the member with most blocks that has not refused, or stayed silent, lately."""
        if self._ask_at is None or now < self._ask_at:
            return []
        self._ask_at = now + self._retry
        self._refused = _recent(self._refused, now)
        self._silent = _recent(self._silent, now)
        giver = self._choose({*self._refused, *self._silent})
        if giver is None:
            self._silent.clear()
            giver = self._choose(set(self._refused))
        if giver is None:
            if not self._refused:
                self.why = "no member with free blocks is known"
            return []
        self._silent[giver] = now
        self.why = f"{self._name(giver)} was asked and has not answered"
        return [SendControl(giver, encode(BlockRequest(self._request)))]

    def _choose(self, exclude: set[NodeId]) -> NodeId | None:
        return self._catalog.choose_giver({self._local, *exclude}, lambda _: True)

    def _name(self, node: NodeId) -> str:
        record = self._catalog.nodes.get(node)
        return record.certificate.name if record else node[:4].hex()


def _recent(times: dict[NodeId, float], now: float) -> dict[NodeId, float]:
    return {node: at for node, at in times.items() if now - at < FORGIVE_AFTER}
