"""Listens on the control socket: many clients, none of which can hurt the daemon.

What each limit is for: a line may have 512 KiB, so nobody makes the daemon collect memory; at most
`MOST_CLIENTS` connections, so nobody takes its file descriptors; a client that does not send is
closed after a while, and one that does not read is closed when its answer does not fit the socket
buffer in time. A client costs one waiting task until then, nothing else.

Who may ask what is decided by the kernel's word (`node.control.peers`): root and the user the
daemon runs as everything, members of one group to look. The mode of the socket says the same;
checking both covers folders that were opened up. Connections of others count by themselves: however
many they open, the operator gets in.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from node.control.address import short_path
from node.control.door import Door
from node.control.peers import (
    READING,
    SOCKET_OF_OWNER,
    Rights,
    group_id,
    hand_over,
    rights_of,
)
from node.control.schema import (
    LONGEST_REQUEST,
    ControlError,
    Request,
    encode_error,
    encode_result,
)
from node.errors import NodeError, clauses
from node.tasks import Crash, contain
from overlay.errors import OverlayError

Dispatch = Callable[[str, dict[str, object]], Awaitable[object]]
"""Does one request: method and parameters in, a JSON value out; raises ControlError or
OverlayError for what the caller should know."""

MOST_CLIENTS: Final = 64
MOST_OTHERS: Final = 32
"""Connections of all who are not the owner. One more is closed without a word, because whoever is
told that he is one too many is another connection until he has read it."""
IDLE_AFTER: Final = 60.0
UNREAD_AFTER: Final = 10.0


class ControlServer:
    """The listening side of one control socket.

    Args:
        path: where the socket goes. A stale one is replaced: the caller holds the folder's lock.
        dispatch: does the requests.
        group: name of the group whose members may look; empty: none.
        idle_after: seconds after which a silent connection is closed.
        unread_after: seconds after which a connection that does not take its answer is closed.
        listener: descriptor of a socket that listens at `path` already; closed with this.

    Attributes:
        door: where clients come in, once it has started.
    """

    door: Door

    def __init__(
        self,
        path: Path,
        dispatch: Dispatch,
        *,
        group: str = "",
        idle_after: float = IDLE_AFTER,
        unread_after: float = UNREAD_AFTER,
        listener: int | None = None,
    ) -> None:
        self._path = path
        self._dispatch = dispatch
        self._group_name = group
        self._group: int | None = None
        self._open: Counter[Rights] = Counter()
        self._idle_after = idle_after
        self._unread_after = unread_after
        self._passed = listener

    async def start(self) -> Self:
        """Listen.

        Raises:
            NodeError: the socket cannot be made, or given to the group. Nothing else.
        """
        self._group = group_id(self._group_name)
        flags = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
        listener = socket.socket(socket.AF_UNIX, flags, fileno=self._passed)
        try:
            if self._passed is None:
                self._bind(listener)
            hand_over(self._path, self._group)
        except OSError as error:
            listener.close()
            raise NodeError.of(f"listening on {self._path}", error) from error
        self.door = Door(
            listener,
            self._serve,
            end=lambda writer: writer.transport.abort(),
            limit=LONGEST_REQUEST,
        )
        self.door.open()
        return self

    def _bind(self, listener: socket.socket) -> None:
        self._path.unlink(missing_ok=True)
        # Before it is bound: the file has this mode from its first moment on.
        os.fchmod(listener.fileno(), SOCKET_OF_OWNER)
        with short_path(str(self._path)) as path:
            listener.bind(path)

    async def close(self) -> None:
        """Stop listening, close all connections, remove the socket. Safe to call twice."""
        await self.door.close()
        self._path.unlink(missing_ok=True)

    @property
    def clients(self) -> int:
        """How many connections are open."""
        return len(self.door.clients)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, TimeoutError):
            await self._converse(reader, writer)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rights = rights_of(writer.get_extra_info("socket"), self._group)
        self._open[rights] += 1
        try:
            if rights is Rights.ALL or self._others <= MOST_OTHERS:
                await self._answer_all(reader, writer, rights)
        finally:
            self._open[rights] -= 1

    @property
    def _others(self) -> int:
        return self._open[Rights.READING] + self._open[Rights.NONE]

    async def _answer_all(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rights: Rights
    ) -> None:
        refusal = self._refusal(rights)
        while True:
            line = b""
            try:
                async with asyncio.timeout(self._idle_after):
                    line = await reader.readline()
            except ValueError:
                refusal = ControlError("bad-request", f"a line over {LONGEST_REQUEST} bytes")
            if refusal is None and not line.endswith(b"\n"):
                return
            if refusal is not None:
                # Only after reading: closing with unread bytes would take the answer back.
                await self._send(writer, encode_error(None, refusal))
                return
            if not self.door.resume():
                return
            await self._send(writer, await self._answer(line, rights))
            self.door.rest()

    def _refusal(self, rights: Rights) -> ControlError | None:
        """Why nothing of a connection is answered."""
        if rights is Rights.NONE:
            may = f", and to look group {self._group_name}," if self._group_name else ""
            return ControlError(
                "no-permission", f"only root and the daemon's user{may} may ask", "run as root"
            )
        if self._open[Rights.ALL] > MOST_CLIENTS:
            return ControlError("busy", f"{MOST_CLIENTS} clients are connected", "try again")
        return None

    async def _send(self, writer: asyncio.StreamWriter, line: bytes) -> None:
        writer.write(line)
        async with asyncio.timeout(self._unread_after):
            await writer.drain()

    async def _answer(self, line: bytes, rights: Rights) -> bytes:
        request_id: int | None = None
        try:
            request = Request.decode(line)
            request_id = request.id
            if rights is Rights.READING and request.method not in READING:
                why = f"members of group {self._group_name} may look, and change nothing"
                raise ControlError("no-permission", why, "run as root")
            work = self._encoded(request)
            outcome = await contain(
                work, name=f"control.{request.method}", expected=(ControlError, OverlayError)
            )
        except ControlError as error:
            return encode_error(request_id, error)
        except OverlayError as error:
            return encode_error(request_id, ControlError(*clauses(error)))
        if isinstance(outcome, Crash):
            why = f"the daemon has a defect ({type(outcome.error).__name__})"
            return encode_error(request_id, ControlError("internal", why, "look at its log"))
        return outcome.value

    async def _encoded(self, request: Request) -> bytes:
        return encode_result(request.id, await self._dispatch(request.method, request.params))
