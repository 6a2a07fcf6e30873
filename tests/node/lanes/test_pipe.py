"""The pipe: whole messages in order, a bounded queue, and an end that is heard."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from node.lanes import pipe
from node.lanes.pipe import ENDED, Pipe, make_pair

PATIENCE = 20.0


class End:
    """One end, and what it was told."""

    def __init__(self, end: socket.socket) -> None:
        self.messages: list[bytes] = []
        self.ends: list[str] = []
        self.news = asyncio.Event()
        self.pipe = Pipe(end, on_messages=self._on_messages, on_end=self._on_end)

    def _on_messages(self, messages: list[bytes]) -> None:
        self.messages += messages
        self.news.set()

    def _on_end(self, why: str) -> None:
        self.ends.append(why)
        self.news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self.news.clear()
                await self.news.wait()


def on_a_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await test()

    asyncio.run(run())


def test_messages_arrive_whole_and_in_order_both_ways() -> None:
    async def test() -> None:
        near, far = map(End, make_pair())
        sent = [bytes([number % 256]) * (1 + number) for number in range(300)]
        for message in sent:
            near.pipe.send(message)
            far.pipe.send(message)
        await far.until(lambda: len(far.messages) == 300)
        await near.until(lambda: len(near.messages) == 300)
        assert near.messages == far.messages == sent
        near.pipe.close()
        far.pipe.close()

    on_a_loop(test)


def test_more_than_the_kernel_takes_waits_and_arrives() -> None:
    async def test() -> None:
        near, far = map(End, make_pair())
        sent = [number.to_bytes(4, "big") + bytes(50_000) for number in range(100)]
        for message in sent:
            near.pipe.send(message)
        assert near.pipe._waiting, "the test must send more than fits"
        await far.until(lambda: len(far.messages) == len(sent))
        assert far.messages == sent
        assert (near.pipe._waiting_bytes, near.ends) == (0, [])
        near.pipe.close()
        far.pipe.close()

    on_a_loop(test)


def test_the_end_of_one_is_told_to_the_other_after_what_it_said() -> None:
    async def test() -> None:
        near, far = map(End, make_pair())
        near.pipe.send(b"last words")
        near.pipe.close()
        near.pipe.close()
        near.pipe.send(b"too late")
        await far.until(lambda: bool(far.ends))
        assert (far.messages, far.ends, near.ends) == ([b"last words"], [ENDED], [])

    on_a_loop(test)


def test_an_end_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "MOST_WAITING", 100_000)

    async def test() -> None:
        ours, theirs = make_pair()
        near = End(ours)
        for _ in range(20):
            near.pipe.send(bytes(50_000))
        await near.until(lambda: bool(near.ends))
        assert near.ends == ["it does not read what it is told"]
        theirs.close()

    on_a_loop(test)


def test_writing_to_an_end_that_is_gone_is_heard_by_the_reader() -> None:
    async def test() -> None:
        ours, theirs = make_pair()
        near = End(ours)
        theirs.close()
        near.pipe.send(b"to nobody")
        await near.until(lambda: bool(near.ends))
        assert near.ends == [ENDED]

    on_a_loop(test)
