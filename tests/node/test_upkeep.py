from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Coroutine
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from node import upkeep as upkeep_module
from node.control.turns import Turns
from node.kernel import netns
from node.kernel.contest import LIMIT, PAUSE
from node.kernel.keeper import Looked
from node.kernel.watch import ANYTHING, NO_NEWS, Heard, KernelWatch, News
from node.logs import EventLog
from node.loop import LoopKind
from node.loop import run as run_loop
from node.upkeep import QUIET, SWEEP, Upkeep
from overlay.views import LocalView, Problem
from tests.support.privileged import NEEDS_KERNEL
from tests.support.views import node_snapshot, pod_view

PROBLEM = Problem("kernel-refused", "the kernel lacks 1 part", "file exists", "")
GONE = Problem("tun-gone", "interface muslin0 is gone", "somebody removed it", "")


class FakeKernel:
    """A manager that counts, and has what problems and repairs it is given."""

    def __init__(self) -> None:
        self.news: list[News] = []
        self.problems: tuple[Problem, ...] = ()
        self.repaired: tuple[str, ...] = ()
        self.looked = asyncio.Event()
        self.revived = 0
        self.namespaces = frozenset({4})
        self.after = 0
        self.wanted: LocalView = node_snapshot(1)

    async def apply(self, _: LocalView, news: News) -> Looked:
        self.news.append(news)
        self.looked.set()
        return Looked(self.problems, self.repaired)

    def revive(self) -> None:
        self.revived += 1

    async def look_after(self, act: Callable[[], None]) -> News:
        """What the look was told that follows an act."""
        self.looked.clear()
        act()
        await self.looked.wait()
        return self.news[-1]

    async def looked_after(self) -> None:
        self.after += 1
        assert self.after == len(self.news)


Work = Callable[[Upkeep, FakeKernel, Turns], Coroutine[Any, Any, None]]


async def main(work: Work) -> None:
    kernel: Any = FakeKernel()
    turn = Turns()
    upkeep = Upkeep(
        kernel,
        lambda: kernel.wanted,
        turn,
        EventLog(),
        revive=kernel.revive,
        after=kernel.looked_after,
    )
    async with asyncio.timeout(60.0):
        await work(upkeep, kernel, turn)


def beside(work: Work) -> None:
    """Run `work` with an upkeep of a fake kernel."""
    asyncio.run(main(work))


def test_a_problem_is_logged_when_it_is_new(caplog: pytest.LogCaptureFixture) -> None:
    async def work(upkeep: Upkeep, kernel: FakeKernel, _: Turns) -> None:
        kernel.problems = (PROBLEM,)
        await upkeep.apply()
        await upkeep.apply()
        assert upkeep.problems == (PROBLEM,)
        kernel.problems = ()
        await upkeep.apply()
        assert upkeep.problems == ()
        assert kernel.after == 3

    beside(work)
    assert [line.message for line in caplog.records] == ["kernel.problem"]


def test_repairs_are_logged_a_few_by_name(caplog: pytest.LogCaptureFixture) -> None:
    async def work(upkeep: Upkeep, kernel: FakeKernel, _: Turns) -> None:
        kernel.repaired = tuple(f"add route {number}" for number in range(9))
        await upkeep.apply()

    with caplog.at_level("INFO"):
        beside(work)
    (line,) = caplog.records
    assert line.message == "kernel.repaired"
    assert line.fields["count"] == 9
    assert line.fields["repaired"].endswith("add route 3 and 5 more")


def test_a_fight_is_a_problem_and_slows_the_looks_down() -> None:
    async def work(upkeep: Upkeep, kernel: FakeKernel, _: Turns) -> None:
        kernel.repaired = ("add route 10.244.0.0/16 dev muslin0",)
        for _ in range(LIMIT):
            assert upkeep.problems == ()
            await upkeep.apply()
        assert [problem.code for problem in upkeep.problems] == ["kernel-contested"]
        assert upkeep._pause >= PAUSE

    beside(work)


def test_an_interface_that_is_gone_is_made_anew_again_and_again() -> None:
    async def work(upkeep: Upkeep, kernel: FakeKernel, _: Turns) -> None:
        kernel.problems = (GONE,)
        await upkeep.apply()
        await upkeep.apply()
        assert kernel.revived == 2
        kernel.problems = (PROBLEM,)
        await upkeep.apply()
        assert kernel.revived == 2

    beside(work)


def test_the_kernel_follows_a_change_of_the_network_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upkeep_module, "LOOK_INTERVAL", 600.0)

    async def work(upkeep: Upkeep, kernel: FakeKernel, _: Turns) -> None:
        running = asyncio.ensure_future(upkeep.run())
        await kernel.looked.wait()
        kernel.wanted = replace(kernel.wanted, own_outside=(ip_network("192.0.2.0/24"),))
        assert await kernel.look_after(upkeep.network_changed) == NO_NEWS
        running.cancel()

    beside(work)


def test_what_is_wanted_as_before_is_looked_at_when_somebody_says_so() -> None:
    async def work(upkeep: Upkeep, kernel: FakeKernel, _: Turns) -> None:
        running = asyncio.ensure_future(upkeep.run())
        await kernel.looked.wait()
        assert await kernel.look_after(upkeep.look_at_once) == NO_NEWS
        running.cancel()

    beside(work)


def test_a_change_of_pods_alone_is_the_affair_of_who_asked_for_it() -> None:
    async def work(upkeep: Upkeep, kernel: FakeKernel, _: Turns) -> None:
        upkeep.network_changed()
        assert upkeep._wished  # nothing was looked at yet
        await upkeep.apply(upkeep._take_news(0.0))
        kernel.wanted = node_snapshot(1, (pod_view(1, 1),))
        upkeep.network_changed()
        assert not upkeep._wished
        kernel.wanted = replace(kernel.wanted, address=ip_address("10.244.0.77"))
        upkeep.network_changed()
        assert upkeep._wished

    beside(work)


class Told(KernelWatch):
    """Something in the node's namespace was announced."""

    def __init__(self) -> None:
        pass

    def hear(self) -> Heard:
        return Heard(here=True, there=frozenset(), lost=False)


def test_what_is_heard_while_requests_change_pods_is_looked_at_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quiet = 0.5  # longer than this test may have to wait for the processor
    monkeypatch.setattr(upkeep_module, "QUIET", quiet)

    async def work(upkeep: Upkeep, _: FakeKernel, turn: Turns) -> None:
        clock = asyncio.get_running_loop().time

        def heard() -> float:
            """Seconds until the look."""
            upkeep._hear(Told(), of_rules=False)
            return upkeep._due - clock()

        async with turn.sharing("web"):
            assert heard() > quiet
        assert heard() > quiet  # the end of the turn may be heard of before what was done in it
        turn._shared_until -= 2 * quiet
        assert heard() <= quiet  # somebody else
        async with turn.sharing("web"):
            assert heard() <= quiet  # what he did is not put off
        assert upkeep._take_news(0.0) == News(node=True)

    beside(work)


def test_without_any_news_it_looks_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep_module, "LOOK_INTERVAL", 0.05)

    async def work(upkeep: Upkeep, kernel: FakeKernel, _: Turns) -> None:
        running = asyncio.ensure_future(upkeep.run())
        await kernel.looked.wait()
        news = await kernel.look_after(lambda: None)
        assert (news.node, news.inside, news.sweep >= SWEEP) == (True, frozenset(), True)
        running.cancel()

    beside(work)


def test_where_something_changes_all_the_time_the_regular_looks_are_not_put_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upkeep_module, "LOOK_INTERVAL", 0.05)

    async def work(upkeep: Upkeep, kernel: FakeKernel, _: Turns) -> None:
        running = asyncio.ensure_future(upkeep.run())
        await kernel.looked.wait()
        while not (await kernel.look_after(upkeep.network_changed)).sweep:
            pass
        running.cancel()

    beside(work)


def test_a_kernel_that_lets_nobody_listen_is_looked_at_regularly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "not permitted")

    monkeypatch.setattr(upkeep_module, "LOOK_INTERVAL", 0.05)
    monkeypatch.setattr(upkeep_module, "KernelWatch", refuse)

    async def work(upkeep: Upkeep, kernel: FakeKernel, _: Turns) -> None:
        running = asyncio.ensure_future(upkeep.run())
        await kernel.looked.wait()
        news = await kernel.look_after(lambda: None)
        assert news == News(node=True, rules=True, sweep=upkeep_module.DEAF_SWEEP)
        running.cancel()

    beside(work)


def test_pods_that_a_request_is_changing_are_left_to_it() -> None:
    async def work(upkeep: Upkeep, kernel: FakeKernel, turn: Turns) -> None:
        async with turn.alone():
            waiting = asyncio.ensure_future(upkeep.apply())
            for _ in range(10):
                await asyncio.sleep(0)
            assert kernel.news == []
        await waiting
        assert kernel.news == [ANYTHING]

    beside(work)


class TestOnARealKernel:
    pytestmark = NEEDS_KERNEL

    @pytest.mark.parametrize(
        ("command", "expected"),
        [
            ("ip link set lo mtu 1400", News(node=True)),
            ("ip route add unreachable 10.0.0.0/8", News(node=True)),
            ("nft add table inet others", News(rules=True)),
        ],
    )
    def test_a_change_in_the_kernel_is_looked_at(
        self, command: str, expected: News, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(upkeep_module, "LOOK_INTERVAL", 600.0)  # nothing but the news helps

        async def work(upkeep: Upkeep, kernel: FakeKernel, _: Turns) -> None:
            running = asyncio.ensure_future(upkeep.run())
            await kernel.looked.wait()
            act = command.split()
            assert await kernel.look_after(lambda: subprocess.check_call(act)) == expected
            running.cancel()

        beside_a_kernel(work)

    def test_nothing_that_is_heard_while_requests_change_pods_is_missed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(upkeep_module, "LOOK_INTERVAL", 600.0)
        monkeypatch.setattr(upkeep_module, "OWN", 0.2)

        async def work(upkeep: Upkeep, kernel: FakeKernel, turn: Turns) -> None:
            running = asyncio.ensure_future(upkeep.run())
            await kernel.looked.wait()
            act = ["ip", "link", "set", "lo", "mtu", "1400"]
            async with turn.sharing("web"):
                kernel.looked.clear()
                await asyncio.to_thread(subprocess.check_call, act)
                await asyncio.sleep(2 * QUIET)  # as requests do: until it was heard
                assert not kernel.looked.is_set()
            await kernel.looked.wait()
            assert kernel.news[-1] == News(node=True)
            running.cancel()

        beside_a_kernel(work)


def beside_a_kernel(work: Work) -> None:
    """Run `work` as `beside` does, in a namespace of its own."""
    path = netns.create(f"ku{os.getpid()}")
    try:
        netns.run_in(path, subprocess.check_call, ["ip", "link", "set", "lo", "up"])
        netns.run_in(path, run_loop, lambda: main(work), LoopKind.UVLOOP)
    finally:
        netns.delete(path.name)
