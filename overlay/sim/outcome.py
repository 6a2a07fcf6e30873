"""What came of a play: figures, and which expectations they meet.

Events with one label (repetitions, mostly) are summed up together: `p99` is over all nodes and all
of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from overlay.sim.deaths import Deaths
from overlay.sim.machine import Machine
from overlay.sim.metrics import Delays, Second, Tracker, quantile
from overlay.sim.scenario import Expectation


@dataclass(slots=True)
class Happened:
    """One event that happened, and its way to all nodes."""

    label: str
    tracker: Tracker[Machine]
    targets: int = 0

    def took(self, now: float) -> float:
        """Seconds until all knew; so far, if they do not yet."""
        if not self.tracker.settled:
            return now - self.tracker.at
        return self.tracker.times[-1] if self.tracker.times else 0.0


@dataclass(frozen=True, slots=True)
class EventSummary:
    """All events of one label."""

    label: str
    at: float
    """When the first of them happened, in virtual seconds."""
    times: int
    """How many there were."""
    targets: int
    """Machines they hit, in all."""
    seconds: tuple[float, ...]
    """How long each node took to show the final state, shortest first."""
    missing: tuple[str, ...]
    """Nodes that do not show it in the end."""

    @property
    def delays(self) -> Delays | None:
        """Of `seconds`; None when no node was asked, because the event has no final state."""
        if not self.seconds:
            return None
        half, most = quantile(self.seconds, 0.5), quantile(self.seconds, 0.99)
        return Delays(len(self.seconds), half, most, self.seconds[-1])


def summaries(happened: Iterable[Happened]) -> tuple[EventSummary, ...]:
    """One summary per label, in the order of their first events."""
    labels: dict[str, list[Happened]] = {}
    for one in happened:
        labels.setdefault(one.label, []).append(one)
    return tuple(
        EventSummary(
            label=label,
            at=min(one.tracker.at for one in ones),
            times=len(ones),
            targets=sum(one.targets for one in ones),
            seconds=tuple(sorted(time for one in ones for time in one.tracker.times)),
            missing=tuple(dict.fromkeys(name for one in ones for name in one.tracker.missing)),
        )
        for label, ones in labels.items()
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that was measured.

    Attributes:
        events: by label.
        steady, peak: traffic per node and second; None where there was no such second.
        deaths: who was declared dead.
        refusals: requests that nodes refused.
        checks: how often invariants were checked.
        broken: the invariant that did not hold; empty if all held.
        agree: whether all live nodes hold the same items.
        nodes: live ones in the end.
        now: virtual seconds it took.
    """

    events: tuple[EventSummary, ...]
    steady: Second | None
    peak: Second | None
    deaths: Deaths
    refusals: int
    checks: int
    broken: str
    agree: bool
    nodes: int
    now: float

    def failures(self, expected: Iterable[Expectation]) -> list[str]:
        """What is not as it must be, one clause each."""
        found = [f"an invariant is broken: {self.broken}"] if self.broken else []
        for one in expected:
            found += self._late(one)
            found += self._counts(one)
            if one.agree and not self.agree:
                found.append("the nodes do not agree in the end")
        return found

    def _late(self, one: Expectation) -> Iterator[str]:
        limits = (("p50", one.p50), ("p99", one.p99), ("max", one.within))
        for event in self.events:
            if event.label != one.event:
                continue
            delays = event.delays
            if event.missing:
                yield f"{event.label}: {len(event.missing)} nodes do not show it: {_few(event)}"
            elif delays is None:
                yield f"{event.label}: no node was there to show it"
            else:
                took = {"p50": delays.p50, "p99": delays.p99, "max": delays.longest}
                for name, limit in limits:
                    if limit is not None and took[name] > limit:
                        yield f"{event.label}: {name} is {took[name]:.2f} s, not {limit:g} s"

    def _counts(self, one: Expectation) -> Iterator[str]:
        steady = None if self.steady is None else self.steady.bytes
        peak = None if self.peak is None else self.peak.busiest
        for what, value, limit in (
            ("healthy nodes declared dead", len(self.deaths.false_subjects), one.false_deaths),
            ("nodes declared dead", len(self.deaths.subjects), one.deaths),
            ("steady bytes per node and second", steady, one.steady_bytes),
            ("bytes of one node in a second", peak, one.peak_bytes),
        ):
            if limit is None:
                continue
            if value is None:
                yield f"{what}: there was no second to measure"
            elif value > limit:
                yield f"{what}: {value:.0f}, not {limit:g}"


def _few(event: EventSummary) -> str:
    more = len(event.missing) - 3
    return ", ".join(event.missing[:3]) + (f" and {more} more" if more > 0 else "")
