from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from node.control.schema import ControlError
from node.docker.http import BODY_MAX, HEAD_MAX
from node.docker.server import Answer, PluginServer, check_place
from node.errors import NodeError
from overlay.errors import RefusedError

Body = dict[str, object]


async def echo(method: str, body: Body) -> Body:
    match method:
        case "Unknown":
            raise ControlError("unknown-method", "no method 'Unknown'")
        case "Refused":
            raise RefusedError("no-free-address", "all are in use", "delete a pod")
        case "Defect":
            raise ZeroDivisionError
        case _:
            return {"method": method, "body": body}


@asynccontextmanager
async def served(
    folder: Path, answer: Answer = echo, asked_within: float = 10.0
) -> AsyncIterator[Path]:
    path = folder / "plugins" / "muslin.sock"
    server = await PluginServer(path, answer, asked_within=asked_within).start()
    try:
        yield path
    finally:
        await server.close()


async def say(path: Path, data: bytes) -> bytes:
    """Everything that is answered to `data`, after which the sender waits."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(data)
        said = b""
        with suppress(ConnectionResetError):  # closed with more to come
            while piece := await asyncio.wait_for(reader.read(4096), 30):
                said += piece
        return said
    finally:
        writer.close()


async def ask(path: Path, method: str, body: bytes = b"") -> tuple[int, Body]:
    head = f"POST /{method} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    answer = await say(path, head + body)
    first, _, rest = answer.partition(b"\r\n\r\n")
    return int(first.split()[1]), json.loads(rest)


def test_a_request_is_answered_and_root_alone_may_ask(tmp_path: Path):
    async def scene() -> None:
        async with served(tmp_path) as path:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert await ask(path, "A.B", b'{"x": 1}') == (
                200,
                {"method": "A.B", "body": {"x": 1}},
            )
            assert (await ask(path, "A.B"))[1]["body"] == {}
        assert not path.exists()

    asyncio.run(scene())


def test_whoever_is_given_its_socket_answers_those_who_wait_there(tmp_path: Path):
    async def scene() -> None:
        path = tmp_path / "muslin.sock"
        server = await PluginServer(path, echo).start()
        await server.door.shut(30.0)
        waiting = asyncio.ensure_future(ask(path, "A.B"))
        await asyncio.sleep(0)
        passed = socket.socket(fileno=os.dup(server.door.fileno()))
        following = await PluginServer(path, echo, passed=passed).start()
        assert (await waiting)[0] == 200
        assert following.door.fileno() == passed.fileno()
        await following.close()
        assert not path.exists()
        await server.close()

    asyncio.run(scene())


def test_a_socket_that_listens_elsewhere_is_closed(tmp_path: Path):
    async def scene() -> None:
        server = await PluginServer(tmp_path / "one.sock", echo).start()
        passed = socket.socket(fileno=os.dup(server.door.fileno()))
        other = await PluginServer(tmp_path / "other.sock", echo, passed=passed).start()
        assert passed.fileno() < 0
        assert (await ask(tmp_path / "other.sock", "A.B"))[0] == 200
        await other.close()
        await server.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("method", "status", "why"),
    [
        ("Unknown", 404, "no method 'Unknown'"),
        ("Refused", 500, "all are in use (no-free-address): delete a pod"),
        ("Defect", 500, "defect (ZeroDivisionError)"),
    ],
)
def test_both_drivers_of_docker_find_the_reason(tmp_path: Path, method: str, status: int, why: str):
    async def scene() -> None:
        async with served(tmp_path) as path:
            code, body = await ask(path, method)
            assert code == status
            assert why in str(body["Err"])
            assert body["Error"] == body["Err"]
            assert (await ask(path, "A.B"))[0] == 200

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /x HTTP/1.1\r\nX: " + b"y" * BODY_MAX + b"\r\n\r\n", b"431"),
        (b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\n[1]", b"400"),
        (b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\n{1}", b"400"),
        (b"POST /x HTTP/1.1\r\nContent-Length: 99999\r\n\r\n" + b"[" * 99_999, b"400"),
        (b"POST /x HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", b"413"),
    ],
)
def test_nonsense_is_answered_and_hurts_nobody(tmp_path: Path, data: bytes, status: bytes):
    async def scene() -> None:
        async with served(tmp_path) as path:
            assert (await say(path, data)).split()[1] == status
            assert (await ask(path, "A.B"))[0] == 200

    asyncio.run(scene())


def test_whoever_sends_too_much_hears_why(tmp_path: Path):
    """Closing with bytes unread would take the answer back: Docker would try again and again."""
    size = 2 * BODY_MAX
    head = b"POST /A.B HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size

    def send(path: Path) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(path))
            connection.sendall(head + b"[" * size)
            return connection.recv(4096)

    async def scene() -> None:
        async with served(tmp_path) as path:
            assert (await asyncio.to_thread(send, path)).split()[1] == b"413"
            assert (await ask(path, "A.B"))[0] == 200

    asyncio.run(scene())


def test_fields_have_a_longest_size(tmp_path: Path):
    async def scene() -> None:
        async with served(tmp_path) as path:
            field = b"X: " + b"y" * HEAD_MAX
            said = await say(path, b"POST /x HTTP/1.1\r\n" + field + b"\r\n\r\n")
            assert said.split()[1] == b"431"

    asyncio.run(scene())


def test_whoever_sends_half_a_request_is_left_after_a_while(tmp_path: Path):
    async def scene() -> None:
        async with served(tmp_path, asked_within=0.05) as path:
            assert await say(path, b"POST /x HTTP/1.1\r\n") == b""
            assert await say(path, b"POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\n{") == b""

    asyncio.run(scene())


def test_closing_ends_what_is_being_done(tmp_path: Path):
    async def scene() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def slow(_method: str, _body: Body) -> Body:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

        async with served(tmp_path, slow) as path:
            asking = asyncio.ensure_future(say(path, b"POST /x HTTP/1.1\r\n\r\n"))
            await begun.wait()
        assert ended.is_set()
        assert await asking == b""

    asyncio.run(scene())


def test_a_stale_socket_is_replaced_and_what_cannot_be_is_said(tmp_path: Path):
    async def scene() -> None:
        async with served(tmp_path) as path:
            pass
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        async with served(tmp_path):
            assert (await ask(path, "A.B"))[0] == 200
        file = tmp_path / "file"
        file.write_text("somebody's")
        for place, why in (
            (file / "muslin.sock", "listening on"),
            (file, "is there and no socket"),
        ):
            with pytest.raises(NodeError, match=why):
                await PluginServer(place, echo).start()
            with pytest.raises(NodeError, match=why):
                check_place(place)
        assert file.read_text() == "somebody's"
        check_place(tmp_path / "new" / "muslin.sock")
        assert list((tmp_path / "new").iterdir()) == []

    asyncio.run(scene())


def test_the_socket_of_the_next_daemon_stays(tmp_path: Path):
    async def scene() -> None:
        async with served(tmp_path) as path:
            later = await PluginServer(path, echo).start()
        assert (await ask(path, "A.B"))[0] == 200
        await later.close()
        assert not path.exists()

    asyncio.run(scene())
