"""A progress bar on stderr for work that consists of steps of known length.

    muslin: [##########--------------] through the overlay: TCP to, 9 s left

Where stderr is not a terminal there is only a line for each step.
"""

from __future__ import annotations

import time
from typing import Final, TextIO

from node.cli.animation import Animation

WIDTH: Final = 24
INTERVAL: Final = 0.2


def drawn(text: str, done: float, left: float) -> str:
    """One state of the bar.

    Args:
        text: what is under way.
        done: share of the whole, 0.0 to 1.0.
        left: seconds.

    >>> drawn("TCP to", 0.5, 2.3)
    'muslin: [############------------] TCP to, 3 s left'
    """
    full = round(WIDTH * min(1.0, max(0.0, done)))
    seconds = max(0, -int(-left // 1))
    return f"muslin: [{'#' * full}{'-' * (WIDTH - full)}] {text}, {seconds} s left"


class Bar(Animation):
    """A context manager around the steps.

    Args:
        total: seconds that all steps take together.
        stream: where to write; stderr by default.
        interval: seconds between two drawings.
    """

    def __init__(
        self, total: float, stream: TextIO | None = None, interval: float = INTERVAL
    ) -> None:
        super().__init__(interval, stream)
        self._total = total
        self._text = "getting ready"
        self._behind = 0.0  # seconds of the steps that are over
        self._length = 0.0
        self._began = time.monotonic()

    def step(self, text: str, seconds: float) -> None:
        """The next step begins, and takes so long."""
        self._behind += self._length
        self._text, self._length, self._began = text, seconds, time.monotonic()
        self._step(text)

    def drawn(self) -> str:
        """How far the steps have come; one that takes longer than it should stays at its end."""
        passed = self._behind + min(self._length, time.monotonic() - self._began)
        return drawn(self._text, passed / self._total, self._total - passed)
