"""Socket and interface of a node, made and passed on, in namespaces of their own."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from node import edges as module
from node.config import NodeConfig
from node.edges import Edges
from node.errors import NodeError
from node.handover.capsule import TUN, UDP
from node.io.tun import TunError
from node.io.udp import UdpError
from node.kernel.thread import KernelThread
from node.selftest.check import Result
from node.state import StateFolder
from node.systemd import Notifier
from overlay.types import Endpoint, NodeId
from tests.support.manager import Manager
from tests.support.namespace import in_namespace, ip
from tests.support.privileged import NEEDS_KERNEL

pytestmark = NEEDS_KERNEL

NODE = NodeId(bytes(32))
CONFIG = replace(NodeConfig(), listen=Endpoint("127.0.0.1", 6875), tun="tun0")
WORKS = Result(CONFIG.tun_offload, {})
NOBODY = Notifier({})


def inside(work: Callable[[KernelThread], Awaitable[None]]) -> None:
    """Do `work` with a netlink thread of a fresh namespace."""

    async def main() -> None:
        thread = KernelThread()
        try:
            await work(thread)
        finally:
            await thread.close()

    in_namespace(lambda: asyncio.run(main()))


async def opened(
    thread: KernelThread,
    passed: dict[str, int] | None = None,
    *,
    config: NodeConfig = CONFIG,
    notifier: Notifier = NOBODY,
    must: bool = True,
) -> Edges:
    edges = Edges(config, NODE, thread, notifier)
    passed = {} if passed is None else passed
    try:
        edges.open_udp(passed, must=must)
        await edges.open_tun(WORKS, passed, must=must)
    except NodeError:
        edges.owned = False
        edges.close()
        raise
    assert passed == {}
    return edges


def copies(edges: Edges) -> dict[str, int]:
    return {name: os.dup(descriptor) for name, descriptor in edges.descriptors.items()}


def links() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def test_what_is_passed_on_keeps_what_waits_in_it() -> None:
    async def work(thread: KernelThread) -> None:
        first = await opened(thread)
        await first.keep()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"waits", ("127.0.0.1", 6875))
        second = await opened(thread, copies(first))
        second.owned = False
        first.tun.let_go()
        first.udp.close()
        assert second.tun.kept
        received = second.udp.receive()
        assert received is not None
        assert bytes(received.datagrams) == b"waits"
        second.close()  # it was never ours
        assert "tun0" in links()
        third = await opened(thread)
        third.close()
        third.close()
        assert "tun0" not in links()

    inside(work)


def test_what_a_running_daemon_passes_on_must_fit() -> None:
    async def work(thread: KernelThread) -> None:
        first = await opened(thread)
        elsewhere = replace(CONFIG, listen=Endpoint("127.0.0.1", 7000))
        passed = copies(first)
        with pytest.raises(UdpError, match=r"does not listen on 127\.0\.0\.1:7000"):
            await opened(thread, passed, config=elsewhere)
        with pytest.raises(TunError, match="another kind"):
            await opened(thread, copies(first), config=replace(CONFIG, lanes=2))
        first.close()

    inside(work)


@pytest.mark.parametrize(
    "changes", [{"lanes": 2}, {"listen": Endpoint("127.0.0.1", 7000)}], ids=["lanes", "port"]
)
def test_what_the_service_manager_kept_for_other_settings_is_made_anew(
    tmp_path: Path, changes
) -> None:
    async def work(thread: KernelThread) -> None:
        with Manager(tmp_path / "notify") as manager:
            notifier = Notifier(manager.variables)
            first = await opened(thread, notifier=notifier)
            await first.keep()
            assert notifier.barrier(20.0)
            assert sorted(manager.store) == [TUN, UDP]
            first.tun.let_go()
            first.udp.close()
            passed = {name: os.dup(fds[0]) for name, fds in manager.store.items()}
            config = replace(CONFIG, **changes)
            second = await opened(thread, passed, config=config, notifier=notifier, must=False)
            await second.keep()
            assert notifier.barrier(20.0)
            assert sorted(manager.store) == [TUN, UDP]
            assert second.udp.local == config.listen
            second.close()

    inside(work)


def test_what_is_left_with_the_manager_is_there_as_long_as_that_has_it(tmp_path: Path) -> None:
    async def work(thread: KernelThread) -> None:
        with Manager(tmp_path / "notify") as manager:
            notifier = Notifier(manager.variables)
            edges = await opened(thread, notifier=notifier)
            await edges.keep()
            await edges.keep()
            assert notifier.barrier(20.0)
            assert [len(fds) for fds in manager.store.values()] == [1, 1]
            edges.leave()
            assert "tun0" in links()
            notifier.forget(TUN)
            assert notifier.barrier(20.0)
            assert "tun0" not in links()

    inside(work)


def test_what_a_daemon_without_a_manager_gave_is_stored_by_one_that_has_one(tmp_path: Path) -> None:
    async def work(thread: KernelThread) -> None:
        with Manager(tmp_path / "notify") as manager:
            notifier = Notifier(manager.variables)
            first = await opened(thread)
            await first.keep()
            second = await opened(thread, copies(first), notifier=notifier)
            first.tun.let_go()
            first.udp.close()
            for _ in range(2):  # the next one may find it stored
                await second.keep()
                assert notifier.barrier(20.0)
                assert {name: len(fds) for name, fds in manager.store.items()} == {TUN: 1, UDP: 1}
                first, second = second, await opened(thread, copies(second), notifier=notifier)
                first.tun.let_go()
                first.udp.close()
            second.leave()
            assert "tun0" in links()

    inside(work)


def test_a_manager_that_keeps_nothing_is_not_asked_to(tmp_path: Path) -> None:
    async def work(thread: KernelThread) -> None:
        with Manager(tmp_path / "notify") as manager:
            notifier = Notifier(manager.variables | {"FDSTORE": "0"})
            edges = await opened(thread, notifier=notifier)
            await edges.keep()
            assert notifier.barrier(20.0)
            assert not [one for one in manager.heard if "FDSTORE" in one]
            edges.close()

    inside(work)


def test_an_interface_that_was_made_anew_is_kept_and_stored_anew(tmp_path: Path) -> None:
    async def work(thread: KernelThread) -> None:
        with Manager(tmp_path / "notify") as manager:
            notifier = Notifier(manager.variables)
            edges = await opened(thread, notifier=notifier)
            await edges.keep()
            ip("link del tun0")
            edges.tun.reopen()
            assert not edges.tun.kept
            await edges.keep()
            assert edges.tun.kept
            assert notifier.barrier(20.0)
            assert len(manager.store[TUN]) == 1
            assert [one["FDNAME"] for one in manager.heard if "FDSTORE" in one] == [TUN, UDP, TUN]
            edges.close()

    inside(work)


class Switched:
    """Stands for the socket while the result of the self-test is followed."""

    offloads = ("udp_gso", "udp_gro")

    def __init__(self) -> None:
        self.set: list[tuple[str, bool]] = []

    def set_offload(self, name: str, *, on: bool, endpoint: Endpoint | None) -> None:
        assert endpoint is None
        self.set.append((name, on))


def test_what_failed_its_test_is_switched_off_and_said_once(caplog) -> None:
    edges = Edges(CONFIG, NODE, Mock(), NOBODY)
    edges.udp = udp = Switched()
    failed = {"udp_gso": "2 of 41 datagrams arrived changed", "uso": "data arrived changed"}
    with caplog.at_level("INFO"):
        edges._follow(Result(("udp_gro", "checksum", "tso"), failed, ""))
    assert udp.set == [("udp_gso", False)]
    assert [(line.message, line.fields["offloads"]) for line in caplog.records] == [
        ("offload.failed", "udp_gso"),
        ("offload.failed", "uso"),
    ]
    caplog.clear()
    with caplog.at_level("INFO"):
        edges._follow(Result(("checksum",), {}, "permission denied"))
    (line,) = caplog.records
    assert (line.message, line.fields["why"]) == ("offload.trusted", "permission denied")


def test_only_what_the_settings_want_is_tested(tmp_path: Path, monkeypatch) -> None:
    asked: list[tuple[str, ...]] = []

    def check(wanted: tuple[str, ...]) -> Result:
        asked.append(wanted)
        return Result(wanted, {})

    monkeypatch.setattr(module, "check_offloads", check)
    folder = StateFolder(tmp_path)
    for changes in ({}, {"udp_gso": False}, {"udp_gso": False, "udp_gro": False}):
        edges = Edges(replace(CONFIG, **changes), NODE, Mock(), NOBODY)
        edges.check(folder)
        edges.remember(folder)  # nothing was opened: there is nothing to remember
    assert [words[: -len(CONFIG.tun_offload)] for words in asked] == [
        ("udp_gso", "udp_gro"),
        ("udp_gro",),
        (),
    ]
