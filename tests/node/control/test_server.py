"""The listening side, with clients that do what they like, on both loops."""

from __future__ import annotations

import asyncio
import grp
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from node.control import server as server_module
from node.control.client import ControlClient
from node.control.door import Door
from node.control.peers import Rights
from node.control.schema import LONGEST_REQUEST, ControlError, Request, decode_answer
from node.control.server import ControlServer
from node.errors import NodeError
from node.loop import LoopKind, run
from overlay.errors import RefusedError


async def dispatch(method: str, params: dict[str, object]) -> object:
    match method:
        case "echo":
            return params
        case "refuse":
            raise RefusedError("pod-exists", "pod web exists", "choose")
        case "unknown":
            raise ControlError("unknown-method", "no")
        case "wait":
            await asyncio.Event().wait()
        case "big":
            return "x" * (4 << 20)
        case "nan":
            return float("nan")
    raise ZeroDivisionError


@pytest.fixture(params=list(LoopKind))
def serving(request, tmp_path):
    """Runs a coroutine function with a started server and the socket's path."""

    def go(main: Callable[[ControlServer, str], Awaitable[None]], **settings: Any) -> None:
        async def body() -> None:
            path = tmp_path / "control.sock"
            server = ControlServer(path, dispatch, **settings)
            await server.start()
            try:
                await main(server, str(path))
            finally:
                await server.close()
                assert not path.exists()
                assert server.clients == 0

        run(body, request.param)

    return go


async def ask(path: str, method: str, **params: object) -> object:
    return await asyncio.to_thread(ControlClient(path, 30.0).call, method, **params)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the server has no event for this
            await asyncio.sleep(0.01)


async def code_of(path: str, method: str) -> str:
    with pytest.raises(ControlError) as caught:
        await ask(path, method)
    return caught.value.code


def test_requests_of_many_clients_are_answered(serving) -> None:
    async def main(server: ControlServer, path: str) -> None:
        answers = await asyncio.gather(*(ask(path, "echo", n=n) for n in range(20)))
        assert answers == [{"n": n} for n in range(20)]

    serving(main)


def test_one_connection_can_ask_many_times_even_at_once(serving) -> None:
    async def main(_: ControlServer, path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"".join(Request(n, "echo", {"n": n}).encode() for n in range(3)))
        lines = [await reader.readline() for _ in range(3)]
        assert [decode_answer(line) for line in lines] == [{"n": n} for n in range(3)]
        writer.close()

    serving(main)


def test_refusals_and_defects_are_told_apart_and_neither_ends_the_daemon(serving, caplog) -> None:
    async def main(_: ControlServer, path: str) -> None:
        assert await code_of(path, "refuse") == "pod-exists"
        assert await code_of(path, "unknown") == "unknown-method"
        assert await code_of(path, "crash") == "internal"
        assert await code_of(path, "nan") == "internal"
        assert await ask(path, "echo") == {}

    serving(main)
    assert [record.fields["task"] for record in caplog.records] == ["control.crash", "control.nan"]


def test_a_line_that_is_no_request_is_answered_and_the_next_one_works(serving) -> None:
    async def main(_: ControlServer, path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"hello\n" + Request(1, "echo").encode())
        with pytest.raises(ControlError, match="not JSON"):
            decode_answer(await reader.readline())
        assert decode_answer(await reader.readline()) == {}
        writer.close()

    serving(main)


def test_a_line_without_end_is_refused_and_closed(serving) -> None:
    async def main(_: ControlServer, path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"x" * (LONGEST_REQUEST * 2))
        with pytest.raises(ControlError, match="a line over 524288 bytes"):
            decode_answer(await reader.readline())
        writer.close()

    serving(main)


def test_a_client_that_says_nothing_is_closed_and_others_do_not_wait(serving) -> None:
    async def main(server: ControlServer, path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        assert await ask(path, "echo") == {}
        assert await reader.read() == b""
        writer.close()

    serving(main, idle_after=0.1)


def test_a_client_that_does_not_read_is_closed_and_others_do_not_wait(serving) -> None:
    async def main(server: ControlServer, path: str) -> None:
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(path)
            deaf.sendall(Request(1, "big").encode())
            assert await ask(path, "echo") == {}
            await until(lambda: not server.clients)

    serving(main, unread_after=0.1)


def test_a_large_answer_arrives_whole(serving) -> None:
    async def main(_: ControlServer, path: str) -> None:
        assert await ask(path, "big") == "x" * (4 << 20)

    serving(main)


def test_a_client_that_leaves_during_its_request_is_forgotten(serving) -> None:
    async def main(server: ControlServer, path: str) -> None:
        with socket.socket(socket.AF_UNIX) as hasty:
            hasty.connect(path)
            hasty.sendall(Request(1, "echo").encode())
        assert await ask(path, "echo") == {}

    serving(main)


def test_closing_ends_requests_that_wait(serving) -> None:
    async def main(server: ControlServer, path: str) -> None:
        waiting = asyncio.ensure_future(ask(path, "wait"))
        await until(lambda: server.clients > 0)
        await server.close()
        with pytest.raises(ControlError, match="closed the connection"):
            await waiting

    serving(main)


def test_a_connection_that_came_at_the_very_end_is_closed_as_well(serving, monkeypatch) -> None:
    closing: list[asyncio.Future[None]] = []

    class Closing(Door):
        """One that is closed between a connection and the first step of what serves it."""

        def _accept(self) -> None:
            super()._accept()
            for client in self.clients:
                client.cancel()
            closing.append(asyncio.ensure_future(self.close()))

    monkeypatch.setattr(server_module, "Door", Closing)

    async def main(_: ControlServer, path: str) -> None:
        with pytest.raises(ControlError, match="closed the connection"):
            await ask(path, "wait")
        await closing[0]

    serving(main)


def test_too_many_clients_are_told_so(serving, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "MOST_CLIENTS", 2)

    async def main(_: ControlServer, path: str) -> None:
        first = [await asyncio.open_unix_connection(path) for _ in range(2)]
        assert await code_of(path, "echo") == "busy"
        for _, writer in first:
            writer.close()

    serving(main)


def test_another_user_is_refused(serving, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "rights_of", lambda *_: Rights.NONE)

    async def main(_: ControlServer, path: str) -> None:
        assert await code_of(path, "echo") == "no-permission"

    serving(main)


def test_members_of_the_group_look_and_do_nothing_else(serving, monkeypatch) -> None:
    asked = []

    def rights_of(_: socket.socket, group: int | None) -> Rights:
        asked.append(group)
        return Rights.READING

    monkeypatch.setattr(server_module, "rights_of", rights_of)
    monkeypatch.setattr(server_module, "READING", {"echo"})
    own = grp.getgrgid(os.getegid())

    async def main(_: ControlServer, path: str) -> None:
        assert await ask(path, "echo", n=1) == {"n": 1}
        for method in ("refuse", "unknown", "big"):
            assert await code_of(path, method) == "no-permission"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        assert os.stat(path).st_gid == own.gr_gid

    serving(main, group=own.gr_name)
    assert set(asked) == {own.gr_gid}


def test_however_many_others_connect_the_owner_gets_in(serving, monkeypatch) -> None:
    """Those who are one too many are closed; they do not count as clients until they give up."""
    monkeypatch.setattr(server_module, "MOST_CLIENTS", 2)
    monkeypatch.setattr(server_module, "MOST_OTHERS", 2)
    rights = [Rights.READING] * 3 + [Rights.NONE] * 3 + [Rights.ALL]
    monkeypatch.setattr(server_module, "rights_of", lambda *_: rights.pop(0))

    async def main(server: ControlServer, path: str) -> None:
        others = [await asyncio.open_unix_connection(path) for _ in range(6)]
        await until(lambda: server.clients == 2)
        assert await ask(path, "echo") == {}
        for reader, _ in others[2:]:
            assert await reader.read() == b""
        for _, writer in others:
            writer.close()

    serving(main)


def test_a_group_that_does_not_exist_is_named(tmp_path) -> None:
    async def main() -> None:
        with pytest.raises(NodeError, match="no group 'no-such-group'"):
            await ControlServer(tmp_path / "c.sock", dispatch, group="no-such-group").start()

    asyncio.run(main())
    assert not (tmp_path / "c.sock").exists()


def test_the_socket_is_only_for_its_owner_and_replaces_a_stale_one(
    serving, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind("control.sock")

    async def main(_: ControlServer, path: str) -> None:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert await ask(path, "echo") == {}

    serving(main)


def test_a_folder_that_is_not_there_is_one_clause(tmp_path) -> None:
    async def main() -> None:
        with pytest.raises(NodeError, match=r"listening on .*: no such file or directory"):
            await ControlServer(tmp_path / "no" / "control.sock", dispatch).start()

    asyncio.run(main())


def test_whoever_gets_its_listening_socket_goes_on_with_those_who_wait_there(serving) -> None:
    async def main(server: ControlServer, path: str) -> None:
        await server.door.shut(30.0)
        waiting = asyncio.ensure_future(ask(path, "echo", number=1))
        await asyncio.sleep(0)
        passed = os.dup(server.door.fileno())
        following = await ControlServer(Path(path), dispatch, listener=passed).start()
        assert await waiting == {"number": 1}
        await following.close()

    serving(main)


def test_while_its_door_is_shut_who_is_inside_is_answered_and_others_wait(serving) -> None:
    async def main(server: ControlServer, path: str) -> None:
        asking = asyncio.ensure_future(ask(path, "wait"))
        await until(lambda: server.clients == 1)
        await server.door.shut(0.0)  # it does not wait for ever
        waiting = asyncio.ensure_future(ask(path, "echo", number=1))
        shut = asyncio.ensure_future(server.door.shut(30.0))
        await asyncio.sleep(0.05)
        assert not shut.done()
        for client in tuple(server.door.clients):
            client.cancel()
        await shut
        with pytest.raises(ControlError):
            await asking
        assert not waiting.done()
        server.door.open()
        assert await waiting == {"number": 1}

    serving(main)
