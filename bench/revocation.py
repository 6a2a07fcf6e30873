"""How long a removed node still has sessions, while another node is partitioned away.

One simulated world per run:

    founder, others    node3 ... node2      a partition for a while: node3 is cut off, with node2
         |                                  or without it
      removes node2    here:  from then until the last of these has neither session nor route
         |             there: from the end of the partition, the first moment at which node3 can
      heals                   know, until it has none either

The removed node has the engine of the others, but for one thing: it takes no notice of its own
removal and goes on as ever. All time is virtual; a wait is seen to end within `LOOK`.
"""

from __future__ import annotations

import math
import random
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

from bench.report import Table, say
from node.errors import NodeError
from overlay.catalog.removals import removed_of_key
from overlay.config import Limits
from overlay.sim import Link, Machine, World, udp
from overlay.sim.metrics import quantile
from overlay.sim.reader import SharedReader
from overlay.types import NodeId
from overlay.wire.cluster import Cluster
from overlay.wire.items import Item

DESCRIPTION: Final = """\
A node is removed while another is partitioned away: seconds until nobody has a session with it."""

NODES: Final = "3,10,30"
LOSSES: Final = "0,0.05,0.2"
SEEDS: Final = 200

TARGET: Final = 10.0
"""Seconds that a removed node may keep a session from the moment at which its peer can know."""

REMOVED: Final = "node2"
APART: Final = "node3"

LOOK: Final = 0.05
PATIENCE: Final = 120.0
"""Virtual seconds after which a wait has failed."""
SHORTEST: Final = 3.0
LONGEST: Final = 60.0
"""Of partitions: from one that nobody notices to one after which all hold each other for dead."""
UNHEARD: Final = Item(b"?", 1, b"")
PINGS: Final = 0.5
"""Between packets of the removed node to each of the others."""


Number = TypeVar("Number", int, float)


class Times(NamedTuple):
    """What was seen in one run, in virtual seconds."""

    here: float
    """From the removal until nobody on the founder's side has a session or a route."""
    there: float
    """From the end of the partition until nobody has."""


def is_rid_of(machine: Machine, node: NodeId) -> bool:
    """Whether a machine keeps nothing that `node` could be heard by or packets could go to."""
    parts = machine.engine.parts
    held = parts.sessions.held(node) or node in parts.paths or parts.sessions.is_connecting(node)
    return not held and all(entry.node != node for entry in parts.routes.entries())


class Deaf(SharedReader):
    """Reads items for an engine that is not to hear of its own removal.

    Args:
        cluster: whose items they are.
        own: the node whose removal is not heard.
    """

    def __init__(self, cluster: Cluster, own: NodeId) -> None:
        super().__init__(cluster, Limits())
        self._own = own

    def keep(self, item: Item) -> Item:
        """The item, or one that no store takes."""
        return UNHEARD if removed_of_key(item.key) == self._own else super().keep(item)


def deafen(machine: Machine) -> None:
    """From now on a running machine takes no notice of its own removal."""
    engine = machine.engine
    engine.parts.reader = Deaf(engine.cluster, engine.identity.node)


def ping(world: World, name: str) -> None:
    """A packet from a node to each other one; what it has no route for is lost."""
    machine = world[name]
    if not machine.live:
        return
    own = machine.engine.parts.holdings.address
    for other in world.live():
        there = other.engine.parts.holdings.address
        if other is not machine and own is not None and there is not None:
            world.send_packet(name, udp(own, there, b"from a removed node"))


def revoke(seed: int, nodes: int, loss: float, *, together: bool) -> Times:
    """One run.

    Args:
        seed: of everything random.
        nodes: of the world, 3 at least.
        loss: share of datagrams that are lost, 0.0 to 1.0.
        together: whether the two are on one side of the partition.

    Raises:
        NodeError: somebody has still a session after `PATIENCE`. Nothing else.
    """
    rng = random.Random(f"revocation {seed}")
    world = World(seed, link=Link(latency=0.01, jitter=0.005), keep_datagrams=False, check=False)
    for number in range(2, nodes + 1):
        world.add_node(f"node{number}")
    world.run_until(world.converged, timeout=PATIENCE)
    removed = world[REMOVED].membership.identity.node
    deafen(world[REMOVED])
    world.every(PINGS, lambda: ping(world, REMOVED))
    world.underlay.set_all_links(Link(latency=0.01, jitter=0.005, loss=loss))
    away = {APART, REMOVED} if together else {APART}
    here = [world[name] for name in world.machines if name not in {APART, REMOVED}]
    world.partition(away, [name for name in world.machines if name not in away])
    world.run(world.now + rng.uniform(0.0, LONGEST))

    world[world.founder].remove(REMOVED, force=True)
    took = _until(world, lambda: all(is_rid_of(machine, removed) for machine in here))
    world.run(world.now + rng.uniform(SHORTEST, LONGEST))
    apart = world[APART]
    if is_rid_of(apart, removed):
        raise NodeError(f"{APART} knows what it cannot know (seed {seed})")
    world.heal()
    # The others, too: the removed node calls those again that it could not reach.
    after = _until(world, lambda: all(is_rid_of(machine, removed) for machine in [*here, apart]))
    return Times(took, after)


def _until(world: World, done: Callable[[], bool]) -> float:
    began = world.now
    while not done():
        if world.now - began > PATIENCE:
            raise NodeError(f"a removed node has a session for {PATIENCE:g} s (seed {world.seed})")
        world.run(world.now + LOOK)
    return world.now - began


# -- the command line ------------------------------------------------------------------------------


def add_options(parser: ArgumentParser) -> None:
    """The options of `scripts/bench revocation`."""
    parser.add_argument("--nodes", default=NODES, help=f"numbers of nodes ({NODES})")
    parser.add_argument("--loss", default=LOSSES, help=f"shares of datagrams lost ({LOSSES})")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"runs of each kind ({SEEDS})")
    parser.add_argument("--markdown", action="store_true", help="a table for BENCHMARKS.md")


def revocation(options: Namespace) -> None:
    """Measure and show.

    Raises:
        NodeError: an option makes no sense, or a removed node keeps a session. Nothing else.
    """
    nodes = _numbers("--nodes", options.nodes, int, low=3)
    losses = _numbers("--loss", options.loss, float, low=0)
    if options.seeds < 1:
        raise NodeError("--seeds is 1 at least")
    rows = []
    for many in nodes:
        for loss in losses:
            say(f"{many} nodes, {loss:.0%} loss")
            runs = [
                revoke(seed, many, loss, together=together)
                for seed in range(options.seeds)
                for together in (True, False)
            ]
            rows.append(row(many, loss, runs))
    table = Table(f"Removing a node: seconds, {2 * options.seeds} runs each", HEAD, rows)
    print(table.markdown() if options.markdown else table.text())


def _numbers(name: str, text: str, kind: type[Number], *, low: int) -> list[Number]:
    try:
        numbers = [kind(each) for each in text.split(",")]
    except ValueError:
        raise NodeError(f"{name} {text!r} is no list of numbers") from None
    if any(not low <= number < math.inf for number in numbers):
        raise NodeError(f"{name} {text!r}: {low} is the least")
    return numbers


HEAD: Final = (
    "nodes, loss",
    *(f"{side}: {share}" for side in ("here", "there") for share in ("p50", "p99", "max")),
    f"all in {TARGET:g} s",
)


def row(nodes: int, loss: float, runs: Sequence[Times]) -> list[str]:
    """One line of the table."""
    sides = (sorted(run.here for run in runs), sorted(run.there for run in runs))
    shares = [quantile(side, share) for side in sides for share in (0.5, 0.99, 1.0)]
    met = "yes" if max(shares) <= TARGET else "NO"
    return [f"{nodes}, {loss:.0%}", *(f"{each:.2f}" for each in shares), met]
