"""What limits the throughput through the overlay, told from the figures.

    as fast as the underlay            path         nothing between the nodes gives more
    packets get lost                   loss         TCP slows down for each
    a daemon uses a whole core, or a   cpu-here,    the one of the two ends that is busier
    machine is never idle              cpu-there
    none of these                      none         say what was looked at

In this order: a path that gives no more explains everything, and loss explains a processor that
has nothing to do, but not the other way round. The evidence is part of the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from node.bench.figures import Datagrams, Direction, Figures, Load, Stream

AS_FAST: Final = 0.9
"""Overlay / underlay from which on the path is the limit: what is left is headers and noise."""

MUCH_LOSS: Final = 0.01
"""Share of lost or repeated packets from which on loss is what TCP obeys."""

FULL_CORE: Final = 0.85
"""Cores of one process from which on it has no more to give: what is missing are clock ticks."""

NO_IDLE: Final = 0.1
"""Idle share below which a machine has no more to give."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What limits one direction.

    Attributes:
        code: `path`, `loss`, `cpu-here`, `cpu-there` or `none`; stable.
        why: the evidence, one clause.
    """

    code: str
    why: str

    @property
    def words(self) -> str:
        """The verdict and its evidence, for people."""
        names = {"cpu-here": "CPU here", "cpu-there": "CPU there", "none": "nothing obvious"}
        return f"{names.get(self.code, self.code)} ({self.why})"


def find_limit(figures: Figures, direction: Direction) -> Limit | None:
    """What limits one direction; None if it was not measured."""
    stream = figures.overlay.stream(direction)
    if stream is None:
        return None
    ratio = figures.ratio(direction)
    return (
        _path(ratio)
        or _loss(stream, figures.overlay.datagrams, direction)
        or _processor(stream)
        or _nothing(stream, ratio)
    )


def _path(ratio: float | None) -> Limit | None:
    if ratio is None or ratio < AS_FAST:
        return None
    return Limit("path", f"the underlay itself gives no more: overlay / underlay {ratio:.2f}")


def _loss(stream: Stream, datagrams: Datagrams | None, direction: Direction) -> Limit | None:
    lost = 0.0
    if datagrams is not None:
        lost = datagrams.loss if direction == "to" else datagrams.loss_back
    if max(lost, stream.repeated) <= MUCH_LOSS:
        return None
    why = f"{_percent(lost, 1)} of datagrams lost, {_percent(stream.repeated, 1)} of TCP segments"
    return Limit("loss", f"{why} sent again")


def _processor(stream: Stream) -> Limit | None:
    """The busier end, if it has no more to give; this one when both are equally busy."""
    ends = [("cpu-here", stream.here), ("cpu-there", stream.there)]
    full = [(code, load) for code, load in ends if load is not None and _is_full(load)]
    if not full:
        return None
    # Two ends on one machine are equally idle, so the daemons come first.
    code, load = max(full, key=lambda end: (end[1].busiest, -end[1].idle))
    return Limit(code, _shown(load))


def _is_full(load: Load) -> bool:
    return load.busiest >= FULL_CORE or load.idle < NO_IDLE


def _shown(load: Load) -> str:
    machine = f"machine {_percent(load.idle)} idle, cores {load.cores}"
    if load.busiest < load.daemon * FULL_CORE:  # several workers share the load
        busiest = f"its busiest process {_percent(load.busiest)} of one"
        return f"daemon {load.daemon:.1f} cores, {busiest}, {machine}"
    return f"daemon {_percent(load.daemon)} of a core, {machine}"


def _nothing(stream: Stream, ratio: float | None) -> Limit:
    seen = [
        f"{where}: {_shown(load)}"
        for where, load in (("here", stream.here), ("there", stream.there))
        if load is not None
    ]
    if ratio is not None:
        seen.append(f"overlay / underlay {ratio:.2f}")
    return Limit("none", "; ".join(seen) or "the load could not be read")


def _percent(share: float, digits: int = 0) -> str:
    return f"{share * 100:.{digits}f} %"
