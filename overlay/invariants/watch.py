"""Somebody who looks at one node now and then and remembers what was true before.

                    look(now): everything, a part of the long tables each time
    engine <------- glance(now): only what may have changed since; after every event
                    |
                    +-- `Memory`: boot, version, addresses; outlives the engine in the simulator

The daemon's engine has one of its own (`tend`), which keeps every breach it saw for `status`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from overlay.effects import Effect, Report
from overlay.invariants.kinds import Breach, Subject
from overlay.invariants.node import NODE_INVARIANTS
from overlay.ipam.allocator import Slot
from overlay.types import BlockIndex

if TYPE_CHECKING:  # the engine has a watch; the type alone needs it back
    from overlay.engine import Engine

LOOK_INTERVAL: Final = 5.0
"""Seconds between looks of a running node at itself."""

SAMPLE: Final = 64
"""Entries of a long table that one look examines, one after the other: what a look costs must not
grow with the cluster."""

T = TypeVar("T")


@dataclass(slots=True)
class Memory:
    """What was seen of a node before."""

    boot: int = 0
    """Of the last start. 0: none was seen."""
    version: int = 0
    """Of its own record."""
    slots: dict[Slot, str] = field(default_factory=dict)
    """Which pod had which address."""
    resting: dict[Slot, tuple[str, float]] = field(default_factory=dict)
    """Addresses that were taken back: whose they were, and until when nobody else may have them."""
    owned: dict[BlockIndex, bool] = field(default_factory=dict)
    """Which blocks in use were titled to it."""
    frozen: bool = False
    """Whether its identity was in conflict."""
    looked_at: float = 0.0
    stored: Stored = field(default_factory=lambda: Stored(0, {}))
    """What of this is left after a crash."""


class Stored(NamedTuple):
    """What was seen of a node when all it had decided was on its disk, so it may have been told."""

    version: int
    resting: dict[Slot, tuple[str, float]]


class Watch:
    """Looks at one engine.

    Args:
        engine: the one it looks at.
        memory: what was seen of the same node before it restarted.

    Attributes:
        now: the moment of the present look.
        previous_boot: the boot counter of the start before this one.
        first_boot: that of this start.
        thorough: whether this look examines long tables as a whole.
        writing: whether the disk does not have yet what the engine has. A crash undoes that.
        found: what was ever found by `tend`, the first evidence of each.
    """

    def __init__(self, engine: Engine, memory: Memory | None = None) -> None:
        self.engine = engine
        self.memory = Memory() if memory is None else memory
        # What was not stored is not there any more; what rests, rests on.
        self.memory.slots, self.memory.owned, self.memory.frozen = {}, {}, False
        self.memory.version, self.memory.resting = self.memory.stored
        self.now = self.memory.looked_at
        self.previous_boot = self.memory.boot
        self.first_boot = self.memory.boot = engine.parts.record.versions.boot
        self.thorough = False
        self.writing = False
        self.found: dict[str, str] = {}
        self._cursor = 0
        self._seen: dict[Subject, object] = {}
        self._look_at: float | None = None

    # -- looking -----------------------------------------------------------------------------------

    def look(self, now: float, *, thorough: bool = False) -> list[Breach]:
        """Check everything; with `thorough`, long tables as a whole and what is slow as well."""
        self.thorough = thorough
        self._cursor += 1
        return self._check(set(Subject) if thorough else set(Subject) - {Subject.DEPTHS}, now)

    def glance(self, now: float) -> list[Breach]:
        """Check what may have changed since the last time; finds nothing that was damaged quietly.

        Long tables are examined as a whole, but only when an item changed.
        """
        self.thorough = True
        parts = self.engine.parts
        changed = {Subject.BOOKS}
        root = parts.store.root()
        states = {
            Subject.ROUTES: (parts.catalog.generation, parts.routes.generation),
            Subject.TABLES: root,
            Subject.HOLDINGS: (root, len(parts.holdings.pods), tuple(parts.holdings.blocks_in_use)),
        }
        for subject, state in states.items():
            if state != self._seen.get(subject):
                self._seen[subject] = state
                changed.add(subject)
        return self._check(changed, now)

    def _check(self, subjects: set[Subject], now: float) -> list[Breach]:
        self.now = now
        found = [
            breach
            for invariant in NODE_INVARIANTS
            if invariant.subject in subjects
            for breach in invariant.breaches(self)
        ]
        self._remember(subjects)
        return found

    def _remember(self, looked_at: set[Subject]) -> None:
        memory = self.memory
        if Subject.HOLDINGS in looked_at:
            if not self.engine.not_stored:  # else nobody was told, and a restart forgets it
                memory.version = max(memory.version, self.version or 0)
            self._remember_slots()
            memory.frozen = self.engine.conflict.frozen
            owner = self.engine.parts.catalog.titles.owner
            memory.owned = {
                block: owner(block) == self.engine.identity.node
                for block in self.engine.parts.holdings.blocks_in_use
            }
        if memory.resting:
            memory.resting = {s: r for s, r in memory.resting.items() if r[1] > self.now}
        if not (self.writing or self.engine.not_stored):
            memory.stored = Stored(memory.version, memory.resting)
        memory.looked_at = self.now

    def _remember_slots(self) -> None:
        memory, holdings, slots = self.memory, self.engine.parts.holdings, self.slots()
        resting = dict(memory.resting)  # the one there may be in `stored`
        # It was freed at some time after the last look, so it rests at least this long.
        until = memory.looked_at + holdings.quarantine
        for slot, pod in memory.slots.items():
            # What cannot be stored now may not have happened, after a restart.
            if slots.get(slot) != pod and not self.engine.not_stored:
                resting[slot] = (pod, until)
        used = holdings.blocks_in_use
        memory.resting = {s: rest for s, rest in resting.items() if s.block in used}
        memory.slots = slots

    # -- for the engine ----------------------------------------------------------------------------

    def tend(self, now: float) -> list[Effect]:
        """Look if it is time to; a breach is reported once, and kept in `found` until the end."""
        if self._look_at is not None and now < self._look_at:
            return []
        self._look_at = now + LOOK_INTERVAL
        effects: list[Effect] = []
        for name, evidence in self.look(now):
            if name not in self.found:
                self.found[name] = evidence
                effects.append(Report("invariant.broken", {"code": name, "why": evidence}))
        return effects

    # -- for the checks ----------------------------------------------------------------------------

    @property
    def version(self) -> int | None:
        """The version of the node's own record; None before it has made one."""
        own = self.engine.parts.catalog.nodes.get(self.engine.identity.node)
        return None if own is None else own.version

    def slots(self) -> dict[Slot, str]:
        """Which pod has which address, as the node would store it."""
        pods = self.engine.parts.holdings.pods.values()
        return {Slot(pod.block, pod.host): pod.name for pod in pods}

    def sample(self, table: Collection[T], most: int = SAMPLE) -> Iterable[T]:
        """The part of a long table that this look examines; the next look takes the next part.

        The table need not be sorted: its order must only stay the same while it does not change.
        """
        if self.thorough or len(table) <= most:
            return table
        start = self._cursor * most % len(table)
        return _round(table, start, most)


def _round(table: Collection[T], start: int, most: int) -> Iterator[T]:
    yield from islice(table, start, start + most)
    yield from islice(table, max(0, start + most - len(table)))
