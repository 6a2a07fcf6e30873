"""How a daemon goes: with a farewell, leaving everything with the service manager, or to the next.

    stop          peers are told; sessions end
    stop, stored  nobody is told: the manager keeps edges and capsule for its next start
    taken over    nobody is told: the next process has everything, at once
    not taken     the engine was handed over in vain, so another one is made of what it knew

Before anything is handed over, what is in flight is finished: requests, a turn of pod changes,
measurements, the other lanes, writes to the disk. Meanwhile who asks waits for the next daemon, and
lane 0 carries the packets of all lanes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Protocol

from node.control.door import Door
from node.control.handlers import Handlers
from node.control.server import ControlServer
from node.docker.plugin import serving
from node.docker.server import check_place
from node.driver import Driver
from node.edges import Edges
from node.errors import NodeError, clauses
from node.handover.capsule import CONTROL, DOCKER, LOCK, Capsule
from node.handover.giver import Giver, PassOn
from node.handover.speech import NAME, Hello
from node.handover.store import leave_capsule
from node.logs import EventLog
from node.state import StateFolder
from node.systemd import Notifier
from overlay.engine import Engine
from overlay.errors import OverlayError

QUIET_PATIENCE: Final = 2.0
"""Seconds for requests that are being answered. Those that wait for something else take longer;
whoever made them finds the connection closed, and asks the next daemon."""

CALM_TRIES: Final = 20
"""Writes to wait for while packets flow; after that they wait, too."""


class Leaving(Protocol):
    """The daemon, as far as it is concerned."""

    folder: StateFolder
    engine: Engine
    driver: Driver
    edges: Edges
    handlers: Handlers
    notifier: Notifier
    lock: int

    def now(self) -> float:
        """Monotonic seconds, the engine's clock."""
        ...

    async def end_lanes(self) -> None:
        """Lane 0 carries everything from now on."""
        ...

    async def start_again(self, capsule: Capsule | None) -> None:
        """Go on after a pause, with an engine that knows what the last one knew; None: with it."""
        ...


class Departure:
    """What becomes of a running daemon in the end.

    Args:
        daemon: which one.
        who: the same, as the next one is told.
        group: whose members may look (`control_group`).
    """

    def __init__(self, daemon: Leaving, who: Hello, group: str) -> None:
        self._daemon = daemon
        self._who = who
        self._group = group
        self._doors: dict[str, Door] = {}
        self._log = EventLog()

    @staticmethod
    def check(docker: str) -> None:
        """Try what `serve_docker` needs, while a daemon that runs can still go on.

        Args:
            docker: where Docker's requests are to be taken; empty: nowhere.

        Raises:
            NodeError: they could not be. Nothing else.
        """
        if docker:
            check_place(Path(docker))

    async def listen(self, stack: AsyncExitStack, passed: dict[str, int]) -> None:
        """Take requests, and let the next daemon come.

        Args:
            stack: what is opened is closed by it.
            passed: descriptors that were passed on and not used yet.

        Raises:
            NodeError: a socket cannot be made. Nothing else.
        """
        folder, dispatch = self._daemon.folder, self._daemon.handlers.dispatch
        listener = passed.pop(CONTROL, None)
        server = ControlServer(folder.socket, dispatch, group=self._group, listener=listener)
        await server.start()
        self._doors[CONTROL] = server.door
        stack.push_async_callback(server.close)
        giver = Giver(folder.path / NAME, self._who, self.hand_over, self._on_failure)
        stack.push_async_callback(giver.close)

    async def serve_docker(self, stack: AsyncExitStack, path: str, passed: dict[str, int]) -> None:
        """Take Docker's requests as well.

        Args:
            stack: what is opened is closed by it.
            path: where; empty: nowhere.
            passed: descriptors that were passed on and not used yet.

        Raises:
            NodeError: the socket cannot be made. Nothing else.
        """
        listener = socket.socket(fileno=passed.pop(DOCKER)) if DOCKER in passed else None
        serves = serving(path, self._daemon.handlers.dispatch, listener)
        plugin = await stack.enter_async_context(serves)
        if plugin is not None:
            self._doors[DOCKER] = plugin.door

    def _on_failure(self, pid: int, error: NodeError) -> None:
        self._log.warning("handover.failed", pid=pid, code=error.code, why=error.why)

    async def hand_over(self, pid: int, pass_on: PassOn) -> NodeError | None:
        """Pass everything on to that process and end this one; see `node.handover.giver.HandOver`.

        Raises:
            NodeError: this is no moment to hand over. The daemon goes on. Nothing else.
        """
        doors = self._doors.values()
        try:
            await asyncio.gather(*(door.shut(QUIET_PATIENCE) for door in doors))
            return await self._pass(pid, pass_on)
        finally:
            for door in doors:
                door.open()

    async def _pass(self, pid: int, pass_on: PassOn) -> NodeError | None:
        daemon = self._daemon
        async with daemon.handlers.turns.alone():
            await daemon.handlers.benches.close()
            await daemon.end_lanes()
            try:
                capsule = await self._spend()
            except NodeError:
                await daemon.start_again(None)
                raise
            descriptors = {name: door.fileno() for name, door in self._doors.items()}
            descriptors |= daemon.edges.descriptors | {LOCK: daemon.lock}
            failed = pass_on(capsule, descriptors)
            if failed is None:
                self._vanish(pid)
            await daemon.start_again(capsule)
        return failed

    async def _spend(self) -> Capsule:
        """What the engine knows. From here to the next await nothing happens in this process."""
        daemon = self._daemon
        for _ in range(CALM_TRIES):
            if daemon.driver.pause():
                break
            daemon.driver.go_on()
            await daemon.driver.stored([])
        else:
            daemon.driver.pause()
            while not daemon.driver.is_idle:
                await daemon.driver.stored([])
        try:
            return Capsule(daemon.engine.hand_over(daemon.now()))
        except OverlayError as error:
            code, why, fix = clauses(error)
            raise NodeError(why, fix, code) from error

    def _vanish(self, pid: int) -> None:
        """The other process has everything: whatever is undone now would be undone to it."""
        if self._daemon.notifier.address:
            self._daemon.notifier.main_pid(pid)
        self._log.info("node.handed-over", pid=pid)
        logging.shutdown()
        os._exit(0)

    async def say_goodbye(self, *, for_good: bool) -> None:
        """Stop. With a farewell, unless the service manager keeps everything for the next start.

        Args:
            for_good: whether there is nothing to keep: the node has left, or has a defect.
        """
        daemon = self._daemon
        if for_good or not daemon.notifier.stores or not await self._store():
            await daemon.driver.stop()

    async def _store(self) -> bool:
        daemon = self._daemon
        await daemon.end_lanes()
        try:
            capsule = await self._spend()
        except NodeError as error:
            self._log.warning("handover.failed", why=error.why)
            return False
        try:
            leave_capsule(capsule.engine, daemon.folder, daemon.notifier)
        except NodeError as error:  # the next start begins with what is on the disk
            self._log.warning("handover.failed", why=error.why)
        daemon.edges.leave()
        return True
