"""Random schedules: everything that can happen to a cluster, in any order, from one number.

    seed --> a small world, its links, some nodes
              |
              +--> a step, a while, a step, a while, ...       invariants after every event
              |
              '--> all faults end --> everybody agrees --> nothing is excused any more

A schedule that fails is one number long: the same seed does the same again, to the last byte. What
may happen is the table `overlay.sim.steps.STEPS`.

References:
    FoundationDB's simulation (Zhou et al. 2021, section 4): random faults under a seeded clock
    find what tests written by hand do not think of.
"""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from overlay.errors import CapacityError, OverlayError, RefusedError
from overlay.sim.faults import Power
from overlay.sim.hostile import Hostile
from overlay.sim.inspector import InvariantError
from overlay.sim.link import Link
from overlay.sim.machine import Machine
from overlay.sim.steps import STEPS, new_node
from overlay.sim.world import NotReachedError, World

MOST_NODES: Final = 30
SETTLE: Final = 240.0
"""Virtual seconds that a cluster may take to agree when all faults have ended."""

LINKS: Final = (
    Link(),
    Link(loss=0.05),
    Link(latency=0.05, jitter=0.05, loss=0.02, duplication=0.1, reordering=0.1),
    Link.terrible(),
)
WHILES: Final = (0.0, 0.0, 0.01, 0.1, 0.5, 2.0)
"""Seconds between two steps: often none, because races are where the errors are."""


DEFECTS: Final = (
    OverlayError,
    AssertionError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
)
"""What an engine must never raise for what others do to it; in a daemon, the end of an event."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one schedule.

    Attributes:
        seed: brings it back.
        nodes: machines there were, at most.
        events: lines of the trace.
        virtual: seconds.
        failure: what went wrong; empty when nothing did.
        broken: the invariants that did not hold, or `settled`, or `crashed`.
        log: the steps, one line each.
    """

    seed: int
    nodes: int
    events: int
    virtual: float
    failure: str = ""
    broken: tuple[str, ...] = ()
    log: tuple[str, ...] = field(default=(), repr=False)


def run_schedule(seed: int, *, steps: frozenset[str] | None = None) -> Outcome:
    """Run the schedule of this seed.

    Args:
        seed: any integer.
        steps: names of `STEPS` that may be drawn; all unless given.
    """
    schedule: Schedule | None = None
    failure, broken = "", tuple[str, ...]()
    try:
        schedule = Schedule(seed, steps=steps)
        schedule.run()
    except InvariantError as error:
        failure, broken = str(error), tuple(sorted({name for name, _ in error.breaches}))
    except NotReachedError as error:
        failure, broken = str(error), ("settled",)
    except DEFECTS as error:
        failure, broken = f"{type(error).__name__}: {error} {_where(error)}", ("crashed",)
    if schedule is None:  # its world broke while it was made
        return Outcome(seed, nodes=0, events=0, virtual=0.0, failure=failure, broken=broken)
    return Outcome(
        seed=seed,
        nodes=len(schedule.world.machines),
        events=len(schedule.world.trace),
        virtual=schedule.world.now,
        failure=failure,
        broken=broken,
        log=tuple(schedule.log),
    )


def _where(error: Exception) -> str:
    """The place that raised it."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return "" if place is None else f"({place.tb_frame.f_code.co_qualname}, {place.tb_lineno})"


class Schedule:
    """One random schedule. Arguments as for `run_schedule`.

    Attributes:
        world: the world it happens in.
        log: what was done, one line each.
        rng: all its choices.
        most: machines there may be.
        numbers, pods: how many nodes and pods were made.
        images: backups of disks, by name of the machine.
        copies: names of machines that are copies of others.
        clocks: by how many seconds wall clocks were set ahead, by name of the machine.
    """

    def __init__(self, seed: int, *, steps: frozenset[str] | None = None) -> None:
        self.rng = random.Random(f"{seed}/schedule")
        self.log: list[str] = []
        self.numbers = 1
        self.pods = 0
        self.images: list[tuple[str, dict[bytes, bytes]]] = []
        self.copies: list[str] = []
        self.clocks: dict[str, float] = {}
        self._steps = [step for step in STEPS if steps is None or step[0] in steps]
        self.world = World(seed, link=self.rng.choice(LINKS), keep_datagrams=False)
        self.hostile = Hostile(self.world, self.rng)
        self.most = self._how_many()
        for _ in range(self.rng.randint(2, max(2, self.most - 1))):
            new_node(self)

    def _how_many(self) -> int:
        """Three to thirty nodes, mostly few: small worlds are fast, and as full of races."""
        largest = self.rng.choices((5, 9, MOST_NODES), weights=(30, 9, 1))[0]
        return self.rng.randint(3, largest)

    def run(self) -> None:
        """Do everything, end all faults, and wait until all agree.

        Raises:
            InvariantError: something happened that must never happen.
            OverlayError: they do not agree. Nothing else.
        """
        world, rng = self.world, self.rng
        world.run(world.now + rng.choice([0.0, 1.0, 3.0]))
        for _ in range(rng.randint(8, 24)):
            self._step()
            world.run(world.now + rng.choice(WHILES))
        self._end_faults()
        self._settle()
        world.inspector.look_at_rest()

    # -- steps -------------------------------------------------------------------------------------

    def _step(self) -> None:
        for _ in range(20):
            name, _, step = self.rng.choices(self._steps, [weight for _, weight, _ in self._steps])[
                0
            ]
            with suppress(RefusedError, CapacityError):  # a refusal is an answer
                done = step(self)
                if done is None:
                    continue
                self.log.append(f"{self.world.now:8.3f} {name} {done}".rstrip())
            return

    def machines(self, *powers: Power) -> list[Machine]:
        """Machines of honest nodes in one of these states, which have not left."""
        return [
            machine
            for machine in self.world.machines.values()
            if machine.power in powers and not machine.left and machine.name != self.hostile.name
        ]

    def one(self, *powers: Power) -> Machine | None:
        """One of them, by chance."""
        machines = self.machines(*powers)
        return self.rng.choice(machines) if machines else None

    # -- the end -----------------------------------------------------------------------------------

    def _end_faults(self) -> None:
        """Nothing is broken any more, and nobody is there twice or hostile."""
        world = self.world
        self.log.append(f"{world.now:8.3f} all faults end")
        world.heal()
        for name in (*self.copies, self.hostile.name):
            if name in world.machines and world[name].live:
                world[name].crash()
        for machine in self.machines(*Power):
            machine.disk.fail(0)
            machine.disk.latency = 0.0
            machine.set_clock(step=-self.clocks.pop(machine.name, 0.0))
            machine.resume()
            if machine.power is Power.OFF and machine.name not in self.copies:
                machine.start()

    def _settle(self) -> None:
        world, until = self.world, self.world.now + SETTLE
        while world.now < until:
            world.run(world.now + 0.5)
            self._let_go()
            if world.settled():
                world.run(world.now + 2.0)
                if world.settled():
                    return
        missing = "; ".join(world.differences()) or "stores differ"
        raise NotReachedError(f"at {world.now:.2f} s, seed {world.seed}: {missing}")

    def _decide(self, machine: Machine) -> None:
        """What `status` asks of the operator of a node that was copied, restored or cheated."""
        if machine.engine.conflict.frozen:
            with suppress(RefusedError):  # what the other machine did is not known yet
                machine.perform(machine.engine.claim(machine.now))
        holdings = machine.engine.parts.holdings
        lost = holdings.lost()
        for name in [name for name, pod in holdings.pods.items() if pod.block in lost]:
            machine.remove_pod(name)

    def _let_go(self) -> None:
        """Whoever is not coming back: its operator has seen why, and ends it."""
        for name, applicant in list(self.world.applicants.items()):
            if applicant.failure is not None:
                del self.world.applicants[name]  # it asked at the wrong time and gave up
        founder = self.world[self.world.founder]
        if not founder.live:
            return
        catalog = founder.engine.parts.catalog
        for machine in self.world.live():
            node = machine.membership.identity.node
            record = catalog.nodes.get(node)
            # A copy of it has left, or it left before its backup was put back.
            gone = record is not None and record.left and not machine.engine.parts.holdings.left
            if gone or node in catalog.removed:
                machine.crash()
                machine.left = True
            else:
                self._decide(machine)
