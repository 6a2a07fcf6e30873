"""Whether nodes that are starved of CPU have healthy ones declared dead.

A starved node wakes now and then, fires the timers that are late, sends, and sleeps before the
answer comes. All its timers fire before it reads its socket, which is the worst order there is, and
one that an event loop may choose. What it believes is worthless. With SWIM as it was it condemns
healthy nodes; Lifeguard's refinements keep it from that. Both are shown.

References:
    Lifeguard (Dadgar et al. 2018), sections IV and V: the refinements, and members that are blocked
    at intervals.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple
from unittest.mock import patch

from bench.crowd import SETTLE, Crowd
from bench.report import Table, say
from overlay.gossip import liveness
from overlay.gossip.awareness import Awareness
from overlay.gossip.hearsay import Hearsay
from overlay.gossip.probe import Probes
from overlay.sim import Machine, World

SLOW_SHARE: Final = 0.01
"""Of all nodes; at least one."""
SLOW_SECONDS: Final = 120.0
AWAKE: Final = 0.001
PERIOD: Final = 12.0
"""A starved node runs for so long in every such time: long enough to accuse, too short to hear the
answer. What it may condemn by at 100 nodes is 9 s old (`overlay.gossip.suspicion`)."""


class Slowness(NamedTuple):
    """Nodes without processor time, in one world."""

    nodes: int
    slow: int
    seed: int
    false_reports: int
    """How often somebody held a healthy node for dead."""
    false_subjects: int
    """How many healthy nodes."""


def starve(crowd: Crowd) -> int:
    """Starve some for `SLOW_SECONDS`; returns how many."""
    world = crowd.world
    world.run(world.now + SETTLE)
    slow = crowd.rng.sample(world.live(), max(1, round(crowd.nodes * SLOW_SHARE)))
    for machine in slow:
        _doze(world, machine)
    world.run(world.now + SLOW_SECONDS)
    return len(slow)


def _doze(world: World, machine: Machine) -> None:
    """Let it run for a moment, now and again and again."""
    while (machine.engine.next_deadline() or world.now) < world.now:
        machine.perform(machine.engine.on_deadline(world.now))
    machine.resume()
    world.clock.after(AWAKE, machine.pause)
    world.clock.after(PERIOD, lambda: _doze(world, machine))


def slowness(nodes: int, seed: int, *, refined: bool) -> Slowness:
    """One world with starved nodes.

    Args:
        nodes: in all.
        seed: of the world.
        refined: whether engines have Lifeguard's refinements.
    """
    with ExitStack() as stack:
        if not refined:
            stack.enter_context(unrefined())
        crowd = Crowd(nodes, seed)
        crowd.join()
        slow = starve(crowd)
    found = crowd.deaths
    return Slowness(nodes, slow, seed, found.false_reports, len(found.false_subjects))


@contextmanager
def unrefined() -> Iterator[None]:
    """SWIM as it was: nobody doubts himself, and time alone condemns.

    Off are: longer waits of a node that is not well, judging nobody when its own timers come late,
    withdrawing an accusation when something comes from the accused, and longer suspicions that
    nobody confirms.
    """
    with ExitStack() as stack:
        for where, name, instead in (
            (Awareness, "scale", lambda _self, timeout: timeout),
            (Probes, "on_heard", lambda _self, _node, _at: None),
            (Hearsay, "on_heard", lambda _self, _node, _at, _now: None),
            (liveness, "LATE", float("inf")),
            (liveness, "timeout", lambda _confirmed, _expected, least, _most: least),
        ):
            stack.enter_context(patch.object(where, name, instead))
        yield


def starved(nodes: int, seed: int, seeds: int) -> Table:
    """The table of starved nodes: healthy ones declared dead, with refinements and without."""
    rows = []
    for number in range(seed, seed + seeds):
        on, off = (slowness(nodes, number, refined=refined) for refined in (True, False))
        say(f"starved nodes, seed {number}: measured")
        rows.append([
            f"seed {number}",
            f"{on.slow} of {on.nodes}",
            *(f"{one.false_subjects} ({one.false_reports} reports)" for one in (on, off)),
        ])  # fmt: skip
    head = ["healthy nodes declared dead", "starved", "as shipped", "without refinements"]
    return Table("Starved of CPU for two minutes", head, rows)
