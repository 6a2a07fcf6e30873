"""The process of one lane: `python -m node.lanes.worker PIPE SOCKET`, started by the daemon.

    PIPE     descriptor of its end of the pipe
    SOCKET   descriptor of the daemon's own UDP socket, to send from and never to read

The lane runs the daemon's own driver, on a queue of the same TUN, with a port of its own and
`overlay.lanes.worker` instead of an engine. It ends when the pipe does, for whatever reason.
Signals that end the daemon are not for it: they may reach the whole group or service at once, and
the daemon ends its lanes itself when it has said good-bye.

It holds keys of sessions and needs nothing but its descriptors: when they are open, it gives up all
its capabilities (`node.privileges`). A queue of an interface that exists can be opened without.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack
from typing import Final

from node import logs, privileges
from node.driver import Driver
from node.io.ports import DatagramPort
from node.io.tun import OFFLOADS as TUN_OFFLOADS
from node.io.tun import TunError, TunQueue
from node.io.udp import UdpSocket
from node.lanes.pipe import Pipe
from node.lanes.setup import ASK, LaneSetup
from node.logs import EventLog, LogFormat
from node.loop import LoopKind
from node.loop import run as run_loop
from node.writer import Stored
from overlay.config import Limits, Timing
from overlay.effects import Left, ProbeAnswered, Report, TalkEffect, TellDaemon, TellLane
from overlay.errors import OverlayError
from overlay.lanes.messages import MESSAGE_LIMIT, Failed, Ready, encode
from overlay.lanes.remote import ViaFirst
from overlay.lanes.worker import LaneWorker
from overlay.state import Change
from overlay.types import Endpoint, NodeId

STATS_INTERVAL: Final = 1.0
"""Between reports of all counters."""

ATTACH_AFTER: Final = 3.0
"""Seconds until the queue takes its share of flows though some peer cannot be reached yet."""

REOPEN_PATIENCE: Final = 3.0
REOPEN_INTERVAL: Final = 0.02
"""Somebody removed the interface: the daemon, which noticed as well, makes it anew meanwhile."""


class LaneUdp:
    """A lane's own socket, and the daemon's, which reaches lane 0 of peers.

    Args:
        own: read from, and sent from to other lanes of peers.
        first: the daemon's; only sent from.
    """

    def __init__(self, own: DatagramPort, first: DatagramPort) -> None:
        self.local = own.local
        self._own = own
        self._first = first
        self.fileno = own.fileno
        self.receive = own.receive

    @property
    def offloads(self) -> tuple[str, ...]:
        """Those of the lane's own socket."""
        return self._own.offloads

    def send(self, endpoint: Endpoint, datagrams: memoryview, step: int) -> bool:
        """Send from the socket that the kind of endpoint asks for."""
        port = self._first if isinstance(endpoint, ViaFirst) else self._own
        return port.send(endpoint, datagrams, step)

    def set_offload(self, name: str, *, on: bool, endpoint: Endpoint | None) -> None:
        """Of both sockets."""
        for port in (self._own, self._first):
            port.set_offload(name, on=on, endpoint=endpoint)

    def take_too_big(self) -> set[Endpoint]:
        """Of both sockets."""
        return self._own.take_too_big() | self._first.take_too_big()

    def close(self) -> None:
        """Close both."""
        self._own.close()
        self._first.close()


class PatientQueue(TunQueue):
    """A TUN queue whose interface may take a moment to come back.

    The process has nothing else worth doing then, so it just waits.
    """

    def reopen(self) -> None:
        """Open the interface that the daemon makes anew.

        Raises:
            TunError: it did not come back. Nothing else.
        """
        until = time.monotonic() + REOPEN_PATIENCE
        while True:
            try:
                super().reopen()
            except TunError:
                if time.monotonic() >= until:
                    raise
                time.sleep(REOPEN_INTERVAL)
            else:
                return


class LaneProcess:
    """Everything of one lane, joined. Implements what the driver asks of its listener.

    Args:
        setup: what the daemon wants.
        end: our end of the pipe.
        first: the daemon's UDP socket.
    """

    def __init__(self, setup: LaneSetup, end: socket.socket, first: socket.socket) -> None:
        self._setup = setup
        self._end = end
        self._first = first
        self._log = EventLog()
        self._ended = asyncio.Event()

    async def serve(self) -> None:
        """Run until the pipe ends, or the lane cannot go on."""
        async with AsyncExitStack() as stack:
            self._pipe = Pipe(self._end, on_messages=self._on_messages, on_end=self._on_end)
            stack.callback(self._pipe.close)
            try:
                self._open(stack)
            except OverlayError as error:
                self._fail(str(error))
                return
            self._loop.call_later(ATTACH_AFTER, self._attach)
            self._keep_reporting()
            await self._ended.wait()

    def _open(self, stack: AsyncExitStack) -> None:
        setup = self._setup
        self._loop = asyncio.get_running_loop()
        gso, gro = ("udp_gso" in setup.offloads, "udp_gro" in setup.offloads)
        own = UdpSocket(Endpoint(setup.host, setup.port), gso=gso, gro=gro)
        first = UdpSocket(Endpoint(setup.host, 0), gso=gso, shared=self._first)
        self._udp = LaneUdp(own, first)
        stack.callback(self._udp.close)
        of_tun = [name for name in TUN_OFFLOADS if name in setup.offloads]
        self._tun = PatientQueue(setup.tun, offload=of_tun)
        stack.callback(self._tun.close)
        self._worker = LaneWorker(
            local=NodeId(setup.local),
            lane=setup.lane,
            offloads=self._tun.offloads,
            limits=Limits(),
            timing=Timing(),
            entropy=os.urandom,
            deliver=self._tun.write,
            transmit=self._udp.send,
        )
        self._driver = Driver(
            engine=self._worker, tun=self._tun, udp=self._udp, listener=self, clock=time.monotonic
        )
        stack.callback(self._driver.close)
        privileges.drop_all()
        self._driver.start()
        self._pipe.send(encode(Ready()))

    # -- the pipe ----------------------------------------------------------------------------------

    def _on_messages(self, messages: list[bytes]) -> None:
        orders = [message for message in messages if message != ASK]
        try:
            effects = self._worker.on_orders(orders, time.monotonic())
        except OverlayError as error:
            self._fail(str(error))
            return
        self._driver.perform(effects)
        if len(orders) < len(messages):
            self._report()
        if self._worker.settled:
            self._attach()

    def _on_end(self, _: str) -> None:
        self._ended.set()

    def _fail(self, why: str) -> None:
        self._pipe.send(encode(Failed(why)))
        self._ended.set()

    def _attach(self) -> None:
        if self._tun.attached or self._ended.is_set():
            return
        try:
            self._tun.attach()
        except TunError:
            return  # it is gone: the driver finds out as well, and opens it again

    def _report(self) -> None:
        for report in self._worker.stats(time.process_time()):
            self._pipe.send(report)

    def _keep_reporting(self) -> None:
        if not self._ended.is_set():
            self._report()
            self._loop.call_later(STATS_INTERVAL, self._keep_reporting)

    # -- for the driver ----------------------------------------------------------------------------

    def tell(self, message: TellLane | TellDaemon) -> None:
        """A report of the worker."""
        self._pipe.send(message.message)

    def report(self, report: Report) -> None:
        """Log it; without its queue the lane is of no use."""
        self._log.report(report, now=time.monotonic())
        if report.event == "tun.lost":
            self._fail(str(report.fields["why"]))

    def network_changed(self) -> None:
        """The daemon sees to the kernel."""

    def interface_made(self) -> None:
        """The daemon sees to that, too."""

    def heard(self, effect: TalkEffect) -> None:
        """Members measure the way to the daemon."""

    def store(self, changes: tuple[Change, ...], then: Stored) -> None:
        """A lane stores nothing."""

    def probe_answered(self, answer: ProbeAnswered) -> None:
        """A lane probes no members."""

    def left(self, left: Left) -> None:
        """A lane is not a node."""


def main(argv: list[str]) -> int:
    """Be the lane whose pipe and socket were passed on."""
    privileges.keep_secrets()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pipe, first = (_adopt(int(number)) for number in argv)
    data = pipe.recv(MESSAGE_LIMIT)
    if not data:
        return 0  # the daemon has ended already
    setup = LaneSetup.decode(data)
    logs.setup(setup.log_level, LogFormat(setup.log_format))
    run_loop(lambda: LaneProcess(setup, pipe, first).serve(), LoopKind(setup.loop))
    return 0


def _adopt(descriptor: int) -> socket.socket:
    adopted = socket.socket(fileno=descriptor)
    adopted.set_inheritable(False)
    return adopted


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
