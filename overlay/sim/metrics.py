"""What a simulated cluster costs and how fast it agrees, asked in ways that cost next to nothing.

    Traffic     counters of one machine: two additions per send and per read
    Rates       bytes and messages per node and second, sampled once a second
    Tracker     when each node came to show the final state of one event

A tracker asks each node one question at a time: the first goal that it has not met. A node that
meets a goal is not asked for it again, so looking costs one question per node, and all looks
together one question per node and goal, however large the cluster and however often one looks.

A message is a datagram; its bytes include IP and UDP headers.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Generic, NamedTuple, TypeVar


class Traffic:
    """What one machine sent and received since the world began."""

    __slots__ = ("in_bytes", "in_messages", "out_bytes", "out_messages")

    def __init__(self) -> None:
        self.out_bytes = 0
        self.out_messages = 0
        self.in_bytes = 0
        self.in_messages = 0

    def sent(self, size: int, segment_size: int, overhead: int) -> None:
        """One send: `size` bytes in datagrams of `segment_size`, 0 if it is one datagram."""
        count = -(-size // segment_size) if segment_size else 1
        self.out_messages += count
        self.out_bytes += size + count * overhead

    def received(self, size: int, segment_size: int, overhead: int) -> None:
        """One read; arguments as for `sent`."""
        count = -(-size // segment_size) if segment_size else 1
        self.in_messages += count
        self.in_bytes += size + count * overhead


# -- rates -----------------------------------------------------------------------------------------


class Second(NamedTuple):
    """What the nodes sent in one second of virtual time."""

    at: float
    """Its end."""
    nodes: int
    """Live at its end."""
    bytes: float
    """Per node, mean over all."""
    messages: float
    busiest: float
    """Bytes of the node that sent most."""


class Rates:
    """Samples of all machines' traffic. Call `sample` once a second."""

    __slots__ = ("_before", "seconds")

    def __init__(self) -> None:
        self.seconds: list[Second] = []
        self._before: dict[str, tuple[int, int]] = {}

    def sample(self, traffic: Iterable[tuple[str, Traffic]], at: float) -> Second:
        """Note what each live machine sent since the last sample."""
        before, self._before = self._before, {}
        total = messages = busiest = 0
        for name, counters in traffic:
            self._before[name] = now = counters.out_bytes, counters.out_messages
            then = before.get(name, (0, 0))
            total += now[0] - then[0]
            messages += now[1] - then[1]
            busiest = max(busiest, now[0] - then[0])
        nodes = max(1, len(self._before))
        second = Second(at, len(self._before), total / nodes, messages / nodes, float(busiest))
        self.seconds.append(second)
        return second

    def steady(self, busy: Iterable[tuple[float, float]]) -> Second | None:
        """The median second among those in which nothing was going on; None if there is none.

        Args:
            busy: spans of virtual time in which something was.
        """
        spans = list(busy)
        quiet = [
            second
            for second in self.seconds
            if not any(begin < second.at and second.at - 1.0 < end for begin, end in spans)
        ]
        return sorted(quiet, key=lambda second: second.bytes)[len(quiet) // 2] if quiet else None

    def peak(self) -> Second | None:
        """The second in which some node sent most."""
        return max(self.seconds, key=lambda second: second.busiest, default=None)


# -- convergence -----------------------------------------------------------------------------------

Node = TypeVar("Node")


class Delays(NamedTuple):
    """How long the nodes took, in seconds."""

    nodes: int
    p50: float
    p99: float
    longest: float


@dataclass(slots=True)
class Tracker(Generic[Node]):
    """One event on its way to all nodes.

        expect(names)*   open(names, at)   look(nodes, now)*   until settled

    Attributes:
        label: of the event.
        at: when it happened, in virtual seconds.
        goals: questions that each node must answer with yes; asked in order, each until the
            first yes. Complete when the tracker is opened.
        times: seconds after `at` when a node had met all goals, shortest first.
    """

    label: str
    at: float
    goals: list[Callable[[Node], bool]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    _pending: dict[str, int] = field(default_factory=dict)
    _expected: dict[str, None] = field(default_factory=dict)
    _is_open: bool = False

    def expect(self, names: Iterable[str]) -> None:
        """These nodes will come up, and are to show the final state from then on."""
        self._expected |= dict.fromkeys(names)

    def dismiss(self, name: str) -> None:
        """This node will not come up after all."""
        self._expected.pop(name, None)

    def open(self, names: Iterable[str], at: float) -> None:
        """These nodes are to show the final state too; it happened `at`. All goals are known."""
        self._is_open = True
        self.at = at
        self._pending = dict.fromkeys(names, 0)

    def look(self, nodes: Mapping[str, Node], now: float) -> None:
        """Ask every node that is not done its next questions.

        Args:
            nodes: those that can be asked; who no longer is among them is let off.
            now: virtual seconds.
        """
        if not self._is_open:
            return
        for name in [name for name in self._expected if name in nodes]:
            del self._expected[name]
            self._pending.setdefault(name, 0)
        for name, at in list(self._pending.items()):
            node = nodes.get(name)
            if node is None:
                del self._pending[name]
                continue
            while at < len(self.goals) and self.goals[at](node):
                at += 1
            if at == len(self.goals):
                del self._pending[name]
                insort(self.times, max(0.0, now - self.at))
            else:
                self._pending[name] = at

    @property
    def settled(self) -> bool:
        """Whether every node shows the final state."""
        return not self._pending and not self._expected

    @property
    def missing(self) -> list[str]:
        """Nodes that do not."""
        return [*self._pending, *self._expected]


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed (nearest rank).

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5), quantile([1.0, 2.0, 3.0, 4.0], 0.99)
    (2.0, 4.0)
    """
    return ordered[max(0, ceil(share * len(ordered)) - 1)]
