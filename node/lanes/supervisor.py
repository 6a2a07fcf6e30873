"""Starts the processes of a node's other lanes, feeds them, and replaces those that end.

    starting --Ready--> up --the pipe ends, or it is silent--> (ended for sure) --> waiting
        ^                                                                              |
        +------------- at once, or after 1, 2, 4, ... 30 s when it ended early --------+

A process is replaced only when it has ended for sure: its TUN queue and port must be free, and two
processes must never have keys for one lane at the same time.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from typing import Final

from node import children
from node.config import NodeConfig
from node.control.present import LaneFacts
from node.errors import NodeError
from node.lanes.pipe import ENDED, Pipe, make_pair
from node.lanes.setup import ASK, LaneSetup
from node.logs import EventLog
from node.tasks import spawn, stop
from overlay.effects import TellDaemon, TellLane
from overlay.errors import OverlayError
from overlay.lanes.messages import Failed, Ready, Stats, decode_report
from overlay.types import NodeId
from overlay.views import Problem

STEADY: Final = 10.0
"""Seconds after which a process counts as having worked: it is replaced at once."""

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 30.0
"""Seconds before a process that ended early is started again; doubled each time in between."""

LOOK_INTERVAL: Final = 1.0
SILENT_LOOKS: Final = 10
"""A process that reports nothing between so many looks hangs. Looks, not seconds: a daemon that was
paused itself must not blame its lanes."""

FRESH_WITHIN: Final = 0.3
"""Seconds to wait for the latest counters of all lanes."""

PROBLEM_AFTER: Final = 2
"""Early ends in a row before it is a problem worth telling."""

DYING: Final = 0.5
"""Seconds a process has to end whose pipe has."""

END_PATIENCE: Final = 2.0
"""Seconds a process has to end by itself when the daemon stops."""

TOLD_WITHIN: Final = 1.0
"""Seconds for all peers to answer that they send to lane 0 alone."""

TOLD_LOOK: Final = 0.01

LAST_PORT: Final = 0xFFFF

OnLane = Callable[[int, bytes | None], None]
"""`on_lane(lane, report)`: a report for the engine; None: the process has ended."""


def check_ports(port: int, lanes: int) -> range:
    """The UDP ports of that many lanes, from `port` on.

    >>> check_ports(6875, 4)
    range(6875, 6879)

    Raises:
        NodeError: there are not so many. Nothing else.
    """
    if port + lanes - 1 > LAST_PORT:
        why = f"{lanes} lanes need as many UDP ports, and only {LAST_PORT - port + 1} are left"
        raise NodeError(why, f"listen on a port up to {LAST_PORT - lanes + 1}")
    return range(port, port + lanes)


class _Lane:
    """One lane and the process that is it at present."""

    def __init__(self, lane: int, port: int) -> None:
        self.lane = lane
        self.port = port
        self.state = "starting"
        self.restarts = 0
        self.early_ends = 0
        self.why = ""
        self.past_cpu = 0.0
        self.cpu = 0.0
        self.silent = 0
        self.started = 0.0
        self.process: subprocess.Popen[bytes] | None = None
        self.pipe: Pipe | None = None
        self.ended = asyncio.Event()
        self.fresh = asyncio.Event()

    def facts(self) -> LaneFacts:
        return LaneFacts(
            lane=self.lane,
            pid=self.process.pid if self.process is not None else None,
            port=self.port,
            state=self.state,
            restarts=self.restarts,
            cpu_seconds=self.past_cpu + self.cpu,
        )


class Supervisor:
    """All processes of one node's lanes but the daemon.

    Args:
        config: `lanes`, and how their edges are made.
        local: the node.
        port: UDP port of the daemon.
        udp: descriptor of the daemon's socket.
        offloads: of the daemon's ports, which passed its test.
        on_lane: told what they say.
        on_crash: told when supervising itself failed.
    """

    def __init__(
        self,
        config: NodeConfig,
        local: NodeId,
        *,
        port: int,
        udp: int,
        offloads: tuple[str, ...],
        on_lane: OnLane,
        on_crash: Callable[[str, Exception], None],
    ) -> None:
        self._config = config
        self._local = local
        self._port = port
        self._udp = udp
        self._offloads = offloads
        self._on_lane = on_lane
        self._log = EventLog()
        self._on_crash = on_crash
        self._lanes = {lane: _Lane(lane, port + lane) for lane in range(1, config.lanes)}
        self._tasks: list[asyncio.Task[None]] = []
        self.begin()

    # -- for the daemon ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Have all processes running; also again after `retire`."""
        named = [(f"lane-{lane.lane}", self._keep(lane)) for lane in self._lanes.values()]
        if self._lanes:
            named.append(("lanes", self._watch()))
        self._tasks = [spawn(task, name=name, on_crash=self._on_crash) for name, task in named]

    async def retire(self, told: Callable[[], bool]) -> None:
        """End all processes, as `close`, but not before peers know; `begin` starts them again.

        Args:
            told: whether all peers know that nothing is received there any more.
        """
        deadline = time.monotonic() + TOLD_WITHIN
        while self._lanes and not told() and time.monotonic() < deadline:  # noqa: ASYNC110 - no event
            await asyncio.sleep(TOLD_LOOK)
        up = [lane for lane in self._lanes.values() if lane.state == "up"]
        if up:
            await self.refresh()  # what is on its way to them arrives meanwhile, and is counted
        await self.close()
        for lane in up:
            lane.state = "waiting"
            self._on_lane(lane.lane, None)

    def tell(self, message: TellLane | TellDaemon) -> None:
        """Pass an order on to its lane."""
        if isinstance(message, TellLane) and message.lane in self._lanes:
            pipe = self._lanes[message.lane].pipe
            if pipe is not None:
                pipe.send(message.message)

    def facts(self) -> tuple[LaneFacts, ...]:
        """All lanes, the daemon first."""
        own = LaneFacts(0, os.getpid(), self._port, "up", 0, time.process_time())
        return (own, *(lane.facts() for lane in self._lanes.values()))

    def problems(self) -> tuple[Problem, ...]:
        """Lanes that keep ending."""
        return tuple(
            Problem(
                "lane-ends",
                f"lane {lane.lane} does not keep running, its process ended "
                f"{lane.early_ends} times in a row",
                lane.why,
                f"see the daemon's log and that UDP port {lane.port} is free; "
                "the other lanes carry its packets",
            )
            for lane in self._lanes.values()
            if lane.early_ends >= PROBLEM_AFTER
        )

    async def refresh(self) -> None:
        """Hear the latest counters of all lanes; does not wait long for one that is silent."""
        asked = [lane for lane in self._lanes.values() if lane.state == "up" and lane.pipe]
        for lane in asked:
            lane.fresh.clear()
            if lane.pipe is not None:
                lane.pipe.send(ASK)
        if not asked:
            return
        try:
            async with asyncio.timeout(FRESH_WITHIN):
                for lane in asked:
                    await lane.fresh.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        """End all processes and wait until they have."""
        await stop(*self._tasks)
        for lane in self._lanes.values():
            if lane.pipe is not None:
                lane.pipe.close()
            lane.pipe = None
        for lane in self._lanes.values():
            if lane.process is not None:
                await asyncio.to_thread(_end, lane.process, END_PATIENCE)
                lane.process = None

    # -- one lane ----------------------------------------------------------------------------------

    async def _keep(self, lane: _Lane) -> None:
        while True:
            self._start(lane)
            await lane.ended.wait()
            await self._clear_away(lane)
            steady = time.monotonic() - lane.started >= STEADY
            lane.early_ends = 0 if steady else lane.early_ends + 1
            wait = 0.0 if steady else min(FIRST_WAIT * 2 ** (lane.early_ends - 1), LONGEST_WAIT)
            lane.restarts += 1
            self._log.warning("lane.ended", lane=lane.lane, why=lane.why, count=lane.restarts)
            await asyncio.sleep(wait)

    def _start(self, lane: _Lane) -> None:
        lane.state, lane.silent, lane.why = "starting", 0, ""
        lane.started = time.monotonic()
        lane.ended.clear()
        ours, theirs = make_pair()
        try:
            lane.process = self._spawn(theirs.fileno())
        except OSError as error:
            lane.why = str(error.strerror).lower()
            ours.close()
            lane.ended.set()
            return
        finally:
            theirs.close()
        lane.pipe = Pipe(
            ours,
            on_messages=lambda messages: self._on_messages(lane, messages),
            on_end=lambda why: self._on_end(lane, why),
        )
        lane.pipe.send(self._setup(lane).encode())

    def _spawn(self, pipe: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 (our own code, and numbers)
            children.command("node.lanes.worker", pipe, self._udp),
            # A thread of a library would keep the capabilities that the lane's own gives up.
            env=children.environment() | {"OPENBLAS_NUM_THREADS": "1"},
            pass_fds=(pipe, self._udp),
            stdin=subprocess.DEVNULL,
        )

    def _setup(self, lane: _Lane) -> LaneSetup:
        config = self._config
        return LaneSetup(
            lane=lane.lane,
            local=self._local,
            host=config.listen.host,
            port=lane.port,
            tun=config.tun,
            offloads=list(self._offloads),
            loop=str(config.loop),
            log_level=config.log_level,
            log_format=str(config.log_format),
        )

    def _on_messages(self, lane: _Lane, messages: list[bytes]) -> None:
        lane.silent = 0
        for message in messages:
            try:
                report = decode_report(message)
                match report:
                    case Ready():
                        lane.state = "up"
                        self._log.info("lane.up", lane=lane.lane)
                    case Stats(cpu=cpu):
                        lane.cpu = cpu
                        lane.fresh.set()
                    case Failed(why):
                        lane.why = why
                        continue
                self._on_lane(lane.lane, message)
            except OverlayError as error:
                self._give_up(lane, f"what it says cannot be read ({error})")
                return

    def _on_end(self, lane: _Lane, why: str) -> None:
        if why != ENDED:  # then the process says more about it
            lane.why = lane.why or why
        lane.ended.set()

    def _give_up(self, lane: _Lane, why: str) -> None:
        lane.why = why
        lane.ended.set()

    async def _clear_away(self, lane: _Lane) -> None:
        """Its process ends now, if it has not; what it held is accounted for."""
        if lane.pipe is not None:
            lane.pipe.close()
            lane.pipe = None
        if lane.process is not None:
            code = await asyncio.to_thread(_end, lane.process, DYING if not lane.why else 0.0)
            lane.why = lane.why or _cause(code)
            lane.process = None
        lane.state = "waiting"
        lane.past_cpu, lane.cpu = lane.past_cpu + lane.cpu, 0.0
        lane.fresh.set()
        self._on_lane(lane.lane, None)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            for lane in self._lanes.values():
                lane.silent += 1
                if lane.state == "up" and time.monotonic() - lane.started >= STEADY:
                    lane.early_ends = 0
                if lane.pipe is not None and lane.silent > SILENT_LOOKS:
                    self._give_up(lane, f"it said nothing for {SILENT_LOOKS} s")


def _end(process: subprocess.Popen[bytes], patience: float) -> int:
    """Wait for the end of a process, kill it after `patience` seconds; its return code."""
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _cause(code: int) -> str:
    if code < 0:
        return f"its process was ended by signal {-code}"
    return f"its process ended with exit code {code}"
