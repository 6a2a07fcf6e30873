"""Runs the daemon on uvloop, or on plain asyncio where it is wanted or uvloop is missing.

uvloop comes in through a loop factory, for this one loop only. `uvloop.install()` would set a
policy for the whole process, and the netlink thread's plain loop would become uvloop as well,
which cannot open AF_NETLINK sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")


class LoopKind(StrEnum):
    """Which event loop the daemon runs on."""

    UVLOOP = "uvloop"
    ASYNCIO = "asyncio"


def run(main: Callable[[], Coroutine[Any, Any, T]], kind: LoopKind) -> T:
    """Run `main()` to its end and return its result.

    uvloop that cannot be imported falls back to asyncio: slower, never wrong.
    """
    with asyncio.Runner(loop_factory=_factory(kind)) as runner:
        return runner.run(main())


def _factory(kind: LoopKind) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if kind is LoopKind.ASYNCIO:
        return None
    try:
        import uvloop  # noqa: PLC0415 - optional, and 77 ms that plain asyncio need not pay
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
