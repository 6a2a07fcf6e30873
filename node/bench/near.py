"""The near end: measures step by step, in the process of the `muslin` command.

    datagrams   overlay, underlay     1,000 a second, each sent back: round trips and loss, idle
    to          overlay, underlay     TCP, this end sends as fast as it can
    from        overlay, underlay     TCP, the far end sends

Through the overlay everything has to work; what does not work beside it (a firewall, an address
that is not the peer's own) becomes a fault in the figures, because the overlay's part is worth
having alone.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self

from node.bench.figures import Datagrams, Direction, Figures, Stream, Way
from node.bench.speech import (
    ARRIVED,
    CHUNK,
    COMMAND,
    DATAGRAM,
    DATAGRAM_SIZE,
    GREETING,
    SINK,
    SOURCE,
    Lines,
    drain,
    exactly,
    family_of,
    pour,
    segments_of,
    waiting_in,
)
from node.bench.usage import Usage, load_between, look
from node.errors import NodeError
from node.kernel import netns
from node.kernel.errors import KernelError

RATE: Final = 1000.0
"""Datagrams per second: enough for a p99 after a second, too few to be a load."""

OVERLAY_PATIENCE: Final = 5.0
UNDERLAY_PATIENCE: Final = 2.0
"""Seconds to connect. A firewall that drops costs the second one once for each direction."""

STALL: Final = 5.0
"""Seconds without a byte after which the far end is given up."""

LATE: Final = 0.5
"""Seconds to wait for the last datagrams."""

OVERHEAD: Final = 30.0
"""Seconds that all waiting around the measurements may take in the worst case."""

Place = Literal["overlay", "underlay"]
What = Literal["datagrams", "to", "from"]


@dataclass(frozen=True, slots=True)
class Offer:
    """What the far end offers, and where to measure from.

    Attributes:
        node: the peer's name, for errors.
        address, port, token: through the overlay.
        underlay, underlay_port, underlay_token: beside it; port 0: nothing listens there.
        daemon: process id of this node's daemon.
    """

    node: str
    address: str
    port: int
    token: bytes
    underlay: str
    underlay_port: int
    underlay_token: bytes
    daemon: int

    def at(self, place: Place) -> tuple[str, int, bytes]:
        """Address, port and token."""
        if place == "overlay":
            return self.address, self.port, self.token
        return self.underlay, self.underlay_port, self.underlay_token


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement."""

    place: Place
    what: What

    @property
    def words(self) -> str:
        """For the progress bar."""
        where = "through the overlay" if self.place == "overlay" else "beside it"
        what = {"datagrams": "UDP round trips", "to": "TCP to", "from": "TCP from"}[self.what]
        return f"{where}: {what}"


def steps(directions: tuple[Direction, ...], *, underlay: bool) -> list[Step]:
    """All measurements in order: round trips first, while nothing else is under way."""
    places: tuple[Place, ...] = ("overlay", "underlay") if underlay else ("overlay",)
    whats: tuple[What, ...] = ("datagrams", *directions)
    return [Step(place, what) for what in whats for place in places]


class Near:
    """A context manager around one measurement. Leaving it closes every connection at once.

    Args:
        offer: from the daemons.
        streams: TCP connections at once.
        seconds: per measurement.
    """

    def __init__(self, offer: Offer, streams: int, seconds: float) -> None:
        self._offer = offer
        self._streams = streams
        self._seconds = seconds
        self._stack = ExitStack()
        self._ended = False
        self._lines: Lines | None = None
        self._namespace = f"/proc/{offer.daemon}/ns/net"
        self.figures = Figures(Way(offer.address), Way(offer.underlay))

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            NodeError: the far end cannot be reached through the overlay. Nothing else.
        """
        with self._through_overlay("TCP"), ExitStack() as stack:
            self._lines = Lines(self._connect("overlay", COMMAND, stack))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended = True
        self._stack.close()

    def run(self, step: Step) -> None:
        """Do one measurement; the result is in `figures`.

        Raises:
            NodeError: the far end does not answer any more. Nothing else.
        """
        what = "UDP" if step.what == "datagrams" else "TCP"
        if step.place == "overlay":
            with self._through_overlay(what):
                self._measure(step, self.figures.overlay)
            return
        try:
            self._measure(step, self.figures.underlay)
        except OSError as error:
            self.figures.underlay.faults.append(_fault(what, error))

    @contextmanager
    def _through_overlay(self, what: str) -> Iterator[None]:
        offer = self._offer
        try:
            yield
        except OSError as error:
            why = _fault(what, error).partition(":")[0]
            raise NodeError(
                f"{offer.node} stopped answering at {offer.address} ({why})"
                if self._lines is not None
                else f"{offer.address} cannot be reached through the overlay ({why})",
                f"try muslin ping {offer.address}",
                "no-answer",
            ) from error

    def _measure(self, step: Step, way: Way) -> None:
        if step.what == "datagrams":
            way.datagrams = self._datagrams(step.place)
            if not way.datagrams.rtts and step.place == "underlay":
                way.faults.append("no answer on UDP: a firewall?")
        else:
            way.streams.append(self._tcp(step.place, step.what))

    # -- sockets ---------------------------------------------------------------------------------

    def _in_namespace(self, make: Callable[[], socket.socket]) -> socket.socket:
        """A socket of the daemon's namespace, which need not be ours (in a lab it is not)."""
        try:
            with netns.opened(self._namespace) as namespace:
                own = netns.is_own(namespace)
        except KernelError as error:
            raise NodeError(
                f"the namespace of the daemon cannot be entered (process {self._offer.daemon})",
                "run the command on the node, as root",
            ) from error
        return make() if own else netns.run_in(self._namespace, make)

    def _connect(self, place: Place, kind: bytes, stack: ExitStack) -> socket.socket:
        host, port, token = self._offer.at(place)
        patience = OVERLAY_PATIENCE if place == "overlay" else UNDERLAY_PATIENCE
        connection = stack.enter_context(
            self._in_namespace(lambda: socket.socket(family_of(host), socket.SOCK_STREAM))
        )
        connection.settimeout(patience)
        connection.connect((host, port))
        connection.settimeout(STALL)
        connection.sendall(GREETING.pack(token, kind, round(self._seconds * 1000)))
        return connection

    def _ask(self, command: str) -> dict[str, object]:
        assert self._lines is not None
        self._lines.send({"do": command})
        answer = self._lines.receive()
        if answer is None:
            raise ConnectionResetError("the far end closed the connection")
        return answer

    # -- TCP -------------------------------------------------------------------------------------

    def _tcp(self, place: Place, direction: Direction) -> Stream:
        with ExitStack() as stack:
            kind = SINK if direction == "to" else SOURCE
            work = self._send if direction == "to" else self._receive
            connections = [self._connect(place, kind, stack) for _ in range(self._streams)]
            before = self._look()
            runs = [_Run(work, connection) for connection in connections]
            until = time.monotonic() + self._seconds
            for run in runs:
                run.done.wait(max(0.0, until - time.monotonic()))
            after = self._look()
            results = [run.result() for run in runs]
            sent, again = self._segments(direction, connections)
        return Stream(
            direction,
            size=sum(size for size, _ in results),
            seconds=max(seconds for _, seconds in results),
            segments=sent,
            again=again,
            here=load_between(before[0], after[0]),
            there=load_between(before[1], after[1]),
        )

    def _send(self, connection: socket.socket) -> tuple[int, float]:
        pour(connection, memoryview(bytes(CHUNK)), self._seconds, lambda: self._ended)
        _wait_until_sent(connection)
        answer = exactly(connection, ARRIVED.size)
        if len(answer) < ARRIVED.size:
            raise ConnectionResetError("the far end closed the connection")
        size, seconds = ARRIVED.unpack(answer)
        return size, seconds

    def _receive(self, connection: socket.socket) -> tuple[int, float]:
        result = drain(connection, memoryview(bytearray(CHUNK)))
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        return result

    def _segments(self, direction: Direction, connections: list[socket.socket]) -> tuple[int, int]:
        if direction == "to":
            both = [segments_of(connection) for connection in connections]
            return sum(sent for sent, _ in both), sum(again for _, again in both)
        answer = self._ask("segments")
        return _count(answer, "sent"), _count(answer, "again")

    def _look(self) -> tuple[Usage | None, Usage | None]:
        """How busy both ends are: here, there."""
        answer = self._ask("usage")["usage"]
        there = None
        if isinstance(answer, dict):
            with suppress(ValueError, KeyError, TypeError):
                there = Usage.from_json(answer)
        return look(self._offer.daemon), there

    # -- UDP -------------------------------------------------------------------------------------

    def _datagrams(self, place: Place) -> Datagrams:
        host, port, token = self._offer.at(place)
        self._ask("datagrams")  # forget those that came late
        handle = self._in_namespace(lambda: socket.socket(family_of(host), socket.SOCK_DGRAM))
        with handle:
            handle.connect((host, port))
            handle.setblocking(False)
            sent, rtts = _exchange(handle, token, self._seconds)
        arrived = _count(self._ask("datagrams"), place)
        return Datagrams(sent, arrived, rtts)


class _Run:
    """Work on one connection, in a thread of its own."""

    def __init__(
        self, work: Callable[[socket.socket], tuple[int, float]], connection: socket.socket
    ) -> None:
        self.done = threading.Event()
        self._result: tuple[int, float] | OSError = OSError("it did not end")
        self._connection = connection
        threading.Thread(target=self._work, args=(work,), daemon=True).start()

    def _work(self, work: Callable[[socket.socket], tuple[int, float]]) -> None:
        try:
            self._result = work(self._connection)
        except OSError as error:
            self._result = error
        finally:
            self.done.set()

    def result(self) -> tuple[int, float]:
        """Bytes and seconds.

        Raises:
            OSError: what ended it. Nothing else.
        """
        # It ends by itself: each of its waits does, after `STALL`.
        while not self.done.wait(STALL):
            pass
        if isinstance(self._result, OSError):
            raise self._result
        return self._result


def _wait_until_sent(connection: socket.socket) -> None:
    """Wait while the kernel gets rid of what it holds: seconds' worth, on a slow path.

    Raises:
        TimeoutError: nothing of it was acknowledged for `STALL`. Nothing else.
    """
    left = waiting_in(connection)
    while left and not select.select([connection], [], [], STALL)[0]:
        before, left = left, waiting_in(connection)
        if left >= before:
            raise TimeoutError("nothing gets through")


def _exchange(handle: socket.socket, token: bytes, seconds: float) -> tuple[int, list[float]]:
    """Send datagrams at `RATE`; how many, and the round trips of those that came back.

    Raises:
        TimeoutError: nothing came back for `STALL`. Nothing else.
    """
    total = max(1, round(seconds * RATE))
    sent_at: dict[int, float] = {}
    rtts: list[float] = []
    padding = bytes(DATAGRAM_SIZE - DATAGRAM.size)
    started = time.monotonic()
    sent, ends, heard = 0, started + seconds + LATE, started
    while (now := time.monotonic()) < ends and (sent < total or sent_at):
        due = started + sent / RATE
        if sent < total and now >= due:
            sent_at[sent] = time.monotonic()
            with suppress(OSError):  # full, or refused: a loss like any other
                handle.send(DATAGRAM.pack(token, sent) + padding)
            sent += 1
            continue
        wait = min(due if sent < total else ends, ends) - now
        if select.select([handle], [], [], max(0.0, wait))[0] and _collect(handle, sent_at, rtts):
            heard = now
        if now - heard > STALL:
            raise TimeoutError("no datagram comes back")
    return sent, rtts


def _collect(handle: socket.socket, sent_at: dict[int, float], rtts: list[float]) -> bool:
    """Take what has come back; whether anything has."""
    before = len(rtts)
    with suppress(OSError):  # nothing left to read, or a refusal that was reported
        while True:
            reply = handle.recv(DATAGRAM_SIZE)
            now = time.monotonic()
            if len(reply) < DATAGRAM.size:
                continue
            at = sent_at.pop(DATAGRAM.unpack_from(reply)[1], None)
            if at is not None:
                rtts.append(now - at)
    return len(rtts) > before


def _count(answer: dict[str, object], key: str) -> int:
    value = answer.get(key)
    return value if isinstance(value, int) else 0


def _fault(what: str, error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer on {what}: a firewall?"
    if not error.errno:
        return str(error)
    reason = os.strerror(error.errno)
    return f"{reason[:1].lower()}{reason[1:]} on {what}"
