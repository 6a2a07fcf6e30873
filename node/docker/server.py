"""Listens on the plugin's socket: one request per connection, none of which can hurt the daemon.

The socket is for root alone, by its mode and by the kernel's word for who is at the other end. What
is sent has a longest size and a longest time, and connections a greatest number; a defect in one
request is logged and answered.

A restart of the daemon takes the socket away for a moment. Docker's client tries again after one
second, two, four and so on, for half a minute in all, so it needs no help.

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
from node.control.peers import SOCKET_OF_OWNER, Rights, rights_of
from node.control.schema import ControlError
from node.docker.http import END_OF_HEAD, HEAD_MAX, HttpError, decode_head, encode_answer
from node.errors import NodeError, clauses
from node.tasks import Crash, contain, spawn, stop
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
    """

    def __init__(self, path: Path, answer: Answer, *, asked_within: float = ASKED_WITHIN) -> None:
        self._path = path
        self._answer = answer
        self._asked_within = asked_within
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._clients: set[asyncio.Task[None]] = set()
        self._seats = asyncio.Semaphore(MOST_CLIENTS)

    async def start(self) -> Self:
        """Listen.

        Raises:
            NodeError: the socket cannot be made. Nothing else.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            # Before it is bound: the file has this mode from its first moment on.
            os.fchmod(listener.fileno(), SOCKET_OF_OWNER)
            with short_path(str(self._path)) as path:
                listener.bind(path)
            self._inode = self._path.stat().st_ino
        except OSError as error:
            listener.close()
            raise NodeError.of(f"listening on {self._path}", error) from error
        self._server = await asyncio.start_unix_server(
            self._on_client, sock=listener, limit=HEAD_MAX
        )
        return self

    async def close(self) -> None:
        """Stop listening, close all connections, remove the socket. Safe to call twice.

        A socket that the next daemon has put in its place stays.
        """
        if self._server is None:
            return
        self._server.close()
        self._server = None
        await stop(*self._clients)
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = spawn(self._serve(reader, writer), name="docker.client")
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)
        task.add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if rights_of(writer.get_extra_info("socket"), None) is not Rights.ALL:
            return
        with suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            async with self._seats:
                writer.write(await self._respond(reader))
                async with asyncio.timeout(TAKEN_WITHIN):
                    await writer.drain()

    async def _respond(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(self._asked_within):
                method, body = await _read(reader)
        except HttpError as error:
            return _refusal(error.status, str(error))
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


async def _read(reader: asyncio.StreamReader) -> tuple[str, Body]:
    """One request. HttpError where it is none that is taken."""
    try:
        head = decode_head(await reader.readuntil(END_OF_HEAD))
    except asyncio.LimitOverrunError as error:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        raise HttpError(status, f"fields have at most {HEAD_MAX} bytes") from error
    return head.method, decode_body(await reader.readexactly(head.length))


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
