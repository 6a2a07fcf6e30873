"""Tasks are kept, named, and heard when they fail."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref

import pytest

from node.tasks import Crash, Outcome, contain, running, spawn, stop


def test_a_task_that_nobody_holds_survives_the_garbage_collector() -> None:
    async def main() -> None:
        done = asyncio.Event()
        gate = asyncio.Event()

        async def work() -> None:
            await gate.wait()
            done.set()

        reference = weakref.ref(spawn(work(), name="work"))
        await asyncio.sleep(0)
        gc.collect()
        assert reference() is not None
        assert running() == ("work",)
        gate.set()
        await done.wait()
        await asyncio.sleep(0)
        assert running() == ()

    asyncio.run(main())


def test_a_crash_is_logged_with_its_name_and_told(caplog) -> None:
    crashes: list[tuple[str, str]] = []

    async def fail() -> None:
        raise ValueError("broken")

    async def main() -> None:
        await spawn(fail(), name="fragile", on_crash=lambda name, e: crashes.append((name, str(e))))

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert crashes == [("fragile", "broken")]
    (record,) = caplog.records
    assert record.fields == {"task": "fragile", "error": "ValueError('broken')"}
    assert record.exc_info is not None


def test_stopping_cancels_in_order_and_is_no_crash(caplog) -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def main() -> None:
        first, second = (spawn(work(name), name=name) for name in ("a", "b"))
        await asyncio.sleep(0)
        await stop(second, first)
        assert first.cancelled()

    asyncio.run(main())
    assert ended == ["b", "a"]
    assert not caplog.records


def test_contained_work_gives_its_value_its_expected_error_or_a_crash(caplog) -> None:
    async def give() -> int:
        return 5

    async def fail(error: Exception) -> int:
        raise error

    async def main() -> None:
        assert await contain(give(), name="x") == Outcome(5)
        crash = await contain(fail(KeyError("k")), name="x")
        assert isinstance(crash, Crash)
        assert isinstance(crash.error, KeyError)
        with pytest.raises(ValueError, match="known"):
            await contain(fail(ValueError("known")), name="x", expected=(ValueError,))

    asyncio.run(main())
    assert len(caplog.records) == 1


def test_cancelling_contained_work_is_not_swallowed() -> None:
    async def main() -> None:
        task = spawn(wait(), name="outer")
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def wait() -> None:
        await contain(asyncio.Event().wait(), name="inner")

    asyncio.run(main())


def test_a_task_that_is_stopped_before_it_began_is_quiet(recwarn) -> None:
    began = []

    async def work() -> None:
        began.append(True)

    async def main() -> None:
        await stop(spawn(work(), name="work"))

    asyncio.run(main())
    gc.collect()
    assert began == []
    assert [str(warning.message) for warning in recwarn] == []
