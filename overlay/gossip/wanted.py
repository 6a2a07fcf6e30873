"""Items that others have and this node lacks: each is asked for once, of one that offered it.

    offered --> waiting --> asked --> here
                   ^          |
                   '----------'  `want_retry` later: of the next that offered it; or forgotten

At most `WINDOW` items are asked of one node at a time. So a node that starts with nothing is
offered everything by all its neighbours, and still gets everything once, at a pace at which it can
check signatures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from overlay.config import Timing
from overlay.types import NodeId
from overlay.wire.messages import Want

# -- implementation --------------------------------------------------------------------------------

WINDOW: Final = 256
"""Items asked of one node and not yet here. At 2 kB each they arrive well within `want_retry`."""

OFFERERS: Final = 4
"""Nodes remembered per item that have it."""

TRIES: Final = 5
"""Times that an item is asked for, of its offerers in turn, before it is forgotten."""

LIMIT: Final = 16_384
"""Items wanted in all. Comparing stores finds again what is not remembered."""


@dataclass(slots=True)
class _Wanted:
    offerers: list[NodeId] = field(default_factory=list)
    asked: NodeId | None = None
    tries: int = 0
    retry_at: float = 0.0


class Wanted:
    """The items that one node is after."""

    __slots__ = ("_asked", "_due", "_open", "_timing", "_waiting")

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._waiting: dict[bytes, _Wanted] = {}
        self._asked: dict[bytes, _Wanted] = {}
        self._due: deque[tuple[float, bytes]] = deque()  # in order: all waits are of one length
        self._open: dict[NodeId, int] = {}

    def __contains__(self, one: bytes) -> bool:
        return one in self._asked or one in self._waiting

    def __len__(self) -> int:
        return len(self._asked) + len(self._waiting)

    @property
    def is_waiting(self) -> bool:
        """Whether something was offered that nobody was asked for."""
        return bool(self._waiting)

    def offer(self, node: NodeId, one: bytes) -> None:
        """`node` has the item with this id, which is not held here."""
        wanted = self._asked.get(one) or self._waiting.get(one)
        if wanted is None:
            if len(self) >= LIMIT:
                return
            wanted = self._waiting[one] = _Wanted()
        if node not in wanted.offerers and len(wanted.offerers) < OFFERERS:
            wanted.offerers.append(node)

    def got(self, one: bytes) -> Collection[NodeId]:
        """The item is here, or not wanted any more; returns who is known to have it."""
        waiting = self._waiting.pop(one, None)
        if waiting is not None:
            return waiting.offerers
        wanted = self._asked.pop(one, None)
        if wanted is None:
            return ()
        self._release(wanted)
        return wanted.offerers

    def ask(self, now: float) -> list[tuple[NodeId, Want]]:
        """What to ask for now, and of whom. Looks at the oldest only: its cost is bounded."""
        asked: dict[NodeId, list[bytes]] = {}
        for one in list(islice(self._waiting, 2 * WINDOW)):
            wanted = self._waiting[one]
            node = wanted.offerers[0]
            if not wanted.tries:  # few nodes that are asked for much: fewer messages
                node = next((other for other in wanted.offerers if other in asked), node)
            if self._open.get(node, 0) >= WINDOW:
                continue
            del self._waiting[one]
            self._asked[one] = wanted
            wanted.asked, wanted.retry_at = node, now + self._timing.want_retry
            self._due.append((wanted.retry_at, one))
            self._open[node] = self._open.get(node, 0) + 1
            asked.setdefault(node, []).append(one)
        return [(node, Want(b"".join(ids))) for node, ids in asked.items()]

    def next_deadline(self) -> float | None:
        """When to call `on_deadline`; None while nothing was asked for."""
        while self._due:
            at, one = self._due[0]
            wanted = self._asked.get(one)
            if wanted is not None and wanted.retry_at == at:
                return at
            self._due.popleft()
        return None

    def on_deadline(self, now: float) -> None:
        """What did not come waits for another that has it, if there is one."""
        while (at := self.next_deadline()) is not None and now >= at:
            _, one = self._due.popleft()
            wanted = self._asked.pop(one)
            self._release(wanted)
            wanted.tries += 1
            if wanted.tries < TRIES:
                assert wanted.asked is not None
                wanted.offerers.remove(wanted.asked)
                wanted.offerers.append(wanted.asked)
                self._waiting[one] = wanted

    def _release(self, wanted: _Wanted) -> None:
        node = wanted.asked
        assert node is not None, "what was asked for was asked of somebody"
        self._open[node] -= 1
        if not self._open[node]:
            del self._open[node]
