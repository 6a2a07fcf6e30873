"""Doors with clients; both servers have one, and their tests more of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from node.control.door import Door
from node.loop import LoopKind, run


@pytest.fixture(params=list(LoopKind))
def with_door(request, tmp_path):
    """Runs a coroutine function with an open door, whose clients are told their own lines."""

    def go(main: Callable[[Door, Path], Awaitable[None]]) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                if not door.resume():
                    return
                writer.write(line)
                await writer.drain()
                door.rest()

        async def body() -> None:
            nonlocal door
            path = tmp_path / "socket"
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            listener.bind(str(path))
            door = Door(listener, echo, end=asyncio.StreamWriter.close, limit=100)
            door.open()
            door.open()
            async with asyncio.timeout(30.0):
                await main(door, path)
            await door.close()
            await door.close()
            door.open()
            assert door.is_closed
            assert not door.clients
            assert path.exists()

        door: Door
        run(body, request.param)

    return go


def test_a_client_that_rests_is_not_waited_for_and_not_answered_any_more(with_door) -> None:
    async def main(door: Door, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"one\n")
        assert await reader.readline() == b"one\n"
        await door.shut(30.0)
        writer.write(b"two\n")
        assert await reader.readline() == b""
        writer.close()

    with_door(main)


def test_one_that_came_before_is_answered_and_one_that_comes_then_waits(with_door) -> None:
    async def main(door: Door, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        while not door.clients:  # noqa: ASYNC110 - a door has no event for this
            await asyncio.sleep(0)
        shut = asyncio.ensure_future(door.shut(30.0))
        await asyncio.sleep(0.05)
        late, late_writer = await asyncio.open_unix_connection(path)
        late_writer.write(b"late\n")
        await asyncio.sleep(0.05)
        assert not shut.done()
        writer.write(b"one\n")
        assert await reader.readline() == b"one\n"
        await shut
        assert len(door.clients) == 1
        door.open()
        assert await late.readline() == b"late\n"
        for one in (writer, late_writer):
            one.close()

    with_door(main)
