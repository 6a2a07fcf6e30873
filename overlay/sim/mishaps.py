"""Acts that break machines, or make them slow, late and wrong about the time.

What a node can do about them is not an event with a final state: that nobody suffers is what a
scenario expects.
"""

from __future__ import annotations

from dataclasses import dataclass

from overlay.errors import ConfigError
from overlay.sim.faults import Starvation
from overlay.sim.goals import Goal
from overlay.sim.selection import Selection
from overlay.sim.stage import Act, OnRunning, Stage, at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause(OnRunning):
    """Machines stop without noticing (SIGSTOP, a suspended VM), and go on."""

    seconds: float

    def __post_init__(self) -> None:
        """Check the ranges. Raises ConfigError, nothing else."""
        at_least(self, seconds=0.0)

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Stop it, and let it go on later."""
        machine = stage.world[name]
        machine.pause()
        stage.later(self.seconds, machine.resume)
        return []


@dataclass(frozen=True, kw_only=True, slots=True)
class Slow(OnRunning):
    """Machines get the processor in slices only."""

    seconds: float = 0.0
    """For how long; 0 is for good."""
    share: float = Starvation().share
    """Length of a slice."""
    period: float = Starvation().period
    """From one slice to the next."""

    def __post_init__(self) -> None:
        """Check the slices. Raises ConfigError, nothing else."""
        at_least(self, seconds=0.0)
        Starvation(self.share, self.period)

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Starve it, and feed it later."""
        machine = stage.world[name]
        machine.starve(Starvation(self.share, self.period))
        if self.seconds:
            stage.later(self.seconds, lambda: machine.starve(None))
        return []


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeDisk(OnRunning):
    """Disks are another way from now on."""

    latency: float = 0.0
    """Seconds that every write takes; what it tells of itself waits for that."""
    fsync: bool = True
    """Whether they keep what they say they have kept, when the power fails."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ConfigError, nothing else."""
        at_least(self, latency=0.0)

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Change it."""
        disk = stage.world[name].disk
        disk.latency, disk.fsync = self.latency, self.fsync
        if not self.fsync:
            stage.world.inspector.excuse(stage.world[name].membership.identity.node)
        return []


@dataclass(frozen=True, kw_only=True, slots=True)
class FullDisk(OnRunning):
    """Writes fail for a while."""

    seconds: float

    def __post_init__(self) -> None:
        """Check the ranges. Raises ConfigError, nothing else."""
        at_least(self, seconds=0.0)

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Fill it, and make room later."""
        disk = stage.world[name].disk
        disk.fail(1 << 62)
        stage.later(self.seconds, lambda: disk.fail(0))
        return []


@dataclass(frozen=True, kw_only=True, slots=True)
class Move(OnRunning):
    """Machines have another underlay address from now on, as when a NAT rebinds."""

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Move it."""
        stage.world.move(name)
        return []


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockStep(OnRunning):
    """Somebody sets wall clocks ahead, or back."""

    seconds: float

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Step it."""
        stage.world[name].set_clock(step=self.seconds)
        return []


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockRate(OnRunning):
    """Monotonic clocks run fast, or slow."""

    ppm: float
    """Parts per million; 0 is right."""

    def __post_init__(self) -> None:
        """Check the rate. Raises ConfigError, nothing else."""
        at_least(self)
        if not -1e6 < self.ppm <= 1e6:
            raise ConfigError(
                "a clock runs neither backwards nor at more than twice its rate", "ppm"
            )

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Set its rate."""
        stage.world[name].set_clock(rate=1.0 + self.ppm / 1e6)
        return []


@dataclass(frozen=True, kw_only=True, slots=True)
class Backup(OnRunning):
    """Copies of disks are put aside."""

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Copy it."""
        stage.images[name] = stage.world[name].disk.image()
        return []


@dataclass(frozen=True, kw_only=True, slots=True)
class Restore(Act):
    """Machines go on from the last backup of their disks."""

    nodes: Selection

    def targets(self, stage: Stage) -> list[str]:
        """Those of the selection of which there is one."""
        return stage.choose(self.nodes, lambda machine: machine.name in stage.images)

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Put it back and start from it."""
        stage.world.restore(name, stage.images[name])
        return []


@dataclass(frozen=True, kw_only=True, slots=True)
class Clone(OnRunning):
    """Second machines start from copies of disks, keys included, at other addresses."""

    def begin(self, stage: Stage, name: str) -> list[Goal]:
        """Copy it, under the next free name."""
        copies = [other for other in stage.world.machines if other.startswith(f"{name}-clone")]
        stage.world.clone(name, f"{name}-clone{len(copies) + 1}")
        return []
