"""What a scenario can do to a cluster: one class per verb, its fields the keys of the event.

    [[event]]
    at = 20.0
    do = "crash"        the verb: `Crash`
    nodes = "30%"       a field of it

Here are members that come and go, their pods and blocks, and the network between them; `mishaps`
has what befalls single machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from typing import ClassVar, Final

from overlay.errors import ConfigError, RefusedError
from overlay.sim import goals
from overlay.sim.goals import Goal, identity
from overlay.sim.machine import Machine
from overlay.sim.mishaps import (
    Backup,
    ChangeDisk,
    ClockRate,
    ClockStep,
    Clone,
    FullDisk,
    Move,
    Pause,
    Restore,
    Slow,
)
from overlay.sim.selection import Selection
from overlay.sim.spec import LinkSpec
from overlay.sim.stage import WORLD, Act, OnRunning, Stage, at_least, runs

UPGRADE_AGAIN: Final = 0.05
"""Seconds until it is tried again where a disk was writing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Join(Act):
    """New nodes; seen when everybody routes to their first block."""

    count: int = 1
    token: bool = False
    """Whether they run the join exchange with the founder, or know the seeds already."""
    group: str = ""

    newborn: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the ranges. Raises ConfigError, nothing else."""
        at_least(self, count=1)

    def targets(self, stage: Stage) -> list[str]:
        """New names."""
        return stage.new_names(self.count, self.group)

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Add the machine."""
        stage.add(name, token=self.token)
        return [goals.routes_to(lambda: stage.world.machines.get(name))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Leave(OnRunning):
    """Nodes leave for good; seen when everybody knows."""

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Hand everything back."""
        machine = stage.world[name]
        machine.leave()
        return [goals.knows_left(identity(machine))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Remove(Act):
    """The operator removes nodes for ever, running or not; seen when everybody knows.

    One that still runs is switched off a second later, as somebody would who sees that.
    """

    nodes: Selection

    def targets(self, stage: Stage) -> list[str]:
        """Those of the selection, running or not; never the founder, who does it."""
        chosen = stage.choose(self.nodes, lambda machine: not machine.left)
        return [name for name in chosen if name != stage.world.founder]

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Have the founder do it."""
        machine = stage.world[name]
        stage.world[stage.world.founder].remove(name, force=True)
        if machine.live:
            stage.later(1.0, lambda: stage.world.crash(name))
        return [goals.knows_removed(identity(machine))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Crash(OnRunning):
    """The daemon dies; seen when everybody holds the node for dead."""

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Stop it at once."""
        machine = stage.world[name]
        boot = goals.own_version(machine) >> goals.BOOT_SHIFT
        self.stop(stage, name)
        return [goals.holds_for_dead(identity(machine), boot)]

    def stop(self, stage: Stage, name: str) -> None:
        """Kill the process."""
        stage.world.crash(name)


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerLoss(Crash):
    """The machine loses power, and what its disk had not synced."""

    def stop(self, stage: Stage, name: str) -> None:
        """Cut the power."""
        stage.world.power_loss(name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Restart(Act):
    """Machines start from their disks, those that run too; seen by the newer record."""

    nodes: Selection
    newborn: ClassVar[bool] = True

    def targets(self, stage: Stage) -> list[str]:
        """Those of the selection that have not left."""
        return stage.choose(self.nodes, lambda machine: not machine.left)

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Start it."""
        machine = stage.world[name]
        stage.world.restart(name)
        if not machine.live:
            return []  # it had left before it died
        return [goals.knows_version(identity(machine), goals.own_version(machine))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Upgrade(OnRunning):
    """Daemons hand over to fresh ones; one whose disk is writing does so when that is over.

    There is nothing to be seen of it: what a scenario expects is that nobody notices.
    """

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Hand over."""
        machine = stage.world[name]
        if runs(machine) and not machine.upgrade():
            stage.later(UPGRADE_AGAIN, lambda: self._again(stage, name))
        return []

    def _again(self, stage: Stage, name: str) -> None:
        with suppress(RefusedError):  # it has left meanwhile, or such
            self.begin(stage, name)


def _is_off(machine: Machine) -> bool:
    return not machine.live and not machine.left


@dataclass(frozen=True, kw_only=True, slots=True)
class Start(Restart):
    """Machines that are off start from their disks."""

    newborn: ClassVar[bool] = True

    def targets(self, stage: Stage) -> list[str]:
        """Those of the selection that are off."""
        return stage.choose(self.nodes, _is_off)


@dataclass(frozen=True, kw_only=True, slots=True)
class PodAdd(OnRunning):
    """Pods are attached; seen when everybody lists them."""

    name: str = "pod"
    """The pods are NAME1, NAME2, ...: the lowest numbers that the node has not."""
    count: int = 1
    """How many on each of the nodes."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ConfigError, nothing else."""
        at_least(self, count=1)

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Attach them."""
        machine = stage.world[name]
        pods = list(islice(_new_pods(machine, self.name), self.count))
        for pod in pods:
            machine.add_pod(pod)
        return [goals.knows_pod(identity(machine), pod, there=True) for pod in pods]


def _new_pods(machine: Machine, name: str) -> Iterator[str]:
    """NAME1, NAME2, ... without those that the machine has when it comes to them."""
    there = machine.engine.parts.holdings.pods
    return (pod for pod in (f"{name}{number}" for number in count(1)) if pod not in there)


@dataclass(frozen=True, kw_only=True, slots=True)
class PodDelete(PodAdd):
    """Pods of that NAME are detached, the oldest first; seen when nobody lists them."""

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Detach those that are there."""
        machine = stage.world[name]
        there = machine.engine.parts.holdings.pods
        named = (pod for pod in there if pod.rstrip("0123456789") == self.name)
        pods = list(islice(named, self.count))
        for pod in pods:
            machine.remove_pod(pod)
        return [goals.knows_pod(identity(machine), pod, there=False) for pod in pods]


@dataclass(frozen=True, kw_only=True, slots=True)
class Route(OnRunning):
    """Nodes get a block more; seen when everybody routes to it.

    A node gets one when its addresses run short, so pods are attached until they do: 223 to a block
    of /24, 13 to one of /28. The time begins there, and includes asking a member for a block. The
    founder has free ones itself: with `nodes = "node1"` it is the way of a new route alone.
    """

    name: str = "pod"
    """The pods are NAME1, NAME2, ..., as of `pod-add`."""

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Attach pods until there is a block more, or one is asked for."""
        machine = stage.world[name]
        parts = machine.engine.parts
        used = len(parts.holdings.blocks_in_use)
        pods = _new_pods(machine, self.name)
        while len(parts.holdings.blocks_in_use) == used and not parts.seeker.seeking:
            machine.add_pod(next(pods))
        return [goals.routes_to(lambda: machine, used)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition(Act):
    """Nothing passes between groups any more."""

    groups: tuple[Selection, ...]
    one_way: bool = False
    """Whether the first group still reaches the others, and only their answers are lost."""

    def __post_init__(self) -> None:
        """Check the groups. Raises ConfigError, nothing else."""
        at_least(self)
        if len(self.groups) < 2:
            raise ConfigError("a partition has two groups at least", "groups")

    def targets(self, stage: Stage) -> list[str]:
        """No single machine."""
        del stage
        return WORLD

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Cut."""
        del name
        groups: list[list[str]] = []
        for selection in self.groups:
            taken = [name for group in groups for name in group]
            groups.append(stage.choose(selection, taken=taken))
        stage.world.partition(*groups, one_way=self.one_way)
        return []


@dataclass(frozen=True, kw_only=True, slots=True)
class Heal(Act):
    """All cuts are mended; seen when everybody knows what all said, and holds all for ready."""

    def targets(self, stage: Stage) -> list[str]:
        """No single machine."""
        del stage
        return WORLD

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Mend."""
        del name
        stage.world.heal()
        running = [machine for machine in stage.world.live() if runs(machine)]
        said = [goals.knows_version(identity(one), goals.own_version(one)) for one in running]
        return said + [goals.holds_for_ready(identity(one)) for one in running]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeLink(Act):
    """Links are another way from now on: all of them, or those between two groups."""

    link: LinkSpec
    between: tuple[Selection, ...] = ()

    def __post_init__(self) -> None:
        """Check the sides. Raises ConfigError, nothing else."""
        at_least(self)
        if len(self.between) not in (0, 2):
            raise ConfigError("a link has two ends", "between")

    def targets(self, stage: Stage) -> list[str]:
        """No single machine."""
        del stage
        return WORLD

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Replace them."""
        del name
        if self.between:
            one, other = (stage.choose(side) for side in self.between)
            stage.world.underlay.set_links(set(one), set(other), self.link.link)
        else:
            stage.world.underlay.set_all_links(self.link.link)
        return []


ACTS: Final[Mapping[str, type[Act]]] = {
    "join": Join,
    "leave": Leave,
    "remove": Remove,
    "crash": Crash,
    "power-loss": PowerLoss,
    "start": Start,
    "restart": Restart,
    "upgrade": Upgrade,
    "pause": Pause,
    "slow": Slow,
    "disk": ChangeDisk,
    "full-disk": FullDisk,
    "move": Move,
    "clock-step": ClockStep,
    "clock-rate": ClockRate,
    "pod-add": PodAdd,
    "pod-delete": PodDelete,
    "route": Route,
    "partition": Partition,
    "heal": Heal,
    "link": ChangeLink,
    "backup": Backup,
    "restore": Restore,
    "clone": Clone,
}
