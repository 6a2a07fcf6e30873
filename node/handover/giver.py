"""The old daemon's part: listens for the next one, and gives it everything at the right moment.

    listening --hello--> checked --give--> finishing --idle--> given --taken--> gone
        ^                   |                  |                 |
        '-------------------+------------------+-----------------'   anything else: as before

Up to `given` the daemon works on as always. From there to `taken` it stands still, for the time
that the new one takes to build its engine, or at most `ANSWER_PATIENCE`; nothing else runs in this
process meanwhile, and what arrives waits in descriptors that both have.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from node.control.address import short_path
from node.errors import NodeError
from node.handover.capsule import CAPSULE, Capsule
from node.handover.speech import Ended, Hello, Line, as_message, hello_of
from node.tasks import spawn, stop

HELLO_PATIENCE: Final = 1.0
"""Seconds for what a new connection has to say first; nobody waits for a person there."""

PREPARE_PATIENCE: Final = 60.0
"""Seconds that the next daemon may take until it is ready to be given everything."""

ANSWER_PATIENCE: Final = 5.0
"""Seconds that the node stands still at most until the next daemon has built its engine."""

MOST_AT_ONCE: Final = 4
"""Connections; one of them at most is welcome."""

SOCKET_OF_OWNER: Final = 0o600

PassOn = Callable[[Capsule, Mapping[str, int]], NodeError | None]
"""`pass_on(capsule, descriptors)` blocks. None: they are the next daemon's, and this process is to
end at once, without a word to anyone. Else why they are not; they never will be then."""

HandOver = Callable[[int, PassOn], Awaitable[NodeError | None]]
"""`hand_over(pid, pass_on)` finishes what is in flight, passes everything on to that process, and
ends this one; or goes on as before and returns why."""


class Giver:
    """Listens in the state folder for the daemon that is to come next.

    Args:
        path: where the socket goes; what an earlier daemon left there is replaced.
        who: this daemon.
        hand_over: see `HandOver`.
        on_failure: told why a daemon that came did not take over, with its process id.

    Raises:
        NodeError: the socket cannot be made. Nothing else.
    """

    def __init__(
        self,
        path: Path,
        who: Hello,
        hand_over: HandOver,
        on_failure: Callable[[int, NodeError], None],
    ) -> None:
        self._path = path
        self._who = who
        self._hand_over = hand_over
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._welcomed = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            path.unlink(missing_ok=True)
            # Before it is bound: the file has this mode from its first moment on.
            os.fchmod(self._listener.fileno(), SOCKET_OF_OWNER)
            with short_path(str(path)) as short:
                self._listener.bind(short)
            self._listener.listen(4)
        except OSError as error:
            self._listener.close()
            raise NodeError.of(f"listening on {path}", error) from error
        self._loop.add_reader(self._listener.fileno(), self._accept)

    async def close(self) -> None:
        """Stop listening, remove the socket. Safe to call twice."""
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        await stop(*self._tasks)
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            end, _ = self._listener.accept()
        except OSError:
            return
        line = Line(end)
        if line.uid != os.geteuid() or len(self._tasks) >= MOST_AT_ONCE:
            line.close()
            return
        task = spawn(self._serve(line), name="handover")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, line: Line) -> None:
        with line:
            try:
                await self._converse(line)
            except NodeError as error:
                line.refuse(error)
                self._on_failure(line.pid, error)

    async def _converse(self, line: Line) -> None:
        await self._readable(line, HELLO_PATIENCE)
        message, _ = line.expect("hello", 0)
        why_not = self._who.why_not(hello_of(message))
        if why_not is not None:
            raise why_not
        if self._welcomed:
            raise NodeError("another daemon is about to take over", "wait for it", "busy")
        self._welcomed = True
        try:
            await self._give(line)
        finally:
            self._welcomed = False

    async def _give(self, line: Line) -> None:
        line.send("welcome", who=as_message(self._who))
        await self._readable(line, PREPARE_PATIENCE)
        line.expect("give", 0)
        failed = await self._hand_over(line.pid, partial(_pass_on, line))
        if failed is not None:
            raise failed

    async def _readable(self, line: Line, within: float) -> None:
        ready = asyncio.Event()
        self._loop.add_reader(line.fileno(), ready.set)
        try:
            async with asyncio.timeout(within):
                await ready.wait()
        except TimeoutError as error:
            raise Ended("the next daemon said nothing in time") from error
        finally:
            self._loop.remove_reader(line.fileno())


def _pass_on(line: Line, capsule: Capsule, descriptors: Mapping[str, int]) -> NodeError | None:
    """See `PassOn`. Nothing is left to decide once `taken` was read."""
    try:
        memory = capsule.seal()
        try:
            line.send("given", {CAPSULE: memory, **descriptors})
        finally:
            os.close(memory)
        line.expect("taken", ANSWER_PATIENCE)
    except NodeError as error:
        # Before this process goes on: who finds it ended later shall find that it went on, too.
        line.refuse(error)
        line.close()
        return error
    with suppress(Ended):
        line.send("yours")
    return None
