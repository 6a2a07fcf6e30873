"""Items that others have and this node lacks: each is asked for once, of one that offered it.

    offered --> waiting --> asked --> here
                   ^          |
                   '----------'  a while later: of the next that offered it; or forgotten

A question or its answer may be lost, so what does not come is asked for again, of two nodes then,
and of three in the end. How long to wait before follows the path and what is under way: a single
item comes within a round trip, hundreds take their giver and this node a moment. Every third wait
is twice as long, so whoever is overloaded is left alone. Where a quarter of all datagrams is lost,
56 % of the questions succeed; of a million items nearby, one needs more than 0.9 s then.

At most `WINDOW` items are asked of one node at a time. So a node that starts with nothing is
offered everything by all its neighbours, and still gets everything once, at a pace at which it can
check signatures.

What waits stands in one line per node that is to be asked for it, and the lines take turns: whoever
offers much that it does not send keeps nobody from being asked for what others have.

References:
    Plumtree (Leitao et al. 2007), section 3.6: a missing item is asked for (Graft) at a timer, and
    at a shorter one of the next that announced it.
    Bitcoin Core, `txrequest.h`: at one announcer at a time, those that failed last.
    RFC 6298: waits that follow the round trip time, and double.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from typing import Final

from overlay.config import Timing
from overlay.types import NodeId
from overlay.wire.messages import Want

# -- implementation --------------------------------------------------------------------------------

WINDOW: Final = 256
"""Items asked of one node and not yet here. At 2 kB each they arrive within half a second."""

OFFERERS: Final = 4
"""Nodes remembered per item that have it."""

TRIES: Final = 9
"""Times that an item is asked for, of its offerers in turn, before it is forgotten."""

TRIES_OF_MANY: Final = 5
"""The same where more than `FEW` are wanted. While many nodes join, records are superseded before
they arrive everywhere, and nobody has the old ones any more."""

STEADY: Final = 3
"""Tries after which the wait doubles."""

LIMIT: Final = 16_384
"""Items wanted in all. Comparing stores finds again what is not remembered."""

LINE: Final = 4096
"""Items that wait to be asked of one node: a whole message of ids, and a quarter of all."""

LOOKS: Final = 2 * WINDOW
"""Items that wait and are looked at in one turn, at most."""

ROUND_TRIPS: Final = 3
"""Waited for an answer at least: one, and as long again for what either end does meanwhile."""

PER_ITEM: Final = 0.002
"""Seconds that the wait grows by with each item that is under way to this node, from anybody: all
of them are packed there, and checked here, one after the other."""

LONGEST: Final = 1.0
"""Seconds of the longest wait."""

AT_ONCE: Final = 3
"""Nodes that are asked for one item at a time, at most: one more with each repetition."""

HOLLOW: Final = 32
"""Items that a node offered, was asked for and did not send, those that it sent taken off, from
which on its offers are taken for hollow: they do not count as wanted for anybody else."""

HOLLOW_LINE: Final = 64
"""Items that wait to be asked of such a node."""

FEW: Final = 16
"""Items wanted up to which more than one node is asked for one of them. Where there are more it is
not loss alone that delays them, and nobody needs them twice."""


@dataclass(slots=True)
class _Wanted:
    offerers: list[NodeId] = field(default_factory=list)
    line: NodeId | None = None
    """The node in whose line it waits."""
    asked: tuple[NodeId, ...] = ()
    tries: int = 0
    retry_at: float = 0.0


class Wanted:
    """The items that one node is after.

    Args:
        timing: `want_retry`.
        round_trip: seconds to a node and back; 0 if that is not known.
    """

    __slots__ = (
        "_asked",
        "_due",
        "_lines",
        "_missed",
        "_open",
        "_round_trip",
        "_timing",
        "_waiting",
    )

    def __init__(self, timing: Timing, round_trip: Callable[[NodeId], float]) -> None:
        self._timing = timing
        self._round_trip = round_trip
        self._waiting: dict[bytes, _Wanted] = {}
        self._asked: dict[bytes, _Wanted] = {}
        self._lines: dict[NodeId, dict[bytes, None]] = {}  # of what waits, none empty
        # A heap. Ids that were asked for together have one entry: most of them come long before.
        self._due: list[tuple[float, list[bytes]]] = []
        self._open: dict[NodeId, int] = {}
        self._missed: dict[NodeId, int] = {}  # items asked of a node in vain, less those that came

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
            line = HOLLOW_LINE if self._is_hollow(node) else LINE
            if len(self) >= LIMIT or len(self._lines.get(node, ())) >= line:
                return
            wanted = _Wanted([node])
            self._queue(one, wanted)
        if node not in wanted.offerers and len(wanted.offerers) < OFFERERS:
            wanted.offerers.append(node)

    def got(self, one: bytes) -> Collection[NodeId]:
        """The item is here, or not wanted any more; returns who is known to have it."""
        if one in self._waiting:
            return self._unqueue(one).offerers
        wanted = self._asked.pop(one, None)
        if wanted is None:
            return ()
        self._release(wanted)
        if len(wanted.asked) == 1:
            self._miss(wanted.asked[0], -1)
        return wanted.offerers

    def ask(self, now: float) -> list[tuple[NodeId, Want]]:
        """What to ask for now, and of whom. Looks at `LOOKS` items only: its cost is bounded."""
        asked: dict[NodeId, list[bytes]] = {}
        for one in self._first():
            wanted = self._waiting[one]
            nodes = self._choose(wanted, asked)
            if not nodes:
                continue
            self._unqueue(one)
            self._asked[one] = wanted
            wanted.asked = nodes
            for node in nodes:
                self._open[node] = self._open.get(node, 0) + 1
                asked.setdefault(node, []).append(one)
        waits = {node: self._wait(node) for node in asked}
        for node, ids in asked.items():
            due: dict[int, list[bytes]] = {}
            for one in ids:
                wanted = self._asked[one]
                if wanted.asked[0] == node:
                    due.setdefault(wanted.tries // STEADY, []).append(one)
            for doubled, together in due.items():
                retry_at = now + min(waits[node] * 2**doubled, LONGEST)
                for one in together:
                    self._asked[one].retry_at = retry_at
                heappush(self._due, (retry_at, together))
        return [(node, Want(b"".join(ids))) for node, ids in asked.items()]

    def _first(self) -> list[bytes]:
        """What is looked at in one turn: the first of each line, the second of each, and so on."""
        first: list[bytes] = []
        lines = [iter(line) for line in self._lines.values()]
        while len(lines) > 1 and len(first) < LOOKS:
            turn = [(line, one) for line in lines if (one := next(line, None)) is not None]
            first += [one for _, one in turn]
            lines = [line for line, _ in turn]
        for line in lines:
            first += islice(line, max(LOOKS - len(first), 0))
        return first[:LOOKS]

    def _queue(self, one: bytes, wanted: _Wanted) -> None:
        wanted.line = wanted.offerers[0]
        self._waiting[one] = wanted
        self._lines.setdefault(wanted.line, {})[one] = None

    def _unqueue(self, one: bytes) -> _Wanted:
        wanted = self._waiting.pop(one)
        assert wanted.line is not None, "what waits stands in a line"
        line = self._lines[wanted.line]
        del line[one]
        if not line:
            del self._lines[wanted.line]
        return wanted

    def _choose(self, wanted: _Wanted, asked: Collection[NodeId]) -> tuple[NodeId, ...]:
        """Whom to ask for an item; `asked` are those that are asked for something anyway."""
        if wanted.tries:
            few = len(self) <= FEW or self._are_few(wanted)
            free = [node for node in wanted.offerers if self._open.get(node, 0) < WINDOW]
            return tuple(free[: min(wanted.tries + 1, AT_ONCE) if few else 1])
        node = wanted.offerers[0]
        for other in wanted.offerers:  # few nodes that are asked for much: fewer messages
            if other in asked:
                node = other
                break
        return (node,) if self._open.get(node, 0) < WINDOW else ()

    def _wait(self, node: NodeId) -> float:
        """Seconds after which what was asked of `node` for the first time should be here."""
        least = max(self._timing.want_retry, ROUND_TRIPS * self._round_trip(node))
        return least + PER_ITEM * len(self._asked)

    def next_deadline(self) -> float | None:
        """When to call `on_deadline`; None while nothing was asked for."""
        while self._due:
            at, together = self._due[0]
            while together:
                if self._is_due(together[-1], at):
                    return at
                together.pop()
            heappop(self._due)
        return None

    def _is_due(self, one: bytes, at: float) -> bool:
        """Whether the wait that ends at `at` is the present one for this item."""
        wanted = self._asked.get(one)
        return wanted is not None and wanted.retry_at == at

    def on_deadline(self, now: float) -> None:
        """What did not come waits for another that has it, if there is one."""
        few = len(self) <= FEW
        while (at := self.next_deadline()) is not None and now >= at:
            _, together = heappop(self._due)
            for one in together:
                if self._is_due(one, at):
                    self._retry(one, few=few)

    def _retry(self, one: bytes, *, few: bool) -> None:
        most = TRIES if few or self._are_few(self._asked[one]) else TRIES_OF_MANY
        wanted = self._asked.pop(one)
        self._release(wanted)
        for node in wanted.asked:
            self._miss(node, 1)
        wanted.tries += 1
        if wanted.tries < most:
            others = [node for node in wanted.offerers if node not in wanted.asked]
            wanted.offerers = [*others, *wanted.asked]
            self._queue(one, wanted)

    def _miss(self, node: NodeId, more: int) -> None:
        missed = min(self._missed.get(node, 0) + more, 2 * HOLLOW)
        if missed > 0:
            self._missed[node] = missed
        else:
            self._missed.pop(node, None)

    def _is_hollow(self, node: NodeId) -> bool:
        return self._missed.get(node, 0) >= HOLLOW

    def _are_few(self, wanted: _Wanted) -> bool:
        """Whether so few are wanted beside this one, of many, that loss alone delays it.

        Not counted is what only nodes offer that send nothing: one that offers inventions without
        end would have all others asked less often for what they have.
        """
        hollow = {node for node, missed in self._missed.items() if missed >= HOLLOW}
        if not hollow or hollow.issuperset(wanted.offerers):
            return False
        counted = 0
        for table in (self._asked, self._waiting):
            for other in table.values():
                counted += not hollow.issuperset(other.offerers)
                if counted > FEW:
                    return False
        return True

    def _release(self, wanted: _Wanted) -> None:
        for node in wanted.asked:
            self._open[node] -= 1
            if not self._open[node]:
                del self._open[node]
