"""Turns: who may change pods, and what looks at all of them, one after the other.

    sharing("a") | sharing("b") | sharing("c") --> alone --> sharing("a") | ...

A change of a pod has two halves, one in the engine and one in the kernel. Between them both differ,
so nobody may look then who compares them: he takes a turn alone. Changes of different pods do not
mind each other. Their turns are shared, and what they wait for, the disk and the kernel, does the
work of all that wait for it at once: most of what a change costs does not depend on how many there
are. Changes of one pod take turns.

Turns come in the order in which they were asked for, so nobody waits for ever: who wants to be
alone waits for those before him, and those behind him wait.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import NamedTuple


class _Asked(NamedTuple):
    """Somebody who waits; without a key, to be alone."""

    key: Hashable | None
    granted: asyncio.Future[None]


class Turns:
    """The turns of one daemon. To be used in one event loop."""

    def __init__(self) -> None:
        self._asked: list[_Asked] = []
        self._sharing: set[Hashable] = set()
        self._alone = False
        self._shared_until = -math.inf

    def shared_since(self, moment: float) -> bool:
        """Whether anybody shared a turn at that time of the loop or later."""
        return bool(self._sharing) or self._shared_until >= moment

    @asynccontextmanager
    async def sharing(self, key: Hashable) -> AsyncIterator[None]:
        """A turn beside others, for the time of a `with` block; `key` names what is changed."""
        await self._turn(key)
        try:
            yield
        finally:
            self._sharing.discard(key)
            self._shared_until = asyncio.get_running_loop().time()
            self._grant()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """A turn with nobody beside, for the time of a `with` block."""
        await self._turn(None)
        try:
            yield
        finally:
            self._alone = False
            self._grant()

    async def close(self) -> None:
        """Wait until all that has begun is finished; nothing begins any more."""
        await self._turn(None)

    async def _turn(self, key: Hashable | None) -> None:
        asked = _Asked(key, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        self._grant()
        try:
            await asked.granted
        except asyncio.CancelledError:
            self._withdraw(asked)
            raise

    def _withdraw(self, asked: _Asked) -> None:
        """Somebody does not wait any more, or got his turn in the moment in which he gave up."""
        if asked in self._asked:
            self._asked.remove(asked)
        elif asked.key is None:
            self._alone = False
        else:
            self._sharing.discard(asked.key)
        self._grant()

    def _grant(self) -> None:
        """Let all begin that may, in order."""
        waiting: set[Hashable] = set()  # whose change stands further in front
        for asked in tuple(self._asked):
            if asked.granted.done():
                continue  # cancelled, and about to be withdrawn
            if self._alone or (asked.key is None and (self._sharing or waiting)):
                return
            if asked.key is None:
                self._alone = True
            elif asked.key in self._sharing or asked.key in waiting:
                waiting.add(asked.key)
                continue
            else:
                self._sharing.add(asked.key)
            self._asked.remove(asked)
            asked.granted.set_result(None)
