"""Who was declared dead by whom, and whether that was an error.

A report of a death is true while its subject is off, paused or starved, or cannot be reached from
the reporter, and for `GRACE` after that: verdicts are slower than recoveries. Otherwise it is a
false death: a healthy node, reachable from the one who declares it dead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overlay.effects import Scalar
from overlay.sim.faults import Power
from overlay.sim.machine import Machine
from overlay.sim.world import World

GRACE: Final = 5.0
"""Seconds for which a node may still be declared dead for what it suffered before."""

DEAD: Final = "member.dead"
"""The report of a node that holds a member for dead. Its field `peer` is the member's name."""

_ENDS: Final = (
    "machine.resumed",
    "machine.started",
    "machine.fed",
    "network.healed",
    "link.healed",
    "machine.moved",
)
"""Notes after which a node, or the network, is well again."""


class Deaths:
    """Counts reports of deaths in a world, from when it is made.

    Attributes:
        reports: how many there were, true ones included.
        subjects: names of nodes that were declared dead at all.
        false_reports: how many were errors.
        false_subjects: healthy nodes that were declared dead.
    """

    def __init__(self, world: World) -> None:
        self.reports = 0
        self.false_reports = 0
        self.subjects: set[str] = set()
        self.false_subjects: set[str] = set()
        self._world = world
        self._well_since: dict[str, float] = {}
        self._network_well_since = float("-inf")
        world.trace.watch(DEAD, self._on_dead)
        for event in _ENDS:
            world.trace.watch(event, self._on_end)

    def _on_end(self, node: str, fields: Mapping[str, Scalar]) -> None:
        del fields
        if node in self._world.machines:
            self._well_since[node] = self._world.now
        else:
            self._network_well_since = self._world.now

    def _on_dead(self, node: str, fields: Mapping[str, Scalar]) -> None:
        name = str(fields["peer"])
        if not self._world.doubles.isdisjoint((node, name)):
            return  # two machines with one identity: no verdict about them, or by them, is right
        self.reports += 1
        self.subjects.add(name)
        subject = self._world.machines.get(name)
        if subject is not None and self._is_well(subject) and self._are_in_touch(node, name):
            self.false_reports += 1
            self.false_subjects.add(name)

    def _is_well(self, machine: Machine) -> bool:
        well_since = self._well_since.get(machine.name, float("-inf"))
        recently = self._world.now - well_since < GRACE
        return machine.power is Power.RUNNING and not machine.starved and not recently

    def _are_in_touch(self, one: str, other: str) -> bool:
        cuts = self._world.underlay.cuts
        recently = self._world.now - self._network_well_since < GRACE
        return not (cuts.severed(one, other) or cuts.severed(other, one) or recently)
