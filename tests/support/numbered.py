"""Numbered datagrams between pods: which were lost, and for how long none came."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack
from struct import Struct
from types import TracebackType
from typing import Self

from node.kernel import netns
from tests.support.labs import Place
from tests.support.processes import PATIENCE
from tests.support.traffic import opened
from tests.support.waiting import eventually
from tests.support.wiretap import SO_RCVBUFFORCE

RATE = 1000
NUMBER = Struct("!Q")
ROOM = 8 << 20
"""Receive buffer: the one who measures must not be the one who loses, were this process to stand
still for a second. It is more than the kernel allows others."""
DRAIN = 3.0


class Numbered:
    """A flow of datagrams for the time of a `with` block.

    Args:
        source, target: the pods at its ends.
        rate: datagrams a second.
        drain: seconds without any news after which what is missing is lost.

    Attributes:
        sent: how many; `lost` and `stall` are known after the block.
        lost: how many of them never came.
        again: how many came more than once.
        stall: the longest time, in seconds, in which none came.
        sources: the addresses that they came from.
    """

    def __init__(
        self, source: Place, target: Place, *, rate: int = RATE, drain: float = DRAIN
    ) -> None:
        self._stack = ExitStack()
        self._receiver = self._stack.enter_context(
            netns.run_in(target.netns, socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        )
        self._receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        self._receiver.bind((target.address, 0))
        self._receiver.settimeout(0.2)
        self._sender = self._stack.enter_context(opened(source, socket.SOCK_DGRAM, 4))
        self._sender.connect(self._receiver.getsockname())
        self._rate, self._drain = rate, drain
        self._enough, self._drained = threading.Event(), threading.Event()
        self._seen: dict[int, int] = {}
        self._last = self._first = 0.0
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]
        self.sent = self.lost = self.again = self.refused = 0
        self.stall = 0.0
        self.sources: set[str] = set()

    def _send(self) -> None:
        began = time.monotonic()
        while not self._enough.is_set():
            due = int((time.monotonic() - began) * self._rate)
            while self.sent < due:
                try:
                    self._sender.send(NUMBER.pack(self.sent))
                except OSError:  # the kernel said that there is no way
                    self.refused += 1
                self.sent += 1
            time.sleep(0.5 / self._rate)

    def _receive(self) -> None:
        while not self._drained.is_set():
            try:
                data, (source, _) = self._receiver.recvfrom(100)
            except TimeoutError:
                continue
            now = time.monotonic()
            number = NUMBER.unpack(data)[0]
            self.sources.add(source)
            if self._seen:
                self.stall = max(self.stall, now - self._last)
            self._last = now
            self._seen[number] = self._seen.get(number, 0) + 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        eventually(lambda: len(self._seen) > 100, within=PATIENCE)
        return self

    def flows(self) -> None:
        """Another hundred arrive."""
        before = len(self._seen)
        eventually(lambda: len(self._seen) > before + 100, within=PATIENCE)

    def take_stall(self) -> float:
        """The longest stall since the last call."""
        stall, self.stall = self.stall, 0.0
        return stall

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            self._enough.set()
            self._threads[0].join()
            stall = self.stall
            until = time.monotonic() + self._drain
            while len(self._seen) < self.sent and time.monotonic() < until:
                time.sleep(0.02)
            self._drained.set()
            self._threads[1].join()
            self.stall = stall
        self.lost = self.sent - len(self._seen)
        self.again = sum(count - 1 for count in self._seen.values())
