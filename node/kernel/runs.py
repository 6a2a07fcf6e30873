"""Runs: what many wait for is done for all of them at once.

    ask(a) --> a run for a
    ask(b), ask(c), while that is on --> one run for b and c, as soon as it is over

Nobody waits for others to come: what is asked for while nothing is in hand begins at once. What is
asked for meanwhile shares the next run, so that work of which most does not depend on how much
there is to do keeps up with any number of askers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

from node.kernel.errors import KernelError
from node.tasks import spawn

T = TypeVar("T")


class _Request(NamedTuple, Generic[T]):
    """Something that waits for being done."""

    name: str
    what: T
    done: asyncio.Future[None]


class Runs(Generic[T]):
    """Does one kind of work, one run after the other. To be used in one event loop.

    Args:
        name: of the task, in the log.
        work: one run: what is to be done by name, each name once; answers what went wrong, by name.
            May raise KernelError: then all of it did.
    """

    def __init__(
        self, name: str, work: Callable[[Mapping[str, T]], Awaitable[Mapping[str, KernelError]]]
    ) -> None:
        self._name = name
        self._work = work
        self._waiting: list[_Request[T]] = []
        self._last: dict[str, asyncio.Future[None]] = {}
        self._runner: asyncio.Task[None] | None = None

    async def ask(self, name: str, what: T) -> None:
        """Wait for the run that does this. Cancelled, it is done all the same.

        Args:
            name: whose it is. What is asked for under one name is done in that order.
            what: is to be done.

        Raises:
            KernelError: it went wrong. Nothing else.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(name, what, done))
        self._last[name] = done
        if self._runner is None or self._runner.done():
            self._runner = spawn(self._run_waiting(), name=self._name)
        try:
            await done
        finally:
            if self._last.get(name) is done:
                del self._last[name]

    async def passed(self, name: str) -> None:
        """Wait until all that was asked for under a name is done, or was given up."""
        while (last := self._last.get(name)) is not None:
            await asyncio.wait([last])
            await asyncio.sleep(0)  # who asked comes first

    async def _run_waiting(self) -> None:
        while self._waiting:
            batch = self._take_batch()
            try:
                await self._run(batch)
            finally:
                for request in batch:
                    request.done.cancel()  # after a defect: nobody shall wait for ever

    def _take_batch(self) -> list[_Request[T]]:
        """What waits, in order, up to the second request of one name."""
        taken: dict[str, _Request[T]] = {}
        for request in self._waiting:
            if request.name in taken:
                break
            taken[request.name] = request
        del self._waiting[: len(taken)]
        return list(taken.values())

    async def _run(self, batch: list[_Request[T]]) -> None:
        failed: Mapping[str, KernelError]
        try:
            failed = await self._work({request.name: request.what for request in batch})
        except KernelError as error:
            failed = {request.name: error for request in batch}
        for request in batch:
            if request.done.done():
                continue  # its caller waits no more
            refused = failed.get(request.name)
            if refused is not None:
                request.done.set_exception(refused)
            else:
                request.done.set_result(None)
