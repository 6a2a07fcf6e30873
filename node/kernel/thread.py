"""The thread that speaks netlink.

    daemon's loop (uvloop) --call--> queue --> thread "kernel": Netlink on a plain asyncio loop

pyroute2 cannot open its sockets on uvloop, so the daemon hands such work over and awaits the
result. One thread, so that changes never overlap and are done in the order they were asked for;
beside it there is one more, which only removes links of pods (see `node.kernel.manager`).

References:
    pyroute2 issue 1335, uvloop issue 676.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from node.kernel.netlink import Netlink

P = ParamSpec("P")
T = TypeVar("T")


class KernelThread:
    """Runs functions on a `Netlink` in a thread of its own, one after the other.

    The thread is in the network namespace of the process. It starts with the first call.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")
        self._netlink: Netlink | None = None

    async def call(
        self,
        function: Callable[Concatenate[Netlink, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """The result of `function(netlink, *args, **kwargs)`, called in the thread.

        A cancelled caller stops waiting; what the thread has begun it finishes.

        Raises:
            KernelError: the netlink socket cannot be opened. And what `function` raises.
        """

        def work() -> T:
            return function(self._opened(), *args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _opened(self) -> Netlink:
        if self._netlink is None:
            self._netlink = Netlink()
        return self._netlink

    async def close(self) -> None:
        """Finish what was asked for, close the socket, end the thread. Twice is fine."""
        loop = asyncio.get_running_loop()
        if self._netlink is not None:
            await loop.run_in_executor(self._executor, self._netlink.close)
            self._netlink = None
        self._executor.shutdown(wait=False)
