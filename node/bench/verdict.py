"""What limits the throughput through the overlay, told from the figures.

    datagrams get lost in an idle      loss         TCP slows down for each, on any way
    network
    as fast as the underlay            path         nothing between the nodes gives more
    TCP has to repeat itself           loss         only through the overlay, or more of it
    a daemon uses a whole core, or a   cpu-here,    the one of the two ends that is busier
    machine is never idle              cpu-there
    none of these                      none         say what was looked at

In this order. A path that is full loses packets as well, so what TCP repeats counts only where the
underlay gives more; what an idle network loses always counts. Loss explains a processor that has
nothing to do, but not the other way round. The evidence is part of the verdict.
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

MOST: Final = 0.85
"""Share of a daemon's load from which on its busiest process may stand for all of it."""


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
    lost = _lost(figures.overlay.datagrams, direction)
    return (
        _loss(lost, stream, counts=lost or 0.0)
        or _path(ratio)
        or _loss(lost, stream, counts=stream.repeated)
        or _processor(stream)
        or _nothing(stream, ratio)
    )


def _path(ratio: float | None) -> Limit | None:
    if ratio is None or ratio < AS_FAST:
        return None
    return Limit("path", f"the underlay itself gives no more: overlay / underlay {ratio:.2f}")


def _lost(datagrams: Datagrams | None, direction: Direction) -> float | None:
    if datagrams is None:
        return None
    return datagrams.loss if direction == "to" else datagrams.loss_back


def _loss(lost: float | None, stream: Stream, *, counts: float) -> Limit | None:
    if counts <= MUCH_LOSS:
        return None
    # Datagrams that were not measured are no evidence.
    seen = [] if lost is None else [f"{_percent(lost, 1)} of datagrams lost"]
    seen.append(f"{_percent(stream.repeated, 1)} of TCP segments sent again")
    return Limit("loss", ", ".join(seen))


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
    if load.busiest < load.daemon * MOST:  # several workers share the load
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
