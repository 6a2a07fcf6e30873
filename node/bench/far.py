"""The far end of one measurement: a process of its own, `python -m node.bench.far`.

    standard input   one JSON line, a `Task`; then nothing until its end, which ends this process
    standard output  one JSON line, {"port": N, "underlay_port": N}; 0: nothing listens there

Each place (the pod network, the underlay) has one port for TCP and UDP, bound to exactly the
address that was asked for. Who connects must have the asker's address in that network, and begin
with the token of that place; everybody else is closed or ignored without an answer.

One thread per socket: nearly all of their time is spent in the kernel, where threads do not wait
for each other.
"""

from __future__ import annotations

import hmac
import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import Final

from node.bench.figures import Json
from node.bench.speech import (
    ARRIVED,
    CHUNK,
    COMMAND,
    DATAGRAM,
    GREETING,
    SINK,
    SOURCE,
    Lines,
    drain,
    family_of,
    pour,
    segments_of,
)
from node.bench.speech import exactly as read_exactly
from node.bench.usage import look
from node.kernel import netns
from node.kernel.errors import KernelError

GREETING_PATIENCE: Final = 5.0
SETTLE_PATIENCE: Final = 2.0
STALL: Final = 10.0
"""Seconds without a byte after which a connection is given up."""

MOST_CONNECTIONS: Final = 128
BIND_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen, and for whom.

    Attributes:
        address: to bind; empty: not at all.
        netns: its namespace; empty: this process's own.
        asker: the only address that may connect.
        token: hex; what every connection and datagram begins with.
    """

    address: str
    netns: str
    asker: str
    token: str


@dataclass(frozen=True, slots=True)
class Task:
    """What the daemon wants done.

    Attributes:
        overlay, underlay: the two places.
        seconds: after which this process ends, whatever is going on.
        daemon: the process whose load is told.
        patience: seconds until the command connection must be there: else nobody will come.
    """

    overlay: Place
    underlay: Place
    seconds: float
    daemon: int
    patience: float = 10.0

    def encode(self) -> bytes:
        """The line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: str) -> Task:
        """Read the line. It comes from the daemon, so anything else is a defect and raises."""
        value = json.loads(line)
        overlay, underlay = (Place(**value.pop(key)) for key in ("overlay", "underlay"))
        return cls(overlay, underlay, **value)


class Door:
    """Listens at one place.

    Args:
        place: where and for whom.
        serve: gets every connection whose greeting is right: kind, seconds, connection.

    Raises:
        OSError: the address cannot be bound. Nothing else.
        KernelError: there is no such namespace. Nothing else.
    """

    def __init__(self, place: Place, serve: Callable[[bytes, float, socket.socket], None]) -> None:
        self._serve = serve
        self._asker = ip_address(place.asker)
        self._token = bytes.fromhex(place.token)
        self._seen: set[int] = set()
        self._open = threading.BoundedSemaphore(MOST_CONNECTIONS)
        if place.netns:
            self._tcp, self._udp = netns.run_in(place.netns, _bind, place.address)
        else:
            self._tcp, self._udp = _bind(place.address)
        self.port: int = self._tcp.getsockname()[1]

    def start(self) -> None:
        """Begin to listen."""
        for work in (self._accept, self._echo):
            threading.Thread(target=work, daemon=True).start()

    def take_seen(self) -> int:
        """How many different datagrams have come since this was asked last."""
        seen, self._seen = self._seen, set()
        return len(seen)

    def _is_asker(self, host: str) -> bool:
        return ip_address(host.partition("%")[0]) == self._asker

    def _accept(self) -> None:
        while True:
            connection, peer = self._tcp.accept()
            if self._is_asker(peer[0]) and self._open.acquire(blocking=False):
                threading.Thread(target=self._greet, args=(connection,), daemon=True).start()
            else:
                connection.close()

    def _greet(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):
                connection.settimeout(GREETING_PATIENCE)
                greeting = read_exactly(connection, GREETING.size)
                if len(greeting) < GREETING.size:
                    return
                token, kind, milliseconds = GREETING.unpack(greeting)
                if hmac.compare_digest(token, self._token):
                    self._serve(kind, milliseconds / 1000, connection)
        finally:
            self._open.release()

    def _echo(self) -> None:
        buffer = bytearray(2048)
        while True:
            size, peer = self._udp.recvfrom_into(buffer)
            if size < DATAGRAM.size or not self._is_asker(peer[0]):
                continue
            token, sequence = DATAGRAM.unpack_from(buffer)
            if hmac.compare_digest(token, self._token):
                self._seen.add(sequence)
                with suppress(OSError):  # no route back now: a loss like any other
                    self._udp.sendto(memoryview(buffer)[:size], peer)


def _bind(address: str) -> tuple[socket.socket, socket.socket]:
    """A listening TCP socket and a UDP socket of the same port."""
    for last in (False,) * (BIND_TRIES - 1) + (True,):
        tcp = socket.socket(family_of(address), socket.SOCK_STREAM)
        udp = socket.socket(family_of(address), socket.SOCK_DGRAM)
        try:
            tcp.bind((address, 0))
            tcp.listen()
            udp.bind((address, tcp.getsockname()[1]))
        except OSError:
            tcp.close()
            udp.close()
            if last:
                raise
            continue
        return tcp, udp
    raise AssertionError("the last try returns or raises")


class Far:
    """The far end.

    Args:
        task: what to do.

    Raises:
        OSError, KernelError: nothing can listen in the pod network. An underlay address that is
            not this machine's is no error: nothing listens there.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._ended = threading.Event()
        self._commanded = threading.Event()
        self._running = 0
        self._segments = [0, 0]
        self._lock = threading.Lock()
        self._overlay = Door(task.overlay, self._serve)
        self._underlay: Door | None = None
        if task.underlay.address:
            with suppress(OSError, KernelError):
                self._underlay = Door(task.underlay, self._serve_stream)

    def ports(self) -> Json:
        """Where it listens."""
        beside = self._underlay.port if self._underlay else 0
        return {"port": self._overlay.port, "underlay_port": beside}

    def run(self) -> None:
        """Serve until the near end, the daemon, or the time ends it."""
        self._overlay.start()
        if self._underlay is not None:
            self._underlay.start()
        threading.Thread(target=self._watch_daemon, daemon=True).start()
        threading.Thread(target=self._watch_start, daemon=True).start()
        self._ended.wait(self._task.seconds)

    def _watch_daemon(self) -> None:
        # Not sys.stdin: a thread inside its lock would make the interpreter's end wait for it.
        while os.read(0, 4096):
            pass
        self._ended.set()

    def _watch_start(self) -> None:
        if not self._commanded.wait(self._task.patience):
            self._ended.set()

    # -- connections -----------------------------------------------------------------------------

    def _serve(self, kind: bytes, seconds: float, connection: socket.socket) -> None:
        if kind == COMMAND:
            self._obey(connection)
        else:
            self._serve_stream(kind, seconds, connection)

    def _serve_stream(self, kind: bytes, seconds: float, connection: socket.socket) -> None:
        connection.settimeout(STALL)
        if kind == SINK:
            size, spent = drain(connection, memoryview(bytearray(CHUNK)))
            connection.sendall(ARRIVED.pack(size, spent))
        elif kind == SOURCE:
            self._source(seconds, connection)

    def _source(self, seconds: float, connection: socket.socket) -> None:
        with self._lock:
            self._running += 1
        try:
            with suppress(OSError):  # the near end has had enough
                pour(connection, memoryview(bytes(CHUNK)), seconds, self._ended.is_set)
                connection.recv(1)  # it closes when it has read everything
        finally:
            sent, again = segments_of(connection)
            with self._lock:
                self._running -= 1
                self._segments[0] += sent
                self._segments[1] += again

    def _obey(self, connection: socket.socket) -> None:
        if self._commanded.is_set():
            return  # there is one near end
        self._commanded.set()
        connection.settimeout(None)
        lines = Lines(connection)
        try:
            while (command := lines.receive()) is not None:
                lines.send(self._answer(command.get("do")))
        finally:
            self._ended.set()

    def _answer(self, command: object) -> Json:
        match command:
            case "usage":
                usage = look(self._task.daemon, without=os.getpid())
                return {"usage": usage.json() if usage else None}
            case "datagrams":
                beside = self._underlay.take_seen() if self._underlay else 0
                return {"overlay": self._overlay.take_seen(), "underlay": beside}
            case "segments":
                return self._take_segments()
        return {"error": "unknown command"}

    def _take_segments(self) -> Json:
        """What sources have sent, once the last of them is done."""
        deadline = time.monotonic() + SETTLE_PATIENCE
        while self._running and time.monotonic() < deadline:
            select.select([], [], [], 0.01)
        with self._lock:
            (sent, again), self._segments = self._segments, [0, 0]
        return {"sent": sent, "again": again}


def main() -> int:
    """Run one measurement's far end."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1 << 16)
        if not piece:
            return 1
        line += piece
    try:
        far = Far(Task.decode(line.decode()))
    except (OSError, KernelError) as error:
        _say({"error": str(error)})
        return 1
    _say(far.ports())
    far.run()
    return 0


def _say(ports: Json) -> None:
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
