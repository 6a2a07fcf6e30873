"""A progress bar on stderr for work that consists of steps of known length.

    muslin: [##########--------------] through the overlay: TCP to, 9 s left

Where stderr is not a terminal there is no animation, only a line for each step.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Final, Self, TextIO

WIDTH: Final = 24
INTERVAL: Final = 0.2

_CLEAR: Final = "\r\x1b[K"


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


class Bar:
    """A context manager around the steps.

    Args:
        total: seconds that all steps take together.
        stream: where to write; stderr by default.
        interval: seconds between two drawings.
    """

    def __init__(
        self, total: float, stream: TextIO | None = None, interval: float = INTERVAL
    ) -> None:
        self._total = total
        self._stream = stream or sys.stderr
        self._interval = interval
        self._text = "getting ready"
        self._behind = 0.0  # seconds of the steps that are over
        self._length = 0.0
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def step(self, text: str, seconds: float) -> None:
        """The next step begins, and takes so long."""
        self._behind += self._length
        self._text, self._length, self._began = text, seconds, time.monotonic()
        if self._thread is None:
            self._stream.write(f"muslin: {text}\n")
            self._stream.flush()

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._thread = threading.Thread(target=self._animate, name="bar", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._stream.write(_CLEAR)
            self._stream.flush()

    def _animate(self) -> None:
        while not self._over.wait(self._interval):
            passed = self._behind + min(self._length, time.monotonic() - self._began)
            line = drawn(self._text, passed / self._total, self._total - passed)
            self._stream.write(_CLEAR + line)
            self._stream.flush()
