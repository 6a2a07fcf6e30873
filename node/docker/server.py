"""Listens on the plugin's socket: one request per connection, none of which can hurt the daemon.

The socket is for root alone, by its mode and by the kernel's word for who is at the other end. What
is sent has a longest size and a longest time, and connections a greatest number; a defect in one
request is logged and answered.

A restart of the daemon takes the socket away for a moment. Docker's client tries again after one
second, two, four and so on, for half a minute in all, so it needs no help. That holds until it is
connected: a request that is cut off it repeats with nothing in it. So a daemon that hands over
answers what it has begun, and leaves the socket, and who waits there, to the next one.

References:
    moby, pkg/plugins/client.go: an answer other than 200 has its reason in `Err`. The address
    driver reads `Error` as well.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final, Self

from node.control.address import short_path
from node.control.door import Door
from node.control.peers import SOCKET_OF_OWNER, Rights, rights_of
from node.control.schema import ControlError
from node.docker.http import END_OF_HEAD, HEAD_MAX, HttpError, decode_head, encode_answer
from node.errors import NodeError, clauses
from node.tasks import Crash, contain
from overlay.errors import OverlayError

Body = dict[str, object]

Answer = Callable[[str, Body], Awaitable[Body]]
"""Does one request: method and body in, the answer's body out; raises ControlError or OverlayError
for what the operator should know."""

MOST_CLIENTS: Final = 64
"""Docker asks for as many containers at a time as are started; more of them wait in the backlog."""

ASKED_WITHIN: Final = 10.0
TAKEN_WITHIN: Final = 10.0
"""Seconds for a request to be there as a whole, and for its answer to be taken."""


class PluginServer:
    """The listening side of a plugin's socket.

    Args:
        path: where the socket goes; its folder is made. A stale one is replaced.
        answer: does the requests.
        asked_within: seconds in which a request has to be there.
        passed: a socket that listens already; used if that is at `path`, else closed.

    Attributes:
        door: where clients come in, once it has started.
    """

    door: Door

    def __init__(
        self,
        path: Path,
        answer: Answer,
        *,
        asked_within: float = ASKED_WITHIN,
        passed: socket.socket | None = None,
    ) -> None:
        self._path = path
        self._answer = answer
        self._asked_within = asked_within
        self._passed = passed
        self._inode = 0
        self._seats = asyncio.Semaphore(MOST_CLIENTS)

    async def start(self) -> Self:
        """Listen.

        Raises:
            NodeError: the socket cannot be made. Nothing else.
        """
        listener = self._passed_on() or self._bound()
        end = asyncio.StreamWriter.close
        self.door = Door(listener, self._serve, end=end, limit=HEAD_MAX)
        self.door.open()
        return self

    def _passed_on(self) -> socket.socket | None:
        passed, path = self._passed, str(self._path)
        if passed is None:
            return None
        with suppress(OSError):
            if passed.getsockname() == path and self._path.is_socket():
                self._inode = self._path.stat().st_ino
                return passed
        passed.close()
        return None

    def _bound(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            _make_room(self._path)
            self._path.unlink(missing_ok=True)
            # Before it is bound: the file has this mode from its first moment on.
            os.fchmod(listener.fileno(), SOCKET_OF_OWNER)
            with short_path(str(self._path)) as path:
                listener.bind(path)
            self._inode = self._path.stat().st_ino
        except NodeError:
            listener.close()
            raise
        except OSError as error:
            listener.close()
            raise NodeError.of(f"listening on {self._path}", error) from error
        return listener

    async def close(self) -> None:
        """Stop listening, close all connections, remove the socket. Safe to call twice.

        A socket that the next daemon has put in its place stays.
        """
        if self.door.is_closed:
            return
        await self.door.close()
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if rights_of(writer.get_extra_info("socket"), None) is not Rights.ALL:
            return
        with suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            async with self._seats:
                try:
                    async with asyncio.timeout(self._asked_within):
                        method, body = await _read(reader)
                except HttpError as error:
                    writer.write(_refusal(error.status, str(error)))
                    await _hear_out(reader, writer)
                    return
                writer.write(await self._respond(method, body))
                async with asyncio.timeout(TAKEN_WITHIN):
                    await writer.drain()

    async def _respond(self, method: str, body: Body) -> bytes:
        try:
            work = self._answer(method, body)
            outcome = await contain(
                work, name=f"docker.{method[:64]}", expected=(ControlError, OverlayError)
            )
        except (ControlError, OverlayError) as error:
            return _refused(error)
        if isinstance(outcome, Crash):
            why = f"muslin has a defect ({type(outcome.error).__name__}): look at its daemon's log"
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, why)
        return encode_answer(HTTPStatus.OK, json.dumps(outcome.value).encode())


def check_place(path: Path) -> None:
    """Try whether a socket can be made at `path`; what is there stays, its folder is made.

    Raises:
        NodeError: it cannot. Nothing else.
    """
    trial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _make_room(path)
        with socket.socket(socket.AF_UNIX) as listener, short_path(str(trial)) as short:
            listener.bind(short)
            trial.unlink()
    except OSError as error:
        raise NodeError.of(f"listening on {path}", error) from error


def _make_room(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_socket():
        raise NodeError(f"{path} is there and no socket", "name another path, or move it away")


async def _read(reader: asyncio.StreamReader) -> tuple[str, Body]:
    """One request. HttpError where it is none that is taken."""
    try:
        head = decode_head(await reader.readuntil(END_OF_HEAD))
    except asyncio.LimitOverrunError as error:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        raise HttpError(status, f"fields have at most {HEAD_MAX} bytes") from error
    return head.method, decode_body(await reader.readexactly(head.length))


async def _hear_out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let the peer finish: closing with unread bytes would take the answer back."""
    writer.write_eof()
    async with asyncio.timeout(TAKEN_WITHIN):
        while await reader.read(HEAD_MAX):
            pass


def decode_body(data: bytes) -> Body:
    """The object in the body of a request; an empty one has none.

    Raises:
        HttpError: it is not a JSON object. Nothing else.
    """
    try:
        body = json.loads(data) if data.strip() else {}
    except (ValueError, RecursionError) as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, "the body is not JSON") from error
    if not isinstance(body, dict):
        raise HttpError(HTTPStatus.BAD_REQUEST, "the body is not a JSON object")
    return body


def _refused(error: ControlError | OverlayError) -> bytes:
    if isinstance(error, ControlError):
        code, why, fix = error.code, error.message, error.fix
    else:
        code, why, fix = clauses(error)
    status = HTTPStatus.NOT_FOUND if code == "unknown-method" else HTTPStatus.INTERNAL_SERVER_ERROR
    return _refusal(status, f"{why} ({code}): {fix}" if fix else f"{why} ({code})")


def _refusal(status: HTTPStatus, why: str) -> bytes:
    said = f"muslin: {why}"
    return encode_answer(status, json.dumps({"Err": said, "Error": said}).encode())
