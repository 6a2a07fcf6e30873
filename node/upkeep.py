"""Keeps the kernel's part of the network: when to look, and what to say of it.

    the engine's state changes -------- at once ---------+
    the kernel announces a change ----- a moment later --+--> KernelManager.apply --> problems
    nothing of that for LOOK_INTERVAL -------------------+                        --> repairs

The moment lets a burst of announcements become one look. It grows with what a look costs, so that
a machine on which containers come and go all the time does not keep the daemon busy with looking,
and it grows when another program undoes what is put right (`node.kernel.contest`). Our own changes
are announced too: the look that follows finds nothing to do.

Pods that a request is about to change are the request's affair: both take turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from node.control.turns import Turns
from node.kernel.contest import Contest
from node.kernel.manager import KernelManager
from node.kernel.troubles import TUN_GONE
from node.kernel.watch import (
    ANYTHING,
    NETLINK_NETFILTER,
    NO_NEWS,
    RULES,
    KernelWatch,
    News,
)
from node.logs import EventLog
from overlay.effects import Report
from overlay.views import LocalView, Problem

LOOK_INTERVAL: Final = 4.0
"""Seconds between two looks when nothing is heard. Not everything is announced."""

RETRY_INTERVAL: Final = 1.0
"""The same while something is wrong."""

QUIET: Final = 0.05
"""Seconds from the first announcement to the look: what is done at once is seen at once."""

COSTLY: Final = 4.0
"""Between two looks at least so many times as long passes as the last one took."""

LONGEST_PAUSE: Final = 2.0
"""Seconds; but no more than that: a look that had to wait for something else is no measure."""

SWEEP: Final = 4
"""Pods to look into each time though nothing was heard of them."""

DEAF_SWEEP: Final = 32
"""The same where nothing can be heard of pods' namespaces."""

_NAMED: Final = 4
"""So many repairs are named in a log line."""


class Upkeep:
    """The task of a daemon that keeps its kernel.

    Args:
        kernel: what does it.
        look: what the kernel must follow, as it is now.
        turns: taken by whoever changes pods.
        log: where problems and repairs are told.
        revive: makes the TUN interface anew, should it be gone.
        after: awaited after each look.

    Attributes:
        problems: what is wrong, as of the last look.
    """

    def __init__(
        self,
        kernel: KernelManager,
        look: Callable[[], LocalView],
        turns: Turns,
        log: EventLog,
        *,
        revive: Callable[[], None],
        after: Callable[[], Awaitable[None]],
    ) -> None:
        self._kernel = kernel
        self._look = look
        self._turns = turns
        self._log = log
        self._revive = revive
        self._wake = asyncio.Event()
        self._wished = False
        self._news = NO_NEWS
        self._heard_at = 0.0
        self._last = 0.0
        self._pause = 0.0
        self._regular = ANYTHING
        self._contest = Contest()
        self._after = after
        self.problems: tuple[Problem, ...] = ()

    # -- when ------------------------------------------------------------------------------------

    def network_changed(self) -> None:
        """Let the kernel follow soon."""
        self._wished = True
        self._wake.set()

    async def run(self) -> None:
        """Look whenever there is a reason to, until cancelled."""
        loop = asyncio.get_running_loop()
        with self._listening(loop):
            while True:
                await self._wait(loop)
                await self.apply(self._take_news())

    async def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._wished:
            interval = RETRY_INTERVAL if self.problems else LOOK_INTERVAL
            due = self._last + max(interval, self._pause)
            if self._news != NO_NEWS:
                due = max(self._heard_at + QUIET, self._last + self._pause)
            if (wait := due - loop.time()) <= 0:
                break
            self._wake.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _take_news(self) -> News:
        """What was heard; what is looked at regularly, if nothing was."""
        wished, self._wished = self._wished, False
        news, self._news = self._news, NO_NEWS
        return news if wished or news != NO_NEWS else self._regular

    # -- hearing ---------------------------------------------------------------------------------

    @contextmanager
    def _listening(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Hear announcements, as far as the kernel lets us."""
        network = _watch(everywhere=True)
        rules = _watch(NETLINK_NETFILTER, RULES)
        everywhere = network is not None and network.everywhere
        self._regular = News(
            node=True, rules=rules is None, sweep=SWEEP if everywhere else DEAF_SWEEP
        )
        self._news = News(node=True, rules=True)  # what happened until now was not heard
        watches = [watch for watch in (network, rules) if watch is not None]
        try:
            for watch in watches:
                loop.add_reader(watch.fileno(), self._hear, watch, watch is rules)
            yield
        finally:
            for watch in watches:
                loop.remove_reader(watch.fileno())
                watch.close()

    def _hear(self, watch: KernelWatch, of_rules: bool) -> None:
        here, there, lost = watch.hear()
        if of_rules:
            news = News(rules=here or lost)
        else:
            there &= self._kernel.namespaces
            news = News(node=here or lost, inside=None if lost else there)
        if news == NO_NEWS:
            return
        if self._news == NO_NEWS:
            self._heard_at = asyncio.get_running_loop().time()
        self._news |= news
        self._wake.set()

    # -- looking ---------------------------------------------------------------------------------

    async def apply(self, news: News = ANYTHING) -> None:
        """Look once, and do what is missing."""
        loop = asyncio.get_running_loop()
        async with self._turns.alone():
            began = loop.time()
            looked = await self._kernel.apply(self._look(), news)
            self._last = loop.time()
        self._contest.on_repaired(looked.repaired, self._last)
        costly = min(COSTLY * (self._last - began), LONGEST_PAUSE)
        self._pause = max(costly, self._contest.pause(self._last))
        if looked.repaired:
            self._tell(looked.repaired)
        contested = self._contest.problem(self._last)
        problems = looked.problems if contested is None else (*looked.problems, contested)
        for new in problems:
            if new not in self.problems:
                self._log.warning("kernel.problem", code=new.code, what=new.what, why=new.why)
        self.problems = problems
        if any(problem.code == TUN_GONE for problem in problems):
            self._revive()
        await self._after()

    def _tell(self, repaired: tuple[str, ...]) -> None:
        more = len(repaired) - _NAMED
        named = ", ".join(repaired[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        told = Report("kernel.repaired", {"repaired": named, "count": len(repaired)})
        self._log.report(told, now=self._last)  # within an allowance: somebody else is the cause


def _watch(*what: int, everywhere: bool = False) -> KernelWatch | None:
    try:
        return KernelWatch(*what, everywhere=everywhere)
    except OSError:
        return None  # then there are only the regular looks
