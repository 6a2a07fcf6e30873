"""Asking for an address block until one is there.

A node that runs short of addresses asks one member that has blocks to give; the answer is a deed
that arrives as a gossip item, or a refusal.

    ask the ready member with most free blocks    one that is silent only if no other is left
      no answer in `request_retry`                ask it again, `TRIES` times in all
      still none, or it has none                  ask the next
      it finds that we need none (`has-room`)     ask nobody for a while: all would say so. A short
                                                  one at first: pods that came just now may not be
                                                  in the record that it knows of us. Then the next

Asking is idempotent, because a request keeps its number until a block is there. The deed that
answers it carries the number. So does every copy of it: the giver finds it again after a restart,
and another member that is asked next and has heard of it shows it instead of giving a second one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ClassVar, Final

from overlay.catalog.blocks import choose_giver
from overlay.catalog.catalog import Catalog
from overlay.config import Timing
from overlay.effects import Effect, Report, SendControl
from overlay.types import NodeId
from overlay.wire.control import encode
from overlay.wire.handed import BYTES, INT, SECONDS, TEXT, Handed, keys, maybe, table
from overlay.wire.messages import BlockRequest, Refusal

TRIES: Final = 3
"""Questions to one member before the next is asked. Datagrams are lost; and a second giver that has
not heard of the first one's deed yet would give a second block."""

FORGIVE_AFTER: Final = 5.0
"""Seconds until a member that refused, or did not answer, is asked again: blocks come back when
nodes leave. With nobody else to ask, silence is forgiven at once. The longest wait after
`has-room`."""

DOUBLINGS: Final = 10
"""Of `request_retry`, after one `has-room` and the next, at most."""

NOT_NEEDED: Final = "has-room"
"""Code of a refusal that is about the asker, not about the giver."""


class BlockSeeker:
    """The requests of one node.

    Args:
        catalog: who has blocks to give.
        local: the node that asks.
        timing: `request_retry`.
        rng: draws request numbers.
        ready: whether a member was heard lately, at a given time.
    """

    HANDED: ClassVar = Handed(
        **dict.fromkeys(("_request", "_tries", "_not_needed"), INT),
        _ask_at=maybe(SECONDS),
        _asked=maybe(BYTES),
        **dict.fromkeys(("_refused", "_silent"), table(BYTES, SECONDS)),
        _passed=keys(BYTES),
        why=TEXT,
    )

    def __init__(
        self,
        catalog: Catalog,
        local: NodeId,
        timing: Timing,
        rng: random.Random,
        ready: Callable[[NodeId, float], bool],
    ) -> None:
        self._catalog = catalog
        self._local = local
        self._retry = timing.request_retry
        self._rng = rng
        self._ready = ready
        self._request = 0
        self._ask_at: float | None = None
        self._asked: NodeId | None = None
        self._tries = 0
        self._refused: dict[NodeId, float] = {}
        self._silent: dict[NodeId, float] = {}
        self._passed: dict[NodeId, None] = {}  # they said that none is needed, in this round
        self._not_needed = 0
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
            self._request = self._rng.getrandbits(63) + 1  # 0 is no request
            self.why = "no member was asked yet"

    def found(self) -> None:
        """A block is there, or not wanted any more."""
        self._ask_at = None
        self._asked = None
        self._refused.clear()
        self._silent.clear()
        self._passed.clear()
        self._not_needed = 0
        self.why = ""

    def on_refusal(self, node: NodeId, refusal: Refusal, now: float) -> list[Effect]:
        """A member declined: ask another one at once, unless none would say anything else."""
        if not self.seeking or refusal.request != self._request:
            return []
        self._asked, self._ask_at = None, now
        if refusal.code == NOT_NEEDED:
            self._ask_at += min(self._retry * 2**self._not_needed, FORGIVE_AFTER)
            self._not_needed = min(self._not_needed + 1, DOUBLINGS)
            self._passed[node] = None  # others have the next word: it may be a lie
        else:
            self._refused[node] = now
        self.why = f"{self._name(node)} declined: {refusal.text}"
        return [Report("block.refused", {"peer": self._name(node), "why": refusal.text})]

    def next_deadline(self) -> float | None:
        """When to ask next."""
        return self._ask_at

    def on_deadline(self, now: float) -> list[Effect]:
        """Ask once more, or the next."""
        if self._ask_at is None or now < self._ask_at:
            return []
        self._ask_at = now + self._retry
        giver = self._next_giver(now)
        if giver is None:
            if not self._refused:
                self.why = "no member with free blocks is known"
            return []
        self.why = f"{self._name(giver)} was asked and has not answered"
        return [SendControl(giver, encode(BlockRequest(self._request)))]

    def _next_giver(self, now: float) -> NodeId | None:
        if self._asked is not None and self._tries < TRIES:
            self._tries += 1
            return self._asked
        if self._asked is not None:
            self._silent[self._asked] = now
        self._refused = _recent(self._refused, now)
        self._silent = _recent(self._silent, now)
        self._asked = self._choose({*self._refused, *self._silent, *self._passed}, now)
        if self._asked is None:
            self._silent.clear()
            self._passed.clear()
            self._asked = self._choose(set(self._refused), now)
        self._tries = 1
        return self._asked

    def _choose(self, exclude: set[NodeId], now: float) -> NodeId | None:
        others = {self._local, *exclude}
        ready = choose_giver(self._catalog.nodes, others, lambda node: self._ready(node, now))
        return ready or choose_giver(self._catalog.nodes, others, lambda _: True)

    def _name(self, node: NodeId) -> str:
        record = self._catalog.nodes.get(node)
        return record.certificate.name if record else node[:4].hex()


def _recent(times: dict[NodeId, float], now: float) -> dict[NodeId, float]:
    return {node: at for node, at in times.items() if now - at < FORGIVE_AFTER}
