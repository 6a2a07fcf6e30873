"""Keeps the kernel's part of the network: when to look, and what to say of it.

    the engine wants something else ----- at once ---------+
    the kernel announces a change ------- a moment later --+--> KernelManager.apply --> problems
    the same while requests change pods - OWN later -------+                        --> repairs
    LOOK_INTERVAL has passed ------------------------------+

The moment lets a burst of announcements become one look. It grows with what a look costs, so that
a machine on which containers come and go all the time does not keep the daemon busy with looking,
and it grows when another program undoes what is put right (`node.kernel.contest`).

Pods that a request changes are the request's affair: both take turns, and what the engine says of
pods alone is no reason to look. Our own changes are announced like others', and nothing in an
announcement tells them apart. So none is passed over: what is heard while requests change pods is
looked at, too, but all of it together, some time later. A look waits for all changes in hand, and
those behind it for the look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
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
"""Seconds between two looks at all that may change unheard. Not everything is announced."""

RETRY_INTERVAL: Final = 1.0
"""The same while something is wrong."""

QUIET: Final = 0.05
"""Seconds from the first announcement to the look: what is done at once is seen at once."""

OWN: Final = 2.0
"""The same for what is heard while requests change pods: most likely it is what they did."""

COSTLY: Final = 4.0
"""Between two looks at least so many times as long passes as the last one took."""

LONGEST_PAUSE: Final = 2.0
"""Seconds; but no more than that: a look that had to wait for something else is no measure."""

SWEEP: Final = 16
"""Pods to look into each time though nothing was heard of them, at 0.6 ms of the processor each.

Only neighbours and some settings of IPv6 change without being announced."""

DEAF_SWEEP: Final = 128
"""The same where nothing can be heard of pods' namespaces (no CAP_NET_BROADCAST): so many pods are
right again within one interval; of more, all are after as many intervals as that takes."""

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
        self._due = 0.0
        self._followed: LocalView | None = None
        self._last = 0.0
        self._pause = 0.0
        self._regular = ANYTHING
        self._regular_at = 0.0
        self._contest = Contest()
        self._after = after
        self.problems: tuple[Problem, ...] = ()

    # -- when ------------------------------------------------------------------------------------

    def look_at_once(self) -> None:
        """Let the kernel follow whatever is to be followed now."""
        self._wished = True
        self._wake.set()

    def network_changed(self) -> None:
        """The engine's state changed: let the kernel follow, if more than pods is another."""
        if self._followed is None or _without_pods(self._look()) != self._followed:
            self.look_at_once()

    async def run(self) -> None:
        """Look whenever there is a reason to, until cancelled."""
        loop = asyncio.get_running_loop()
        with self._listening(loop):
            while True:
                await self._wait(loop)
                await self.apply(self._take_news(loop.time()))

    async def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._wished:
            due = self._regular_at + LOOK_INTERVAL
            if self.problems:
                due = min(due, self._last + RETRY_INTERVAL)
            if self._news != NO_NEWS:
                due = min(due, self._due)
            if (wait := max(due, self._last + self._pause) - loop.time()) <= 0:
                break
            self._wake.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _take_news(self, now: float) -> News:
        """What was heard, and what is looked at regularly: on a busy machine, too."""
        wished, self._wished = self._wished, False
        news, self._news = self._news, NO_NEWS
        if (wished or news != NO_NEWS) and now < self._regular_at + LOOK_INTERVAL:
            return news
        self._regular_at = now
        return news | self._regular

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
        self._regular_at = loop.time()
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
        now = asyncio.get_running_loop().time()
        due = now + (OWN if self._turns.shared_since(now - QUIET) else QUIET)
        self._due = due if self._news == NO_NEWS else min(self._due, due)
        self._news |= news
        self._wake.set()

    # -- looking ---------------------------------------------------------------------------------

    async def apply(self, news: News = ANYTHING) -> None:
        """Look once, and do what is missing."""
        loop = asyncio.get_running_loop()
        async with self._turns.alone():
            began = loop.time()
            wanted = self._look()
            self._followed = _without_pods(wanted)
            looked = await self._kernel.apply(wanted, news)
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


def _without_pods(view: LocalView) -> LocalView:
    return replace(view, pods=())


def _watch(*what: int, everywhere: bool = False) -> KernelWatch | None:
    try:
        return KernelWatch(*what, everywhere=everywhere)
    except OSError:
        return None  # then there are only the regular looks
