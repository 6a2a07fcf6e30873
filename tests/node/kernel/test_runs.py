"""Runs: what waits at the same time is done at once, in order under one name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest

from node.kernel.errors import KernelError
from node.kernel.runs import Runs


class Works:
    """Notes what each run was for, and waits for leave to end it."""

    def __init__(self) -> None:
        self.seen: list[dict[str, int]] = []
        self.leave = asyncio.Semaphore(0)
        self.failing: dict[str, KernelError] = {}
        self.runs: Runs[int] = Runs("works", self.work)

    async def work(self, batch: Mapping[str, int]) -> Mapping[str, KernelError]:
        self.seen.append(dict(batch))
        await self.leave.acquire()
        return self.failing

    def ask(self, name: str, what: int) -> asyncio.Future[None]:
        return asyncio.ensure_future(self.runs.ask(name, what))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def play(scene: Callable[[Works], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30.0):
            await scene(Works())

    asyncio.run(main())


def test_the_first_begins_at_once_and_those_that_come_meanwhile_go_together() -> None:
    async def scene(works: Works) -> None:
        asked = [works.ask("a", 1)]
        await settle()
        asked += [works.ask(name, 2) for name in "bc"]
        await settle()
        assert works.seen == [{"a": 1}]
        works.leave.release()
        await asked[0]
        await settle()
        assert works.seen == [{"a": 1}, {"b": 2, "c": 2}]
        works.leave.release()
        await asyncio.gather(*asked)

    play(scene)


def test_what_is_asked_for_under_one_name_is_done_in_order() -> None:
    async def scene(works: Works) -> None:
        asked = [works.ask("a", number) for number in range(3)]
        for _ in asked:
            works.leave.release()
        await asyncio.gather(*asked)
        assert works.seen == [{"a": 0}, {"a": 1}, {"a": 2}]

    play(scene)


def test_one_that_fails_does_not_fail_the_others() -> None:
    async def scene(works: Works) -> None:
        works.failing = {"b": KernelError("no")}
        works.leave.release()
        asked = [works.ask(name, 1) for name in "abc"]
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert told == [None, works.failing["b"], None]

    play(scene)


def test_who_gave_up_is_done_all_the_same_and_holds_nobody_up() -> None:
    async def scene(works: Works) -> None:
        asked = works.ask("a", 1)
        await settle()
        asked.cancel()
        works.leave.release()
        with pytest.raises(asyncio.CancelledError):
            await asked
        works.leave.release()
        await works.ask("a", 2)
        assert works.seen == [{"a": 1}, {"a": 2}]
        await works.runs.passed("a")

    play(scene)


def test_passed_waits_for_one_name_only_and_lets_who_asked_go_first() -> None:
    async def scene(works: Works) -> None:
        order: list[str] = []
        await works.runs.passed("a")  # nothing was asked for

        async def asker() -> None:
            await works.runs.ask("a", 1)
            order.append("asker")

        async def other() -> None:
            await works.runs.passed("a")
            order.append("other")

        asking = asyncio.ensure_future(asker())
        await settle()
        waiting = asyncio.ensure_future(other())
        await works.runs.passed("b")
        assert order == []
        works.leave.release()
        await asyncio.gather(asking, waiting)
        assert order == ["asker", "other"]

    play(scene)
