"""Records everything between real daemons, and sends it again in every way.

    node1 -- port | br0 | port -- node2       a tap on each port records, from the first datagram on
                     port -- node3
                     port -- stranger         sends it again: from its own address, or as anybody

Pods exchange numbered packets meanwhile, so that what is delivered twice shows in a pod.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from node.lab.verbs import lab_kill, lab_start
from overlay.types import DEFAULT_PORT
from overlay.wire.header import TYPE_INITIATION, TYPE_RESPONSE
from overlay.wire.ip import IPV4_HEADER_SIZE
from overlay.wire.transport import UDP_HEADER_SIZE
from tests.support.labs import Lab, LabMaker
from tests.support.stranger import Stranger, stranger_in
from tests.support.used_numbers import Numbers
from tests.support.waiting import eventually
from tests.support.wiretap import Datagram, Wiretap

NODES = ("node1", "node2", "node3")
RATE = 50.0
"""Packets per second in each direction between two pods."""

BATCH = 500
"""Datagrams sent before it is waited until the daemon has counted them: none may be lost in its
socket's buffer."""

COUNTED = 20.0
"""Seconds until all of a batch is in the books."""

TYPE_ALLOWED = {TYPE_RESPONSE}
"""What a node that has just started may answer, to an initiation it has not seen in this life."""

REASONS = {"truncated", "unknown_index", "replayed", "bad_tag", "bad_handshake", "bad_header"}
PASSING = {"age", "seen", "rtt", "loss", "tx_bytes", "rx_bytes", "drops", "rekeyed"}
"""What changes by itself."""


@dataclass(frozen=True)
class Row:
    """One replay: what, to whom, how, and what came of it."""

    when: str
    to: str
    order: str
    source: str
    sent: int
    refused: Counter[str]
    answered: int
    """Datagrams that came to the stranger."""
    twice: int
    """Packets that pods got again."""
    changed: list[Any]
    """What the nodes show differently, sessions' endpoints included."""

    @property
    def nothing(self) -> bool:
        """Whether nothing came of it."""
        return not (self.twice or self.changed or self.answered) and self.all_refused

    @property
    def all_refused(self) -> bool:
        """Whether every datagram is in the books as a drop."""
        return self.refused.total() == self.sent


class Scene:
    """A lab whose traffic was recorded, and somebody who has the record.

    Attributes:
        seen: for each node, what was sent to it.
    """

    def __init__(self, lab: Lab, stranger: Stranger, flows: list[Numbers]) -> None:
        self.lab = lab
        self.seen: dict[str, list[Datagram]] = {}
        self._stranger = stranger
        self._flows = flows

    def know(self, taps: dict[str, Wiretap]) -> None:
        """Take what the taps have heard until now."""
        for name, tap in taps.items():
            there = (self.lab.underlay_address(name), DEFAULT_PORT)
            self.seen[name] = [one for one in tap.datagrams if one.destination == there]

    def initiations(self, of: str) -> int:
        """How many handshakes were begun with a node."""
        return sum(one.payload[0] == TYPE_INITIATION for one in self.seen[of])

    def replay(self, when: str, of: str, to: str, order: str, source: str) -> Row:
        """Send a record again.

        Args:
            when: for the table.
            of: the node it was for.
            to: the node that gets it.
            order: `in order`, `reversed` or `shuffled`.
            source: `stranger`, or `itself`: each from where it came from.
        """
        own = self.lab.underlay_address(to)  # a kernel believes nobody that uses its own address
        again = [one for one in self.seen[of] if source == "stranger" or one.source.host != own]
        if order == "reversed":
            again.reverse()
        elif order == "shuffled":
            random.Random(1).shuffle(again)
        heard, before = len(self._stranger.heard), self._drops(to)
        known, twice = self.known(), self.twice()
        for at in range(0, len(again), BATCH):
            batch = again[at : at + BATCH]
            counted = self._drops(to)
            self.send(batch, to, source)
            least = len(batch) - sum(one.payload[0] == TYPE_INITIATION for one in batch)
            eventually(
                lambda: (self._drops(to) - counted).total() >= least,  # noqa: B023 - at once
                within=COUNTED,
                poll=0.01,
            )
        refused = self._drops(to) - before
        answers = self._stranger.heard[heard:]
        assert {one[IPV4_HEADER_SIZE + UDP_HEADER_SIZE] for one in answers} <= TYPE_ALLOWED
        changed = [one for one in self.known() if one not in known]
        more = self.twice() - twice
        return Row(when, to, order, source, len(again), refused, len(answers), more, changed)

    def send(self, batch: Sequence[Datagram], to: str, source: str) -> None:
        """Send datagrams to a node, from the stranger or as if from where they came from."""
        if source == "stranger":
            self._stranger.send(to, [one.payload for one in batch])
        else:
            for one in batch:
                self._stranger.send_as(one.source, to, one.payload)

    def _drops(self, node: str) -> Counter[str]:
        return Counter(
            {why: count for why, count in self.lab.drops(node).items() if why in REASONS}
        )

    def twice(self) -> int:
        """How many packets pods have got more than once."""
        return sum(len(flow.twice) for flow in self._flows)

    def known(self) -> list[Any]:
        """What all nodes show, without what changes by itself."""
        return [
            (node.name, kind, {key: value for key, value in row.items() if key not in PASSING})
            for node in self.lab.nodes
            for kind in ("nodes", "pods", "routes", "sessions", "blocks")
            for row in self.lab.get(node.name, kind)
        ]

    def rekeyed(self) -> list[str]:
        """When each session's keypair was made."""
        return [
            row["rekeyed"] for node in self.lab.nodes for row in self.lab.get(node.name, "sessions")
        ]

    def kill(self, node: str) -> None:
        """End a daemon without warning; it keeps its disk."""
        lab_kill(self.lab.name, node, store=self.lab.store)

    def start(self, node: str) -> None:
        """Start it again."""
        lab_start(self.lab.name, node, store=self.lab.store)

    def traffic(self, seconds: float) -> None:
        """Let pods talk for so long, and see that they can."""
        before = [len(flow.arrived) for flow in self._flows]
        least = seconds * RATE / 2
        eventually(
            lambda: all(
                len(flow.arrived) - had >= least
                for flow, had in zip(self._flows, before, strict=True)
            ),
            within=seconds * 3 + COUNTED,
        )


@contextmanager
def recorded(make_lab: LabMaker, seconds: float, **options: Any) -> Iterator[Scene]:
    """A lab of three nodes whose traffic was recorded for so long; options are those of a lab."""
    with ExitStack() as stack:
        taps: dict[str, Wiretap] = {}

        def listen(lab: str) -> None:
            for name in NODES:
                taps[name] = stack.enter_context(Wiretap(f"{lab}-underlay", name))

        lab = make_lab(3, 1, wired=listen, **options)
        pods = [lab[f"{name}-pod1"] for name in NODES]
        pairs = [(near, far) for near in pods for far in pods if near is not far]
        flows = [
            stack.enter_context(Numbers(*pair, RATE, 5100 + at)) for at, pair in enumerate(pairs)
        ]
        scene = Scene(lab, stack.enter_context(stranger_in(lab)), flows)
        scene.traffic(seconds)
        scene.know(taps)
        for tap in taps.values():
            tap.stop()
        yield scene


def every_way(scene: Scene, rekey_within: float, tell: Callable[[Row], None]) -> None:
    """Replay the record in every way; the last of them ends two daemons and starts them again.

    Args:
        scene: a record.
        rekey_within: seconds until all keys are replaced by themselves.
        tell: told each row as it comes.
    """
    first, second, third = NODES
    for name in (first, second):
        for order in ("in order", "reversed", "shuffled"):
            for source in ("stranger", "itself"):
                tell(scene.replay("at once", name, name, order, source))
    tell(scene.replay("at once", first, third, "in order", "stranger"))
    tell(scene.replay("at once", first, third, "shuffled", "itself"))
    before = set(scene.rekeyed())
    eventually(lambda: not before & set(scene.rekeyed()), within=rekey_within)
    for name in (first, second):
        tell(scene.replay("after a rekey", name, name, "in order", "stranger"))
        tell(scene.replay("after a rekey", name, name, "shuffled", "itself"))
    for name in (second, first):  # the authority's node last
        scene.kill(name)
        scene.start(name)
        scene.traffic(2.0)
        when = f"after a restart of {name}"
        for order in ("in order", "reversed", "shuffled"):
            tell(scene.replay(when, name, name, order, "stranger"))
        tell(scene.replay(when, name, name, "in order", "itself"))
        for other in NODES:
            if other != name:
                tell(scene.replay(when, other, other, "in order", "stranger"))
    scene.traffic(2.0)
