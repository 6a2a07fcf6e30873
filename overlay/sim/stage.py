"""What an event of a scenario is made of: acts, and the stage on which they act.

An act first says whom it hits; then it begins with each of them, at once or spread over some
seconds, and says what every node is to show in the end: the goals of a `Tracker`. The verbs are in
`acts` and `mishaps`; `play` is the stage.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from overlay.errors import ConfigError
from overlay.sim.faults import Power
from overlay.sim.goals import Goal
from overlay.sim.machine import Machine
from overlay.sim.selection import Selection
from overlay.sim.world import World


class Stage(Protocol):
    """What an act can use of the play it is in."""

    world: World
    rng: random.Random
    images: dict[str, Mapping[bytes, bytes]]
    """Backups of disks, by machine."""

    def choose(
        self,
        selection: Selection,
        fits: Callable[[Machine], bool] = ...,
        taken: Iterable[str] = ...,
    ) -> list[str]:
        """The selected machines among those that fit."""
        ...

    def new_names(self, count: int, group: str) -> list[str]:
        """Names for machines that are to be added, and to belong to a group."""
        ...

    def add(self, name: str, *, token: bool) -> None:
        """Add a machine of that name as the scenario says."""
        ...

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something in so many virtual seconds."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Act(ABC):
    """Something that is done to machines, one after the other."""

    over: float = 0.0
    """Seconds over which it is spread; 0 is all at once."""

    newborn: ClassVar[bool] = False
    """Whether the machines it is done to must come up and show the final state as well."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ConfigError, nothing else."""
        at_least(self)

    @abstractmethod
    def targets(self, stage: Stage) -> list[str]:
        """Names of the machines it is done to."""

    @abstractmethod
    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Do it to one of them; returns what all nodes are to show."""


def at_least(act: Act, **least: float) -> None:
    """Check that `over`, and other fields of an act, are not smaller than something.

    Raises:
        ConfigError: one of them is; `key` is the field. Nothing else.
    """
    for key, value in {"over": 0.0, **least}.items():
        if getattr(act, key) < value:
            raise ConfigError(f"must be at least {value:g}", key)


WORLD: Final = ["world"]
"""The target of what is done to no single machine."""


def runs(machine: Machine) -> bool:
    """Whether it is neither off nor paused."""
    return machine.power is Power.RUNNING


@dataclass(frozen=True, kw_only=True, slots=True)
class OnRunning(Act):
    """Something that is done to running machines."""

    nodes: Selection

    def targets(self, stage: Stage) -> list[str]:
        """Those of the selection that run."""
        return stage.choose(self.nodes, runs)
