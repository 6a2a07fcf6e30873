"""The TUN interface beyond one process: whose it is, how it is found again, how long it stays.

    made --> marked (alias "muslin NODE") --> kept --> clean stop: gone
                                                  '--> killed: stays, without a reader; attached to
                                                       by the next daemon of the same node

The mark comes first: what was left behind without it would be taken for somebody else's for ever.
A leftover of this node is used again, with its addresses and routes; one of another node, or made
in another way, is of no use and removed. What has a reader, or no mark of ours, is left alone.

While nobody reads, routes that lead to the interface stay in force and the kernel drops what takes
them, without an ICMP error: connections wait for the next daemon, and nothing leaves unencrypted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from node.io.tun import Tun, TunError
from node.kernel.netlink import Netlink
from node.kernel.reconcile import DeleteLink
from node.kernel.thread import KernelThread
from overlay.types import NodeId

MARK: Final = "muslin"
"""First word of the alias of every TUN interface of ours."""

LAST_READER: Final = 2.0
"""Seconds for what remains of a killed daemon, such as its lanes, to let go of the interface."""

LOOK: Final = 0.02


def mark_of(node: NodeId) -> str:
    """The alias of a node's TUN interface.

    >>> mark_of(NodeId(bytes(32)))
    'muslin 0000000000000000'
    """
    return f"{MARK} {node.hex()[:16]}"


async def open_tun(name: str, node: NodeId, thread: KernelThread, make: Callable[[], Tun]) -> Tun:
    """Make the interface, or attach to the one that an earlier daemon of the node left.

    Args:
        name: of the interface.
        node: whose it is.
        thread: where netlink is spoken.
        make: makes a `Tun` of that name, or attaches to one.

    Raises:
        TunError: it cannot be made, or the name is taken.
        KernelError: the kernel does not answer. Nothing else.
    """
    found = await _unread(name, thread)
    if found == mark_of(node):
        try:
            return make()
        except TunError:
            found = MARK  # made for other settings
    if found:
        await thread.call(Netlink.apply, DeleteLink(name))
    return make()


async def _unread(name: str, thread: KernelThread) -> str:
    """The mark of a leftover; empty if there is no interface of that name.

    Raises:
        TunError: it is not ours, or it has a reader.
        KernelError: the kernel does not answer. Nothing else.
    """
    deadline = time.monotonic() + LAST_READER
    while (facts := await thread.call(Netlink.link_facts, name)) is not None:
        if facts.kind != "tun" or facts.alias.split(" ")[0] != MARK:
            raise _taken(name, "by an interface that is not Muslin's")
        if not facts.carrier:
            return facts.alias
        if time.monotonic() >= deadline:
            raise _taken(name, "by another daemon")
        await asyncio.sleep(LOOK)
    return ""


def _taken(name: str, by: str) -> TunError:
    why = f"cannot make the interface {name}: the name is taken {by}"
    return TunError(why, "remove that one, or set another `tun` name")


async def keep_tun(tun: Tun, node: NodeId, thread: KernelThread) -> None:
    """Let the interface stay if this process is killed. Twice is fine.

    Raises:
        TunError: it is gone.
        KernelError: the kernel refused to mark it; it is not kept then. Nothing else.
    """
    while not tun.kept:
        marked = tun.fileno()
        await thread.call(Netlink.set_alias, tun.name, mark_of(node))
        if tun.fileno() == marked:  # else it was made anew meanwhile
            tun.keep()
