"""Asyncio tasks that cannot get lost: named, referenced until done, and heard when they fail.

The loop keeps only weak references to tasks, so a task that nobody holds can vanish half way; and
an exception in a task that nobody awaits is reported when the garbage collector finds it, or never.
`spawn` is therefore the only way to start one (the linter refuses `asyncio.create_task`).

This is also the one place that catches `Exception`: a defect in one task or one request is
reported with its traceback and does not take its neighbours along.

References:
    asyncio documentation, "Important: save a reference to the result of this function".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from node.logs import ERROR, LOGGER, TASK

T = TypeVar("T")

_running: Final[set[asyncio.Task[Any]]] = set()


def spawn(
    coroutine: Coroutine[Any, Any, None],
    *,
    name: str,
    on_crash: Callable[[str, Exception], None] | None = None,
) -> asyncio.Task[None]:
    """Start a task that is kept alive until it ends.

    Args:
        coroutine: what to run. Cancelling the returned task cancels it.
        name: shown in logs and by debuggers.
        on_crash: called with the name and the exception after a crash has been logged.
    """
    task = asyncio.get_running_loop().create_task(_supervised(coroutine, name, on_crash), name=name)
    _running.add(task)
    task.add_done_callback(_running.discard)
    # One that is cancelled before it began has not awaited it.
    task.add_done_callback(lambda _: coroutine.close())
    return task


async def _supervised(
    coroutine: Coroutine[Any, Any, None],
    name: str,
    on_crash: Callable[[str, Exception], None] | None,
) -> None:
    try:
        await coroutine
    except Exception as error:
        _report(name, error)
        if on_crash is not None:
            on_crash(name, error)


@dataclass(frozen=True, slots=True)
class Crash:
    """A defect, contained: `contain` returns this instead of raising."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """The result of work that did not crash."""

    value: T


async def contain(
    work: Awaitable[T], *, name: str, expected: tuple[type[Exception], ...] = ()
) -> Outcome[T] | Crash:
    """Await `work`; a crash is logged and returned, what is `expected` passes through."""
    try:
        return Outcome(await work)
    except expected:
        raise
    except Exception as error:
        _report(name, error)
        return Crash(error)


async def stop(*tasks: asyncio.Task[None]) -> None:
    """Cancel `tasks`, in order, and wait until each has ended. Tasks that ended are fine."""
    for task in tasks:
        task.cancel()
        await asyncio.wait([task])


def running() -> tuple[str, ...]:
    """The names of the tasks that have not ended, for debugging and tests."""
    return tuple(sorted(task.get_name() for task in _running))


def _report(name: str, error: Exception) -> None:
    fields = {TASK: name, ERROR: repr(error)}
    logging.getLogger(LOGGER).error("%s", "task.crashed", extra={"fields": fields}, exc_info=error)
