"""Waits for the address block that this node has asked another one for.

Nobody tells when it has come, and the engine refuses meanwhile. A person or a runtime that asks for
a pod shall not have to ask again for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from node.control.ports import DaemonPort
from overlay.conflict import JUST_STARTED
from overlay.errors import RefusedError

T = TypeVar("T")

GROWTH_LOOK: Final = 0.05
"""Seconds between looks whether the block has come that this node asked for: no effect tells."""

GROWTH_LOOKS: Final = 60
"""Looks before a pod is refused: three seconds, in which several members are asked. After a restart
a node hands out nothing for less than that."""

NO_ADDRESS: Final = "no-free-address"
"""Code of the refusal."""


async def patiently(daemon: DaemonPort, attempt: Callable[[], Awaitable[T]]) -> T:
    """What `attempt` gives, tried again while a block that was asked for may come.

    Raises:
        RefusedError: the last one, when that takes too long. And what `attempt` raises else.
    """
    for looks in range(GROWTH_LOOKS, -1, -1):
        try:
            return await attempt()
        except RefusedError as refused:
            short = refused.code == NO_ADDRESS and daemon.engine.seeks_block()
            if not looks or not (short or refused.code == JUST_STARTED):
                raise
        await asyncio.sleep(GROWTH_LOOK)
    raise AssertionError("the last look returns or raises")
