"""Pings that go on for minutes: which were lost, and how long none came back."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from node.kernel import netns
from tests.support.labs import Place
from tests.support.processes import PATIENCE, STOP_PATIENCE
from tests.support.waiting import eventually

EVERY = 0.1
"""Seconds between two pings."""

MORE = 10
"""So many answers show that pings go on."""

_REPLY = re.compile(r"\[([0-9.]+)\] [0-9]+ bytes from .*icmp_seq=([0-9]+)")


class Pings:
    """Pings from one pod to another, for the time of a `with` block.

    Args:
        source: the pod that asks.
        address: the one that answers.
        every: seconds between two of them.

    Attributes:
        sent: how many were sent before the last that was answered.
        lost: how many of them were not.
        stall: the longest time between two answers, in seconds.
    """

    def __init__(self, source: Place, address: str, *, every: float = EVERY) -> None:
        self.source, self.address, self._every = source, address, every
        self.sent = self.lost = 0
        self.stall = 0.0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._output = self._stack.enter_context(tempfile.TemporaryFile("w+"))
        words = ["ping", "-n", "-D", "-i", str(self._every), self.address]
        self._process = netns.run_in(
            self.source.netns,
            subprocess.Popen,
            words,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._read()

    def go_on(self) -> None:
        """Some more are answered: all that was sent long before is then answered, or lost."""
        since = time.time()
        eventually(lambda: sum(at > since for _, at in self._replies()) >= MORE, within=PATIENCE)

    def _replies(self) -> list[tuple[int, float]]:
        # Seeking would move the place where `ping` goes on to write.
        handle = self._output.fileno()
        said = os.pread(handle, os.fstat(handle).st_size, 0).decode()
        return [(int(seq), float(at)) for at, seq in _REPLY.findall(said)]

    def _read(self) -> None:
        replies = self._replies()
        self.sent = max((seq for seq, _ in replies), default=0)
        self.lost = self.sent - len({seq for seq, _ in replies})
        times = sorted(at for _, at in replies)
        self.stall = max((b - a for a, b in itertools.pairwise(times)), default=0.0)
