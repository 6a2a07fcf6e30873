from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from node.control.turns import Turns
from node.logs import EventLog
from node.upkeep import Upkeep
from overlay.views import LocalView, Problem
from tests.support.views import node_snapshot

PROBLEM = Problem("tun-gone", "interface muslin0 is gone", "somebody removed it", "")


class FakeKernel:
    """A manager that counts, and has what problems it is given."""

    def __init__(self) -> None:
        self.looks = 0
        self.problems: tuple[Problem, ...] = ()
        self.looked = asyncio.Event()

    async def apply(self, _: LocalView) -> tuple[Problem, ...]:
        self.looks += 1
        self.looked.set()
        return self.problems


def beside(work: Callable[[Upkeep, FakeKernel, asyncio.Lock], Coroutine[Any, Any, None]]) -> None:
    """Run `work` with an upkeep of a fake kernel."""

    async def main() -> None:
        kernel: Any = FakeKernel()
        turn = Turns()
        async with asyncio.timeout(30.0):
            await work(Upkeep(kernel, lambda: node_snapshot(1), turn, EventLog()), kernel, turn)

    asyncio.run(main())


def test_a_problem_is_logged_when_it_is_new(caplog: pytest.LogCaptureFixture) -> None:
    async def work(upkeep: Upkeep, kernel: FakeKernel, _: asyncio.Lock) -> None:
        kernel.problems = (PROBLEM,)
        await upkeep.apply()
        await upkeep.apply()
        assert upkeep.problems == (PROBLEM,)
        kernel.problems = ()
        await upkeep.apply()
        assert upkeep.problems == ()

    beside(work)
    assert [line.message for line in caplog.records] == ["kernel.problem"]


def test_the_kernel_follows_a_change_of_the_network() -> None:
    async def work(upkeep: Upkeep, kernel: FakeKernel, _: asyncio.Lock) -> None:
        running = asyncio.ensure_future(upkeep.run())
        upkeep.network_changed()
        await kernel.looked.wait()
        running.cancel()

    beside(work)


def test_pods_that_a_request_is_changing_are_left_to_it() -> None:
    async def work(upkeep: Upkeep, kernel: FakeKernel, turn: Turns) -> None:
        async with turn.alone():
            waiting = asyncio.ensure_future(upkeep.apply())
            for _ in range(10):
                await asyncio.sleep(0)
            assert kernel.looks == 0
        await waiting
        assert kernel.looks == 1

    beside(work)
