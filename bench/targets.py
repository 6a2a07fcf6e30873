"""What Muslin is to reach beside each contestant, and whether it does. Data, and one comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from bench.figures import BY_KEY
from bench.summary import Spread, Summary
from bench.topology import Underlay


class Bound(NamedTuple):
    """Of a ratio Muslin / contestant."""

    target: float
    goal: float | None = None
    """Better than the target, and hoped for."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One row: a figure, and a bound for each contestant that it has one for."""

    title: str
    figure: str
    bounds: Mapping[str, Bound]
    underlay: str = Underlay.VETH


class Outcome(StrEnum):
    """What became of a bound."""

    GOAL = "goal met"
    MET = "met"
    MISSED = "not met"
    UNKNOWN = "not measured"


class Verdict(NamedTuple):
    """One cell of the table of targets."""

    target: Target
    contestant: str
    bound: Bound
    ratio: Spread | None
    outcome: Outcome


def _row(
    title: str, figure: str, peers: tuple[float, float, float], vxlan: Bound | None, underlay: str
) -> Target:
    bounds = {
        name: Bound(value)
        for name, value in zip(("wireguard-go", "nebula", "tinc"), peers, strict=True)
    }
    return Target(title, figure, bounds | ({"vxlan": vxlan} if vxlan else {}), underlay)


_VETH, _WIRE = str(Underlay.VETH), str(Underlay.WIRE)

TARGETS: Final = (
    _row("TCP 1 stream", "tcp1", (5, 5, 5), Bound(0.38, 0.55), _VETH),
    _row("TCP 8 streams", "tcp8", (5, 5, 5), Bound(0.33, 0.55), _VETH),
    _row("wire underlay, TCP 1 stream", "tcp1", (4, 4, 4), Bound(0.50, 0.65), _WIRE),
    _row("UDP 64 B delivered", "udp64-over", (2, 1.8, 2), Bound(0.55), _VETH),
    _row("idle RTT p50", "rtt-p50", (1, 1, 1.2), None, _VETH),
    _row("RTT p99 under 1 TCP stream", "rtt1-p99", (0.6, 0.5, 0.5), None, _VETH),
    _row("RTT p99 under 8 TCP streams", "rtt8-p99", (1, 1, 1), None, _VETH),
    _row("daemons' CPU seconds per GB", "cpu", (0.15, 0.2, 0.15), None, _VETH),
)


def judge(ratio: float, bound: Bound, *, more_is_better: bool) -> Outcome:
    """Whether a ratio keeps a bound.

    >>> str(judge(0.4, Bound(0.38, 0.55), more_is_better=True))
    'met'
    """
    sign = 1 if more_is_better else -1
    if bound.goal is not None and sign * ratio >= sign * bound.goal:
        return Outcome.GOAL
    return Outcome.MET if sign * ratio >= sign * bound.target else Outcome.MISSED


def verdicts(summary: Summary) -> Iterator[Verdict]:
    """Every bound of every target, for the contestants that took part."""
    for target in TARGETS:
        for contestant, bound in target.bounds.items():
            if contestant not in summary.contestants:
                continue
            ratio = summary.ratio(target.underlay, "muslin", contestant, target.figure)
            outcome = Outcome.UNKNOWN
            if ratio is not None:
                better = BY_KEY[target.figure].more_is_better
                outcome = judge(ratio.median, bound, more_is_better=better)
            yield Verdict(target, contestant, bound, ratio, outcome)
