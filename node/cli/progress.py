"""Says on a terminal what is being waited for, once it takes longer than a second.

    muslin: waiting for a member to answer (3 s)

The line goes to stderr, is rewritten in place, and is gone when the wait is over. Where stderr is
not a terminal there is no animation, only a line for each step that `say` reports.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Final, Self, TextIO

PATIENCE: Final = 1.0
"""Seconds before the first word; what is quicker needs none."""

_CLEAR: Final = "\r\x1b[K"


class Progress:
    """A context manager around something slow.

    Args:
        text: what is being waited for; `say` changes it.
        stream: where to write; stderr by default.
        patience: seconds before the first line, and between updates.
    """

    def __init__(self, text: str, stream: TextIO | None = None, patience: float = PATIENCE) -> None:
        self._text = text
        self._stream = stream or sys.stderr
        self._patience = patience
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def say(self, text: str) -> None:
        """A step is done; say which, and go on."""
        self._text = text
        if self._thread is None:
            self._stream.write(f"muslin: {text}\n")
            self._stream.flush()

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._thread = threading.Thread(target=self._animate, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def _animate(self) -> None:
        started = time.monotonic()
        written = False
        while not self._done.wait(self._patience):
            elapsed = time.monotonic() - started
            self._stream.write(f"{_CLEAR}muslin: {self._text} ({elapsed:.0f} s)")
            self._stream.flush()
            written = True
        if written:
            self._stream.write(_CLEAR)
            self._stream.flush()
