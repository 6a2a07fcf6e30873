"""Medians, spread and ratios of what was measured. Pure functions of samples."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Sample:
    """All figures of one contestant in one round."""

    underlay: str
    round: int
    contestant: str
    figures: Mapping[str, float]


class Spread(NamedTuple):
    """Several values of one figure."""

    median: float
    lowest: float
    highest: float
    rounds: int


def spread(values: Sequence[float]) -> Spread | None:
    """Median and extremes; None of nothing.

    >>> spread([3, 1, 2])
    Spread(median=2, lowest=1, highest=3, rounds=3)
    """
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


class Summary:
    """What the samples of a run say.

    Args:
        samples: of all rounds.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._values: dict[tuple[str, str, str], dict[int, float]] = {}
        for sample in samples:
            for key, value in sample.figures.items():
                place = self._values.setdefault((sample.underlay, sample.contestant, key), {})
                place[sample.round] = value
        self.underlays = tuple(dict.fromkeys(sample.underlay for sample in samples))
        self.contestants = tuple(dict.fromkeys(sample.contestant for sample in samples))
        self.rounds = max((sample.round for sample in samples), default=0)

    def of(self, underlay: str, contestant: str, figure: str) -> Spread | None:
        """A figure over all rounds; None where it was not measured."""
        return spread(list(self._values.get((underlay, contestant, figure), {}).values()))

    def ratio(self, underlay: str, one: str, other: str, figure: str) -> Spread | None:
        """How many times the other's figure is one's own.

        Returns:
            The ratio of the medians, with the lowest and highest ratio within one round; None
            where either was not measured, or the other's is 0.
        """
        mine = self._values.get((underlay, one, figure), {})
        theirs = self._values.get((underlay, other, figure), {})
        within = [mine[n] / theirs[n] for n in mine.keys() & theirs.keys() if theirs[n]]
        below = self.of(underlay, other, figure)
        above = self.of(underlay, one, figure)
        if not within or above is None or below is None or not below.median:
            return None
        return Spread(above.median / below.median, min(within), max(within), len(within))
