"""Says on a terminal what is being waited for, once it takes longer than a second.

    muslin: waiting for a member to answer (3 s)

Where stderr is not a terminal there is only a line for each step that `say` reports.
"""

from __future__ import annotations

import time
from typing import Final, TextIO

from node.cli.animation import Animation

PATIENCE: Final = 1.0
"""Seconds before the first word; what is quicker needs none."""


class Progress(Animation):
    """A context manager around something slow.

    Args:
        text: what is being waited for; `say` changes it.
        stream: where to write; stderr by default.
        patience: seconds before the first line, and between updates.
    """

    def __init__(self, text: str, stream: TextIO | None = None, patience: float = PATIENCE) -> None:
        super().__init__(patience, stream)
        self._text = text
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """A step is done; say which, and go on."""
        self._text = text
        self._step(text)

    def set(self, text: str) -> None:
        """Something small has changed: shown where there is a terminal, and nowhere else."""
        self._text = text

    def drawn(self) -> str:
        """What is being waited for, and for how long already."""
        return f"muslin: {self._text} ({time.monotonic() - self._began:.0f} s)"
