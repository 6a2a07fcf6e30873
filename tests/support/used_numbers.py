"""Numbered UDP packets from one pod to another: how many came, and whether any came twice."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

from tests.support.labs import Place
from tests.support.traffic import opened

PORT = 5007
SIZES = (8, 8, 200, 1400, 4000)
SO_RCVBUFFORCE = 33
BUFFER = 8 << 20
"""More than the kernel allows others: this process may stand still for a second, and what the pod's
own socket loses then must not look like the daemons' doing."""


class Numbers:
    """A sender and a receiver, for the time of a `with` block.

    Args:
        source, target: pods.
        rate: packets per second, about.
        port: of the receiver.

    Attributes:
        sent: how many so far.
        arrived: how often each came.
        twice: what came more than once.
    """

    def __init__(self, source: Place, target: Place, rate: float, port: int = PORT) -> None:
        self.sent = 0
        self.arrived: Counter[int] = Counter()
        self.twice: set[int] = set()
        self._pause = 1.0 / rate
        self._ended = threading.Event()
        self._quiet = threading.Event()
        self._receiver = opened(target, socket.SOCK_DGRAM, 4)
        self._receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._receiver.bind((target.address, port))
        self._receiver.settimeout(0.1)
        self._sender = opened(source, socket.SOCK_DGRAM, 4)
        self._sender.connect((target.address, port))
        self._threads = [
            threading.Thread(target=one, daemon=True) for one in (self._take, self._send)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._quiet.set()
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._receiver.close()
        self._sender.close()

    def pause(self) -> None:
        """Send no more; go on receiving."""
        self._quiet.set()
        self._threads[1].join()

    @property
    def missing(self) -> int:
        """How many have not come."""
        return self.sent - len(self.arrived)

    def _send(self) -> None:
        rng = random.Random(1)
        due = time.monotonic()
        while not self._quiet.is_set():
            size = rng.choice(SIZES)
            self._sender.send(self.sent.to_bytes(8, "big") + bytes(size - 8))
            self.sent += 1
            due += self._pause
            self._quiet.wait(max(due - time.monotonic(), 0.0))

    def _take(self) -> None:
        while not self._ended.is_set():
            try:
                number = int.from_bytes(self._receiver.recv(1 << 16)[:8], "big")
            except TimeoutError:
                continue
            if number in self.arrived:
                self.twice.add(number)
            self.arrived[number] += 1
