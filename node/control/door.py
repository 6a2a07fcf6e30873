"""Where clients come in: a listening socket, those who are inside, and a way to let no more in.

What is cut off in the middle is asked again, of the next daemon, by somebody who cannot know how
far it came; and Docker's client asks again without what it had to say. So a daemon that hands over
shuts its doors first: who is inside is answered, and who comes then waits in the queue of the
listening socket, which the next daemon is given, or this one opens again.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from node.tasks import spawn, stop

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]

BACKLOG: Final = 128
PAUSE: Final = 1.0
"""Seconds without new clients when the process has no descriptor left for one."""


class Door:
    """A listening socket and its clients. To be used in one event loop.

    It accepts by itself: a loop's own server cannot stop without closing its socket, and accepts
    clients a moment before it tells of them.

    Args:
        listener: the socket, bound; closed with this.
        serve: talks to one client.
        end: ends a connection, after `serve` or in its place.
        limit: bytes of a line that may wait.

    Attributes:
        clients: a task for each connection.
    """

    def __init__(
        self,
        listener: socket.socket,
        serve: Serve,
        *,
        end: Callable[[asyncio.StreamWriter], None],
        limit: int,
    ) -> None:
        self.clients: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._serve = serve
        self._end = end
        self._limit = limit
        self._is_open = False
        self._busy: set[asyncio.Task[None]] = set()
        self._calm = asyncio.Event()
        self._calm.set()
        listener.setblocking(False)
        listener.listen(BACKLOG)

    @property
    def is_closed(self) -> bool:
        """Whether it was closed for good."""
        return self._listener.fileno() < 0

    def fileno(self) -> int:
        """The listening socket's descriptor: whoever has a copy can go on listening."""
        return self._listener.fileno()

    def open(self) -> None:
        """Let clients in, unless it was closed for good. Safe to call twice."""
        if not self.is_closed:
            self._is_open = True
            self._loop.add_reader(self._listener.fileno(), self._accept)

    async def shut(self, within: float) -> None:
        """Let none in any more; wait until those inside are answered, but at most `within` s."""
        self._stop_accepting()
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._calm.wait()

    async def close(self) -> None:
        """End everything: nobody listens any more. Safe to call twice."""
        if not self.is_closed:
            self._stop_accepting()
            self._listener.close()
            await stop(*self.clients)

    def rest(self) -> None:
        """The client of this task has been answered; it need not be waited for."""
        self._leave(_this_task())

    def resume(self) -> bool:
        """The client of this task asks again: whether it is answered."""
        task = _this_task()
        if self._is_open:
            self._enter(task)
        return task in self._busy

    def _stop_accepting(self) -> None:
        self._is_open = False
        self._loop.remove_reader(self._listener.fileno())

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            self._loop.remove_reader(self._listener.fileno())
            self._loop.call_later(PAUSE, self._go_on)
            return
        connection.setblocking(False)
        task = spawn(self._meet(connection), name="client")
        self.clients.add(task)
        self._enter(task)
        task.add_done_callback(self.clients.discard)
        task.add_done_callback(self._leave)
        # Not in `_meet`: the task may be cancelled before that begins.
        task.add_done_callback(lambda _: connection.close())

    def _go_on(self) -> None:
        if self._is_open:
            self.open()

    async def _meet(self, accepted: socket.socket) -> None:
        reader = asyncio.StreamReader(self._limit, self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
        # A copy, because from here on it is the transport's, which may have something to send yet.
        transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, accepted.dup())
        accepted.close()
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        try:
            await self._serve(reader, writer)
        finally:
            self._end(writer)

    def _enter(self, task: asyncio.Task[None]) -> None:
        self._busy.add(task)
        self._calm.clear()

    def _leave(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        if not self._busy:
            self._calm.set()


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task
