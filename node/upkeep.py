"""Keeps the kernel's part of the network: when to look, and what to say of it.

    the engine's state changes ---+
                                  +--> KernelManager.apply --> problems, for `muslin status`
    every REPAIR_INTERVAL --------+                        --> log lines

Pods that a request is about to change are the request's affair: both take turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from node.control.turns import Turns
from node.kernel.manager import REPAIR_INTERVAL, KernelManager
from node.logs import EventLog
from overlay.views import LocalView, Problem


class Upkeep:
    """The task of a daemon that keeps its kernel.

    Args:
        kernel: what does it.
        look: what the kernel must follow, as it is now.
        turns: taken by whoever changes pods.
        log: where problems are told.

    Attributes:
        problems: what could not be done, as of the last look.
    """

    def __init__(
        self,
        kernel: KernelManager,
        look: Callable[[], LocalView],
        turns: Turns,
        log: EventLog,
    ) -> None:
        self._kernel = kernel
        self._look = look
        self._turns = turns
        self._log = log
        self._changed = asyncio.Event()
        self.problems: tuple[Problem, ...] = ()

    def network_changed(self) -> None:
        """Let the kernel follow soon."""
        self._changed.set()

    async def run(self) -> None:
        """Follow every change at once, and look every few seconds whether it is still so."""
        while True:
            try:
                async with asyncio.timeout(REPAIR_INTERVAL):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            await self.apply()

    async def apply(self) -> None:
        """Look once, and do what is missing."""
        async with self._turns.alone():
            problems = await self._kernel.apply(self._look())
        for new in set(problems) - set(self.problems):
            self._log.warning("kernel.problem", code=new.code, what=new.what, why=new.why)
        self.problems = problems
