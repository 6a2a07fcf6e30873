from __future__ import annotations

import asyncio
import threading

import pytest

from node.kernel.errors import KernelError
from node.kernel.netlink import Netlink
from node.kernel.thread import KernelThread
from node.loop import LoopKind, run
from tests.support.processes import PATIENCE

KINDS = list(LoopKind)


@pytest.mark.parametrize("kind", KINDS)
def test_netlink_answers_whatever_loop_the_daemon_runs_on(kind: LoopKind) -> None:
    async def main() -> int | None:
        thread = KernelThread()
        try:
            return await thread.call(Netlink.link_index, "lo")
        finally:
            await thread.close()

    assert run(main, kind) == 1


def test_calls_run_in_order_in_one_thread_that_is_not_the_loops() -> None:
    async def main() -> None:
        thread = KernelThread()
        seen: list[tuple[int, int]] = []

        def note(_: Netlink, number: int) -> None:
            seen.append((number, threading.get_ident()))

        await asyncio.gather(*(thread.call(note, number) for number in range(20)))
        await thread.close()
        assert [number for number, _ in seen] == list(range(20))
        assert len({ident for _, ident in seen}) == 1
        assert threading.get_ident() not in {ident for _, ident in seen}

    asyncio.run(main())


def test_errors_reach_the_caller_and_the_thread_goes_on() -> None:
    async def main() -> None:
        thread = KernelThread()

        def fail(_: Netlink) -> None:
            raise KernelError("no")

        with pytest.raises(KernelError, match="no"):
            await thread.call(fail)
        assert await thread.call(Netlink.link_index, "lo") == 1
        await thread.close()

    asyncio.run(main())


def test_a_cancelled_caller_does_not_stop_what_was_begun() -> None:
    async def main() -> None:
        thread = KernelThread()
        begun, release, done = threading.Event(), threading.Event(), threading.Event()

        def slow(_: Netlink) -> None:
            begun.set()
            release.wait(PATIENCE)
            done.set()

        waiting = asyncio.ensure_future(thread.call(slow))
        await asyncio.to_thread(begun.wait, PATIENCE)
        waiting.cancel()
        release.set()
        await thread.call(Netlink.link_index, "lo")
        assert done.is_set()
        await thread.close()

    asyncio.run(main())


def test_closing_twice_or_unused_is_fine() -> None:
    async def main() -> None:
        thread = KernelThread()
        await thread.close()
        await thread.close()

    asyncio.run(main())
