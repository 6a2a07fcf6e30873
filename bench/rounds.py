"""The order of a run: every contestant once per round, so that a noisy machine hits all alike.

    underlay veth:  round 1: none vxlan ... muslin   round 2: none vxlan ... muslin   ...
    underlay wire:  the same

Within a round a contestant does one workload after another. A measurement that fails is tried once
more; then its figures are missing from that round, which the report shows as a smaller count.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.contestants import Contestant, Running
from bench.summary import Sample
from bench.topology import LAB, Ground, Underlay, ground, set_underlay
from bench.workloads import Figures, Scene, Workload
from node.errors import NodeError

ATTEMPTS: Final = 2

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run consists of."""

    contestants: Sequence[Contestant]
    workloads: Mapping[Underlay, Sequence[Workload]]
    rounds: int
    seconds: int

    def cost(self) -> float:
        """Seconds that all measurements take together, roughly."""
        once = sum(w.cost(self.seconds) for each in self.workloads.values() for w in each)
        return once * len(self.contestants) * self.rounds


@dataclass(slots=True)
class Ticker:
    """Says how far a run is, and how long the rest takes by the pace so far."""

    total: float
    """Seconds, as planned."""
    progress: Progress
    clock: Callable[[], float] = time.monotonic
    _done: float = field(default=0.0, init=False)
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    def step(self, planned: float, what: str) -> None:
        """`what` is finished, for which so many seconds were planned."""
        self._done += planned
        pace = (self.clock() - self._started) / self._done if self._done else 1.0
        left = max(self.total - self._done, 0.0) * pace
        self.progress(f"{what}   {minutes(left)} left")


def minutes(seconds: float) -> str:
    """A length of time for people.

    >>> minutes(61), minutes(5)
    ('1:01', '0:05')
    """
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"


@contextmanager
def standing(
    contestants: Sequence[Contestant], progress: Progress, lab: str = LAB
) -> Iterator[tuple[Ground, list[Running]]]:
    """The topology with all contestants up in it; everything is gone after the `with` block."""
    with ExitStack() as stack:
        built = stack.enter_context(ground(progress, lab))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muslin-bench-")))
        running = []
        for contestant in contestants:
            own = folder / contestant.name
            own.mkdir()
            running.append(contestant.start(built, own, stack))
            progress(f"{contestant.name} is up ({contestant.version()})")
        yield built, running


def run_plan(plan: Plan, progress: Progress, lab: str = LAB) -> list[Sample]:
    """Measure everything; returns every figure of every round.

    Raises:
        NodeError: the topology or a contestant did not come up.
    """
    samples: list[Sample] = []
    with standing(plan.contestants, progress, lab) as (built, running):
        ticker = Ticker(plan.cost(), progress)
        for underlay, workloads in plan.workloads.items():
            set_underlay(built, underlay)
            for number in range(1, plan.rounds + 1):
                for one in running:
                    others = tuple(pid for each in running if each is not one for pid in each.pids)
                    scene = Scene(built, one, others, plan.seconds)
                    figures = _turn(scene, workloads, progress)
                    samples.append(Sample(str(underlay), number, one.name, figures))
                    planned = sum(w.cost(plan.seconds) for w in workloads)
                    ticker.step(planned, _line(underlay, number, plan.rounds, one, figures))
    return samples


def _turn(scene: Scene, workloads: Sequence[Workload], progress: Progress) -> Figures:
    figures: Figures = {}
    for workload in workloads:
        figures |= attempt(workload, scene, progress)
    return figures


def attempt(workload: Workload, scene: Scene, progress: Progress) -> Figures:
    """The figures of a workload; none when it failed twice."""
    for _ in range(ATTEMPTS):
        try:
            return workload.measure(scene)
        except NodeError as error:
            progress(f"{scene.running.name}: {workload.title}: {error.why}")
    return {}


def _line(underlay: Underlay, number: int, rounds: int, one: Running, figures: Figures) -> str:
    main = "tcp1" if "tcp1" in figures else next(iter(figures), "")
    shown = f"{main} {figures[main]:.2f}" if main else "nothing measured"
    return f"{underlay} round {number}/{rounds}  {one.name:13} {shown:16}"
