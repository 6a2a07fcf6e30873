"""Executes what the engine decides. Owns the only timer and reads both edges, in bounded passes.

The disk is written elsewhere: meanwhile packets flow, and what need not wait for it goes on.

    TUN readable --> read packets into the engine's buffer --> flush: sealed bursts leave by UDP
    UDP readable --> one recvmsg, many segments --> opened packets leave by the TUN
    timer        --> on_deadline

A pass is bounded, so that neither direction can starve the other or the timer: what is left makes
the descriptor readable again at once, or is bulk that waits for its turn in the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from node.io.ports import DatagramPort, TunPort
from node.writer import Stored
from overlay.effects import (
    Effect,
    Left,
    NetworkChanged,
    ProbeAnswered,
    Renewed,
    Report,
    SendDatagram,
    SetOffload,
    TalkEffect,
    TellDaemon,
    TellLane,
)
from overlay.engine import Engine
from overlay.errors import OverlayError
from overlay.forwarding.outbound import LARGE
from overlay.lanes.worker import LaneWorker
from overlay.state import Change
from overlay.wire.burst import BLOCK_HEADER_SIZE
from overlay.writes import Done, Write, Writes

TUN_READS: Final = 128
"""Packets read from the TUN in one pass: two full bursts of 1,500-byte packets."""

DEFECT_PAUSE: Final = 1.0
"""Until deadlines are looked at again after one that raised: a defect must not stop the others,
nor keep the processor busy."""

PAUSE_PASSES: Final = 1000
"""Turns for bulk that was read before a pause: it is some megabytes at most."""

UDP_READS: Final = 8
"""Reads of the socket in one pass; with UDP_GRO each is up to 64 KB."""


class Listener(Protocol):
    """Who acts on the effects that are not packets."""

    def store(self, changes: tuple[Change, ...], then: Stored) -> None:
        """Store the changes durably, all or none, then call `then`, with None or with why not.

        At once until `Driver.start` has returned, later whenever it is done. One at a time.
        """
        ...

    def network_changed(self) -> None:
        """The kernel may need to follow."""
        ...

    def interface_made(self) -> None:
        """The TUN interface is a new one, with nothing on it."""
        ...

    def report(self, report: Report) -> None:
        """Log it."""
        ...

    def probe_answered(self, answer: ProbeAnswered) -> None:
        """Tell who asked."""
        ...

    def left(self, left: Left) -> None:
        """The node has left the cluster."""
        ...

    def heard(self, effect: TalkEffect) -> None:
        """A member said something about a measurement."""
        ...

    def tell(self, message: TellLane | TellDaemon) -> None:
        """Hand it to the process it is for."""
        ...


class Driver:
    """Runs one engine on one event loop.

    Args:
        engine: what decides; made with `deliver` and `transmit` of this driver's ports. In the
            process of a lane that is not the daemon's: its worker.
        tun, udp: the two edges.
        listener: acts on effects that are not packets.
        clock: monotonic seconds. Not the loop's: uvloop's counts whole milliseconds.
    """

    def __init__(
        self,
        *,
        engine: Engine | LaneWorker,
        tun: TunPort,
        udp: DatagramPort,
        listener: Listener,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._tun = tun
        self._udp = udp
        self._listener = listener
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._again: asyncio.Handle | None = None
        self._writes = Writes()
        self._closed = False

    def start(self, *, must: bool = True) -> bool:
        """Start the engine, then listen to both edges.

        Args:
            must: whether what it wants stored has to be. It is not for one that goes on where
                another one stopped: its boot counter is stored already.

        Returns:
            False if the new boot counter could not be stored: the node must not run, because the
            next start would use the same counter again. Nothing was announced.
        """
        if not self.stored(self._engine.start(self._clock())).result() and must:
            return False
        self._loop.add_reader(self._udp.fileno(), self._on_udp)
        self._loop.add_reader(self._tun.fileno(), self._on_tun)
        return True

    def pause(self) -> bool:
        """Read nothing any more, and let what was read leave; whether nothing is in flight then.

        What arrives waits in the kernel. `go_on` ends it, `carry_on` with another engine.
        """
        self.close()
        for _ in range(PAUSE_PASSES):
            if not self._engine.outbound.waiting:
                break
            self._flush(self._clock())
        self.close()
        return self._writes.is_idle

    def go_on(self) -> None:
        """Read again, after `pause`."""
        self._closed = False
        self._loop.add_reader(self._udp.fileno(), self._on_udp)
        self._loop.add_reader(self._tun.fileno(), self._on_tun)
        self._arm()
        self._flush(self._clock())

    async def carry_on(self, engine: Engine) -> bool:
        """Start another engine after `pause`, and read again; False as for `start`."""
        self._engine = engine
        if not await self.stored(engine.start(self._clock())) and not engine.inherited:
            return False
        self.go_on()
        return True

    def stop(self) -> asyncio.Future[bool]:
        """Say good-bye to the peers and stop listening; to be awaited, for the disk."""
        said = self.stored(self._engine.stop(self._clock()))
        self.close()
        return said

    @property
    def is_idle(self) -> bool:
        """Whether everything is executed, and all that was to be stored is."""
        return self._writes.is_idle

    def close(self) -> None:
        """Stop listening, without a word to anyone. Safe to call twice."""
        if not self._closed:
            self._loop.remove_reader(self._tun.fileno())
            self._loop.remove_reader(self._udp.fileno())
        self._closed = True
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- the two edges -----------------------------------------------------------------------------

    def _on_tun(self) -> None:
        now = self._clock()
        try:
            self._read_tun(now)
        except OverlayError as error:
            self._reopen_tun(str(error))
        self._flush(now)

    def _flush(self, now: float) -> None:
        effects = self._engine.flush(now)
        if self._engine.outbound.waiting and self._again is None:
            self._again = self._loop.call_soon(self._go_on)
        self._udp_refusals(now)
        if effects:
            self.perform(effects)

    def _go_on(self) -> None:
        """Bulk was left by the last pass; in the meantime both edges have had their turns."""
        self._again = None
        self._flush(self._clock())

    def _read_tun(self, now: float) -> None:
        outbound, tun = self._engine.outbound, self._tun
        reads = TUN_READS
        while reads > 0:
            room = outbound.room()
            sizes = tun.read_run(room, gap=BLOCK_HEADER_SIZE, most=reads, large=LARGE)
            if not sizes:
                break
            outbound.accept_run(sizes, now)
            if sizes[-1] <= LARGE:
                break  # there is no more now, or enough for one pass
            reads -= len(sizes)

    def revive_tun(self) -> None:
        """Make the interface anew if it is gone; it may have been refused before, or be elsewhere.

        Safe to call at any time.
        """
        if not self._closed and not self._tun.is_there():
            self._reopen_tun(f"interface {self._tun.name} is gone")

    def _reopen_tun(self, why: str) -> None:
        """Somebody removed the interface: make it anew, or wait for `revive_tun`."""
        self._loop.remove_reader(self._tun.fileno())
        try:
            self._tun.reopen()
        except OverlayError as error:
            self._listener.report(Report("tun.lost", {"why": f"{why}, {error}"}))
            return
        self._loop.add_reader(self._tun.fileno(), self._on_tun)
        self._listener.report(Report("tun.made-anew", {"interface": self._tun.name, "why": why}))
        self._listener.interface_made()

    def _on_udp(self) -> None:
        now = self._clock()
        for _ in range(UDP_READS):
            received = self._udp.receive()
            if received is None:
                break
            # Each read by itself: a `Persist` that fails must not discard what others brought.
            effects = self._engine.on_datagrams(*received, now)
            if effects:
                self.perform(effects)

    def _udp_refusals(self, now: float) -> None:
        for endpoint in self._udp.take_too_big():
            self.perform(self._engine.on_too_big(endpoint, now))

    # -- effects -----------------------------------------------------------------------------------

    def perform(self, effects: list[Effect]) -> None:
        """Execute effects, as soon as what they stand behind is stored."""
        self._put(effects, None)

    def stored(self, effects: list[Effect]) -> asyncio.Future[bool]:
        """Execute effects; when that is over, whether they were, so whether all is stored.

        Else a `Persist` failed: what was to follow it was discarded, the engine told.
        """
        over: asyncio.Future[bool] = self._loop.create_future()
        self._put(effects, lambda whole: None if over.done() else over.set_result(whole))
        return over

    def _put(self, effects: list[Effect], done: Done | None) -> None:
        for effect in self._writes.put(effects, done):
            self._execute(effect)
        self._run_effects()

    def _run_effects(self) -> None:
        if self._writes.running:
            return  # whoever runs them comes to what was put
        self._writes.run(self._begin, self._execute)
        # A probe of the path MTU is meant to be refused where it does not fit: no news for anyone.
        self._udp.take_too_big()
        self._arm()

    def _begin(self, write: Write) -> None:
        self._listener.store(write.changes, self._on_stored)

    def _on_stored(self, error: OverlayError | None) -> None:
        if error is None:
            self._writes.on_written()
        else:
            lost = self._writes.on_failed()
            more = self._engine.on_persist_failed(lost, str(error), self._clock())
            for effect in more:
                self._execute(effect)
        self._run_effects()

    def _execute(self, effect: Effect) -> bool:
        """Whether to go on with the list that it is from: always."""
        match effect:
            case SendDatagram():
                self._udp.send(effect.endpoint, memoryview(effect.datagram), effect.segment_size)
            case NetworkChanged():
                self._listener.network_changed()
            case Report():
                self._listener.report(effect)
            case ProbeAnswered():
                self._listener.probe_answered(effect)
            case Left():
                self._listener.left(effect)
            case Renewed() if isinstance(self._engine, Engine):
                self.perform(self._engine.on_renewed(effect.certificate, self._clock()))
            case SetOffload():
                self._udp.set_offload(effect.name, on=effect.on, endpoint=effect.endpoint)
            case _ if isinstance(effect, TalkEffect):
                self._listener.heard(effect)
            case TellLane() | TellDaemon():
                self._listener.tell(effect)
            case _:
                raise TypeError(f"the engine let {type(effect).__name__} out")
        return True

    # -- time --------------------------------------------------------------------------------------

    def _arm(self) -> None:
        # Data traffic alone creates no deadline that could not wait for the next gossip round, so
        # passes without effects leave the timer as it is.
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._engine.next_deadline()
        if deadline is not None and not self._closed:
            wait = max(0.0, deadline - self._clock())
            self._timer = self._loop.call_later(wait, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        try:
            self.perform(self._engine.on_deadline(self._clock()))
        finally:
            # None is left by a defect; the loop logs it, and the node goes on.
            if self._timer is None and not self._closed:
                self._timer = self._loop.call_later(DEFECT_PAUSE, self._on_timer)
