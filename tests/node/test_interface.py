"""Whose a TUN interface is, against the kernel, in namespaces that are gone after each test."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from node import interface
from node.interface import keep_tun, mark_of, open_tun
from node.io.tun import Tun, TunError
from node.kernel.thread import KernelThread
from overlay.types import NodeId
from tests.support.namespace import in_namespace, ip
from tests.support.privileged import NEEDS_KERNEL

pytestmark = NEEDS_KERNEL

OURS, OTHER = NodeId(b"\x01" * 32), NodeId(b"\x02" * 32)


def inside(work: Callable[[KernelThread], Awaitable[None]]) -> None:
    """Do `work` with a netlink thread of a fresh namespace."""

    async def main() -> None:
        thread = KernelThread()
        try:
            await work(thread)
        finally:
            await thread.close()

    in_namespace(lambda: asyncio.run(main()))


def make(*, queues: bool = False) -> Tun:
    return Tun("tun0", queues=queues)


def index() -> int:
    return socket.if_nametoindex("tun0")


async def killed(node: NodeId, thread: KernelThread, *, queues: bool = False) -> int:
    """An interface as a daemon leaves it that is killed; its index."""
    tun = await open_tun("tun0", node, thread, lambda: make(queues=queues))
    await keep_tun(tun, node, thread)
    ip("addr add 10.77.0.1/32 dev tun0", "link set tun0 up")
    os.close(tun.fileno())
    return index()


def test_one_of_a_killed_daemon_is_used_again_with_all_that_is_on_it() -> None:
    async def work(thread: KernelThread) -> None:
        was = await killed(OURS, thread)
        tun = await open_tun("tun0", OURS, thread, make)
        assert index() == was
        assert "10.77.0.1" in ip("addr show tun0")
        assert f"alias {mark_of(OURS)}" in ip("link show tun0")
        tun.close()

    inside(work)


@pytest.mark.parametrize(
    ("node", "queues"), [(OTHER, False), (OURS, True)], ids=["another node's", "other queues"]
)
def test_a_leftover_that_is_of_no_use_is_made_anew(node: NodeId, queues: bool) -> None:
    async def work(thread: KernelThread) -> None:
        was = await killed(node, thread, queues=queues)
        tun = await open_tun("tun0", OURS, thread, make)
        assert index() != was
        assert "10.77.0.1" not in ip("addr show tun0")
        tun.close()

    inside(work)


@pytest.mark.parametrize(
    "command", ["link add tun0 type bridge", "tuntap add tun0 mode tun"], ids=["bridge", "tun"]
)
def test_what_is_not_ours_is_left_alone(command: str) -> None:
    async def work(thread: KernelThread) -> None:
        ip(command)
        was = index()
        with pytest.raises(TunError, match="the name is taken by an interface that is not"):
            await open_tun("tun0", OURS, thread, make)
        assert index() == was

    inside(work)


def test_one_that_has_a_reader_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "LAST_READER", 0.05)

    async def work(thread: KernelThread) -> None:
        with_reader = await open_tun("tun0", OTHER, thread, make)
        await keep_tun(with_reader, OTHER, thread)
        with pytest.raises(TunError, match="the name is taken by another daemon"):
            await open_tun("tun0", OURS, thread, make)
        with_reader.close()

    inside(work)


def test_the_last_reader_is_waited_for() -> None:
    async def work(thread: KernelThread) -> None:
        last = await open_tun("tun0", OURS, thread, make)
        await keep_tun(last, OURS, thread)
        waiting = asyncio.ensure_future(open_tun("tun0", OURS, thread, make))
        await asyncio.sleep(0)
        assert not waiting.done()
        last.let_go()
        (await waiting).close()

    inside(work)


def test_one_that_cannot_be_marked_is_not_kept() -> None:
    async def work(thread: KernelThread) -> None:
        tun = await open_tun("tun0", OURS, thread, make)
        ip("link del tun0")
        with pytest.raises(Exception, match="tun0"):
            await keep_tun(tun, OURS, thread)
        assert not tun.kept
        tun.close()

    inside(work)


def test_one_that_was_made_anew_while_the_last_was_marked_is_marked_before_it_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(thread: KernelThread) -> None:
        tun = await open_tun("tun0", OURS, thread, make)
        mark = thread.call

        async def mark_in_vain(*what: Any) -> None:
            monkeypatch.undo()
            await mark(*what)
            ip("link del tun0")
            tun.reopen()

        monkeypatch.setattr(thread, "call", mark_in_vain)
        await keep_tun(tun, OURS, thread)
        assert f"alias {mark_of(OURS)}" in ip("link show tun0")
        assert tun.kept
        tun.close()

    inside(work)
