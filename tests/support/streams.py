"""A TCP connection between pods that goes on until told to end, however often it is cut off."""

from __future__ import annotations

import hashlib
import socket
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from node.kernel import netns
from node.lab.traffic import content
from tests.support.labs import Place
from tests.support.processes import PATIENCE
from tests.support.traffic import opened
from tests.support.waiting import eventually

PIECE = content(64 << 10)
PACE = 0.002
"""Seconds between two pieces: 30 MB/s, which leaves the daemons time for everything else."""

SILENCE = 3 * PATIENCE
"""Seconds without a byte. TCP doubles its waits: who was cut off while a daemon started, for which
there is `PATIENCE`, hears nothing for as long again."""


class Stream:
    """A TCP connection that carries bytes until its `with` block ends; all of them arrive intact.

    Args:
        source, target: the pods at its ends.

    Attributes:
        peer: the address that the target sees.
    """

    def __init__(self, source: Place, target: Place) -> None:
        self._stack = ExitStack()
        server = self._stack.enter_context(
            netns.run_in(target.netns, socket.create_server, (target.address, 0))
        )
        self._sender = self._stack.enter_context(opened(source, socket.SOCK_STREAM, 4))
        self._sender.connect(server.getsockname())
        receiver, (self.peer, _) = server.accept()
        self._receiver = self._stack.enter_context(receiver)
        for end in (self._sender, self._receiver):
            end.settimeout(SILENCE)
        self._sent, self._received = hashlib.sha256(), hashlib.sha256()
        self._enough = threading.Event()
        self.moved = 0
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]

    def _send(self) -> None:
        number = 0
        while not self._enough.wait(PACE):
            piece = number.to_bytes(8, "big") + PIECE
            self._sender.sendall(piece)
            self._sent.update(piece)
            number += 1
        self._sender.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        while piece := self._receiver.recv(1 << 20):
            self._received.update(piece)
            self.moved += len(piece)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        eventually(lambda: self.moved > 1 << 20, within=PATIENCE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            self._enough.set()
            for thread in self._threads:
                thread.join()
        if error is None:
            assert self._received.digest() == self._sent.digest()

    def moves(self) -> None:
        """Another megabyte arrives."""
        before = self.moved
        eventually(lambda: self.moved > before + (1 << 20), within=SILENCE)
