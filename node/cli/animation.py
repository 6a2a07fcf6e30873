"""One line on a terminal that is rewritten in place while something goes on, and then is gone.

    muslin: waiting for a member to answer (3 s)

It goes to stderr. Where that is not a terminal nothing is animated, and each step is a line.
`node.cli.progress` and `node.cli.bar` say what the line shows.
"""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Final, Self, TextIO

_CLEAR: Final = "\r\x1b[K"


class Animation(ABC):
    """A context manager around what goes on; the line is gone at its end.

    Args:
        interval: seconds before the first drawing, and between two.
        stream: where to write; stderr by default.
    """

    def __init__(self, interval: float, stream: TextIO | None) -> None:
        self._interval = interval
        self._stream = stream or sys.stderr
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def drawn(self) -> str:
        """The line as it is to be shown now. Called in a thread of its own."""

    def _step(self, text: str) -> None:
        """A step was taken: worth a line where nothing is animated."""
        if self._thread is None:
            self._write(f"muslin: {text}\n")

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._thread = threading.Thread(target=self._animate, name="animation", daemon=True)
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

    def _animate(self) -> None:
        written = False
        while not self._over.wait(self._interval):
            self._write(_CLEAR + self.drawn())
            written = True
        if written:
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
